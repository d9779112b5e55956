"""What is wrong with a DAG file, said so that it can be put right."""

from __future__ import annotations

import ast
import difflib
import os
import sys
from contextlib import contextmanager
from types import FrameType
from typing import Iterable, Iterator, List, Optional, Tuple

#: Frames below this directory are ours: the author's line is the nearest one outside.
_SDK = os.path.dirname(os.path.abspath(__file__)) + os.sep


class DagError(Exception):
    """A fault in a DAG file. `code` is stable; `cure` says what to do. `option` is the argument it is about."""

    def __init__(
        self,
        code: str,
        message: str,
        cure: str = "",
        at: Optional[Tuple[str, int]] = None,
        option: str = "",
        column: int = 0,
    ) -> None:
        super().__init__(message + (f" ({cure})" if cure else ""))
        self.code = code
        self.message = message
        self.cure = cure
        self.file, self.line = at or declared_at()
        self.option = option
        #: Character of the line, from 1; 0 if it is not known.
        self.column = column


def argument_at(text: str, line: int, option: str) -> Optional[Tuple[int, int]]:
    """Line and column, from 1, of an argument `option=` of the innermost call that a line belongs to."""
    found = None
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or node.lineno):
            for argument in node.keywords:
                if argument.arg == option and (found is None or node.lineno >= found[0]):
                    found = node.lineno, argument
    if found is None:
        return None
    place = found[1]
    # Offsets are counted in bytes of UTF-8.
    before = text.splitlines()[place.lineno - 1].encode()[: place.col_offset]
    return place.lineno, len(before.decode()) + 1


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


def is_collecting() -> bool:
    """Whether a loader listens, and not a worker that only wants the callables."""
    return _found is not None


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
