"""The figures of the main job, side by side in one run: `cargo xtask bench` calls this.

Each figure is a median over repeated runs. Rates are given per second on the wall and per second of
processor time of the whole process tree, which is what other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

PATIENCE_S = 300
PAYLOAD_BYTES = 200
#: What starting and ending costs is measured with so few messages, and taken off.
FEW = 1_000
WARM_UP = 50
FIGURES = ["throughput", "closure", "state", "latency", "burst", "chain", "start", "history", "idle"]
#: Events a second, for as many seconds: fast enough to be sampled, slow enough for small waves.
PACED_PER_S = 1_000
PACED_S = 20

TAKE = """
import evermill, json

@evermill.task
def take(event):
    json.loads(event.value)

@evermill.dag(history={history!r})
def bench():
    take(evermill.kafka({topic!r}, auto_offset_reset="earliest"))
"""

COUNT = """
import evermill, json

@evermill.task
def count(event, ctx):
    total = ctx.state.get("total", 0) + json.loads(event.value)["amount"]
    ctx.state.set("total", total)

@evermill.dag(order="key")
def bench():
    count(evermill.kafka({topic!r}, auto_offset_reset="earliest"))
"""

STAMP = """
import evermill, os, time
out = None

@evermill.task
def take(event):
    global out
    now = time.monotonic_ns()
    if out is None:
        out = os.open({out!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(out, b"%d %d\\n" % (int(event.value), now))

@evermill.dag
def bench():
    take(evermill.kafka({topic!r}, auto_offset_reset={reset!r}))
"""

CHAIN = """
import evermill, os, time

def stamp(name):
    with open({out!r}, "a") as out:
        out.write(f"{{name}} {{time.monotonic_ns()}}\\n")

def trivial(n):
    def step(event):
        if n in (0, 39):
            stamp(n)
    step.__name__ = f"step_{{n}}"
    return evermill.task(step)

@evermill.dag
def bench():
    source = evermill.kafka({topic!r}, auto_offset_reset="latest")
    before = trivial(0)(source)
    for n in range(1, 40):
        step = trivial(n)(source)
        before >> step
        before = step
"""


class Bench:
    def __init__(self, binary: str, broker: str, runs: int, messages: int, closure: "str | None") -> None:
        self.binary, self.broker, self.runs, self.messages = binary, broker, runs, messages
        #: The program that `closure` measures.
        self.program = closure
        self.folder = tempfile.mkdtemp(prefix="evermill-bench-")
        self.count = 0
        self.admin = AdminClient({"bootstrap.servers": broker, "log_level": 4})
        self.producer = Producer({"bootstrap.servers": broker, "linger.ms": 0, "queue.buffering.max.messages": 2_000_000})

    def topic(self) -> str:
        self.count += 1
        name = f"bench-{os.getpid()}-{self.count}"
        self.admin.create_topics([NewTopic(name, 1, 1)])[name].result(PATIENCE_S)
        return name

    def write(self, topic: str, value: bytes, key: "bytes | None" = None) -> None:
        self.producer.produce(topic, value, key, partition=0)

    def evermill(self, text: str, *further: str) -> "Engine":
        self.count += 1
        place = os.path.join(self.folder, str(self.count))
        os.mkdir(place)
        with open(os.path.join(place, "bench.py"), "w") as file:
            file.write(text)
        return Engine(self, place, further)

    # The figures.

    def throughput(self) -> None:
        topics = {size: self.orders(size) for size in (FEW, self.messages)}
        ways = {"consume(1000)": "consume", "poll()": "poll", "evermill, durable": None}
        costs: dict = {(way, size): [] for way in ways for size in topics}
        peaks = []
        for _ in range(self.runs):
            for (way, size), found in costs.items():
                before, begun = cpu_of_children(), time.monotonic()
                if ways[way]:
                    command = [sys.executable, __file__, "--loop", ways[way], self.broker, topics[size], str(size)]
                    subprocess.run(command, check=True)
                else:
                    engine = self.evermill(take_from(topics[size]), "--until-idle", "0ms")
                    peaks.append(engine.peak_pss_mb())
                    engine.end()
                found.append((cpu_of_children() - before, time.monotonic() - begun))
        print(f"\n### Kafka to Python, {self.messages} orders of {PAYLOAD_BYTES} B, medians of {self.runs}\n")
        print("| | events/s of CPU | events/s on the wall | start and end: CPU s, wall s |\n|---|---|---|---|")
        rates = {}
        for way in ways:
            few, all_of_them = (
                [statistics.median(column) for column in zip(*costs[way, size])] for size in topics
            )
            rates[way] = [(self.messages - FEW) / (more - less) for more, less in zip(all_of_them, few)]
            cpu, wall = rates[way]
            print(f"| {way} | {cpu:,.0f} | {wall:,.0f} | {few[0]:.2f}, {few[1]:.2f} |")
        ours = rates.pop("evermill, durable")
        cpu, wall = (own / max(theirs) for own, theirs in zip(ours, zip(*rates.values())))
        print(f"\nagainst the better loop: {cpu:.2f} x per CPU second (gate 0.7, aim 0.8), {wall:.2f} x on the wall (1)")
        print(f"peak memory of the engine under this load: {max(peaks):.1f} MB PSS (limit 60)")

    def closure(self) -> None:
        topics = {size: self.orders(size) for size in (FEW, self.messages)}
        ways = {"librdkafka, poll()": "loop", "evermill, durable": "engine"}
        costs: dict = {(way, size): [] for way in ways for size in topics}
        for _ in range(self.runs):
            for (way, size), found in costs.items():
                before, begun = cpu_of_children(), time.monotonic()
                subprocess.run([self.program, ways[way], self.broker, topics[size], str(size)], check=True)
                found.append((cpu_of_children() - before, time.monotonic() - begun))
        print(f"\n### Kafka to a Rust closure, {self.messages} orders of {PAYLOAD_BYTES} B, medians of {self.runs}\n")
        print("| | events/s of CPU | events/s on the wall | start and end: CPU s, wall s |\n|---|---|---|---|")
        rates = {}
        for way in ways:
            few, all_of_them = ([statistics.median(column) for column in zip(*costs[way, size])] for size in topics)
            rates[way] = [(self.messages - FEW) / (more - less) for more, less in zip(all_of_them, few)]
            cpu, wall = rates[way]
            print(f"| {way} | {cpu:,.0f} | {wall:,.0f} | {few[0]:.2f}, {few[1]:.2f} |")
        theirs, ours = rates.values()
        cpu, wall = (own / bare for own, bare in zip(ours, theirs))
        print(f"\nagainst the loop: {cpu:.2f} x per CPU second (gate 0.5, aim 0.7), {wall:.2f} x on the wall")

    def state(self) -> None:
        size = min(self.messages, 100_000)
        print(f"\n### A total by key, kept, {size} orders of {PAYLOAD_BYTES} B, medians of {self.runs}\n")
        print("| | keys | events/s of CPU | events/s on the wall |\n|---|---|---|---|")
        for keys in (10_000, 100):
            topics = {count: self.orders(count, keys) for count in (FEW, size)}
            for way in ("consume(1000), SQLite", "evermill, durable"):
                costs: dict = {count: [] for count in topics}
                for _ in range(self.runs):
                    for count, found in costs.items():
                        before, begun = cpu_of_children(), time.monotonic()
                        if way.startswith("consume"):
                            command = [sys.executable, __file__, "--loop", "totals", self.broker, topics[count], str(count)]
                            subprocess.run(command, check=True, cwd=self.folder)
                        else:
                            self.evermill(COUNT.format(topic=topics[count]), "--until-idle", "0ms").end()
                        found.append((cpu_of_children() - before, time.monotonic() - begun))
                few, all_of_them = ([statistics.median(column) for column in zip(*costs[count])] for count in topics)
                cpu, wall = ((size - FEW) / (more - less) for more, less in zip(all_of_them, few))
                print(f"| {way} | {keys} | {cpu:,.0f} | {wall:,.0f} |")

    def orders(self, count: int, keys: int = 0) -> str:
        """A topic that holds so many orders, with so many keys if there are any."""
        topic = self.topic()
        for n in range(count):
            self.write(topic, order(n), b"%d" % (n % keys) if keys else None)
            if n % 1000 == 0:
                self.producer.poll(0)
        self.producer.flush(PATIENCE_S)
        return topic

    def latency(self) -> None:
        ours, theirs, commits = [], [], []
        for _ in range(self.runs):
            topic = self.topic()
            out = os.path.join(self.folder, f"latency-{self.count}")
            engine = self.evermill(stamp_to(topic, out))
            engine.wait_until_ready()
            command = [sys.executable, __file__, "--loop", "stamp", self.broker, topic, out + "-bare"]
            bare = subprocess.Popen(command, stdout=subprocess.PIPE)
            bare.stdout.readline()
            for _ in range(WARM_UP + 500):
                begun = time.monotonic_ns()
                self.write(topic, b"%d" % begun)
                self.producer.poll(0)
                time.sleep(max(0.0, 0.010 - (time.monotonic_ns() - begun) / 1e9))
            self.producer.flush(PATIENCE_S)
            wait_for(lambda: min(lines(out), lines(out + "-bare")) >= WARM_UP + 500)
            commits.append(engine.runs()[0]["commit_ms"])
            bare.kill()
            bare.wait()
            engine.end()
            ours.append(delays(out))
            theirs.append(delays(out + "-bare"))
        print(f"\n### Latency, an event every 10 ms, warm, medians of {self.runs}\n")
        print("| | p50 ms | p99 ms |\n|---|---|---|")
        for name, found in (("bare consumer", theirs), ("evermill, to callable", ours)):
            print(f"| {name} | {middle(found, 0.5):.2f} | {middle(found, 0.99):.2f} |")
        p50, p99 = (statistics.median(commit[p] for commit in commits) for p in ("p50", "p99"))
        print(f"| evermill, arrival to committed | {p50:.2f} | {p99:.2f} |")
        above = [middle(ours, p) - middle(theirs, p) for p in (0.5, 0.99)]
        print(f"\nabove the bare consumer: {above[0]:+.2f} ms p50 (limit 1), {above[1]:+.2f} ms p99 (limit 5)")

    def burst(self) -> None:
        took = []
        for _ in range(self.runs):
            topic = self.topic()
            out = os.path.join(self.folder, f"burst-{self.count}")
            engine = self.evermill(stamp_to(topic, out))
            engine.wait_until_ready()
            self.write(topic, b"0")
            self.producer.flush(PATIENCE_S)
            wait_for(lambda: lines(out) >= 1)
            begun = time.monotonic_ns()
            for _ in range(100):
                self.write(topic, b"%d" % begun)
            self.producer.flush(PATIENCE_S)
            wait_for(lambda: lines(out) >= 101)
            took.append(max(int(line.split()[1]) for line in open(out)) - begun)
            engine.end()
        print(f"\nburst of 100, from the first send to the last callable: {statistics.median(took) / 1e6:.1f} ms (limit 50)")

    def chain(self) -> None:
        took = []
        for _ in range(self.runs):
            topic = self.topic()
            out = os.path.join(self.folder, f"chain-{self.count}")
            engine = self.evermill(CHAIN.format(topic=topic, out=out))
            engine.wait_until_ready()
            for laps in range(1, 4):
                self.write(topic, b"0")
                self.producer.flush(PATIENCE_S)
                wait_for(lambda: lines(out) >= 2 * laps)
            stamps = [int(line.split()[1]) for line in open(out)]
            took.append(stamps[-1] - stamps[-2])
            engine.end()
        print(f"\n40 tasks in a chain, durable after each: {statistics.median(took) / 1e6:.1f} ms (limit 60)")
        print(f"40 times one fsync of this disk: {40 * self.fsync_ms():.1f} ms")

    def start(self) -> None:
        took = []
        for _ in range(self.runs):
            topic = self.topic()
            self.write(topic, b"0")
            self.producer.flush(PATIENCE_S)
            out = os.path.join(self.folder, f"start-{self.count}")
            begun = time.monotonic_ns()
            engine = self.evermill(stamp_to(topic, out, "earliest"))
            wait_for(lambda: lines(out) >= 1)
            took.append(int(open(out).read().split()[1]) - begun)
            engine.end()
        print(f"\ncold start, from starting the process to the first line of a callable for an event that waits: "
              f"{statistics.median(took) / 1e6:.0f} ms, slowest {max(took) / 1e6:.0f} ms (limit 500)")

    def history(self) -> None:
        size = min(self.messages, 100_000)
        topics = {count: self.orders(count) for count in (FEW, size)}
        print(f"\n### History, bytes of the store for each event, payloads of {PAYLOAD_BYTES} B\n")
        print("| | bytes of an event | limit |\n|---|---|---|")
        for kind, limit in (("sampled", 8), ("full", PAYLOAD_BYTES + 300)):
            bytes_of = {}
            for count, topic in topics.items():
                engine = self.evermill(take_from(topic, kind), "--until-idle", "0ms")
                engine.end()
                bytes_of[count] = engine.store_bytes()
            each = (bytes_of[size] - bytes_of[FEW]) / (size - FEW)
            print(f"| {kind}, a backlog of {size} | {each:.1f} | {limit} |")
        topic = self.topic()
        engine = self.evermill(take_from(topic))
        engine.wait_until_ready()
        begun = time.monotonic()
        for n in range(PACED_PER_S * PACED_S):
            self.write(topic, order(n))
            self.producer.poll(0)
            time.sleep(max(0.0, begun + n / PACED_PER_S - time.monotonic()))
        self.producer.flush(PATIENCE_S)
        wait_for(lambda: engine.runs()[0]["done"] >= PACED_PER_S * PACED_S)
        engine.end()
        each = engine.store_bytes() / (PACED_PER_S * PACED_S)
        print(f"| sampled, {PACED_PER_S} a second for {PACED_S} s, an empty store included | {each:.1f} | |")

    def fsync_ms(self) -> float:
        """What writing a page and making it durable takes here."""
        took, page = [], bytes(4096)
        with open(os.path.join(self.folder, "page"), "wb", buffering=0) as file:
            for _ in range(200):
                begun = time.monotonic_ns()
                file.write(page)
                os.fsync(file.fileno())
                took.append((time.monotonic_ns() - begun) / 1e6)
        return statistics.median(took)

    def idle(self) -> None:
        engine = self.evermill(stamp_to(self.topic(), os.path.join(self.folder, "idle")))
        engine.wait_until_ready()
        before, begun = cpu_of_tree(engine.process.pid), time.monotonic()
        time.sleep(20)
        share = (cpu_of_tree(engine.process.pid) - before) / (time.monotonic() - begun)
        pss = pss_mb(engine.process.pid)
        engine.end()
        print(f"\nidle: {share * 100:.2f} % of a core, workers included (limit 0.5), {pss:.1f} MB PSS of the engine (limit 60)")


class Engine:
    """A running evermill."""

    def __init__(self, bench: Bench, place: str, further: tuple) -> None:
        self.bench, self.place = bench, place
        command = [bench.binary, "run", "bench.py", "--json", "--connection", f"kafka={bench.broker}", *further]
        self.waits = not further
        self.log = open(os.path.join(place, "log"), "w")
        environment = {**os.environ, "EVERMILL_DATA_DIR": os.path.join(place, "data"), "EVERMILL_PYTHON": sys.executable}
        self.environment = environment
        self.process = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=self.log)

    def runs(self) -> list:
        found = subprocess.run([self.bench.binary, "ps", "--json"], env=self.environment, capture_output=True, text=True)
        return [json.loads(line) for line in found.stdout.splitlines()]

    def wait_until_ready(self) -> None:
        # A run that has just begun has no sources to show yet.
        ready = lambda run: run["sources"] and all(source["ready"] for source in run["sources"])
        wait_for(lambda: any(ready(run) for run in self.runs()))

    def store_bytes(self) -> int:
        """What the store takes on the disk when it is closed."""
        return os.path.getsize(os.path.join(self.place, "data", "store.db"))

    def peak_pss_mb(self) -> float:
        """The most memory the engine's process had, until it ends by itself."""
        peak = 0.0
        while True:
            try:
                peak = max(peak, pss_mb(self.process.pid))
            except (OSError, AttributeError):
                return peak
            time.sleep(0.1)

    def end(self) -> dict:
        if self.waits:
            self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode:
            with open(self.log.name) as log:
                sys.exit(f"evermill ended with {self.process.returncode}:\n{log.read()}")
        return json.loads(out)


def take_from(topic: str, history: str = "sampled") -> str:
    return TAKE.format(topic=topic, history=history)


def stamp_to(topic: str, out: str, reset: str = "latest") -> str:
    return STAMP.format(topic=topic, out=out, reset=reset)


def order(n: int) -> bytes:
    """What many topics carry: a flat record with one list in it."""
    about = {"id": n, "customer": f"c-{n % 10007:05}", "amount": n % 90 + 0.5, "currency": "EUR", "paid": n % 3 > 0}
    about.update(items=[{"sku": f"A-{n % 977:04}", "count": 2}], note="")
    about["note"] = "x" * (PAYLOAD_BYTES - len(json.dumps(about)))
    return json.dumps(about).encode()


def cpu_of_children() -> float:
    """Seconds of all processes that have ended below us."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def cpu_of_tree(pid: int) -> float:
    """Seconds of a process and of those below it."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_of_tree, children_of(pid)))


def children_of(pid: int) -> list:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def pss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M).group(1)) / 1024


def lines(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return 0


def delays(path: str) -> list:
    with open(path) as file:
        warm = list(file)[WARM_UP:]
    return sorted((int(now) - int(sent)) / 1e6 for sent, now in map(str.split, warm))


def middle(runs: list, p: float) -> float:
    """The median over runs of a percentile of each."""
    return statistics.median(found[int(p * (len(found) - 1))] for found in runs)


def wait_for(done) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            sys.exit("waited in vain")
        time.sleep(0.01)


def take(value: bytes) -> None:
    json.loads(value)


def loop(kind: str, broker: str, topic: str, last: str) -> None:
    """What people write by hand; runs in a process of its own. Offsets are committed as the client
    does it unless told otherwise: every 5 s, and at the end."""
    reset = "latest" if kind == "stamp" else "earliest"
    settings = {"bootstrap.servers": broker, "group.id": f"{topic}-{os.getpid()}", "auto.offset.reset": reset}
    consumer = Consumer(settings)
    assigned = []
    consumer.subscribe([topic], on_assign=lambda *_: assigned.append(True))
    if kind == "stamp":
        while not assigned:
            consumer.poll(0.05)
        consumer.poll(1)
        print("ready", flush=True)
        with open(last, "wb", buffering=0) as out:
            while True:
                message = consumer.poll(1)
                if message is not None and not message.error():
                    out.write(b"%d %d\n" % (int(message.value()), time.monotonic_ns()))
    if kind == "totals":
        return totals(consumer, int(last))
    left = int(last)
    while left:
        messages = consumer.consume(1000, 1) if kind == "consume" else filter(None, [consumer.poll(1)])
        for message in messages:
            if message.error():
                sys.exit(str(message.error()))
            take(message.value())
            left -= 1
    consumer.close()


def totals(consumer: Consumer, left: int) -> None:
    """A total by key, kept in SQLite with the position: a commit, synced, for each 1,000 messages."""
    path = f"totals-{os.getpid()}.db"
    store = sqlite3.connect(path, isolation_level=None)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = FULL")
    store.execute("CREATE TABLE totals (key BLOB PRIMARY KEY, total REAL) WITHOUT ROWID")
    store.execute("CREATE TABLE positions (lane TEXT PRIMARY KEY, position INTEGER) WITHOUT ROWID")
    while left:
        messages = consumer.consume(1000, 1)
        store.execute("BEGIN")
        for message in messages:
            if message.error():
                sys.exit(str(message.error()))
            found = store.execute("SELECT total FROM totals WHERE key = ?", (message.key(),)).fetchone()
            total = (found[0] if found else 0) + json.loads(message.value())["amount"]
            store.execute("INSERT OR REPLACE INTO totals VALUES (?, ?)", (message.key(), total))
            left -= 1
        if messages:
            lane = f"{messages[-1].topic()}/{messages[-1].partition()}"
            store.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (lane, messages[-1].offset() + 1))
        store.execute("COMMIT")
    consumer.close()
    os.remove(path)


def main() -> None:
    if sys.argv[1:2] == ["--loop"]:
        return loop(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("broker")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--closure")
    parser.add_argument("--only", action="append", choices=FIGURES)
    args = parser.parse_args()
    bench = Bench(args.binary, args.broker, args.runs, args.messages, args.closure)
    try:
        for name in args.only or FIGURES:
            getattr(bench, name)()
    finally:
        shutil.rmtree(bench.folder)


if __name__ == "__main__":
    main()
