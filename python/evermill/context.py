"""What a task is told about itself, and what it can ask the engine: `ctx`."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

from ._inside import speaker

if TYPE_CHECKING:
    from .connection import Connection
    from .event import Event

_LOG = logging.getLogger("evermill.task")

#: Ids of loaded DAGs whose events are in order: there state may be read (W5).
ordered: Set[str] = set()


class Skip(Exception):
    """Raised by a task that has nothing to do for this event: it ends as skipped, not as failed."""


class Fail(Exception):
    """Raised by a task that knows that no retry can help: it fails at once."""


class State:
    """The run's own key-value state, scoped by the DAG's order and committed with this attempt (W5).

    Adding up is always possible. Reading, and writing what was read, needs events in order.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def incr(self, name: str, by: float = 1) -> None:
        """Adds a number; an absent value counts as 0."""
        self._handle.state_op("incr", name, by)

    def max(self, name: str, value: float) -> None:
        """Keeps the greater number."""
        self._handle.state_op("max", name, value)

    def set_add(self, name: str, *values: Any) -> None:
        """Adds elements to a set."""
        self._handle.state_op("set_add", name, list(values))

    def get(self, name: str, default: Any = None) -> Any:
        """The committed value with this attempt's own changes; `default` when there is none."""
        self._needs_order("get", name)
        value = self._handle.state_op("get", name, None)
        return default if value is None else value

    def set(self, name: str, value: Any) -> None:
        """Replaces the value; it must be JSON."""
        self._needs_order("set", name)
        self._handle.state_op("put", name, value)

    def delete(self, name: str) -> None:
        """Removes the value."""
        self._needs_order("delete", name)
        self._handle.state_op("delete", name, None)

    def _needs_order(self, op: str, name: str) -> None:
        dag_id = self._handle.dag_id
        if dag_id not in ordered:
            raise RuntimeError(
                f"ctx.state.{op}({name!r}) needs events in order, and those of DAG {dag_id!r} are in none: "
                "set order='key', 'partition' or 'serial' on the DAG or its source, "
                "or use incr, max or set_add, which need none"
            )


class Context:
    """`ctx` of a task: made anew for each attempt of each activation."""

    __slots__ = ("_handle", "_calls", "_view")

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._calls = 0
        self._view: Optional[Dict[str, Any]] = None
        speaker.set(self)

    @property
    def event(self) -> "Optional[Event]":
        """The event of this activation (a list under `.batch()`); None when triggered by hand.

        Where several sources feed the task, that of the source which the DAG names first.
        """
        return self._handle.event

    @property
    def events(self) -> "List[Event]":
        """The events of this activation as a list, however many: of a batch, or of the sources that
        feed the task, in the order in which the DAG names them."""
        return self._handle.events

    @property
    def dag_id(self) -> str:
        return self._handle.dag_id

    @property
    def run_id(self) -> str:
        return self._handle.run_id

    @property
    def task_id(self) -> str:
        return self._handle.task_id

    @property
    def try_number(self) -> int:
        """1 in the first attempt."""
        return self._handle.try_number

    @property
    def map_index(self) -> int:
        """Which item of a mapped task; -1 otherwise."""
        return self._handle.map_index

    @property
    def state(self) -> State:
        return State(self._handle)

    @property
    def shadow(self) -> bool:
        """Whether this is a shadow run: what it comes to is compared, and nothing outside should change."""
        return os.environ.get("EVERMILL_SHADOW") == "1"

    @property
    def log(self) -> logging.Logger:
        return _LOG

    @property
    def traceparent(self) -> Optional[str]:
        """This task's span, for the header `traceparent` of what it asks or sends outside (W3C Trace Context).

        Where nothing is traced: what the event brought along, if it did.
        """
        return self._handle.traceparent

    @property
    def tracestate(self) -> Optional[str]:
        """What the systems before us know of the trace, for the header `tracestate` beside `traceparent`.

        None where the event brought none.
        """
        return self._handle.tracestate

    def effect_key(self) -> str:
        """A key for one effect outside, for sinks that recognise repeats.

        Each call gives another key. The n-th call gives the same one in every attempt, so make the
        calls in the same order each time.
        """
        key = self._handle.effect_key(self._calls)
        self._calls += 1
        return key

    def emit(self, topic: str, value: Any, key: Optional[str] = None) -> None:
        """Says a value to every DAG that listens to the topic, once this attempt has succeeded."""
        self._handle.say(topic, value, key)

    def connection(self, id: str) -> "Connection":
        """Where a connection leads. The task has to declare it: `@evermill.task(connections=["warehouse"])`.

        Asked anew each time, so a changed password counts from the next call on. KeyError when nobody gave it
        an address.
        """
        from .connection import Connection

        return Connection(id, self._handle.ask("connection", conn_id=id))

    def secret(self, name: str) -> str:
        """The value of a secret. The task has to declare it: `@evermill.task(secrets=["api_key"])`.

        It is masked wherever the task prints it or fails with it. KeyError when nobody has set it.
        """
        return self._handle.ask("secret", name=name)

    def should_stop(self) -> bool:
        """Whether the engine would like this task to end soon; ask now and then in long loops."""
        return self._handle.should_stop()

    def progress(self, value: Any) -> None:
        """Shows how far a long task is."""
        self._handle.progress(value)
