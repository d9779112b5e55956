"""DAGs while they are declared: nodes, edges, and who is being built."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from ._fault import DagError, blame, declared_at, declaring_module

_ID = re.compile(r"[\w.-]{1,250}")

#: What was declared in this process, in order: DAGs, and functions that build one.
declared: List[Any] = []

_building: List["Dag"] = []


def building() -> Optional["Dag"]:
    """The DAG whose body is being executed, if any."""
    return _building[-1] if _building else None


class Dag:
    """One DAG: its nodes by id, in order of declaration, and its fields of the manifest."""

    def __init__(
        self, id: str, fields: Dict[str, Any], defaults: Dict[str, Any], at: Optional[Tuple[str, int]] = None
    ) -> None:
        self.file, self.line = at or declared_at()
        check_id("a DAG", id, (self.file, self.line))
        self.id = id
        self.module = declaring_module()
        self.fields = fields
        #: Fields of the manifest that hold for every task which does not set them itself.
        self.defaults = defaults
        self.nodes: Dict[str, Node] = {}
        #: Those of them that were declared as sources; a sensor becomes one later.
        self.declared_sources: List[Source] = []
        self._numbered: Dict[Tuple[str, str], int] = {}
        #: The root that a schedule stands for: the kind of source, and its config.
        self.clock: Optional[Tuple[str, Dict[str, Any]]] = None
        #: After so many failed laps in a row `@continuous` ends; 0: never.
        self.failures_in_a_row = 0
        #: That root is there.
        self.begun = False
        #: Airflow's `params`: constants the context shows.
        self.params: Dict[str, Any] = {}

    def free_id(self, wanted: str, pattern: str = "{}_{}", first: int = 2) -> str:
        """`wanted`, or numbered when a node has it."""
        if wanted not in self.nodes:
            return wanted
        # Numbers before this one are taken for good: no node ever leaves.
        number = self._numbered.get((wanted, pattern), first)
        while pattern.format(wanted, number) in self.nodes:
            number += 1
        self._numbered[wanted, pattern] = number
        return pattern.format(wanted, number)

    @contextmanager
    def build(self) -> Iterator["Dag"]:
        """Nodes made within belong to this DAG."""
        _building.append(self)
        try:
            yield self
        finally:
            _building.remove(self)

    def tasks(self) -> List["Task"]:
        return [node for node in self.nodes.values() if isinstance(node, Task) and not node.is_source]

    def sources(self) -> List["Node"]:
        return [node for node in self.nodes.values() if node.is_source]

    def __repr__(self) -> str:
        return f"<DAG {self.id}>"


class Node:
    """A source or a task. `a >> b` and `b << a` say that b comes after a."""

    #: A sensor that is promoted (W7) becomes one, too.
    is_source = False
    #: What the engine asks the file about where this is a source, by option (`_asked.py`).
    functions: Dict[str, Callable[..., Any]] = {}

    def __init__(self, id: str, dag: Optional[Dag]) -> None:
        dag = dag or building()
        if dag is None:
            raise DagError(
                "no_dag", f"{id!r} is declared outside of a DAG", "declare it in a function under @evermill.dag"
            )
        self.file, self.line = declared_at(dag.file)
        check_id("a node", id, (self.file, self.line))
        other = dag.nodes.get(id)
        if other is not None:
            blame(
                DagError(
                    "duplicate_id",
                    f"DAG {dag.id!r} has two nodes {id!r}: the other one is at line {other.line}",
                    "give one of them another id",
                    (self.file, self.line),
                )
            )
            id = dag.free_id(id)
        self.id = id
        self.dag = dag
        #: Nodes right before this one; a dict for its order.
        self.upstream: Dict[Node, None] = {}
        dag.nodes[id] = self

    def after(self, other: "Node") -> None:
        if other.dag is not self.dag:
            blame(
                DagError(
                    "unknown_upstream",
                    f"{self.id!r} of DAG {self.dag.id!r} cannot come after {other.id!r} of DAG {other.dag.id!r}",
                    "an edge joins two nodes of the same DAG",
                )
            )
            return
        self.upstream[other] = None

    def ancestors(self) -> Dict["Node", None]:
        """All nodes before this one, nearest first."""
        found: Dict[Node, None] = {}
        waiting = list(self.upstream)
        while waiting:
            node = waiting.pop(0)
            if node not in found:
                found[node] = None
                waiting.extend(node.upstream)
        return found

    def __rshift__(self, others: Any) -> Any:
        for node in nodes(others):
            node.after(self)
        return others

    def __lshift__(self, others: Any) -> Any:
        for node in nodes(others):
            self.after(node)
        return others

    def __rrshift__(self, others: Any) -> "Node":
        self << others
        return self

    def __rlshift__(self, others: Any) -> "Node":
        self >> others
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.dag.id}.{self.id}>"


class Source(Node):
    """A root that listens for ever; pass it to a task to hand over its events."""

    is_source = True

    #: Of a loop: what says, at the end of a lap, that it was the last one.
    until: Optional[Callable[..., Any]] = None
    #: What says of each event whether it is valid.
    validator: Optional[Callable[..., Any]] = None

    def __init__(self, kind: str, config: Dict[str, Any], name: Optional[str], fields: Dict[str, Any]) -> None:
        dag = building()
        super().__init__(name or (dag.free_id(kind) if dag else kind), dag)
        self.config = {"kind": kind, **config}
        self.dag.declared_sources.append(self)
        self.fields = fields

    def after(self, other: Node) -> None:
        blame(DagError("bad_edge", f"source {self.id!r} cannot come after {other.id!r}", "a source is a root"))

    def batch(self, *, max_events: int, linger: Any = 0) -> "Source":
        """Makes each activation a list of events: at most `max_events`, none waiting longer than `linger`."""
        from ._option import convert, milliseconds, whole

        known = {"max_events": ("max_events", whole(1)), "linger": ("linger_ms", milliseconds)}
        fields = convert(f"batch of source {self.id!r}", known, {"max_events": max_events, "linger": linger})
        self.fields["batch"] = {name: value for name, value in fields.items() if value or name == "max_events"}
        return self


class Task(Node):
    """A task of a DAG. It also stands for its result: pass it to a task to hand that over."""

    #: What the engine waits for, in place of a call.
    wait: Dict[str, Any] = {}
    #: How it is asked, if it is a sensor that an attempt answers for: the manifest's `poke`.
    poking: Dict[str, Any] = {}
    #: What it asks over HTTP, in place of a function.
    polls: Optional[Dict[str, Any]] = None
    #: For a sensor that can listen: the `config` of the source it may become (W7).
    listens: Optional[Dict[str, Any]] = None
    #: A sensor whose function can be asked where no activation is: it may become a source that does that.
    may_be_asked = False
    #: What it says to which topics once it has succeeded.
    outlets: List[Tuple[str, Dict[str, Any]]] = []
    #: Where its value goes, in place of a function.
    sink: Optional[Dict[str, Any]] = None

    def __init__(
        self,
        id: str,
        kind: str,
        fn: Optional[Callable[..., Any]] = None,
        args: Tuple[Any, ...] = (),
        kwargs: Optional[Dict[str, Any]] = None,
        fields: Optional[Dict[str, Any]] = None,
        dag: Optional[Dag] = None,
    ) -> None:
        super().__init__(id, dag)
        self.kind = kind
        self.fn = fn
        self.args = args
        self.kwargs = kwargs or {}
        self.fields = fields or {}
        #: Parameter -> list (or node whose result is one) to run once per item of (W9).
        self.mapped: Dict[str, Any] = {}
        for node in nodes_within((args, self.kwargs)):
            self.after(node)

    def map_over(self, lists: Dict[str, Any]) -> None:
        self.mapped = lists
        for node in nodes_within(lists):
            self.after(node)


def nodes(value: Any) -> List[Node]:
    """The nodes an edge operator was given: one, or a list of them."""
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    for node in found:
        if not isinstance(node, Node):
            name = getattr(node, "__name__", None)
            cure = f"call it: {name}()" if name else "an edge joins tasks and sources"
            blame(DagError("bad_edge", f"{_shown(node)} is no task or source of this DAG", cure))
    return [node for node in found if isinstance(node, Node)]


def _shown(value: Any) -> str:
    """A function by its name, so that a message says the same each time."""
    name = getattr(value, "__name__", None)
    return f"the function {name!r}" if name else repr(value)


def nodes_within(value: Any) -> Iterable[Node]:
    """The nodes in an argument, also inside lists, tuples and dicts."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from nodes_within(item)
    elif isinstance(value, dict):
        yield from nodes_within(list(value.values()))


def check_id(what: str, id: Any, at: Tuple[str, int]) -> None:
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise DagError(
            "bad_value", f"{id!r} cannot be the id of {what}", "use letters, digits, '_', '-' and '.', at most 250", at
        )
