"""What all operators share."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Optional, Tuple

from airflow._option import task_fields
from airflow.datasets import outlets
from evermill._dag import Dag, Task, building
from evermill._fault import DagError


class BaseOperator(Task):
    """A task as Airflow writes it: every argument by keyword, `task_id` among them."""

    def __init__(
        self,
        *,
        task_id: str,
        dag: Optional[Dag] = None,
        kind: str = "noop",
        fn: Optional[Callable[..., Any]] = None,
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
        **options: Any,
    ) -> None:
        dag = dag or building()
        if dag is None:
            raise DagError(
                "no_dag", f"task {task_id!r} is in no DAG", "declare it within `with DAG(...)`, or give it dag="
            )
        tells = outlets(f"task {task_id!r}", options.pop("outlets", None))
        if tells and kind == "noop":
            kind, fn = "call", _nothing  # somebody has to say so
        own = inspect.signature(type(self).__init__).parameters
        fields = task_fields(f"task {task_id!r}", options, dag.defaults, also=own)
        super().__init__(task_id, kind, fn, args, kwargs, fields, dag)
        self.task_id = task_id
        self.outlets = tells

    @property
    def output(self) -> Task:
        """Stands for the result, as an argument of another task."""
        return self

    def set_upstream(self, others: Any) -> None:
        self << others

    def set_downstream(self, others: Any) -> None:
        self >> others


def _nothing() -> None:
    pass
