"""Airflow's context: the names a callable may ask for, and their values for one activation.

An activation is Airflow's DagRun. Its logical date is the time of its event.
"""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any, Callable, Dict, Optional

from .context import Context

#: DAG id -> the `params` its file declares; set when a DAG is loaded.
params: Dict[str, Dict[str, Any]] = {}


class TaskInstance:
    """`ti`: identity, and results by name."""

    def __init__(self, ctx: Context, date: datetime) -> None:
        self._ctx = ctx
        self.task_id = ctx.task_id
        self.dag_id = ctx.dag_id
        self.run_id = ctx.run_id
        self.try_number = ctx.try_number
        self.map_index = ctx.map_index
        self.logical_date = self.execution_date = date
        self.log = ctx.log

    def xcom_push(self, key: str, value: Any, **_inert: Any) -> None:
        """Keeps a value under a name, with this attempt's result."""
        self._ctx._handle.xcom_push(key, value)

    def xcom_pull(
        self,
        task_ids: Any = None,
        key: str = "return_value",
        default: Any = None,
        map_indexes: Optional[int] = None,
        **_inert: Any,
    ) -> Any:
        """What a task of this activation returned or pushed; a list when asked for several tasks."""
        if isinstance(task_ids, (list, tuple, set)):
            return [self._pull(one, key, default, map_indexes) for one in task_ids]
        return self._pull(task_ids or self.task_id, key, default, map_indexes)

    def _pull(self, task_id: str, key: str, default: Any, map_index: Optional[int]) -> Any:
        handle = self._ctx._handle
        if key == "return_value" and map_index is None:
            value = handle.result_of(task_id)
        else:
            value = handle.ask("xcom_pull", task_id=task_id, key=key, map_index=map_index)
        return default if value is None else value


def _logical_date(ctx: Context) -> datetime:
    events = ctx.events
    date = getattr(ctx._handle, "logical_date", None) or (events[0].timestamp if events else None)
    return date or datetime.now(timezone.utc)


def _no_dashes(date: datetime) -> str:
    return date.strftime("%Y%m%d")


#: Values that follow from the logical date alone.
_DATES: Dict[str, Callable[[datetime], Any]] = {
    "logical_date": lambda date: date,
    "execution_date": lambda date: date,
    "data_interval_start": lambda date: date,
    "data_interval_end": lambda date: date,
    "ds": lambda date: date.strftime("%Y-%m-%d"),
    "ds_nodash": _no_dashes,
    "ts": datetime.isoformat,
    "ts_nodash": lambda date: date.strftime("%Y%m%dT%H%M%S"),
    "ts_nodash_with_tz": lambda date: date.strftime("%Y%m%dT%H%M%S%z"),
}

#: Every name a callable may ask for.
KEYS = frozenset(_DATES) | {"run_id", "params", "dag", "task", "ti", "task_instance", "dag_run", "map_index", "event"}


def view(ctx: Context) -> Dict[str, Any]:
    """The whole context of one activation; made on the first call, then the same dict."""
    if ctx._view is None:
        ctx._view = _make(ctx)
    return ctx._view


def _make(ctx: Context) -> Dict[str, Any]:
    date = _logical_date(ctx)
    ti = TaskInstance(ctx, date)
    constants = dict(params.get(ctx.dag_id, {}))
    made = {name: value(date) for name, value in _DATES.items()}
    made.update(
        run_id=ctx.run_id,
        params=constants,
        dag=SimpleNamespace(dag_id=ctx.dag_id, params=constants),
        task=SimpleNamespace(task_id=ctx.task_id, dag_id=ctx.dag_id),
        ti=ti,
        task_instance=ti,
        dag_run=SimpleNamespace(
            dag_id=ctx.dag_id, run_id=ctx.run_id, logical_date=date, execution_date=date, conf=_conf(ctx)
        ),
        map_index=ctx.map_index,
        event=ctx.event,
    )
    return made


def _conf(ctx: Context) -> Dict[str, Any]:
    """What was given when the activation was triggered by hand; an event is not a conf."""
    return getattr(ctx._handle, "conf", None) or {}
