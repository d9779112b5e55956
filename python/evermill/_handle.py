"""What a task's `ctx` stands on: one member of one dispatch, and the way to the engine."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from . import _frames, _values
from .event import moment


#: What is missing is an error, and what to do about it.
MISSING = {
    "variable": "",
    "connection": ": give it an address by --connection {0}=..., or `evermill connections set {0}`",
    "secret": ": set it by `evermill secrets set {0}`",
}


class Missing(KeyError):
    """A sentence where `KeyError` would show it in quotes."""

    def __str__(self) -> str:
        return str(self.args[0])


def missing(kind: str, name: str) -> KeyError:
    return Missing(f"there is no {kind} {name!r}{MISSING[kind].format(name)}")


def undeclared(task: str, kind: str, name: str) -> str:
    """The engine says the same (crates/evermill-engine/src/workers.rs)."""
    return (
        f"task {task!r} does not declare the {kind} {name!r}, so it does not get it: "
        f'write {kind}s=["{name}"] on the task, or on its DAG'
    )


class Handle:
    """One attempt of one activation."""

    __slots__ = ("_worker", "_dispatch", "_member", "_activation", "state_ops", "xcoms", "says")

    def __init__(self, worker: Any, dispatch: _frames.Dispatch, member: int) -> None:
        self._worker = worker
        self._dispatch = dispatch
        self._member = member
        self._activation: Optional[bytes] = None
        #: Changes of state so far; they count only if the member succeeds.
        self.state_ops: Optional[List[Dict[str, Any]]] = None
        #: Values pushed so far, encoded.
        self.xcoms: Optional[Dict[str, str]] = None
        #: Messages to topics so far.
        self.says: Optional[List[Dict[str, str]]] = None

    @property
    def event(self) -> Any:
        return self._dispatch.event(self._member)

    @property
    def events(self) -> List[Any]:
        return self._dispatch.seen(self._member)

    def event_of(self, source: str) -> Any:
        return self._dispatch.event_of(self._member, source)

    @property
    def dag_id(self) -> str:
        return self._dispatch.dag

    @property
    def run_id(self) -> str:
        return self._dispatch.run

    @property
    def task_id(self) -> str:
        return self._dispatch.task

    @property
    def try_number(self) -> int:
        return self._dispatch.table.number("try_number", self._member, 1)

    @property
    def map_index(self) -> int:
        return self._dispatch.table.number("map_index", self._member, -1)

    @property
    def conf(self) -> Any:
        """What a trigger by hand brought along."""
        table = self._dispatch.table
        value = None if table.number("has_event", self._member, 1) else table.part("value", self._member)
        return {} if value is None else _values.decode(value)

    @property
    def logical_date(self) -> Any:
        """The instant the activation stands for."""
        table = self._dispatch.table
        milliseconds = table.number("timestamp", self._member, -(2**63))
        return None if milliseconds == -(2**63) else moment(milliseconds)

    def effect_key(self, call: int) -> str:
        if self._activation is None:
            self._activation = self._dispatch.activation(self._member)
        return _frames.effect_key(self._activation, self._dispatch.task, self.map_index, call)

    @property
    def traceparent(self) -> Optional[str]:
        return self._dispatch.traceparent(self._member)

    @property
    def tracestate(self) -> Optional[str]:
        return self._dispatch.tracestate(self._member)

    def result_of(self, task_id: str) -> Any:
        """Another task's result: shipped with the dispatch, else asked for."""
        shipped = self._dispatch.results
        key: Tuple[int, str] = (self._member, task_id)
        if key in shipped:
            value = shipped[key]
            return None if value is None else _values.decode(value)
        return self.ask("xcom_pull", task_id=task_id, key="return_value", map_index=None)

    def ask(self, kind: str, **args: Any) -> Any:
        """Asks the engine and waits. None if there is no such value; a `KeyError` if what is
        missing is a variable, a connection or a secret."""
        found, value = self._worker.ask(self._dispatch.call, self._member, {"kind": kind, **args})
        if found:
            return _values.decode(value)
        if kind in MISSING:
            raise missing(kind, next(iter(args.values()), ""))
        return None

    def ended(self, dag_id: str, at: Any) -> Optional[Dict[str, Any]]:
        """How the activation of another DAG for this instant ended, with the states of its tasks; None while it has not."""
        return self.ask("ended", dag=dag_id, at_ms=round(at.timestamp() * 1000))

    def xcom_push(self, key: str, value: Any) -> None:
        if self.xcoms is None:
            self.xcoms = {}
        self.xcoms[key] = _values.encode(value).decode()

    def say(self, topic: str, value: Any, key: Any) -> None:
        from ._inside import message

        if self.says is None:
            self.says = []
        self.says.append(message(topic, value, key))

    def state_op(self, op: str, name: str, value: Any = None) -> Any:
        """`get` answers the committed value with this attempt's own changes; the rest is kept
        until the member ends."""
        if op == "get":
            return self._overlaid(name)
        if op == "incr":
            change = {"op": op, "name": name, "by": value}
        elif op == "set_add":
            change = {"op": op, "name": name, "values": _plain(list(value))}
        elif op == "delete":
            change = {"op": op, "name": name}
        elif op in ("put", "max"):
            change = {"op": op, "name": name, "value": _plain(value) if op == "put" else value}
        else:
            raise ValueError(f"there is no operation {op!r} on state")
        if op in ("incr", "max") and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise TypeError(f"ctx.state.{op}({name!r}) takes a number, not {type(value).__name__}")
        if self.state_ops is None:
            self.state_ops = []
        self.state_ops.append(change)
        return None

    def _overlaid(self, name: str) -> Any:
        own = [change for change in self.state_ops or () if change["name"] == name]
        settled = any(change["op"] in ("put", "delete") for change in own)
        value = None if settled else self.committed(name)
        for change in own:
            value = _applied(value, change)
        return value

    def committed(self, name: str) -> Any:
        """What `ctx.state` held before this attempt."""
        # Read anew each time: the author may change what he gets.
        shipped = self._dispatch.table.part("state", self._member)
        if shipped is None:
            return self.ask("state_get", name=name)
        flat = _values.decode(shipped)
        return dict(zip(flat[::2], flat[1::2])).get(name)

    def should_stop(self) -> bool:
        return self._worker.should_stop()

    def progress(self, value: Any) -> None:
        self._worker.progress(self._dispatch.call, self._member, _values.encode(value))


def _plain(value: Any) -> Any:
    """The value as it will be read back: state is JSON."""
    import json

    return json.loads(_values.encode(value))


def _applied(value: Any, change: Dict[str, Any]) -> Any:
    op = change["op"]
    if op == "put":
        return change["value"]
    if op == "delete":
        return None
    if op == "incr":
        return (value or 0) + change["by"]
    if op == "max":
        return change["value"] if value is None else max(value, change["value"])
    kept = list(value or ())
    return kept + [item for item in change["values"] if item not in kept]
