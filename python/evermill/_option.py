"""The options of DAGs, sources and tasks: their names, and what a value of each may be.

The names are the same in Python, in YAML and in the manifest. Each option has one converter from
what an author writes to what the manifest holds (milliseconds, bytes).
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any, Callable, Dict, Mapping, Tuple

from ._fault import DagError, blame, nearest

Converter = Callable[[Any], Any]

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_UNITS_BYTES = {
    "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
    "kb": 10**3, "mb": 10**6, "gb": 10**9,
}  # fmt: skip
_WITH_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")

ORDERS = ("none", "key", "partition", "serial")

TRIGGER_RULES = (
    "all_success", "all_failed", "all_done", "all_done_min_one_success", "all_done_setup_success",
    "all_skipped", "one_success", "one_failed", "one_done", "none_failed",
    "none_failed_min_one_success", "none_skipped", "always",
)  # fmt: skip
_OLD_TRIGGER_RULES = {"dummy": "always", "none_failed_or_skipped": "none_failed_min_one_success"}


def milliseconds(value: Any) -> int:
    """Seconds as a number, a timedelta, or a text with a unit: `30`, `timedelta(minutes=5)`, `"500ms"`."""
    if isinstance(value, timedelta):
        found = value / timedelta(milliseconds=1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = value * 1_000
    else:
        found = _with_unit(value, _UNITS_MS)
    if not 0 <= found < 2**53:
        raise ValueError("a duration is not negative")
    return round(found)


def size(value: Any) -> int:
    """Bytes as a number, or a text with a unit: `"512MiB"`, `"2G"`, `"500MB"`."""
    return int(_with_unit(value, _UNITS_BYTES)) if isinstance(value, str) else whole(1)(value)


def _with_unit(value: Any, units: Mapping[str, int]) -> float:
    match = _WITH_UNIT.fullmatch(value) if isinstance(value, str) else None
    factor = units.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"write a number, or a text with one of the units {', '.join(units)}")
    return float(match[1]) * factor


_RATE = re.compile(r"\s*(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*([a-zA-Z]+)\s*")


def rate(value: Any) -> Dict[str, int]:
    """So many in so long: `"100/s"`, `"5/10m"`."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    unit = _UNITS_MS.get(match[3].lower()) if match else None
    members = int(match[1]) if match else 0
    interval = round(float(match[2] or 1) * unit) if match and unit else 0
    if not 0 < members < 2**31 or not 0 < interval < 2**53:
        raise ValueError('write a number and a time, such as "100/s" or "5/10m"')
    return {"members": members, "interval_ms": interval}


def whole(least: int, most: int = 2**31 - 1) -> Converter:
    """A whole number, not below `least` nor above `most`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"write a whole number, {least} " + (f"to {most}" if most < 2**31 - 1 else "or more"))
        return value

    return convert


def one_of(*words: str) -> Converter:
    """One of these words; a word of an enumeration counts by its value."""

    def convert(value: Any) -> str:
        word = str(getattr(value, "value", value))
        if word not in words:
            raise ValueError(nearest(word, words))
        return word

    return convert


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("write a text")
    return value


def path(value: Any) -> str:
    """A path as a text or as `pathlib` has it."""
    return text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def flag(value: Any) -> bool:
    """True or False, nothing that merely counts as such."""
    if not isinstance(value, bool):
        raise ValueError("write True or False")
    return value


def trigger_rule(value: Any) -> str:
    """One of Airflow's trigger rules; two old names are still understood."""
    word = str(getattr(value, "value", value))
    return one_of(*TRIGGER_RULES)(_OLD_TRIGGER_RULES.get(word, word))


def environment(value: Any) -> Dict[str, str]:
    """Names and values, all texts."""
    if not isinstance(value, dict) or not all(isinstance(x, str) for pair in value.items() for x in pair):
        raise ValueError("write a dict of texts")
    return dict(value)


def texts(value: Any) -> list:
    """A list of texts."""
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(x, str) for x in value):
        raise ValueError("write a list of texts")
    return sorted(value) if isinstance(value, (set, frozenset)) else list(value)


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def names(value: Any) -> list:
    """Names of connections or secrets, each once."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple, set, frozenset)):
        raise ValueError('write a list of names, such as ["warehouse"]')
    for name in given:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: letters, digits, '_', '-' and '.'")
    return sorted(set(given))


#: Option of a task -> (field of the manifest, converter).
TASK: Dict[str, Tuple[str, Converter]] = {
    "trigger_rule": ("trigger_rule", trigger_rule),
    "retries": ("retries", whole(0)),
    "retry_delay": ("retry_delay_ms", milliseconds),
    "retry_exponential_backoff": ("retry_exponential_backoff", flag),
    "max_retry_delay": ("max_retry_delay_ms", milliseconds),
    "timeout": ("timeout_ms", milliseconds),
    "on_failure": ("on_failure", one_of("park", "block", "drop", "stop")),
    "on_interrupt": ("on_interrupt", one_of("rerun", "fail")),
    "pool": ("pool", text),
    "priority": ("priority", whole(-(2**31))),
    "rate_limit": ("rate_limit", rate),
    "rate_limit_per_key": ("rate_limit_per_key", rate),
    "concurrency": ("concurrency", whole(1)),
    "batch": ("batch", whole(1)),
    "deadline": ("deadline_ms", milliseconds),
    "history": ("history", one_of("sampled", "full")),
    "connections": ("connections", names),
    "secrets": ("secrets", names),
    "env": ("env", environment),
    "cwd": ("cwd", text),
    "memory_limit": ("memory_limit_bytes", size),
    "nice": ("nice", whole(0, 19)),
}

#: Option of a DAG -> the same. `order` may also come from its sources, `freshness` goes to them.
DAG: Dict[str, Tuple[str, Converter]] = {
    "tags": ("tags", texts),
    "order": ("order", one_of(*ORDERS)),
    "python": ("python", text),
    "on_failure": TASK["on_failure"],
    "deadline": TASK["deadline"],
    "history": TASK["history"],
    "max_active_runs": ("max_active_runs", whole(1)),
    "freshness": ("freshness_ms", milliseconds),
}

#: Options of a task that its DAG may set for all of its tasks.
INHERITED = tuple(name for name in TASK if name not in DAG and name not in ("trigger_rule", "batch"))


def convert(owner: str, known: Mapping[str, Tuple[str, Converter]], given: Mapping[str, Any]) -> Dict[str, Any]:
    """Fields of the manifest for the options an author gave; None means not given.

    What is wrong is said and left out.
    """
    fields = {}
    for name, value in given.items():
        if name not in known:
            blame(_unknown(owner, name, known))
            continue
        if value is None:
            continue
        field, converter = known[name]
        try:
            fields[field] = converter(value)
        except ValueError as why:
            message = f"{owner}: {name}={value!r} is not possible"
            blame(DagError("bad_value", message, str(why), option=name))
    return fields


def _unknown(owner: str, name: str, known: Mapping[str, Any]) -> DagError:
    homes = [home for home, options in (("a task", TASK), ("a DAG", DAG)) if name in options and options is not known]
    cure = f"it is an option of {homes[0]}" if homes else nearest(name, known)
    return DagError("unknown_option", f"{owner} has no option {name!r}", cure, option=name)
