"""The seam to the worker: a task of a DAG file as something that runs.

Everything that can be decided is decided when a program is loaded: its `run` is one function whose
source text was made for the task's parameters, so that a call costs what the call itself costs.
"""

from __future__ import annotations

import inspect
import os
from typing import Any, Callable, Dict, List, Optional

from . import _airflow_context, _dag, _world, context
from ._asked import POKE, Asked, poked
from ._bind import Argument, bind, joins
from ._dag import Dag, Node, Task, nodes_within
from ._fault import DagError, nearest
from ._file import dags, import_file
from ._manifest import is_ordered, options
from ._surroundings import Surroundings
from .context import Context
from ._uses import emits

make_context = Context


class Program:
    """One task, ready to run."""

    __slots__ = (
        "id", "kind", "plain", "run", "run_batch", "run_async", "wants_event", "wants_ctx", "surroundings", "concurrency",
        "dag_id", "params", "ordered",
    )  # fmt: skip

    def __init__(self, task: Task) -> None:
        binding = bind(task)
        self.id = task.id
        self.dag_id = task.dag.id
        #: What its version of the DAG says.
        self.params: Dict[str, Any] = task.dag.params
        self.ordered = is_ordered(task.dag)
        said = options(task)
        self.surroundings = Surroundings(task.id, said)
        #: How many members may run at once. One that must not run twice is never in company: who
        #: had started when a process died must be certain then.
        self.concurrency: int = 1 if said.get("on_interrupt") == "fail" else said.get("concurrency", 1)
        #: `call`, `branch`, `short_circuit` or `noop`.
        self.kind = task.kind
        #: Whether `run` looks at its first argument, and at its second one.
        self.wants_event: bool = binding.wants.get("event", False)
        self.wants_ctx: bool = binding.wants.get("ctx", False)
        #: `run(event, ctx)` runs one member. A batch of a source is a list of events.
        self.run: Callable[[Any, Any], Any]
        #: `run_batch(events, ctxs)` runs many members in one call; None unless the task has `batch=`.
        self.run_batch: Optional[Callable[[List[Any], List[Any]], List[Any]]] = None
        #: The task's own function, if all there is to a call is to hand it the event.
        self.plain: Optional[Callable[[Any], Any]] = None
        #: As `run`, to be awaited; None unless the function is a coroutine function that runs in company.
        self.run_async: Optional[Callable[[Any, Any], Any]] = None
        if self.concurrency > 1 and inspect.iscoroutinefunction(task.fn) and not task.outlets:
            self.run_async = _compile(task, binding.arguments, awaits=False)
            if task.kind == "branch":
                self.run_async = _awaited_branch(task, self.run_async)
        call = _telling(task, _compile(task, binding.arguments))
        if "batch" in task.fields:
            self.run_batch = _checked_batch(task.id, call)
            self.run = _single(self.run_batch)
        elif task.kind == "branch":
            self.run = _checked_branch(task, call)
        else:
            self.run = call
            if task.kind == "call" and _is_plain(task, binding.arguments):
                self.plain = task.fn


_loaded: Dict[str, Dict[str, Dag]] = {}


def load_program(entry: str, dag_id: str, task_id: str, folder: Optional[str] = None) -> Any:
    """Loads a task of the DAG file `entry`, or a function of one of its sources or sensors (`id?option`); the file itself
    is executed once per process."""
    path = os.path.abspath(entry)
    if path not in _loaded:
        made = dags(import_file(path, folder))
        _dag.declared.clear()
        while len(_loaded) >= _world.WORLDS_MAX:
            del _loaded[next(iter(_loaded))]
        _loaded[path] = made
    dag = _named("DAG", dag_id, _loaded[path], path)
    source, asked, option = task_id.partition("?")
    if asked:
        whose = _named("source or sensor", source, dag.nodes, path)
        program: Any = _poked(whose, task_id) if option == POKE and isinstance(whose, Task) else Asked(whose, option, _awaited)
        program.dag_id, program.params, program.ordered = dag_id, dag.params, is_ordered(dag)
        settle(program, folder or os.path.dirname(path))
        return program
    task = _named("task", task_id, {task.id: task for task in dag.tasks()}, path)
    program = Program(task)
    settle(program, folder or os.path.dirname(path))
    return program


def _poked(sensor: Any, id: str) -> Program:
    """A root sensor as a source has it asked."""
    program = Program(sensor)
    program.run, program.id, program.kind = poked(program.run), id, "call"
    program.plain = program.run_async = None
    return program


def settle(program: Any, folder: str) -> None:
    """Puts in place what a program finds around it: its bundle's modules, and what its version of the DAG says."""
    _world.enter(os.path.abspath(folder))
    (context.ordered.add if program.ordered else context.ordered.discard)(program.dag_id)
    _airflow_context.params[program.dag_id] = program.params


def _named(what: str, id: str, known: Dict[str, Any], path: str) -> Any:
    if id not in known:
        raise DagError("no_dag", f"{path} declares no {what} {id!r}", nearest(id, known), (path, 0))
    return known[id]


# A call as source text.


def _compile(task: Task, arguments: List[Argument], awaits: bool = True) -> Callable[[Any, Any], Any]:
    """`run(event, ctx)`, or `run_batch(events, ctxs)` for a task with `batch=`."""
    fn: Callable[..., Any] = task.fn or (lambda: None)
    if awaits and inspect.iscoroutinefunction(fn):
        fn = _awaited(fn)
    if _takes_both(arguments) and "batch" not in task.fields:
        return fn
    names: Dict[str, Any] = {"fn": fn, "view": _airflow_context.view, "result": _result, "item": _item, "rest": _rest}
    names.update(event_of=_event_of, lists=list(task.mapped.values()), several=joins(task))
    texts = [_text(argument.how, argument.what, names) for argument in arguments]
    params = "event, ctx"
    if "batch" in task.fields:
        texts, params = [_each(text) for text in texts], "events, ctxs"
    parts = ", ".join(_part(argument.name, text) for argument, text in zip(arguments, texts))
    source = f"lambda {params}: fn({parts})"
    return eval(compile(source, f"<call of {task.id}>", "eval"), names)


def _telling(task: Task, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The call, and what it says to other DAGs when it has succeeded."""
    if not task.outlets:
        return call

    def run(event: Any, ctx: Any) -> Any:
        value = call(event, ctx)
        for topic, said in task.outlets:
            ctx.emit(topic, {**said, "dag_id": task.dag.id, "task_id": task.id})
        return value

    return run


def _takes_both(arguments: List[Argument]) -> bool:
    return [(argument.name, argument.how) for argument in arguments] == [(None, "event"), (None, "ctx")]


def _is_plain(task: Task, arguments: List[Argument]) -> bool:
    takes_event = [(argument.name, argument.how) for argument in arguments] == [(None, "event")]
    return takes_event and not task.outlets and not emits(task.fn) and not inspect.iscoroutinefunction(task.fn)


def _part(name: Optional[str], text: str) -> str:
    return text if name is None else f"**{text}" if name == "**" else f"{name}={text}"


def _each(text: str) -> str:
    """The same for all members of a vectorised call."""
    if text in ("event", "ctx"):
        return text + "s"
    each = "ctx" in text or "event" in text
    return f"[{text} for event, ctx in zip(events, ctxs)]" if each else text


def _text(how: str, what: Any, names: Dict[str, Any]) -> str:
    if how in ("event", "ctx"):
        return how
    if how == "events":
        return "ctx.events"
    if how == "key":
        return f"view(ctx)[{what!r}]"
    if how == "item":
        return f"item(ctx, lists, {what})"
    if how == "rest":
        return f"rest(ctx, {_constant(what, names)})"
    return _given(what, names)


def _given(value: Any, names: Dict[str, Any]) -> str:
    if isinstance(value, Node):
        if value.is_source:
            return f"event_of(ctx, {value.id!r})" if names["several"] else "event"
        return f"result(ctx, {value.id!r})"
    if isinstance(value, (list, tuple)) and _has_nodes(value):
        inner = "".join(_given(item, names) + ", " for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, dict) and _has_nodes(value):
        return "{" + ", ".join(f"{_constant(key, names)}: {_given(item, names)}" for key, item in value.items()) + "}"
    return _constant(value, names)


def _has_nodes(value: Any) -> bool:
    return next(iter(nodes_within(value)), None) is not None


def _constant(value: Any, names: Dict[str, Any]) -> str:
    name = f"c{len(names)}"
    names[name] = value
    return name


# What the text calls.


def _result(ctx: Context, task_id: str) -> Any:
    return ctx._handle.result_of(task_id)


def _event_of(ctx: Context, source: str) -> Any:
    return ctx._handle.event_of(source)


def _rest(ctx: Context, taken: frozenset) -> Dict[str, Any]:
    return {name: value for name, value in _airflow_context.view(ctx).items() if name not in taken}


def _item(ctx: Context, lists: List[Any], which: int) -> Any:
    """The item of list number `which` for this map index: the last list turns fastest (W9)."""
    index = ctx.map_index
    for number in range(len(lists) - 1, -1, -1):
        value = lists[number]
        items = _result(ctx, value.id) if isinstance(value, Node) else value
        items = list(items.items()) if isinstance(items, dict) else items
        index, place = divmod(index, len(items))
        if number == which:
            return items[place]
    raise IndexError(which)


# What surrounds the call where its result means something.


def _awaited(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A coroutine function as a plain one, on one event loop per process."""
    return lambda *args, **kwargs: event_loop().run_until_complete(fn(*args, **kwargs))


_loops: Dict[int, Any] = {}


def event_loop() -> Any:
    """Made when it is first needed: the fork server loads programs, and a loop does not survive a fork."""
    pid = os.getpid()
    if pid not in _loops:
        import asyncio

        _loops[pid] = asyncio.new_event_loop()
    return _loops[pid]


def _checked_branch(task: Task, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    check = _choice(task)
    return lambda event, ctx: check(call(event, ctx))


def _awaited_branch(task: Task, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    check = _choice(task)

    async def run(event: Any, ctx: Any) -> Any:
        return check(await call(event, ctx))

    return run


def _choice(task: Task) -> Callable[[Any], Any]:
    """Refuses what a branch cannot choose."""
    after = frozenset(node.id for node in task.dag.tasks() if task in node.upstream)

    def check(chosen: Any) -> Any:
        ids = [] if chosen is None else [chosen] if isinstance(chosen, str) else list(chosen)
        for id in ids:
            if id not in after:
                raise ValueError(
                    f"branch {task.id!r} chose {id!r}, which does not come right after it; {nearest(str(id), after)}"
                )
        return chosen

    return check


def _checked_batch(task_id: str, call: Callable[[Any, Any], Any]) -> Callable[[List[Any], List[Any]], List[Any]]:
    def run_batch(events: List[Any], ctxs: List[Any]) -> List[Any]:
        values = call(events, ctxs)
        if values is None:
            return [None] * len(events)
        if not isinstance(values, (list, tuple)) or len(values) != len(events):
            raise ValueError(
                f"task {task_id!r} has batch=: return None, or a list with one value for each of the {len(events)} events"
            )
        return list(values)

    return run_batch


def _single(run_batch: Callable[[List[Any], List[Any]], List[Any]]) -> Callable[[Any, Any], Any]:
    return lambda event, ctx: run_batch([event], [ctx])[0]
