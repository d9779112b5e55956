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
import statistics
import subprocess
import sys
import tempfile
import time

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

PATIENCE_S = 120
PAYLOAD_BYTES = 200

TAKE = """
import evermill, json

@evermill.task
def take(event):
    json.loads(event.value)

@evermill.dag
def bench():
    take(evermill.kafka({topic!r}, auto_offset_reset="earliest"))
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
    take(evermill.kafka({topic!r}, auto_offset_reset="latest"))
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
    def __init__(self, binary: str, broker: str, runs: int, messages: int) -> None:
        self.binary, self.broker, self.runs, self.messages = binary, broker, runs, messages
        self.folder = tempfile.mkdtemp(prefix="evermill-bench-")
        self.count = 0
        self.producer = Producer({"bootstrap.servers": broker, "linger.ms": 0, "queue.buffering.max.messages": 2_000_000})

    def topic(self) -> str:
        self.count += 1
        name = f"bench-{os.getpid()}-{self.count}"
        admin = AdminClient({"bootstrap.servers": self.broker})
        admin.create_topics([NewTopic(name, 1, 1)])[name].result(PATIENCE_S)
        return name

    def write(self, topic: str, value: bytes) -> None:
        self.producer.produce(topic, value, partition=0)

    def evermill(self, text: str, *further: str) -> "Engine":
        self.count += 1
        place = os.path.join(self.folder, str(self.count))
        os.mkdir(place)
        with open(os.path.join(place, "bench.py"), "w") as file:
            file.write(text)
        return Engine(self, place, further)

    # The figures.

    def throughput(self) -> None:
        topic = self.topic()
        body = json.dumps({"id": 1, "text": "x" * 500})[: PAYLOAD_BYTES - 2] + '"}'
        for _ in range(self.messages):
            self.write(topic, body.encode())
            self.producer.poll(0)
        self.producer.flush(PATIENCE_S)
        ways = {"consume(1000) + json.loads": "consume", "poll() + json.loads": "poll", "evermill, durable": None}
        rates = {way: [] for way in ways}
        for _ in range(self.runs):
            for way, loop in ways.items():
                if loop:
                    command = [sys.executable, __file__, "--loop", loop, self.broker, topic, str(self.messages)]
                    rates[way].append(measured(lambda: subprocess.run(command, check=True), self.messages))
                else:
                    run = lambda: self.evermill(TAKE.format(topic=topic), "--until-idle", "0ms").end()
                    rates[way].append(measured(run, self.messages))
        print(f"\n### Kafka to Python, {self.messages} events of {len(body)} B, medians of {self.runs}\n")
        print("| | events/s of CPU | events/s on the wall |\n|---|---|---|")
        for way, found in rates.items():
            cpu, wall = (statistics.median(column) for column in zip(*found))
            print(f"| {way} | {cpu:,.0f} | {wall:,.0f} |")
        best = max(statistics.median(cpu for cpu, _ in rates[way]) for way, loop in ways.items() if loop)
        ours = statistics.median(cpu for cpu, _ in rates["evermill, durable"])
        print(f"\nper CPU second, against the better loop: {ours / best:.2f} x (gate 0.7, aim 0.8)")

    def latency(self) -> None:
        ours, theirs, commits = [], [], []
        for _ in range(self.runs):
            topic = self.topic()
            out = os.path.join(self.folder, f"latency-{self.count}")
            engine = self.evermill(STAMP.format(topic=topic, out=out))
            engine.wait_until_ready()
            command = [sys.executable, __file__, "--loop", "stamp", self.broker, topic, out + "-bare"]
            bare = subprocess.Popen(command, stdout=subprocess.PIPE)
            bare.stdout.readline()
            for n in range(500):
                begun = time.monotonic_ns()
                self.write(topic, b"%d" % begun)
                self.producer.poll(0)
                time.sleep(max(0.0, 0.010 - (time.monotonic_ns() - begun) / 1e9))
            self.producer.flush(PATIENCE_S)
            wait_for(lambda: lines(out) >= 500 and lines(out + "-bare") >= 500)
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
            engine = self.evermill(STAMP.format(topic=topic, out=out))
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

    def idle(self) -> None:
        engine = self.evermill(STAMP.format(topic=self.topic(), out=os.path.join(self.folder, "idle")))
        engine.wait_until_ready()
        before, begun = cpu_of(engine.process.pid), time.monotonic()
        time.sleep(10)
        share = (cpu_of(engine.process.pid) - before) / (time.monotonic() - begun)
        with open(f"/proc/{engine.process.pid}/smaps_rollup") as file:
            pss = int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M).group(1)) / 1024
        engine.end()
        print(f"\nidle: {share * 100:.2f} % of a core (limit 0.5), {pss:.1f} MB PSS of the engine (limit 60)")


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
        wait_for(lambda: any(all(source["ready"] for source in run["sources"]) for run in self.runs()))

    def end(self) -> dict:
        if self.waits:
            self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode:
            with open(self.log.name) as log:
                sys.exit(f"evermill ended with {self.process.returncode}:\n{log.read()}")
        return json.loads(out)


def measured(work, events: int) -> tuple:
    """Events a second: of processor time of all children, and on the wall."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    before, begun = used(), time.monotonic()
    work()
    return events / (used() - before), events / (time.monotonic() - begun)


def cpu_of(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return 0


def delays(path: str) -> list:
    with open(path) as file:
        return sorted((int(now) - int(sent)) / 1e6 for sent, now in map(str.split, file))


def middle(runs: list, p: float) -> float:
    """The median over runs of a percentile of each."""
    return statistics.median(found[int(p * (len(found) - 1))] for found in runs)


def wait_for(done) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            sys.exit("waited in vain")
        time.sleep(0.01)


def loop(kind: str, broker: str, topic: str, last: str) -> None:
    """What people write by hand; runs in a process of its own."""
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
    left = int(last)
    while left:
        messages = consumer.consume(1000, 1) if kind == "consume" else filter(None, [consumer.poll(1)])
        for message in messages:
            json.loads(message.value())
            left -= 1
    consumer.close()


def main() -> None:
    if sys.argv[1:2] == ["--loop"]:
        return loop(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("broker")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--only", action="append", choices=["throughput", "latency", "burst", "chain", "idle"])
    args = parser.parse_args()
    bench = Bench(args.binary, args.broker, args.runs, args.messages)
    try:
        for name in args.only or ["throughput", "latency", "burst", "chain", "idle"]:
            getattr(bench, name)()
    finally:
        shutil.rmtree(bench.folder)


if __name__ == "__main__":
    main()
