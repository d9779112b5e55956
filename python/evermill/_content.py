"""What the values of a source have to be: `codec`, `schema`, `schema_registry`, `validator`.

What goes together with what is the engine's to say, the same for every front end; here a schema is read, so that
the manifest holds it whole.
"""

from __future__ import annotations

import json
import os
from typing import Any, Callable

from . import _option
from ._fault import declared_at, is_collecting

CODECS = ("bytes", "text", "json", "avro")

#: A longer schema is no schema but a mistake.
_SCHEMA_BYTES_MAX = 1 << 20


def _schema(value: Any) -> Any:
    """A schema as a dict, or the path of a file that holds one, seen from the DAG file."""
    if isinstance(value, dict):
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as why:
            raise ValueError(f"a schema is JSON: {why}") from None
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise ValueError('write a dict, or the path of a file such as "order.schema.json" or "order.avsc"')
    if not is_collecting():
        # A worker has the files of the DAG's version and not these: what they say is in the manifest.
        return os.fspath(value)
    file, _ = declared_at()
    path = os.path.join(os.path.dirname(os.path.abspath(file)), os.fspath(value))
    try:
        with open(path, "rb") as opened:
            text = opened.read(_SCHEMA_BYTES_MAX + 1)
    except OSError as why:
        raise ValueError(f"{path} cannot be read: {why.strerror}") from None
    if len(text) > _SCHEMA_BYTES_MAX:
        raise ValueError(f"{path} has more than {_SCHEMA_BYTES_MAX} bytes")
    try:
        return json.loads(text)
    except ValueError as why:
        raise ValueError(f"{path} is no JSON: {why}") from None


def _validator(value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise ValueError("write a function that takes the event, and raises or returns False where it is not valid")
    return value


#: Options of every source that has values. `validator` is no field of the manifest: it becomes a task.
CONTENT = {
    "codec": ("codec", _option.one_of(*CODECS)),
    "schema": ("schema", _schema),
    "schema_registry": ("schema_registry", _option.text),
    "validator": ("validator", _validator),
}


def judged(validator: Callable[..., Any]) -> Callable[..., Any]:
    """What the hidden task of a validator calls: it raises where the validator says no."""
    import functools
    import inspect

    name = getattr(validator, "__name__", repr(validator))

    def verdict(said: Any) -> None:
        if said is False:
            raise Invalid(f"{name} returned False")

    if inspect.iscoroutinefunction(validator):

        @functools.wraps(validator)
        async def judge_later(*args: Any, **kwargs: Any) -> None:
            verdict(await validator(*args, **kwargs))

        return judge_later

    @functools.wraps(validator)
    def judge(*args: Any, **kwargs: Any) -> None:
        verdict(validator(*args, **kwargs))

    return judge


class Invalid(ValueError):
    """An event that its validator does not want."""

    # As people read it in an error.
    __module__ = "evermill"
