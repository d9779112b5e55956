"""What a function does with its `ctx`, as far as its bytecode says for certain."""

from __future__ import annotations

import dis
import inspect
from types import CodeType
from typing import Any, Callable, Iterator, Optional, Set, Tuple

_NAMED = ("LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_SILENT = ("CACHE", "NOP", "PUSH_NULL", "EXTENDED_ARG", "PRECALL", "RESUME")

#: (attribute of ctx, attribute of that or None)
Uses = Set[Tuple[str, Optional[str]]]


def _parts(fn: Any) -> Iterator[CodeType]:
    """A function's code, and that of functions within it."""
    code = getattr(fn, "__code__", None)
    waiting = [code] if code else []
    while waiting:
        code = waiting.pop()
        yield code
        waiting.extend(part for part in code.co_consts if hasattr(part, "co_names"))


def emits(fn: Any) -> bool:
    """Whether a function may call `evermill.emit`: it names it."""
    return any("emit" in code.co_names for code in _parts(fn))


def topics(fn: Any) -> Set[str]:
    """Topics that a function names right where it calls `emit`: as a text, or by a name of its module for one."""
    found: Set[str] = set()
    if not emits(fn):
        return found
    names = getattr(fn, "__globals__", {})
    for code in _parts(fn):
        steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
        for step, after in zip(steps, steps[1:]):
            if step.argval == "emit" and step.opname in (*_NAMED, *_ATTRIBUTE, "LOAD_DEREF"):
                given = names.get(after.argval) if after.opname in _NAMED else after.argval
                if isinstance(given, str) and (after.opname in _NAMED or after.opname.startswith("LOAD_CONST")):
                    found.add(given)
    return found


def uses(fn: Callable[..., Any], param: str) -> Optional[Uses]:
    """The attributes of `param` that `fn` reads; None when it may do anything with it.

    Certain only while `param` is never passed on, stored or captured: each of its loads is
    followed at once by the attribute.
    """
    if not inspect.isfunction(fn) or param in fn.__code__.co_cellvars:
        return None
    found: Uses = set()
    code = [step for step in dis.get_instructions(fn.__code__) if step.opname not in _SILENT]
    code += code[-1:] * 2  # so that the last two steps have followers
    for step, after, later in zip(code, code[1:], code[2:]):
        if step.argval == param or (isinstance(step.argval, tuple) and param in step.argval):
            if not (step.opname.startswith("LOAD_FAST") and step.argval == param and after.opname in _ATTRIBUTE):
                return None
            found.add((after.argval, later.argval if later.opname in _ATTRIBUTE else None))
    return found
