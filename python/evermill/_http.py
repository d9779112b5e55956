"""A place that is asked again and again over HTTP."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, NoReturn, Optional, Union

from . import _option
from ._asked import RESPONSE_CHECK, name_of
from ._dag import Source
from ._fault import DagError, blame, nearest
from ._source import OWN, declare

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

#: How a value of an answer compares; what may be compared with.
_COMPARISONS = {
    "equals": None,
    "not_equals": None,
    "one_of": (list, tuple),
    "above": (int, float),
    "below": (int, float),
    "contains": None,
    "exists": bool,
}


def params(value: Any) -> Dict[str, str]:
    """Names and plain values; what is None is left out, as `requests` does."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError("write a dict of names and values")
    if not all(one is None or isinstance(one, (str, int, float)) for one in value.values()):
        raise ValueError("write a text or a number for each name")
    return {name: str(one) for name, one in value.items() if one is not None}


def _pointer(value: Any) -> str:
    if not isinstance(value, str) or (value and not value.startswith("/")):
        raise ValueError('write a JSON pointer, such as "/status"')
    return value


def statuses(value: Any) -> List[int]:
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    if not found or not all(type(one) is int and 100 <= one <= 599 for one in found):
        raise ValueError("write a status such as 200, or a list of them")
    return found


def _test(value: Dict[str, Any]) -> Dict[str, Any]:
    """One comparison: where to look, and with what it compares."""
    ops = [name for name in value if name in _COMPARISONS]
    if "pointer" not in value or len(ops) != 1:
        raise ValueError(f"write a pointer and one of {', '.join(_COMPARISONS)}")
    op, wanted = ops[0], value[ops[0]]
    kind = _COMPARISONS[op]
    if kind and (not isinstance(wanted, kind) or (op in ("above", "below") and isinstance(wanted, bool))):
        raise ValueError(f"{op}: {wanted!r} cannot be compared with")
    try:
        wanted = json.loads(json.dumps(wanted, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(f"{op}: {wanted!r} is nothing that JSON has") from None
    return {"pointer": _pointer(value["pointer"]), "op": op, "value": wanted}


def _check(value: Any) -> Dict[str, Any]:
    """What an answer has to be: a dict, a function, or a list of which all must hold."""
    parts = list(value) if isinstance(value, (list, tuple)) else [value]
    made: Dict[str, Any] = {}
    for part in parts:
        if callable(part):
            if "function" in made:
                raise ValueError("one function has the last word; call the other one in it")
            made["function"] = name_of("response_check", RESPONSE_CHECK, part)
            continue
        if not isinstance(part, dict) or not part:
            raise ValueError('write a dict, such as {"pointer": "/status", "equals": "deployed"}, or a function of the answer')
        known = ["status", "pointer", *_COMPARISONS]
        for name in part:
            if name not in known:
                raise ValueError(f"{name!r}: {nearest(str(name), known)}")
        if "status" in part:
            made["status"] = statuses(part["status"])
        if set(part) - {"status"}:
            made.setdefault("tests", []).append(_test({name: one for name, one in part.items() if name != "status"}))
    return made


def _cursor(value: Any) -> Dict[str, Any]:
    """How new items of a list are asked for: the parameter's name, or a dict."""
    if isinstance(value, str) and value:
        return {"param": value}
    known = {"param": _option.text, "items": _pointer, "id": _pointer, "newest_first": _option.flag}
    if not isinstance(value, dict) or "param" not in value:
        raise ValueError('write the name of the parameter, or a dict such as {"param": "since", "items": "/items"}')
    for name in value:
        if name not in known:
            raise ValueError(f"{name!r}: {nearest(str(name), list(known))}")
    made = {name: known[name](one) for name, one in value.items()}
    return {name: one for name, one in made.items() if one != {"items": "", "id": "/id", "newest_first": False}.get(name)}


_HTTP = {
    "endpoint": ("endpoint", _option.text),
    "connection": ("connection", _option.text),
    "method": ("method", _option.one_of(*_METHODS)),
    "request_params": ("request_params", params),
    "headers": ("headers", params),
    "poke_interval": ("poke_interval_ms", _option.milliseconds),
    "response_check": ("check", _check),
    "select": ("select", _pointer),
    "cursor": ("cursor", _cursor),
    "fire_on_start": ("fire_on_start", _option.flag),
}
_DEFAULTS = {
    "connection": "http_default",
    "method": "GET",
    "request_params": {},
    "headers": {},
    "poke_interval_ms": 60_000,
    "fire_on_start": True,
}


def http_config(owner: str, **given: Any) -> dict:
    """The manifest's `config` of a source that polls over HTTP, without what is default."""
    if given.get("select") is not None and given.get("cursor") is not None:
        blame(DagError("bad_value", f"{owner}: select and cursor exclude each other", "leave one of them out"))
    fields = _option.convert(owner, _HTTP, given)
    return {name: value for name, value in fields.items() if _DEFAULTS.get(name) != value}


def functions(response_check: Any) -> Dict[str, Callable[..., Any]]:
    """The function within a `response_check`, if there is one, for the node that asks."""
    parts = list(response_check) if isinstance(response_check, (list, tuple)) else [response_check]
    return {RESPONSE_CHECK: part for part in parts if callable(part)}


def http(
    endpoint: str,
    *,
    connection: str = "http_default",
    poke_interval: Any = 60,
    method: str = "GET",
    request_params: Optional[Dict[str, Any]] = None,
    headers: Optional[Dict[str, str]] = None,
    response_check: Any = None,
    select: Optional[str] = None,
    cursor: Any = None,
    fire_on_start: bool = True,
    codec: Optional[str] = None,
    schema: Union[Dict[str, Any], str, None] = None,
    validator: Optional[Callable[..., Any]] = None,
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Asks a place over HTTP again and again. An event is an edge: what is asked for became true.

    An answer is true when its status is 2xx and `response_check` holds, false when it does not or the
    status is 404; anything else says nothing and changes nothing. `response_check` is a dict such as
    `{"pointer": "/status", "equals": "deployed"}`, a function of the answer (as `requests` has it), or a list of
    which all must hold. With `select`, a JSON pointer, the
    event is what it leads to, and a change of that is an edge, too. With `cursor`, the name of a
    parameter, the answer is a list and each new item an event. `endpoint` is a path below the address of
    `connection`, or a whole URL. `poke_interval` is the longest wait between two questions. What is true
    at the first answer fires unless `fire_on_start=False`. `codec`, `schema` and `validator` judge what is
    delivered, as for `kafka`. The source's id is `name`, else `http`.
    """
    owner = f"http({endpoint!r})"
    content = {"codec": codec, "schema": schema, "validator": validator}
    own = {"order": order, "freshness": freshness, "rate_limit": rate_limit}
    fields = _option.convert(owner, {**OWN, **_HTTP}, {**own, **content, **unknown})
    config = http_config(
        owner,
        endpoint=endpoint,
        connection=connection,
        poke_interval=poke_interval,
        method=method,
        request_params=request_params,
        headers=headers,
        response_check=response_check,
        select=select,
        cursor=cursor,
        fire_on_start=fire_on_start,
    )
    source = declare("http", config, name, fields)
    source.functions = functions(response_check)
    return source
