"""Waiting in the middle of a DAG."""

from __future__ import annotations

from typing import Any, Dict, NoReturn, Optional

from . import _option
from ._dag import Task, building, nodes
from ._fault import DagError
from ._http import functions, http_config
from ._sensor import poke_fields

_WAIT = {"duration": ("delay_ms", _option.milliseconds), "signal": ("signal", _option.text)}
_OWN = {"trigger_rule": _option.TASK["trigger_rule"]}


def wait(
    duration: Any = None,
    *,
    signal: Optional[str] = None,
    after: Any = (),
    name: Optional[str] = None,
    trigger_rule: Optional[str] = None,
    **unknown: NoReturn,
) -> Task:
    """Waits so long, or for a message of this name: `evermill signal RUN NAME JSON`. Nothing runs meanwhile, and a
    restart neither shortens nor prolongs it.

    `after` is what comes before it; `>>` says the same. The message is its result: pass it to a task. A message that
    was sent before anybody waited is kept for a day, and goes to the event that has waited longest, or to that with
    the message's key.
    """
    owner = "wait()"
    given = {name: value for name, value in (("duration", duration), ("signal", signal)) if value is not None}
    if len(given) != 1:
        raise DagError("bad_call", f"{owner} waits for one thing", 'write wait("10m") or wait(signal="approve")')
    made = _option.convert(owner, _WAIT, given)
    fields = _option.convert(owner, _OWN, {"trigger_rule": trigger_rule, **unknown})
    dag = building()
    task = Task(name or (dag.free_id("wait") if dag else "wait"), "sensor", _over, fields=fields, dag=dag)
    task.wait = made
    return _placed(task, after)


def wait_http(
    endpoint: str,
    *,
    connection: str = "http_default",
    poke_interval: Any = 60,
    timeout: Any = None,
    soft_fail: bool = False,
    exponential_backoff: bool = False,
    max_wait: Any = None,
    method: str = "GET",
    request_params: Optional[Dict[str, Any]] = None,
    headers: Optional[Dict[str, str]] = None,
    response_check: Any = None,
    select: Optional[str] = None,
    after: Any = (),
    name: Optional[str] = None,
    trigger_rule: Optional[str] = None,
    **unknown: NoReturn,
) -> Task:
    """Waits until a place answers as it should: asks it every `poke_interval`, for `timeout` at most. Between two
    questions nothing runs, and a restart neither shortens nor prolongs the wait.

    What counts as an answer is as for `evermill.http`; one that says nothing (5xx, nobody there) is *not yet*. The
    result is what `select`, a JSON pointer, leads to, or what a function as `response_check` found.
    """
    owner = f"wait_http({endpoint!r})"
    polls = http_config(
        owner,
        endpoint=endpoint,
        connection=connection,
        method=method,
        request_params=request_params,
        headers=headers,
        response_check=response_check,
        select=select,
    )
    asked = dict(poke_interval=poke_interval, timeout=timeout, soft_fail=soft_fail, max_wait=max_wait)
    poking = poke_fields(owner, {**asked, "exponential_backoff": exponential_backoff})
    fields = _option.convert(owner, _HTTP, {"trigger_rule": trigger_rule, **unknown})
    dag = building()
    task = Task(name or (dag.free_id("wait_http") if dag else "wait_http"), "sensor", fields=fields, dag=dag)
    task.polls, task.poking, task.functions = polls, poking, functions(response_check)
    return _placed(task, after)


#: Options of any task that one which only asks a place can have.
_HTTP = {name: _option.TASK[name] for name in ("trigger_rule", "on_failure", "pool", "priority", "rate_limit", "history")}


def _placed(task: Task, after: Any) -> Task:
    for node in nodes(list(after) if isinstance(after, (list, tuple)) else after):
        task.after(node)
    return task


def _over() -> None:
    """Where no engine waits, as in a test, nobody does."""
