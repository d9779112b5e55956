"""What each parameter of a task's callable gets. Decided once, when the DAG is loaded.

A source or a result that was passed as an argument binds its parameter, whatever its name. The
other parameters are bound by name: `event`, `events`, `ctx`, a task or source before this one, a key
of Airflow's context. `**kwargs` gets Airflow's context, with `event`.

Several sources can feed a task (W6). Each then has its own event; `events` are all of them.
"""

from __future__ import annotations

import inspect
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from ._airflow_context import KEYS
from ._dag import Node, Task, nodes_within
from ._fault import DagError, nearest
from ._uses import emits, uses


class Argument(NamedTuple):
    """One argument of the call."""

    #: The keyword; None for a positional argument, `*` and `**` for what is unpacked.
    name: Optional[str]
    #: `event`, `source` (the event of one of several), `events` (of all of them), `ctx`, `given` (a value, maybe with nodes
    #: in it), `item` (of a mapped list),
    #: `key` (of Airflow's context), `rest` (all of it but some names).
    how: str
    what: Any = None


class Binding(NamedTuple):
    """The arguments of a call, and what has to be shipped for them."""

    arguments: List[Argument]
    wants: Dict[str, Any]


def bind(task: Task) -> Binding:
    """Binds every parameter, or raises the fault that says which one has no source."""
    try:
        signature = inspect.signature(task.fn) if task.fn else inspect.Signature()
    except (ValueError, TypeError):  # some built-in callables have none
        signature = inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])
    try:
        given = signature.bind_partial(*task.args, **{**task.kwargs, **dict.fromkeys(task.mapped)}).arguments
    except TypeError as why:
        raise DagError("bad_call", f"task {task.id!r} cannot be called like this: {why}", at=at(task)) from None
    arguments = _arguments(task, signature, given)
    return Binding(arguments, _wants(task, arguments))


def called_with(fn: Any, args: Sequence[Any], known: Dict[str, Any]) -> Dict[str, Any]:
    """The keywords of a call as Airflow makes it: what of `known` the function names, or all of it."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError):
        return {}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        taken = {one.name for one in parameters[: len(args)]}
        return {name: value for name, value in known.items() if name not in taken}
    plain = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    free = plain[len(args) :] if len(args) <= len(plain) else []
    return {one.name: known[one.name] for one in free if one.name in known}


def at(node: Node) -> Any:
    return node.file, node.line


def is_batched(task: Task) -> bool:
    """Whether an activation of this task's DAG is a list of events."""
    return any("batch" in source.fields for source in task.dag.declared_sources)


def joins(task: Task) -> bool:
    """Whether several sources feed the task."""
    return sum(node.is_source for node in task.ancestors()) > 1


def _arguments(task: Task, signature: inspect.Signature, given: Dict[str, Any]) -> List[Argument]:
    arguments: List[Argument] = []
    positional = True
    for parameter in signature.parameters.values():
        name, kind = parameter.name, parameter.kind
        if kind is parameter.VAR_POSITIONAL:
            arguments.extend(Argument(None, "given", value) for value in given.get(name, ()))
        elif kind is parameter.VAR_KEYWORD:
            extra = given.get(name, {})
            arguments.extend(_argument(task, key, key, value) for key, value in extra.items())
            arguments.append(Argument("**", "rest", frozenset(signature.parameters) | frozenset(extra)))
        else:
            keyword = None if positional and kind is not parameter.KEYWORD_ONLY else name
            if name in given:
                arguments.append(_argument(task, keyword, name, given[name]))
            else:
                found = _by_name(task, keyword, name)
                if found is not None:
                    arguments.append(found)
                elif parameter.default is parameter.empty:
                    raise _unbound(task, name)
                else:
                    positional = False
    return arguments


def _argument(task: Task, keyword: Optional[str], name: str, value: Any) -> Argument:
    if name in task.mapped:
        return Argument(keyword, "item", list(task.mapped).index(name))
    if isinstance(value, Node) and value.is_source:
        return Argument(keyword, "source" if joins(task) else "event", value)
    return Argument(keyword, "given", value)


def _by_name(task: Task, keyword: Optional[str], name: str) -> Optional[Argument]:
    many = is_batched(task) or "batch" in task.fields
    if name == ("events" if many else "event"):
        return Argument(keyword, "event")
    if name == "events" and joins(task):
        return Argument(keyword, "events")
    if name == ("ctxs" if "batch" in task.fields else "ctx"):
        return Argument(keyword, "ctx", name)
    for node in task.ancestors():
        if node.id == name:
            return _argument(task, keyword, name, node)
    if name in KEYS and name != "event":
        return Argument(keyword, "key", name)
    return None


def _unbound(task: Task, name: str) -> DagError:
    many = is_batched(task) or "batch" in task.fields
    known = {"events" if many else "event", "ctx"} | {node.id for node in task.ancestors()}
    if name == "event":
        cure = "this is a batch: call the parameter events"
    elif name == "events":
        cure = "call it event: one source feeds the task, and its activation is one event"
    else:
        cure = nearest(name, known | KEYS) if _is_near(name, known | KEYS) else nearest(name, known)
    return DagError("unbound_parameter", f"task {task.id!r}: nothing is bound to parameter {name!r}", cure, at(task))


def _is_near(word: str, known: Any) -> bool:
    return nearest(word, known).startswith("did you mean")


def _wants(task: Task, arguments: List[Argument]) -> Dict[str, Any]:
    """The manifest's `wants`; what is uncertain is wanted."""
    results: Dict[str, None] = {}
    event = ctx = state = reads = False
    for argument in arguments:
        if argument.how == "event":
            event = True
        elif argument.how in ("source", "events"):
            event = ctx = True
        elif argument.how == "ctx":
            used = uses(task.fn, argument.what) if task.fn else set()
            ctx = True
            event = event or used is None or any(name in ("event", "events") for name, _ in used)
            state = state or used is None or any(name == "state" for name, _ in used)
            # Who holds on to `ctx.state` means to read it; of who passes on `ctx` nothing is known.
            reads = reads or any(name == "state" and op in ("get", None) for name, op in used or ())
        elif argument.how in ("key", "rest"):
            ctx = event = True
        elif argument.how == "given":
            for node in nodes_within(argument.what):
                event = event or node.is_source
                ctx = ctx or (node.is_source and joins(task))
                if not node.is_source:
                    results[node.id] = None
    for node in nodes_within(task.mapped):
        results[node.id] = None
    ctx = ctx or bool(results) or bool(task.mapped) or bool(task.outlets) or emits(task.fn)
    found = {"event": event, "ctx": ctx, "state": state, "reads_state": reads, "results": list(results)}
    return {name: value for name, value in found.items() if value}


def check_state(task: Task) -> None:
    """Refuses what W5 refuses, where the bytecode is certain: reading state without an order."""
    used = uses(task.fn, "ctx") if task.fn else None
    for name, op in sorted(used or (), key=str):
        if name == "state" and op in ("get", "set", "delete"):
            raise DagError(
                "state_needs_order",
                f"task {task.id!r} calls ctx.state.{op}(), and events of DAG {task.dag.id!r} are in no order",
                "set order='key', 'partition' or 'serial', or use incr, max or set_add",
                at(task),
            )
