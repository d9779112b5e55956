"""Airflow's sensor of another DAG: at the root of a DAG without a schedule it is a source."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.sensors.base import BaseSensorOperator

from evermill._fault import DagError, blame
from evermill._inside import after_config

__all__ = ["ExternalTaskSensor"]

_STATES = {"success": "done", "failed": "failed", "skipped": "skipped"}


class ExternalTaskSensor(BaseSensorOperator):
    """Waits for another DAG. At the root of a DAG without a schedule each of its activations that ends so is an event.

    Inside an activation it waits for that of the same logical date, `execution_delta` earlier, or of what
    `execution_date_fn` makes of it; the other DAG needs a schedule for that. States of its tasks are known once the
    whole activation has ended.
    """

    may_be_asked = False

    def __init__(
        self,
        *,
        task_id: str,
        external_dag_id: str,
        external_task_id: Optional[str] = None,
        external_task_ids: Any = None,
        external_task_group_id: Optional[str] = None,
        allowed_states: Any = None,
        failed_states: Any = None,
        skipped_states: Any = None,
        execution_delta: Any = None,
        execution_date_fn: Any = None,
        check_existence: bool = False,
        poll_interval: Any = None,
        poke_interval: Any = None,
        **options: Any,
    ) -> None:
        owner = f"task {task_id!r}"
        if external_task_group_id:
            what = f"{owner}: external_task_group_id={external_task_group_id!r} is not built: a group's tasks are waited for one by one"
            blame(DagError("not_built", what, "name its tasks: external_task_ids=[...]"))
        if execution_delta is not None and execution_date_fn is not None:
            what = f"{owner}: execution_delta and execution_date_fn exclude each other"
            blame(DagError("bad_value", what, "leave one of them out"))
        self.external_dag_id = external_dag_id
        self.external_task_ids: List[str] = [external_task_id] if external_task_id else list(external_task_ids or [])
        self.allowed_states = _words(owner, "allowed_states", allowed_states) or ["success"]
        self.failed_states = _words(owner, "failed_states", failed_states)
        self.skipped_states = _words(owner, "skipped_states", skipped_states)
        self.execution_delta, self.execution_date_fn = execution_delta, execution_date_fn
        super().__init__(task_id=task_id, poke_interval=poke_interval if poke_interval is not None else poll_interval, **options)
        self.fn = self._ask
        if not self.external_task_ids:
            states = [_STATES.get(state, "done") for state in self.allowed_states]
            self.listens = {"kind": "after", **after_config(owner, dag_id=external_dag_id, states=states)}

    def _ask(self, ctx: Any, **context: Any) -> Any:
        self._handle = ctx._handle
        return self._poke(**context)

    def poke(self, context: Any) -> bool:
        return all([self._holds(date) for date in self._dates(context)])

    def _dates(self, context: Any) -> List[Any]:
        date = context["logical_date"]
        if self.execution_delta is not None:
            return [date - self.execution_delta]
        if self.execution_date_fn is None:
            return [date]
        found = self.execution_date_fn(date)
        return list(found) if isinstance(found, (list, tuple, set)) else [found]

    def _holds(self, date: Any) -> bool:
        """Whether the activation of this date has ended as it should."""
        told = self._handle.ended(self.external_dag_id, date)
        if told is None:
            return False
        states = [self._state(told, id) for id in self.external_task_ids] or [_whole(told["state"], self._named())]
        for state in states:
            what = f"{self.external_dag_id} of {date.isoformat()} ended as {state}"
            if state in self.failed_states:
                raise AirflowFailException(what)
            if state in self.skipped_states:
                raise AirflowSkipException(what)
        return all(state in self.allowed_states for state in states)

    def _state(self, told: Dict[str, Any], id: str) -> str:
        tasks = told["tasks"]
        if tasks is None:
            return self.allowed_states[0]
        if not tasks and told["state"] == "failed":
            return "failed"
        if id not in tasks:
            known = ", ".join(sorted(tasks)) or "none"
            raise AirflowFailException(f"DAG {self.external_dag_id!r} has no task {id!r}; its tasks are {known}")
        return str(tasks[id])

    def _named(self) -> List[str]:
        return [*self.allowed_states, *self.failed_states, *self.skipped_states]


def _whole(state: str, named: List[str]) -> str:
    """Airflow's word for how a DAG ended: one whose leaves were all skipped has succeeded, unless somebody asks for it."""
    if state == "skipped" and "skipped" in named:
        return state
    return "failed" if state == "failed" else "success"


def _words(owner: str, option: str, given: Any) -> List[str]:
    words = [str(getattr(state, "value", state)) for state in given or []]
    known = [*_STATES, "upstream_failed"]
    unknown = [word for word in words if word not in known]
    if unknown:
        what = f"{owner}: {option}={words!r} is not possible"
        blame(DagError("bad_value", what, f"what ends does so as {', '.join(known)}"))
    return words
