"""`@dag` and `@task` as Airflow has them: a DAG exists once its function was called."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Optional, Tuple

from airflow._option import task_fields
from airflow.datasets import outlets
from airflow.models.dag import DAG
from airflow.sensors.base import asked
from evermill._dag import Dag, Task
from evermill._sensor import POKE
from evermill._task import TaskDecorator, TaskFunction, Tasks

__all__ = ["dag", "task"]


class _AirflowTask(TaskFunction):
    numbering = ("{}__{}", 1)

    def settle(self, dag: Optional[Dag]) -> Tuple[Optional[str], Dict[str, Any]]:
        options = dict(self.options)
        id = options.pop("task_id", None)
        options.pop("outlets", None)
        return id, task_fields(f"task {id or self.__name__!r}", options, dag.defaults if dag else {})


    def _declare(self, dag: Dag, args: tuple, kwargs: Dict[str, Any]) -> Task:
        task = super()._declare(dag, args, kwargs)
        task.outlets = outlets(f"task {task.id!r}", self.options.get("outlets"))
        return task


class _AirflowSensor(_AirflowTask):
    def settle(self, dag: Optional[Dag]) -> Tuple[Optional[str], Dict[str, Any]]:
        whole = self.options
        asked(f"task {self.__name__!r}", dag, self._asked())
        try:
            self.options = {name: value for name, value in whole.items() if name not in POKE}
            return super().settle(dag)
        finally:
            self.options = whole

    def _declare(self, dag: Dag, args: tuple, kwargs: Dict[str, Any]) -> Task:
        task = super()._declare(dag, args, kwargs)
        task.poking = asked(f"task {task.id!r}", dag, self._asked())
        task.may_be_asked = True
        return task

    def _asked(self) -> Dict[str, Any]:
        return {name: value for name, value in self.options.items() if name in POKE}


task = Tasks(_AirflowTask)
#: The function is asked until what it waits for is there.
task.sensor = TaskDecorator("sensor", _AirflowSensor)


def dag(dag_id: Any = None, **options: Any) -> Any:
    """Makes a DAG each time the function is called; its id is the function's name unless given."""

    def decorate(fn: Callable[..., Any]) -> Callable[..., DAG]:
        @functools.wraps(fn)
        def make(*args: Any, **kwargs: Any) -> DAG:
            with DAG(dag_id or fn.__name__, **options) as made:
                fn(*args, **kwargs)
            return made

        return make

    if callable(dag_id):
        fn, dag_id = dag_id, None
        return decorate(fn)
    return decorate
