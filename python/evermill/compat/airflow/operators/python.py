"""Operators that call a Python function."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Sequence

from airflow._option import refuse_templates
from airflow.models.baseoperator import BaseOperator
from evermill._fault import DagError


class PythonOperator(BaseOperator):
    """Calls `python_callable` with `op_args`, `op_kwargs` and the keys of the context it names."""

    _kind = "call"

    def __init__(
        self,
        *,
        task_id: str,
        python_callable: Callable[..., Any],
        op_args: Optional[Sequence[Any]] = None,
        op_kwargs: Optional[Dict[str, Any]] = None,
        **options: Any,
    ) -> None:
        owner = f"task {task_id!r}"
        if not callable(python_callable):
            raise DagError(
                "bad_value", f"{owner}: python_callable={python_callable!r} cannot be called", "pass a function"
            )
        args, kwargs = tuple(op_args or ()), dict(op_kwargs or {})
        refuse_templates(owner, [*args, *kwargs.values()])
        super().__init__(task_id=task_id, kind=self._kind, fn=python_callable, args=args, kwargs=kwargs, **options)


class BranchPythonOperator(PythonOperator):
    """The callable returns the id, or ids, of the tasks right after it that go on."""

    _kind = "branch"


class ShortCircuitOperator(PythonOperator):
    """A false result skips everything after it."""

    _kind = "short_circuit"
