"""From declared DAGs to the manifest, and every fault on the way.

The shape is the engine's; `docs/spec/manifest.md` describes it. A field that holds its default is
left out.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, List, Set

from ._bind import at, bind, check_state
from ._uses import topics
from ._dag import Dag, Node, Source, Task, nodes_within
from ._fault import DagError

FORMAT = 1

_DAG_DEFAULTS = {
    "tags": [],
    "order": "none",
    "on_failure": "park",
    "history": "sampled",
    "schedule": "none",
    "catchup": False,
    "sources": [],
}
_TASK_DEFAULTS = {
    "retries": 0, "retry_exponential_backoff": False, "on_interrupt": "rerun", "priority": 0,
    "trigger_rule": "all_success", "env": {}, "nice": 0, "connections": [], "secrets": [],
}  # fmt: skip


def is_ordered(dag: Dag) -> bool:
    """Whether all of its activations are in some order (W4): a source's word goes before the DAG's."""
    own = dag.fields.get("order", "none")
    orders = [node.fields.get("order", own) if isinstance(node, Source) else own for node in dag.sources()]
    return "none" not in (orders or [own])


def faults(dag: Dag) -> List[DagError]:
    """All that is wrong with a DAG whose nodes could be made."""
    found: List[DagError] = []

    def check(rule: Callable[..., Any], *args: Any) -> Any:
        try:
            return rule(*args)
        except DagError as fault:
            found.append(fault)

    for rule in (_check_cycle, _check_schedule, _check_reach):
        check(rule, dag)
    ordered = is_ordered(dag)
    for source in dag.sources():
        if isinstance(source, Task) and source.may_be_asked:
            check(bind, source)
    for task in dag.tasks():
        check(_check_task, task, ordered)
    return found


def _check_task(task: Task, ordered: bool) -> None:
    if task.kind == "sensor" and not (task.wait or task.poking):
        what = f"sensor {task.id!r} comes after a task that does work"
        cure = "put it at the root, where it listens for ever"
        raise DagError("not_built", f"{what}, and it cannot be asked inside an activation", cure, at(task))
    if task.poking and options(task).get("on_interrupt") == "fail":
        what = f"sensor {task.id!r} is asked more than once by nature"
        raise DagError("bad_value", what, "leave on_interrupt='fail' out", at(task))
    bind(task)
    _check_rule(task)
    if not ordered:
        check_state(task)
        if task.fields.get("on_failure", task.dag.fields.get("on_failure")) == "block":
            raise DagError(
                "block_needs_order",
                f"task {task.id!r} has on_failure='block' and order='none', so nothing could wait for it",
                "set order='key', 'partition' or 'serial', or use on_failure='park'",
                at(task),
            )


#: Rules that want something of an upstream which a source never gives: it fires, or nothing runs.
_NOT_OF_SOURCES = ("all_failed", "one_failed", "all_skipped")


def _check_rule(task: Task) -> None:
    rule = task.fields.get("trigger_rule")
    if rule in _NOT_OF_SOURCES and len(task.upstream) == 1 and next(iter(task.upstream)).is_source:
        raise DagError(
            "rule_never_holds",
            f"task {task.id!r} has trigger_rule={rule!r} and comes after a source, which neither fails nor skips",
            "leave trigger_rule out, or put the task after one that can fail or skip",
            at(task),
        )


def _check_schedule(dag: Dag) -> None:
    schedule = dag.fields.get("schedule", "none")
    where = (dag.file, dag.line)
    if schedule == "once" and dag.sources():
        message = f"DAG {dag.id!r} runs once, by schedule='@once', so its sources would never fire"
        raise DagError("never_fires", message, "use schedule=None", where)


def _check_cycle(dag: Dag) -> None:
    """Depth first; the path that comes back to where it is becomes the message."""
    done: Set[Node] = set()
    for root in dag.nodes.values():
        path = {root: None}
        stack = [(root, iter(root.upstream))] if root not in done else []
        while stack:
            node, rest = stack[-1]
            before = next(rest, None)
            if before is None:
                stack.pop()
                path.pop(node)
                done.add(node)
            elif before in path:
                around = list(path)[list(path).index(before) :]
                ids = " >> ".join(step.id for step in [before, *reversed(around)])
                raise DagError("cycle", f"tasks wait for each other: {ids}", "remove one of the edges", at(before))
            elif before not in done:
                path[before] = None
                stack.append((before, iter(before.upstream)))


def _check_reach(dag: Dag) -> None:
    tasks, sources = dag.tasks(), dag.sources()
    if not tasks:
        cure = "pass the source to a task" if sources else "call a function under @evermill.task in its body"
        raise DagError("no_task", f"DAG {dag.id!r} has no task, so nothing would run", cure, (dag.file, dag.line))
    for source in sources:
        if not any(source in task.upstream for task in tasks):
            raise DagError(
                "no_task", f"no task comes after source {source.id!r}", "pass it to a task, or remove it", at(source)
            )
    reached = passed(dag, sources)
    for task in tasks:
        if sources and task not in reached:
            raise DagError(
                "never_runs",
                f"no source of DAG {dag.id!r} leads to task {task.id!r}, nor to what comes after it, so nothing would ever run it",
                "connect it to what a source leads to, or put it in a DAG of its own",
                at(task),
            )


def passed(dag: Dag, sources: Iterable[Node]) -> Set[Node]:
    """What runs for events of one of these sources (W7): what comes after them, what comes before that,
    and what comes after this in turn."""
    before = {node: set(node.upstream) for node in dag.nodes.values()}
    after: Dict[Node, Set[Node]] = {node: set() for node in before}
    for node, upstream in before.items():
        for other in upstream:
            after[other].add(node)
    return _closure(_closure(_closure(sources, after), before), after)


def _closure(start: Iterable[Node], edges: Dict[Node, Set[Node]]) -> Set[Node]:
    found: Set[Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(edges[node])
    return found


def dag_manifest(dag: Dag, folder: str, entry: str) -> Dict[str, Any]:
    """One DAG without faults, as the manifest has it."""
    fields = {name: value for name, value in dag.fields.items() if name != "freshness_ms"}
    made = {
        "id": dag.id,
        "file": relative(dag.file, folder) or entry,
        "line": dag.line,
        **fields,
        "sources": [source_manifest(node) for node in dag.sources()],
        "tasks": [_task(task) for task in dag.tasks()],
    }
    return _without(made, _DAG_DEFAULTS)


def relative(file: str, folder: str) -> str:
    """The path from the DAG folder, with `/`; empty when the file is elsewhere."""
    path = os.path.relpath(os.path.realpath(file), os.path.realpath(folder))
    return "" if path.startswith(os.pardir + os.sep) else path.replace(os.sep, "/")


def source_manifest(node: Node) -> Dict[str, Any]:
    """One source, as the manifest has it."""
    made: Dict[str, Any] = {"id": node.id, "line": _line(node)}
    if isinstance(node, Task):
        made["config"] = node.listens
        made["promoted_from_task"] = node.id
        made["after"] = [before.id for before in node.upstream]
    elif isinstance(node, Source):
        made["config"] = node.config
        made.update(node.fields)
    if "freshness_ms" in node.dag.fields:
        made.setdefault("freshness_ms", node.dag.fields["freshness_ms"])
    return _without(made, {"after": []})


def options(task: Task) -> Dict[str, Any]:
    """What the task's options say, with those that its DAG sets for all."""
    fields = {**task.dag.defaults, **task.fields}
    if "env" in fields:
        fields["env"] = {**task.dag.defaults.get("env", {}), **fields["env"]}
    for name in ("connections", "secrets"):
        if name in fields:
            fields[name] = sorted({*task.dag.defaults.get(name, []), *fields[name]})
    return fields


def _task(task: Task) -> Dict[str, Any]:
    fields = options(task)
    if "cwd" in fields:
        # Said once and for all here: a worker runs a copy of the file, somewhere else.
        home = os.path.dirname(os.path.abspath(task.dag.file))
        fields["cwd"] = os.path.normpath(os.path.join(home, fields["cwd"]))
    made = {
        "id": task.id,
        "kind": task.kind,
        "line": _line(task),
        "upstream": [_edge(task, node) for node in task.upstream],
        **_without(fields, _TASK_DEFAULTS),
        "emits": sorted({topic for topic, _ in task.outlets} | topics(task.fn)),
        "wants": bind(task).wants,
        "sink": task.sink or {},
        "wait": task.wait,
        "poke": task.poking,
        "polls": task.polls or {},
        "mapped": {"over": [_map_over(name, items) for name, items in task.mapped.items()]} if task.mapped else {},
    }
    empty = {"upstream": [], "emits": [], "wants": {}, "mapped": {}, "sink": {}, "wait": {}, "poke": {}, "polls": {}}
    return _without(made, empty)


def _edge(task: Task, node: Node) -> Dict[str, Any]:
    edge = {"node": node.id, "kind": "source" if node.is_source else "task"}
    arguments = bind(task).arguments
    read = list(nodes_within([task.mapped, *(argument.what for argument in arguments)]))
    # `event` by name reads from the source as passing the source does.
    by_name = node.is_source and any(
        argument.how in ("event", "events") and argument.what is None for argument in arguments
    )
    return {**edge, "reads_result": True} if node in read or by_name else edge


def _map_over(param: str, items: Any) -> Dict[str, Any]:
    return {"param": param, "list": {"task": items.id} if isinstance(items, Node) else {"literal": len(items)}}


def _line(node: Node) -> int:
    return node.line if node.file == node.dag.file else node.dag.line


def _without(fields: Dict[str, Any], defaults: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in defaults or defaults[name] != value}
