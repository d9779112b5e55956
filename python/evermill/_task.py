"""The decorators: `@evermill.task` and `@evermill.dag`."""

from __future__ import annotations

import functools
import inspect
from contextlib import nullcontext
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import _option
from ._dag import Dag, Source, Task, building, declared, nodes_within
from ._fault import DagError, blame, reading
from ._source import alerts


class TaskFunction:
    """A function that makes a task when a DAG calls it, and is the plain function everywhere else."""

    #: How a second task of the same function is numbered.
    numbering = ("{}_{}", 2)

    def __init__(self, fn: Callable[..., Any], kind: str, options: Dict[str, Any], partial: Dict[str, Any]) -> None:
        functools.update_wrapper(self, fn)
        self.__name__: str = getattr(fn, "__name__", type(fn).__name__)
        self.fn = fn
        self.kind = kind
        self.options = options
        self._partial = partial

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        dag = building()
        if dag is None:
            return self.fn(*args, **{**self._partial, **kwargs})
        return self._declare(dag, args, {**self._partial, **kwargs})

    def override(self, **options: Any) -> "TaskFunction":
        """The same function with other options, for one of its tasks."""
        return type(self)(self.fn, self.kind, {**self.options, **options}, self._partial)

    def partial(self, **kwargs: Any) -> "TaskFunction":
        """The same function with some parameters set, usually before `expand`."""
        return type(self)(self.fn, self.kind, self.options, {**self._partial, **kwargs})

    def expand(self, **lists: Any) -> Task:
        """One run per item of each list, or per combination when there are several (W9)."""
        dag = building()
        if dag is None or not lists:
            raise DagError("bad_value", f"{self.__name__}.expand() maps over nothing", "expand(x=...) within a DAG")
        for param, items in lists.items():
            sources = [node for node in nodes_within(items) if isinstance(node, Source)]
            if sources or not isinstance(items, (list, tuple, dict, Task)):
                raise DagError("bad_value", f"{self.__name__}.expand({param}=...) needs a list or a task's result")
        task = self._declare(dag, (), self._partial)
        task.map_over(lists)
        return task

    def settle(self, dag: Optional[Dag]) -> Tuple[Optional[str], Dict[str, Any]]:
        """The name and the fields of the manifest that the options say; without a DAG, as a check."""
        options = dict(self.options)
        name = options.pop("name", None)
        return name, _option.convert(f"task {name or self.__name__!r}", _option.TASK, options)

    def _declare(self, dag: Dag, args: tuple, kwargs: Dict[str, Any]) -> Task:
        name, fields = self.settle(dag)
        id = name or dag.free_id(self.__name__, *self.numbering)
        return Task(id, self.kind, self.fn, args, kwargs, fields, dag)


class TaskDecorator:
    """`@task`, `@task(...)`, and the same for `task.branch` and `task.short_circuit`."""

    def __init__(self, kind: str, makes: type = TaskFunction) -> None:
        self._kind = kind
        self._makes = makes

    def __call__(self, fn: Optional[Callable[..., Any]] = None, /, **options: Any) -> Any:
        if fn is None:
            return functools.partial(self.__call__, **options)
        if not callable(fn):
            raise DagError("bad_value", f"{fn!r} is no function", "write @task or @task(option=value)")
        made = self._makes(fn, self._kind, options, {})
        code = getattr(fn, "__code__", None)  # Python 3.9 takes a decorator's call to the next line
        with reading(code.co_filename, code.co_firstlineno) if code else nullcontext():
            made.settle(None)  # a wrong option shows where it stands
        return made


class Tasks(TaskDecorator):
    """What `evermill.task` is."""

    #: The function is asked until what it waits for is there; `_sensor.py` has it.
    sensor: TaskDecorator

    def __init__(self, makes: type = TaskFunction) -> None:
        super().__init__("call", makes)
        #: The function returns the id, or ids, of the tasks right after it that go on.
        self.branch = TaskDecorator("branch", makes)
        #: A false result skips everything after it.
        self.short_circuit = TaskDecorator("short_circuit", makes)


task = Tasks()


class DagFunction:
    """A function that declares a DAG. It is called once, by the loader or by its author."""

    def __init__(self, fn: Callable[..., Any], made: Dag) -> None:
        functools.update_wrapper(self, fn)
        self.dag = made
        self._fn = fn
        self._called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Dag:
        if not self._called:
            self._called = True
            with self.dag.build():
                self._fn(*args, **kwargs)
        return self.dag


def dag(fn: Optional[Callable[..., Any]] = None, /, **options: Any) -> Any:
    """Declares a DAG: its id is the function's name (or `name=`), its nodes are what the body makes.

    Options: `tags`, `order`, `python`, `on_failure`, `deadline`, `freshness`, `history`, and the
    options of tasks, which then hold for each task that does not set them. `on_deadline` is a task, or a function,
    that runs when deadlines of this DAG are missed, in a DAG of its own (`ID.on_deadline`): `event.json()` is the alert.
    """
    if fn is None:
        return functools.partial(dag, **options)
    if not inspect.isfunction(fn):
        raise DagError("bad_value", f"{fn!r} is no function", "write @dag or @dag(option=value)")
    id = options.pop("name", None) or fn.__name__
    on_deadline = options.pop("on_deadline", None)
    inherited = {name: options.pop(name) for name in _option.INHERITED if name in options}
    fields = _option.convert(f"DAG {id!r}", _option.DAG, options)
    defaults = _option.convert(f"DAG {id!r}", _option.TASK, inherited)
    made = DagFunction(fn, Dag(id, fields, defaults, (fn.__code__.co_filename, fn.__code__.co_firstlineno)))
    declared.append(made)
    if on_deadline is not None:
        beside(made.dag, "on_deadline", on_deadline, ["deadline_missed"])
    return made


def beside(watched: Dag, option: str, fn: Any, kinds: List[str]) -> None:
    """Declares the DAG that runs `fn` for alerts of these kinds about another one."""
    if not callable(fn):
        message = f"DAG {watched.id!r}: {option}={fn!r} is not possible"
        blame(DagError("bad_value", message, "give it a task, or a function", option=option))
        return
    made = Dag(f"{watched.id}.{option}", {}, {}, (watched.file, watched.line))
    with made.build():
        run = task(fn) if inspect.isfunction(fn) else fn
        run(alerts(kinds=kinds, dags=[watched.id]))
    declared.append(made)
