"""What user code prints and logs, tagged with the member that did it (W20).

Text of one member and one origin is kept together until the next flush. A member that prints
without end costs a bounded amount: its beginning is sent, its end is kept, what lies between is
counted and discarded.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from typing import Any, Callable, List, Tuple, Union

from . import _frames

Origin = Union[str, int]

#: Text that waits longer than this many characters is sent at once.
_PENDING_MAX = 64 * 1024


class Guard:
    """A lock that can tell a signal handler to keep out."""

    __slots__ = ("_lock", "busy")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        #: How often it is held now.
        self.busy = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self.busy += 1

    def __exit__(self, *_: Any) -> None:
        self.busy -= 1
        self._lock.release()


class Capture:
    """Collects output; `send` gets a frame whenever enough has come together."""

    def __init__(self, guard: Guard, send: Callable[[bytes], None], limits: dict) -> None:
        self._guard = guard
        self._send = send
        self._head_max: int = limits["log_head_bytes_max"]
        self._tail_max: int = limits["log_tail_bytes_max"]
        self._total_max: int = limits["log_dispatch_bytes_max"]
        self.call = 0
        #: Tells which member runs; set by the worker.
        self.member: Callable[[], int] = lambda: -1
        self._begin_member(-1)
        self._total = 0
        self._entries: List[Tuple[int, Origin, List[str]]] = []
        self._pending = 0

    def begin(self, call: int) -> None:
        """A dispatch begins."""
        self.call = call
        self._total = 0
        self._begin_member(-1)

    def _begin_member(self, member: int) -> None:
        self._member = member
        self._room = self._head_max
        self._tail = ""
        self._left_out = 0
        self._tail_origin: Origin = "out"

    def add(self, origin: Origin, text: str) -> None:
        """Some code wrote this."""
        with self._guard:
            member = self.member()
            if member != self._member:
                self._end_member()
                self._begin_member(member)
            room = max(0, min(self._room, self._total_max - self._total))
            if len(text) > room:
                self._keep_tail(origin, text[room:])
                text = text[:room]
            if text:
                self._room -= len(text)
                self._append(origin, text)

    def _append(self, origin: Origin, text: str) -> None:
        self._total += len(text)
        self._pending += len(text)
        last = self._entries[-1] if self._entries else None
        if last and last[0] == self._member and last[1] == origin and isinstance(origin, str):
            last[2].append(text)
        else:
            self._entries.append((self._member, origin, [text]))
        if self._pending >= _PENDING_MAX:
            self._send(self.take())

    def _keep_tail(self, origin: Origin, text: str) -> None:
        self._tail_origin = origin
        kept = (self._tail + text)[-self._tail_max :] if len(text) < self._tail_max else text[-self._tail_max :]
        self._left_out += len(self._tail) + len(text) - len(kept)
        self._tail = kept

    def _end_member(self) -> None:
        if not self._tail:
            return
        tail = self._tail
        if self._total + len(tail) > self._total_max:
            self._left_out += len(tail)
            tail = ""
        self._tail = ""
        if self._left_out:
            tail = f"\n[evermill: {self._left_out} characters of output were left out here]\n{tail}"
        self._append(self._tail_origin, tail)

    def end(self) -> bytes:
        """A dispatch ends: all that is left, as a frame."""
        with self._guard:
            self._end_member()
            self._begin_member(-1)
            return self.take()

    def take(self) -> bytes:
        """What waits, as a frame; b"" if nothing does."""
        if not self._entries:
            return b""
        texts = ["".join(parts).encode("utf-8", "backslashreplace") for _, _, parts in self._entries]
        heads = [[member, origin, len(text)] for (member, origin, _), text in zip(self._entries, texts)]
        self._entries = []
        self._pending = 0
        return _frames.encode(self.call, _frames.LOG, _frames.content({"entries": heads}), b"".join(texts))


class Stream(io.TextIOBase):
    """Stands in for `sys.stdout` and `sys.stderr`."""

    def __init__(self, capture: Capture, origin: str, descriptor: int) -> None:
        self._capture = capture
        self._origin = origin
        self._descriptor = descriptor
        self.buffer = io.FileIO(descriptor, "w", closefd=False)

    encoding = "utf-8"
    errors = "backslashreplace"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._capture.add(self._origin, text)
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False


class Handler(logging.Handler):
    """Takes what goes through `logging`."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._capture.add(max(1, min(record.levelno, 255)), self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def install(capture: Capture) -> None:
    """From now on prints and logging go to the capture."""
    sys.stdout = Stream(capture, "out", 1)
    sys.stderr = Stream(capture, "err", 2)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            root.removeHandler(handler)
    root.addHandler(Handler(capture))
    if root.level > logging.INFO:
        root.setLevel(logging.INFO)


def uninstall() -> None:
    """For a child that user code forked: output goes to the descriptors."""
    sys.stdout = open(os.dup(1), "w", buffering=1, errors="backslashreplace")
    sys.stderr = open(os.dup(2), "w", buffering=1, errors="backslashreplace")
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, Handler):
            root.removeHandler(handler)
