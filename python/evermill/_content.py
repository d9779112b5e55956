"""What the values of a source have to be: `codec`, `schema`, `schema_registry`, `validator`.

What goes together with what is the engine's to say, the same for every front end; here a schema is read, so that
the manifest holds it whole.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import Any, Callable, Dict, List

from . import _option
from ._fault import declared_at, is_collecting

CODECS = ("bytes", "text", "json", "avro", "protobuf")

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
        raise ValueError('write a dict, or the path of a file such as "order.schema.json", "order.avsc" or "order.proto#shop.Order"')
    if not is_collecting():
        # A worker has the files of the DAG's version and not these: what they say is in the manifest.
        return os.fspath(value)
    file, _ = declared_at()
    folder = os.path.dirname(os.path.abspath(file))
    written, _, message = os.fspath(value).partition("#")
    path = os.path.join(folder, written)
    kind = os.path.splitext(written)[1]
    named = {"message": message} if message else {}
    if kind == ".proto":
        return {"proto": os.path.basename(path), "files": _protos(path, folder), **named}
    if kind in _DESCRIPTORS:
        return {"descriptors": base64.b64encode(_read(path)).decode(), **named}
    if message:
        path = os.path.join(folder, os.fspath(value))
    try:
        return json.loads(_read(path))
    except ValueError as why:
        raise ValueError(f"{path} is no JSON: {why}") from None


#: What `protoc --include_imports --descriptor_set_out` writes is commonly called.
_DESCRIPTORS = (".binpb", ".pb", ".desc", ".protoset")

_IMPORT = re.compile(r'^\s*import\s+(?:public\s+|weak\s+)?"([^"]+)"\s*;', re.MULTILINE)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as opened:
            text = opened.read(_SCHEMA_BYTES_MAX + 1)
    except OSError as why:
        raise ValueError(f"{path} cannot be read: {why.strerror}") from None
    if len(text) > _SCHEMA_BYTES_MAX:
        raise ValueError(f"{path} has more than {_SCHEMA_BYTES_MAX} bytes")
    return text


def _protos(path: str, folder: str) -> Dict[str, str]:
    """A .proto file and what it imports, by the names that imports use: beside it, or from a folder above, up to that of
    the DAG file."""
    roots = [os.path.dirname(path)]
    while os.path.commonpath([roots[-1], folder]) == folder and roots[-1] != folder:
        roots.append(os.path.dirname(roots[-1]))
    files: Dict[str, str] = {}
    wanted: List[str] = [os.path.basename(path)]
    while wanted:
        name = wanted.pop()
        found = [os.path.join(root, name) for root in roots if os.path.isfile(os.path.join(root, name))]
        if name in files or not found and name.startswith("google/protobuf/"):
            continue
        if not found and files:
            raise ValueError(f"{path} imports {name!r}, which lies neither beside it nor in a folder above")
        text = _read(found[0] if found else path)
        try:
            files[name] = text.decode()
        except UnicodeDecodeError as why:
            raise ValueError(f"{found[0]} is not UTF-8 at byte {why.start}") from None
        wanted.extend(_IMPORT.findall(files[name]))
    return files


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
