"""Asking a place over HTTP in `evermill test`, where no engine does it: once, with the address of the connection.

Headers, credentials and certificates of a connection are the engine's; here the address alone counts.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, Dict, Optional

from ._asked import RESPONSE_CHECK, PokeReturnValue, word
from ._dag import Task
from ._response import Response
from .context import Fail

_TIMEOUT_S = 30

_OPS: Dict[str, Callable[[Any, Any], bool]] = {
    "equals": lambda found, wanted: found == wanted,
    "not_equals": lambda found, wanted: found != wanted,
    "one_of": lambda found, wanted: found in wanted,
    "above": lambda found, wanted: found > wanted,
    "below": lambda found, wanted: found < wanted,
    "contains": lambda found, wanted: wanted in found,
    "same_text": lambda found, wanted: _plain(found) == _plain(wanted),
}


class Unknown(Exception):
    """The answer says nothing."""


def asking(connections: Dict[str, str]) -> Callable[[Task], Any]:
    """What asks the place of a sensor, by the addresses of these connections."""

    def ask(task: Task) -> Any:
        try:
            return _judged(task, _answer(task, task.polls or {}, connections))
        except Unknown as why:
            if task.poking.get("strict"):
                raise RuntimeError(str(why)) from None
            return False

    return ask


def _answer(task: Task, asked: Dict[str, Any], connections: Dict[str, str]) -> Response:
    url = asked["endpoint"]
    if "://" not in url:
        id = asked.get("connection", "http_default")
        if id not in connections:
            raise Fail(f"the connection {id!r} has no address; pass --connection {id}=URL")
        url = connections[id].partition("?")[0].rstrip("/") + "/" + url.lstrip("/")
    method, params = asked.get("method", "GET"), urllib.parse.urlencode(asked.get("request_params", {}))
    has_body = method in ("POST", "PUT", "PATCH")
    if params and not has_body:
        url += ("&" if "?" in url else "?") + params
    request = urllib.request.Request(
        url, data=params.encode() if has_body else None, headers=asked.get("headers", {}), method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return Response(answer.status, url, list(answer.headers.items()), answer.read())
    except urllib.error.HTTPError as refused:
        return Response(refused.code, url, list(refused.headers.items()), refused.read())
    except OSError as why:
        raise Unknown(f"{url}: {why}") from None


def _judged(task: Task, answer: Response) -> Any:
    asked = task.polls or {}
    check, status = asked.get("check", {}), answer.status_code
    named = check.get("status", [])
    if status not in named and not 200 <= status < 300:
        if status == 404:
            return False
        raise Unknown(f"{answer.url} answered {status}")
    if named and status not in named:
        return False
    document = _document(answer)
    if not all(_holds(test, document) for test in check.get("tests", [])):
        return False
    said = [True]
    if RESPONSE_CHECK in task.functions:
        said = word(task.functions[RESPONSE_CHECK](answer))
    if said[0] and len(said) == 1 and "select" in asked:
        found = _pointed(document, asked["select"])
        said = [found is not None, found]
    return PokeReturnValue(said[0], said[1] if len(said) > 1 else None)


def _document(answer: Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _pointed(document: Any, pointer: str) -> Optional[Any]:
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        try:
            document = document[int(name)] if isinstance(document, list) else document[name]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return document


def _holds(test: Dict[str, Any], document: Any) -> bool:
    found = _pointed(document, test["pointer"])
    if test["op"] == "exists":
        return (found is not None) == test["value"]
    if found is None:
        return bool(test.get("if_present"))
    try:
        return _OPS[test["op"]](found, test["value"])
    except TypeError:
        return False


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
