"""What a function does with its `ctx`, as far as its bytecode says for certain."""

from __future__ import annotations

import dis
import inspect
from typing import Any, Callable, Optional, Set, Tuple

_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
_SILENT = ("CACHE", "NOP", "PUSH_NULL", "EXTENDED_ARG", "PRECALL", "RESUME")

#: (attribute of ctx, attribute of that or None)
Uses = Set[Tuple[str, Optional[str]]]


def emits(fn: Any) -> bool:
    """Whether a function may call `evermill.emit`: it names it."""
    code = getattr(fn, "__code__", None)
    waiting = [code] if code else []
    while waiting:
        code = waiting.pop()
        if "emit" in code.co_names:
            return True
        waiting.extend(part for part in code.co_consts if hasattr(part, "co_names"))
    return False


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
