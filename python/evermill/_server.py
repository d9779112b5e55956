"""The fork server: imports DAG files once, then gives the engine workers in a millisecond.

It runs no task and has one thread. It is the parent of every worker: it reports how they end,
kills what they leave behind, and takes them along when the engine goes away.
"""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import socket
import sys
import traceback
from typing import Any, Dict, List

from . import _frames, _runtime, _worker

#: An import that takes longer than this ends the fork server; the engine goes on without it.
_PRELOAD_SECONDS_MAX = 60

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Server:
    def __init__(self, sock: socket.socket) -> None:
        self.channel = _frames.PassingChannel(sock)
        self.workers: Dict[int, int] = {}
        self.wake, wake_writer = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_writer, False)
        self.wake_writer = wake_writer
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)

    def serve(self) -> None:
        _worker.hello(self.channel)
        poll = select.poll()
        poll.register(self.channel.sock, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.wake:
                    os.read(self.wake, 4096)
                    self.reap()
                elif not self.handle():
                    return

    def handle(self) -> bool:
        frame = self.channel.read()
        if frame is None:
            return False
        if frame.kind == _frames.PRELOAD:
            self.channel.send(frame.call, _frames.PRELOADED, preload(frame.content()))
        elif frame.kind == _frames.FORK:
            self.fork(frame)
        else:
            raise _frames.FrameError(f"frame kind {frame.kind} is not for a fork server")
        return True

    def fork(self, frame: _frames.Frame) -> None:
        fds, self.channel.fds = self.channel.fds, []
        worker = frame.content()["worker"]
        gc.collect()
        gc.freeze()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self.become_worker(parent, *fds)
        for fd in fds:
            os.close(fd)
        self.workers[pid] = worker
        self.channel.send(frame.call, _frames.FORKED, {"worker": worker, "pid": pid})

    def become_worker(self, parent: int, sock_fd: int, output_fd: int, page_fd: int, permits_fd: int) -> None:
        status = 1
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.channel.sock.close()
            os.close(self.wake)
            os.close(self.wake_writer)
            os.dup2(output_fd, 1)
            os.dup2(output_fd, 2)
            os.close(output_fd)
            random.seed()
            _worker.work(socket.socket(fileno=sock_fd), page_fd, permits_fd)
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        finally:
            os._exit(status)

    def reap(self) -> None:
        """Reports workers that ended. Their groups are killed while their pid is still theirs."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            worker = self.workers.pop(pid, None)
            if worker is not None:
                kill_group(pid)
            os.waitpid(pid, 0)
            if worker is not None:
                exited = ended.si_code == os.CLD_EXITED
                status = {"exit": ended.si_status if exited else None, "signal": None if exited else ended.si_status}
                self.channel.send(0, _frames.ENDED, {"worker": worker, **status})

    def end(self) -> None:
        for pid in self.workers:
            kill_group(pid)
        # What left its group, as daemons do, came to us as an orphan.
        for pid in children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def preload(wanted: Dict[str, Any]) -> Dict[str, Any]:
    error = None
    # The default action ends this process, whatever the import is doing.
    signal.alarm(_PRELOAD_SECONDS_MAX)
    try:
        _runtime.load_program(wanted["entry"], wanted["dag"], wanted["task"], wanted["folder"])
    except BaseException as raised:
        error = "".join(traceback.format_exception_only(type(raised), raised)).strip()
    finally:
        signal.alarm(0)
    return {"error": error, "threads": len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1}


def kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # It had not made a group of its own yet.
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def children() -> List[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    """Linux only, and only a second line of defence: where it fails, nothing else does."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)
    except Exception:
        pass


def main() -> None:
    if sys.version_info < (3, 9):
        sys.exit("evermill needs Python 3.9 or newer; this is " + sys.version)
    if sys.byteorder != "little":
        sys.exit("evermill's frames are little endian; this machine is not")
    # The engine's socket comes as descriptor 0 and moves away, so that user code never sees it.
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = Server(sock)
    try:
        server.serve()
    finally:
        server.end()


if __name__ == "__main__":
    main()
