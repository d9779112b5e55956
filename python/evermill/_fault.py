"""What is wrong with a DAG file, said so that it can be put right."""

from __future__ import annotations

import difflib
import os
import sys
from contextlib import contextmanager
from types import FrameType
from typing import Iterable, Iterator, List, Optional, Tuple

#: Frames below this directory are ours: the author's line is the nearest one outside.
_SDK = os.path.dirname(os.path.abspath(__file__)) + os.sep


class DagError(Exception):
    """A fault in a DAG file. `code` is stable; `cure` says what to do."""

    def __init__(self, code: str, message: str, cure: str = "", at: Optional[Tuple[str, int]] = None) -> None:
        super().__init__(message + (f" ({cure})" if cure else ""))
        self.code = code
        self.message = message
        self.cure = cure
        self.file, self.line = at or declared_at()


#: What was found so far, while a loader wants to hear of everything at once.
_found: Optional[List[DagError]] = None

#: Where the declaration stands that is being read, when no frame says so.
_reading: Optional[Tuple[str, int]] = None


@contextmanager
def collecting() -> Iterator[List[DagError]]:
    """Within, faults that can be passed over are kept in the list and raised by nobody."""
    global _found
    _found = found = []
    try:
        yield found
    finally:
        _found = None


def blame(fault: DagError) -> None:
    """Raises the fault; or keeps it for the loader, and the caller goes on without what was wrong."""
    if _found is None:
        raise fault
    _found.append(fault)


def found_so_far() -> List[DagError]:
    """What was kept until now."""
    return list(_found or ())


@contextmanager
def reading(file: str, line: int) -> Iterator[None]:
    """Faults found within belong to this line."""
    global _reading
    _reading = (file, line)
    try:
        yield
    finally:
        _reading = None


def declared_at(file: Optional[str] = None) -> Tuple[str, int]:
    """File and line of the author's innermost frame; of the innermost one in `file` if there is any."""
    if _reading is not None:
        return _reading
    nearest = None
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_SDK, "<frozen")):
            if file is None or name == file:
                return name, frame.f_lineno
            nearest = nearest or (name, frame.f_lineno)
        frame = frame.f_back
    return nearest or ("", 0)


def declaring_module() -> str:
    """The file whose top level is being executed: the one that can be said to declare what is made now."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and not code.co_filename.startswith((_SDK, "<frozen")):
            return code.co_filename
        frame = frame.f_back
    return ""


def nearest(word: str, known: Iterable[str]) -> str:
    """A cure that names the known word nearest to a wrong one, or all of them when none is near."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(words) if words else ""
