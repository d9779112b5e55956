"""Who looks on, and what that does to those who work: event latency with and without listeners, and a page of 1,000 DAGs.

    python listeners.py EVERMILL [--rounds 5] [--seconds 20] [--streams 200] [--requests 10000] [--dags 1000] [--tasks 100]
                                 [--browser CHROMIUM]

A DAG gets an event every 10 ms. A round is the same stretch of time twice, in turn: nobody listens, then 200 streams are
open and 10,000 requests come, spread over it. A latency counts from the event's instant to the first line of its task. The
listeners are a process of their own, on the same cores. Then a server gets 1,000 DAGs of 100 tasks each, one in twenty with
an event a second, and what a page asks for first is timed; with a browser, how smoothly it shows that, too.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PATIENCE_S = 300
FLOW = """
import evermill, os, time
out = None

@evermill.task
def take(event):
    global out
    now = time.time()
    if out is None:
        out = os.open({out!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(out, b"%.6f %.6f\\n" % (event.timestamp.timestamp(), now))

@evermill.dag
def flow():
    take(evermill.every("10ms"))
"""
#: A first task that lets nobody else begin, so that what flows costs the page and not the machine.
TICKING = """
import evermill

@evermill.task.short_circuit
def t0(event):
    return False

@evermill.dag
def {dag}():
    tasks = [t0(evermill.every("1s"))]
    for number in range(1, {tasks}):
        def later():
            return None
        later.__name__ = f"t{{number}}"
        tasks.append(evermill.task(later)())
        tasks[(number - 1) // 2] >> tasks[number]
"""
#: What somebody who looks at one run asks for.
ASKED = ["/api/v1/runs", "/api/v1/runs/flow", "/api/v1/runs/flow/activations?limit=20", "/api/v1/pools", "/metrics"]
#: Connections that the requests come over.
CONNECTIONS = 8


class Server:
    """`evermill serve` on a folder of DAGs."""

    def __init__(self, binary: str, folder: Path) -> None:
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--grace", "1s"]
        environment = {**os.environ, "EVERMILL_PYTHON": sys.executable}
        self.folder, self.said = folder, []
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        self.address = ""
        for line in self.process.stderr:
            self.said.append(line)
            found = re.search(r"serving dags on http://([0-9.:]+)", line)
            if found:
                self.address = found.group(1)
                break
        else:
            sys.exit("".join(self.said))
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)


def ask(address: str, path: str) -> tuple:
    """Milliseconds, and what was answered."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    begun = time.monotonic()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        sys.exit(f"{path}: {answer.status} {body[:500]!r}")
    return (time.monotonic() - begun) * 1e3, body


def wait_for(done) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            sys.exit("waited in vain")
        time.sleep(0.05)


def percentile(found: list, p: float) -> float:
    found = sorted(found)
    return found[int(p * (len(found) - 1))]


# The listeners.


def listen(address: str, streams: int, requests: int, seconds: float) -> None:
    """Opens the streams, says so, and asks; what came of it goes to standard output as JSON. One thread that does little
    besides: in truth those who listen are elsewhere and take no core from the engine."""
    selector = selectors.EpollSelector()
    connect = lambda: socket.create_connection(tuple(address.split(":")), PATIENCE_S)
    for _ in range(streams):
        one = connect()
        one.sendall(f"GET /api/v1/stream?run=flow HTTP/1.1\r\nhost: {address}\r\n\r\n".encode())
        selector.register(one, selectors.EVENT_READ, None)
    # Who has waited for the longest asks next: a silent connection is closed after a while.
    idle = collections.deque(Asker(connect()) for _ in range(CONNECTIONS))
    for asker in idle:
        selector.register(asker.socket, selectors.EVENT_READ, asker)
    asked = [f"GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n".encode() for path in ASKED]
    print("ready", flush=True)
    sys.stdin.readline()
    begun, sent, heard, took = time.monotonic(), 0, 0, []
    while time.monotonic() < begun + seconds or len(took) < requests:
        now = time.monotonic()
        while idle and sent < requests and begun + seconds * sent / requests <= now:
            idle.popleft().ask(asked[sent % len(asked)])
            sent += 1
        due = begun + seconds * sent / requests if sent < requests else begun + seconds
        for key, _ in selector.select(max(0.0005, min(0.1, due - now))):
            if key.data:
                done = key.data.answered()
                if done is not None:
                    took.append(done)
                    idle.append(key.data)
            else:
                data = key.fileobj.recv(1 << 16)
                if not data:
                    sys.exit("a stream has ended")
                heard += data.count(b"event: ")
    found = {"heard": heard, "answered": len(took), "p50": percentile(took, 0.5), "p99": percentile(took, 0.99)}
    print(json.dumps({**found, "cpu": time.process_time()}))


class Asker:
    """A connection that asks again and again."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self.sent, self.read = connection, 0.0, b""

    def ask(self, request: bytes) -> None:
        self.sent = time.monotonic()
        self.socket.sendall(request)

    def answered(self) -> "float | None":
        """Takes what has come; milliseconds, once that is the whole answer."""
        data = self.socket.recv(1 << 18)
        if not data:
            sys.exit("a connection has ended")
        self.read += data
        head, found, body = self.read.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if not found or len(body) < int(length.group(1)):
            return None
        if not head.startswith(b"HTTP/1.1 200 "):
            sys.exit(f"{self.read[:500]!r}")
        self.read = b""
        return (time.monotonic() - self.sent) * 1e3


# The figures.


def flowing(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out"
        (folder / "dags").mkdir()
        (folder / "dags/flow.py").write_text(FLOW.format(out=str(out)))
        server = Server(given.evermill, folder)
        try:
            wait_for(lambda: out.exists() and out.stat().st_size > 10_000)
            quiet, loud, heard = [], [], []
            for _ in range(given.rounds):
                quiet.append(stretch(out, lambda: time.sleep(given.seconds)))
                command = [sys.executable, __file__, "--listen", server.address, str(given.streams)]
                command += [str(given.requests), str(given.seconds)]
                listener = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                listener.stdout.readline()
                # The snapshots that they begin with are no part of it.
                time.sleep(1)
                loud.append(stretch(out, lambda: heard.append(listener.communicate("go\n")[0])))
        finally:
            server.end()
    heard = [json.loads(text) for text in heard]
    print(f"\n### An event every 10 ms, {given.streams} streams and {given.requests:,} requests in {given.seconds:g} s, {given.rounds} rounds\n")
    print("| | p50 ms | p99 ms |\n|---|---|---|")
    middle = lambda found, p: statistics.median(percentile(one, p) for one in found)
    for what, found in (("nobody listens", quiet), ("with listeners", loud)):
        print(f"| {what} | {middle(found, 0.5):.2f} | {middle(found, 0.99):.2f} |")
    pairs = zip(quiet, loud)
    change = statistics.median(percentile(with_them, 0.99) / percentile(alone, 0.99) - 1 for alone, with_them in pairs)
    print(f"\nchange of the p99, median of the pairs: {change * 100:+.0f} % (limit 20)")
    of = lambda field: statistics.median(one[field] for one in heard)
    print(f"requests answered: {of('answered'):,.0f} a round, {of('p50'):.1f} ms p50, {of('p99'):.1f} ms p99; events told: {of('heard'):,.0f} a round; "
          f"the listeners themselves took {of('cpu') / given.seconds * 100:.0f} % of a core")


def stretch(out: Path, work) -> list:
    """Latencies of the events meanwhile, in milliseconds."""
    begun = out.stat().st_size
    work()
    with open(out, "rb") as file:
        file.seek(begun)
        pairs = [line.split() for line in file.read().splitlines()]
    return [(float(now) - float(instant)) * 1e3 for instant, now in pairs]


def many(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dags").mkdir()
        for number in range(given.dags):
            if number % 20 == 7:
                text = TICKING.format(dag=f"d{number}", tasks=given.tasks)
                (folder / f"dags/d{number}.py").write_text(text)
                continue
            tasks = ["  t0: { after: [go], run: 'true' }\n"]
            tasks += [f"  t{n}: {{ after: [t{(n - 1) // 2}], run: 'true' }}\n" for n in range(1, given.tasks)]
            text = f"dag: d{number}\nsources: {{ go: {{ signal: go }} }}\ntasks:\n{''.join(tasks)}"
            (folder / f"dags/d{number}.yaml").write_text(text)
        begun = time.monotonic()
        server = Server(given.evermill, folder)
        try:
            # Asking for all of them again and again would slow it down.
            wait_for(lambda: f"{given.dags} DAGs\n" in server.said)
            print(f"\n### {given.dags:,} DAGs of {given.tasks} tasks, on after {time.monotonic() - begun:.1f} s\n")
            print("| asked for | bytes | ms, median of 9 | slowest |\n|---|---|---|---|")
            found = [page(server.address) for _ in range(9)]
            took = [ms for ms, _ in found]
            print(f"| the page with what it loads | {found[0][1]:,} | {statistics.median(took):.1f} | {max(took):.1f} |")
            for path in ("/api/v1/runs", "/api/v1/runs/d7", "/api/v1/pools", "/metrics"):
                found = [ask(server.address, path) for _ in range(9)]
                took = [ms for ms, _ in found]
                print(f"| `GET {path}` | {len(found[0][1]):,} | {statistics.median(took):.1f} | {max(took):.1f} |")
            found = [snapshot(server.address) for _ in range(9)]
            took = [ms for ms, _ in found]
            print(f"| the first `snapshot` of `/api/v1/stream` | {found[0][1]:,} | {statistics.median(took):.1f} | {max(took):.1f} |")
            if given.browser:
                web = Path(__file__).parents[2] / "web"
                subprocess.run(["node", "tools/smooth.mjs", given.browser, f"http://{server.address}", "d7"], cwd=web, check=True)
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            memory = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024
            print(f"\nmemory of the engine's process: {memory:.0f} MB")
        finally:
            server.end()


def page(address: str) -> tuple:
    """Milliseconds for the page and what it names, one after the other, and their bytes."""
    took, text = ask(address, "/")
    size = len(text)
    for path in re.findall(rb'(?:src|href)="([^":]+)"', text):
        more, body = ask(address, "/" + path.decode().lstrip("./"))
        took, size = took + more, size + len(body)
    return took, size


def snapshot(address: str) -> tuple:
    """Milliseconds until a stream has told all there is, and the bytes of it."""
    begun = time.monotonic()
    with socket.create_connection(tuple(address.split(":")), PATIENCE_S) as stream:
        stream.sendall(f"GET /api/v1/stream HTTP/1.1\r\nhost: {address}\r\n\r\n".encode())
        read = b""
        while b"event: told" not in read[-4096:]:
            more = stream.recv(1 << 20)
            if not more:
                sys.exit("the stream has ended")
            read += more
    return (time.monotonic() - begun) * 1e3, len(read)


def main() -> None:
    if sys.argv[1:2] == ["--listen"]:
        address, streams, requests, seconds = sys.argv[2:]
        return listen(address, int(streams), int(requests), float(seconds))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evermill")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--dags", type=int, default=1_000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--browser", help="a Chromium; the packages of web/ are installed")
    given = parser.parse_args()
    if 0 < given.dags <= 7:
        parser.error("--dags: the run that is looked at is the eighth; 0 for none")
    flowing(given)
    if given.dags:
        many(given)


if __name__ == "__main__":
    main()
