"""Airflow's sensor of another DAG: at the root of a DAG without a schedule it is a source."""

from __future__ import annotations

from typing import Any, Optional

from airflow.models.baseoperator import BaseOperator

from evermill._fault import DagError, blame
from evermill._inside import after_config

__all__ = ["ExternalTaskSensor"]

_STATES = {"success": "done", "failed": "failed", "skipped": "skipped"}


class ExternalTaskSensor(BaseOperator):
    """Waits for another DAG. Each of its activations that ends so is an event.

    `execution_delta` and the like concern runs of two schedules that belong together; a source hears of every
    activation. `timeout`, `mode`, `soft_fail` and `deferrable` concern a sensor that waits inside an activation; a source listens for ever.
    """

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
        timeout: Any = None,
        mode: str = "poke",
        soft_fail: bool = False,
        deferrable: bool = False,
        **options: Any,
    ) -> None:
        owner = f"task {task_id!r}"
        if external_task_id or external_task_ids or external_task_group_id:
            what = f"{owner}: to wait for a task of another DAG is not built yet"
            blame(DagError("not_built", what, "leave external_task_id out: the whole DAG is waited for"))
        states = [str(getattr(state, "value", state)) for state in allowed_states or ["success"]]
        unknown = [state for state in states if state not in _STATES]
        if unknown:
            what = f"{owner}: allowed_states={states!r} is not possible"
            blame(DagError("bad_value", what, f"a DAG ends as {', '.join(_STATES)}"))
        listens = after_config(owner, dag_id=external_dag_id, states=[_STATES.get(state, "done") for state in states])
        super().__init__(task_id=task_id, kind="sensor", **options)
        self.listens = {"kind": "after", **listens}
