"""A sensor that asks a Python function."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Sequence

from airflow._option import refuse_templates
from airflow.sensors.base import BaseSensorOperator
from evermill._bind import called_with

__all__ = ["PythonSensor"]


class PythonSensor(BaseSensorOperator):
    """`python_callable` says whether what is waited for is there."""

    def __init__(
        self,
        *,
        task_id: str,
        python_callable: Callable[..., Any],
        op_args: Optional[Sequence[Any]] = None,
        op_kwargs: Optional[Dict[str, Any]] = None,
        templates_dict: Optional[Dict[str, Any]] = None,
        **options: Any,
    ) -> None:
        owner = f"task {task_id!r}"
        self.python_callable, self.op_args, self.op_kwargs = python_callable, tuple(op_args or ()), dict(op_kwargs or {})
        refuse_templates(owner, [*self.op_args, *self.op_kwargs.values(), *(templates_dict or {}).values()])
        super().__init__(task_id=task_id, **options)

    def poke(self, context: Any) -> Any:
        given = called_with(self.python_callable, self.op_args, {**context, **self.op_kwargs})
        return self.python_callable(*self.op_args, **given)
