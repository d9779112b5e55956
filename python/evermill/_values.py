"""Values that leave a task, as JSON (docs/spec/frames.md, "values").

What JSON cannot hold but people return every day is tagged: `{"$bytes": "..."}`. An object of
the author's own with a single key that begins with `$` gets one `$` more, so nothing is confused.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Callable, Dict, List, Tuple
from uuid import UUID

_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Unserialisable(Exception):
    """The value cannot be written as JSON; says which part and of which type."""


def encode(value: Any) -> bytes:
    """The value as JSON."""
    if type(value) is int:
        return b"%d" % value
    try:
        text = _write(value)
        if '"$' not in text:
            return text.encode()
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return _write(_plain(value, "value", [])).encode()
    except RecursionError:
        raise Unserialisable("the returned value is nested too deeply to be written as JSON") from None
    except UnicodeEncodeError:
        raise Unserialisable("the returned value holds text with half a surrogate pair, which is no Unicode") from None


def decode(data: bytes) -> Any:
    """The value again."""
    return json.loads(data, object_hook=_untag) if b'"$' in data else json.loads(data)


_TAGS: Tuple[Tuple[type, str, Callable[[Any], Any]], ...] = (
    (datetime, "$datetime", datetime.isoformat),
    (date, "$date", date.isoformat),
    (time, "$time", time.isoformat),
    (timedelta, "$seconds", timedelta.total_seconds),
    (Decimal, "$decimal", str),
    (UUID, "$uuid", str),
    ((bytes, bytearray, memoryview), "$bytes", lambda value: base64.b64encode(value).decode()),  # type: ignore
)

_UNTAG: Dict[str, Callable[[Any], Any]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$seconds": lambda seconds: timedelta(seconds=seconds),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": base64.b64decode,
    "$float": float,
    "$set": set,
}


def _untag(found: Dict[str, Any]) -> Any:
    if len(found) == 1:
        ((key, value),) = found.items()
        if key in _UNTAG:
            return _UNTAG[key](value)
        if key.startswith("$$"):
            return {key[1:]: value}
    return found


def _plain(value: Any, path: str, above: List[int]) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(float(value))}
    for kind, tag, write in _TAGS:
        if isinstance(value, kind):
            return {tag: write(value)}
    if id(value) in above:
        raise Unserialisable(f"{path} contains itself, which JSON cannot say")
    above.append(id(value))
    try:
        return _container(value, path, above)
    finally:
        above.pop()


def _container(value: Any, path: str, above: List[int]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{index}]", above) for index, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        items = [_plain(item, f"an element of {path}", above) for item in value]
        return {"$set": sorted(items, key=lambda item: json.dumps(item, sort_keys=True))}
    if isinstance(value, dict):
        plain = {}
        for key, item in value.items():
            if not (key is None or isinstance(key, (str, int, float))):
                raise Unserialisable(f"{path} has a key of type {_name(key)}; keys must be text")
            plain[key] = _plain(item, f"{path}[{key!r:.100}]", above)
        only = next(iter(plain)) if len(plain) == 1 else None
        return {"$" + only: plain[only]} if isinstance(only, str) and only.startswith("$") else plain
    raise Unserialisable(
        f"{path} is of type {_name(value)}, which cannot be written as JSON; "
        "return plain data (numbers, text, lists, dicts), or a reference to where the value is kept"
    )


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
