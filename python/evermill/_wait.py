"""Waiting in the middle of a DAG."""

from __future__ import annotations

from typing import Any, NoReturn, Optional

from . import _option
from ._dag import Task, building, nodes
from ._fault import DagError

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
    for node in nodes(list(after) if isinstance(after, (list, tuple)) else after):
        task.after(node)
    return task


def _over() -> None:
    """Where no engine waits, as in a test, nobody does."""
