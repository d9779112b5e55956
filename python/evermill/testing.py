"""DAGs in pytest: `run(dag, events=[...])` takes events through a DAG in this process.

    from evermill.testing import run
    from orders import orders

    def test_a_large_order_is_told():
        result = run(orders, events=[{"total": 1200}, {"total": 5}])
        large, small = result.activations
        assert large["notify"].state == "success"
        assert small["notify"].state == "skipped"

There is no broker, no engine and no data directory: the same rules decide what runs (trigger rules,
branches, retries, mapping, state, what becomes of a failure), one event after the other in the order
given. Tries follow each other at once, whatever `retry_delay` says; `timeout`, `deadline`, `pool`,
`concurrency`, `env`, `cwd` and `memory_limit` have no effect. A DAG in which two sources meet is refused.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from . import _airflow_context, _sink, context
from ._dag import Dag, Node, Source
from ._fault import DagError, collecting
from ._file import build, dags, import_file
from ._frames import fields
from ._manifest import faults, is_ordered, source_manifest
from ._walk import End, Plan, Scope, Walk
from .event import Event

__all__ = ["Activation", "Result", "TaskEnd", "event", "load", "run"]

#: How a task of an activation ended: `state` (`success`, `failed`, `skipped`, `upstream_failed`), `tries`,
#: `result`, `error` (the exception), and the `instances` of a mapped task.
TaskEnd = End

#: Sources whose events carry nothing but their time: an activation by hand stands for one.
_BY_TIME = ("cron", "every", "loop")

#: The lane of events that name none.
_LANE = "test/0"


def event(
    value: Any = None,
    *,
    key: Union[bytes, str, None] = None,
    headers: Sequence[Tuple[str, bytes]] = (),
    timestamp: Optional[datetime] = None,
    lane: str = _LANE,
) -> Event:
    """An event for `run`. Bytes are taken as they are, text as UTF-8, anything else as JSON; None is a tombstone."""
    content = None if value is None else _content(value)
    plain_key = key.encode() if isinstance(key, str) else key
    return Event.of(content, key=plain_key, headers=headers, timestamp=timestamp, lane=lane)


@dataclass(frozen=True)
class Activation:
    """One event's way through the DAG. `activation["task"]` is how a task of it ended."""

    #: `done`, `skipped` (every leaf was), `parked`, `dropped`, or `held`: not run, because `on_failure="block"`
    #: or `"stop"` of one before it stands in its way.
    state: str
    #: What caused it; a list under `.batch()`, None without a source.
    event: Any
    #: By id, in an order in which they can run.
    tasks: Dict[str, TaskEnd]
    #: Why the source's codec or schema does not take it; no task has seen it then.
    rejected: Optional[str] = None

    def __getitem__(self, task: str) -> TaskEnd:
        return self.tasks[task]

    @property
    def error(self) -> Optional[BaseException]:
        """Why it failed: the first error of a task, if there is one."""
        return next((end.error for end in self.tasks.values() if end.error is not None), None)


class Result:
    """What `run` did: an activation for each event (each list under `.batch()`), and what is left of it."""

    def __init__(self, activations: List[Activation], state: Dict[Scope, Dict[str, Any]]) -> None:
        self.activations = activations
        self._state = state

    def _count(self, state: str) -> int:
        """In events, as the engine counts."""
        sizes = [len(one.event) if isinstance(one.event, list) else 1 for one in self.activations if one.state == state]
        return sum(sizes)

    @property
    def done(self) -> int:
        """Events that settled well."""
        return self._count("done")

    @property
    def skipped(self) -> int:
        """Events all of whose leaves were skipped."""
        return self._count("skipped")

    @property
    def parked(self) -> int:
        """Events that are kept after failure."""
        return self._count("parked")

    @property
    def dropped(self) -> int:
        """Events that were given up."""
        return self._count("dropped")

    def state(self, task: Optional[str] = None, *, key: Union[bytes, str, None] = None, lane: str = _LANE) -> Dict[str, Any]:
        """What `ctx.state` holds now. Under `order="key"` and `"partition"` each task has names of its own: say
        which one, under `"key"` also for which key."""
        plain_key = key.encode() if isinstance(key, str) else key
        for scope in ((), (lane,), (lane, task), (lane, plain_key, task)):
            if scope in self._state:
                return dict(self._state[scope])
        return {}

    def __repr__(self) -> str:
        told = [f"{name} {count}" for name in ("done", "skipped", "parked", "dropped") for count in [self._count(name)] if count]
        return f"<Result {', '.join(told) or 'of nothing'}>"


def load(path: str, dag: Optional[str] = None) -> Dag:
    """The DAG of a file, by its id if there are several; also of a file that imports `airflow` where there is none."""
    with collecting() as found:
        known = dags(import_file(path))
    if found:
        raise found[0]
    if dag is None and len(known) == 1:
        return next(iter(known.values()))
    if dag not in known:
        raise ValueError(f"{path}: name one of its DAGs: {', '.join(known) or 'there is none'}")
    return known[dag]


def run(
    dag: Any,
    events: Union[Sequence[Any], Mapping[str, Sequence[Any]], None] = None,
    *,
    conf: Any = None,
    logical_date: Optional[datetime] = None,
    connections: Optional[Mapping[str, str]] = None,
    secrets: Optional[Mapping[str, str]] = None,
    codecs: bool = True,
) -> Result:
    """Runs a DAG on these events, or once when it has no source, or none but a schedule or root sensors: these are
    asked then, as in any activation by hand.

    `dag` is what `@evermill.dag` made of a function, a DAG of Airflow's style, or what `load` returned. An event is an `Event`, or
    a value as `event` takes it. For a DAG of several sources give a dict: source id -> events. `conf` is what a
    run by hand brings along; `logical_date` stands in Airflow's context in place of the event's time. `connections`
    and `secrets` are what `ctx.connection` and `ctx.secret` find: addresses and values by name. A DAG that the engine
    would refuse raises `DagError`; a task that fails raises nothing: look at `result.parked` and
    `activation.error`.

    What a source says of its values (`codec`, `schema`) is the engine's to apply, so the `evermill` command is asked: that of
    `EVERMILL_BIN`, else the one on the `PATH`. An event is given as it is sent, or as tasks read it; one that does not
    pass is parked, with `activation.rejected`. `codecs=False` asks nobody and takes every event as it is.
    """
    made = _checked(dag, listens=events is not None)
    context.ordered.discard(made.id)
    if is_ordered(made):
        context.ordered.add(made.id)
    _airflow_context.params[made.id] = made.params
    state: Dict[Scope, Dict[str, Any]] = {}
    activations: List[Activation] = []
    _sink.pretend, before = True, _sink.pretend
    try:
        for source, given in _by_source(made, events):
            plan = Plan(made, source, {"connections": connections or {}, "secrets": secrets or {}})
            taken, refused = _judged(plan, given, connections or {}) if codecs else (given, [])
            activations.extend(_walk_all(plan, taken, conf, logical_date, state))
            activations.extend(refused)
    finally:
        _sink.pretend = before
    return Result(activations, state)


def _checked(dag: Any, listens: bool) -> Dag:
    with collecting() as found:
        made = build(dag, listens)
        wrong = [*found, *faults(made)]
    if wrong:
        raise wrong[0]
    sources = made.sources()
    for task in made.tasks():
        above = [node for node in task.ancestors() if node in sources]
        if len(above) > 1:
            raise DagError(
                "not_built",
                f"evermill.testing.run does not join sources, and task {task.id!r} comes after {len(above)} of them",
                "test the tasks on their own",
                (task.file, task.line),
            )
    return made


def _by_source(dag: Dag, events: Any) -> List[Tuple[Optional[Node], Optional[Sequence[Any]]]]:
    sources = {node.id: node for node in dag.sources()}
    if not sources:
        if events:
            raise ValueError(f"DAG {dag.id!r} has no source, so it takes no events; conf= is what a run by hand brings along")
        return [(None, None)]
    if events is None and all(isinstance(node, Source) and (dag.clock or node.config["kind"] in _BY_TIME) for node in sources.values()):
        return [(node, None) for node in sources.values()]
    if isinstance(events, Mapping):
        unknown = [id for id in events if id not in sources]
        if unknown:
            raise ValueError(f"DAG {dag.id!r} has no source {unknown[0]!r}; its sources are {', '.join(sources)}")
        return [(sources[id], list(given)) for id, given in events.items()]
    if len(sources) > 1:
        raise ValueError(f"DAG {dag.id!r} has several sources: give events={{source id: [...]}}, of {', '.join(sources)}")
    return [(node, list(events or ())) for node in sources.values()]


def _walk_all(
    plan: Plan, given: Optional[Sequence[Any]], conf: Any, date: Optional[datetime], state: Dict[Scope, Dict[str, Any]]
) -> List[Activation]:
    made: List[Activation] = []
    blocked: set = set()
    stopped = False
    for number, (whole, first) in enumerate(_activations(plan, given)):
        lane = first.lane or _LANE if first is not None else ""
        key = first.key if first is not None else None
        scope = (lane, key) if plan.order == "key" else (lane,)
        if stopped or scope in blocked:
            made.append(Activation("held", whole, {}))
            continue
        source = plan.source.id if plan.source else ""
        identity = fields(plan.dag.id.encode(), source.encode(), lane.encode(), number.to_bytes(8, "big"))
        walk = Walk(plan, whole, lane, key, identity, conf or {}, state, date)
        settled = walk.run()
        stopped = settled == "stopped"
        if settled == "blocked":
            blocked.add(scope)
        made.append(Activation("parked" if settled in ("stopped", "blocked") else settled, whole, walk.ends))
    return made


def _judged(
    plan: Plan, given: Optional[Sequence[Any]], connections: Mapping[str, str]
) -> Tuple[Optional[Sequence[Any]], List[Activation]]:
    """Events as tasks read them, and what does not pass."""
    source = plan.source
    declared = getattr(source, "fields", {}) if source else {}
    if not given or not any(name in declared for name in ("codec", "schema", "schema_registry")):
        return given, []
    events = [_placed(one, number, source.id) for number, one in enumerate(given)]
    values = [None if one.value is None else {"base64": base64.b64encode(one.value).decode()} for one in events]
    told = _ask(source.id, {"source": source_manifest(source), "values": values}, connections)
    taken: List[Any] = []
    refused: List[Activation] = []
    for one, verdict in zip(events, told):
        if verdict == "passes":
            taken.append(one)
        elif "becomes" in verdict:
            new = verdict["becomes"]
            taken.append(_with_value(one, new.encode() if isinstance(new, str) else base64.b64decode(new["base64"])))
        else:
            refused.append(Activation("parked", one, {}, verdict["rejected"]))
    return taken, refused


def _ask(source: str, question: Dict[str, Any], connections: Mapping[str, str]) -> List[Any]:
    command = os.environ.get("EVERMILL_BIN") or shutil.which("evermill")
    if not command:
        raise RuntimeError(
            f"source {source!r} has a codec or a schema, which the engine applies, and there is no `evermill` on the PATH: "
            "put it there, name it by EVERMILL_BIN, or give events as tasks read them and codecs=False"
        )
    places = {f"EVERMILL_CONNECTION_{id.upper()}": address for id, address in connections.items()}
    asked = subprocess.run(
        [command, "dev", "judge"], input=json.dumps(question).encode(), capture_output=True, check=False, env={**os.environ, **places}
    )
    if asked.returncode:
        raise RuntimeError(asked.stderr.decode(errors="replace").strip())
    return list(json.loads(asked.stdout))


def _with_value(event: Event, value: bytes) -> Event:
    return Event.of(
        value,
        key=event.key,
        headers=event.headers,
        timestamp=event.timestamp,
        position=event.position,
        source=event.source,
        lane=event.lane,
    )


def _activations(plan: Plan, given: Optional[Sequence[Any]]) -> List[Tuple[Any, Optional[Event]]]:
    """What each activation is caused by, and its first event."""
    if given is None:
        return [(None, None)]
    source = plan.source
    events = [_placed(one, number, source.id if source else "") for number, one in enumerate(given)]
    batch = getattr(source, "fields", {}).get("batch")
    if batch is None:
        return [(one, one) for one in events]
    size = batch["max_events"]
    lists = [events[at : at + size] for at in range(0, len(events), size)]
    return [(one, one[0]) for one in lists]


def _placed(given: Any, number: int, source: str) -> Event:
    """An event of this source; a value gets the next position."""
    made = given if isinstance(given, Event) else event(given)
    return Event.of(
        made.value,
        key=made.key,
        headers=made.headers,
        timestamp=made.timestamp,
        position=made.position or number,
        source=made.source or source,
        lane=made.lane or _LANE,
    )


def _content(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()

