"""10,000 polls a minute over HTTP, of sensors inside activations: what they cost, and how late they are.

    python polls.py EVERMILL [--waits 1000] [--interval 6] [--seconds 60]

So many events wait for a place that is never ready, each asking it every so often. The server is this process; what is
measured is the other one: its CPU, its memory, its threads, and how far the polls fall behind their interval.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DAG = """
import evermill

@evermill.dag
def polls():
    events = evermill.http("/list", cursor="since", poke_interval=3600)
    use(evermill.wait_http("/state", poke_interval={interval}, after=events))

@evermill.task
def use(found):
    pass
"""


class Place(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    waits, polls, times = 0, 0, []
    lock = threading.Lock()

    def do_GET(self):
        if self.path.startswith("/list"):
            items = [] if "since" in self.path else [{"id": n} for n in range(Place.waits)]
            return self.answer(200, json.dumps(items).encode())
        with Place.lock:
            Place.polls += 1
        self.answer(404, b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


def status(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise SystemExit(f"no {name} of process {pid}")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(what, seconds=120):
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise SystemExit("it did not come to what is measured")
        time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("evermill")
    parser.add_argument("--waits", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=6)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    Place.waits = given.waits
    server = ThreadingHTTPServer(("127.0.0.1", 0), Place)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        flow = Path(folder, "polls.py")
        flow.write_text(DAG.format(interval=given.interval))
        command = [given.evermill, "run", str(flow), "--data-dir", str(Path(folder, "data"))]
        command.append(f"--connection=http=http://127.0.0.1:{server.server_address[1]}")
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "EVERMILL_PYTHON": sys.executable})
        try:
            # Each has asked twice: they all wait.
            until(lambda: Place.polls >= 2 * given.waits)
            polls, cpu, begun = Place.polls, cpu_seconds(running.pid), time.monotonic()
            time.sleep(given.seconds)
            took = time.monotonic() - begun
            polls, cpu = Place.polls - polls, cpu_seconds(running.pid) - cpu
            memory, threads = status(running.pid, "VmRSS:"), status(running.pid, "Threads:")
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait()
    interval = given.waits * took / polls
    print(
        f"{given.waits} waits that ask every {given.interval:g} s: {polls * 60 / took:,.0f} polls a minute, "
        f"{cpu / took * 100:.1f} % of a core ({cpu / polls * 1e6:.0f} us a poll), {memory / 1024:.0f} MB, {threads} threads, "
        f"on average {(interval - given.interval) * 1000:.0f} ms late"
    )


if __name__ == "__main__":
    main()
