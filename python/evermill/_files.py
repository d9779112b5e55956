"""Files that appear in a folder."""

from __future__ import annotations

import os
from typing import Any, NoReturn, Optional

from . import _option
from ._dag import Source
from ._fault import declared_at
from ._source import OWN, declare

_FILES = {
    "path": ("path", _option.path),
    "pattern": ("pattern", _option.text),
    "connection": ("connection", _option.text),
    "poke_interval": ("poke_interval_ms", _option.milliseconds),
    "settle": ("settle_ms", _option.milliseconds),
    "fire_on_start": ("fire_on_start", _option.flag),
}
_DEFAULTS = {"poke_interval_ms": 10_000, "settle_ms": 1_000, "fire_on_start": True}


def files_config(owner: str, **given: Any) -> dict:
    """The manifest's `config` of a source of files, without what is default; a relative path counts from the file's folder."""
    fields = _option.convert(owner, _FILES, given)
    path = fields.get("path", "")
    if "://" not in path and "connection" not in fields:
        fields["path"] = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(declared_at()[0])), path))
    return {name: value for name, value in fields.items() if _DEFAULTS.get(name) != value}


def files(
    path_or_url: Any,
    *,
    pattern: Optional[str] = None,
    connection: Optional[str] = None,
    poke_interval: Any = 10,
    settle: Any = 1,
    fire_on_start: bool = True,
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Every file that appears in a folder, or in a bucket (`"s3://bucket/prefix"`), once per version of it: a new
    file, or one that was replaced or rewritten.

    `event.path` is where it is; `event.json()` also has its `size`, `modified` and `version`. The task opens it.
    `pattern` says which files below the folder: `"*.csv"`, `"**/*.csv"` for folders at any depth; without it, those in
    the folder itself. A file is an event once it stayed as it is for `settle`, so that half-written ones wait; names
    that begin with a dot or end in `.part`, `.tmp` and the like never count. A relative path counts from the folder of the
    DAG file. What is there at the first look fires unless `fire_on_start=False`. The source's id is `name`, else `files`.
    """
    owner = f"files({path_or_url!r})"
    fields = _option.convert(owner, {**OWN, **_FILES}, {"order": order, "freshness": freshness, "rate_limit": rate_limit, **unknown})
    config = files_config(
        owner,
        path=path_or_url,
        pattern=pattern,
        connection=connection,
        poke_interval=poke_interval,
        settle=settle,
        fire_on_start=fire_on_start,
    )
    return declare("files", config, name, fields)
