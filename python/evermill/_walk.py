"""One activation at a time through a DAG, in this process: what `evermill.testing` stands on.

The same rules as the engine's (docs/spec/trigger-rules.md and semantics.md), without its waves,
workers and disk. Tests hold it to the engine: the truth table of the specification, and DAGs that
both of them run.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set, Tuple

from . import _frames, _values
from ._dag import Dag, Node, Task
from ._handle import Handle, _applied, missing, undeclared
from ._manifest import options, passed
from ._patience import Patience
from ._runtime import Program, make_context
from ._worker import _is

SUCCESS, FAILED, SKIPPED, UPSTREAM_FAILED = "success", "failed", "skipped", "upstream_failed"

#: What a rule says once every upstream is final: to run, or how the task ends without.
RUN = "run"


def verdict(rule: str, states: Iterable[str]) -> str:
    """The truth table of trigger-rules.md, section 4; there are no setup tasks here."""
    found = set(states)
    good, failed, skipped = SUCCESS in found, FAILED in found, SKIPPED in found
    bad = failed or UPSTREAM_FAILED in found
    if not found or rule in ("always", "all_done", "all_done_setup_success"):
        return RUN
    lines: Dict[str, Tuple[Tuple[bool, str], ...]] = {
        "all_success": ((bad, UPSTREAM_FAILED), (skipped, SKIPPED), (True, RUN)),
        "all_failed": ((good or skipped, SKIPPED), (True, RUN)),
        "all_skipped": ((good or bad, SKIPPED), (True, RUN)),
        "one_success": ((good, RUN), (bad, UPSTREAM_FAILED), (True, SKIPPED)),
        "one_failed": ((bad, RUN), (True, SKIPPED)),
        "one_done": ((good or failed, RUN), (True, SKIPPED)),
        "none_failed": ((bad, UPSTREAM_FAILED), (True, RUN)),
        "none_failed_min_one_success": ((bad, UPSTREAM_FAILED), (good, RUN), (True, SKIPPED)),
        "none_skipped": ((skipped, SKIPPED), (True, RUN)),
        "all_done_min_one_success": ((skipped, SKIPPED), (good, RUN), (True, UPSTREAM_FAILED)),
    }
    return next(said for holds, said in lines[rule] if holds)


class End(NamedTuple):
    """How a task of an activation ended, or one instance of a mapped task."""

    state: str
    #: Tries it took; 0 for a task that did not run.
    tries: int = 0
    #: What it returned, as a task after it reads it.
    result: Any = None
    #: Why it failed.
    error: Optional[BaseException] = None
    #: Of a mapped task, its instances.
    instances: Tuple["End", ...] = ()
    #: Values pushed by name.
    xcoms: Dict[str, Any] = {}
    chosen: Optional[Tuple[str, ...]] = None
    proceed: bool = True


class Plan:
    """What holds for every activation of a DAG."""

    def __init__(self, dag: Dag, source: Optional[Node], outside: Optional[Dict[str, Mapping[str, str]]] = None) -> None:
        self.dag = dag
        self.source = source
        #: Connections and secrets that there are, by name.
        self.outside = outside or {}
        part = passed(dag, [source]) if source else set(dag.tasks())
        self.tasks = _in_order([task for task in dag.tasks() if task in part])
        self.programs = {task.id: Program(task) for task in self.tasks}
        self.below: Dict[Task, Set[Task]] = {task: set() for task in self.tasks}
        for task in self.tasks:
            for before in task.ancestors():
                if isinstance(before, Task) and before in self.below:
                    self.below[before].add(task)
        order = dag.fields.get("order", "none")
        self.order = getattr(source, "fields", {}).get("order", order) if source else order

    def option(self, task: Task, name: str, default: Any) -> Any:
        return task.fields.get(name, self.dag.defaults.get(name, default))

    def policy(self, task: Task) -> str:
        own = self.dag.defaults.get("on_failure", self.dag.fields.get("on_failure", "park"))
        return task.fields.get("on_failure", own)


class Attempt(Handle):
    """What a task's `ctx` stands on here."""

    __slots__ = ("_walk", "_task", "_number", "_index")

    def __init__(self, walk: "Walk", task: Task, number: int, index: int) -> None:
        self._walk = walk
        self._task = task
        self._number = number
        self._index = index
        self._activation = walk.identity
        self.state_ops = None
        self.xcoms = None
        self.says = None

    @property
    def event(self) -> Any:
        return self._walk.event

    @property
    def events(self) -> List[Any]:
        event = self._walk.event
        if isinstance(event, list):
            return event
        return [] if event is None else [event]

    def event_of(self, source: str) -> Any:
        event = self._walk.event
        return event if self._walk.plan.source is not None and self._walk.plan.source.id == source else None

    @property
    def dag_id(self) -> str:
        return self._walk.plan.dag.id

    @property
    def run_id(self) -> str:
        return f"{self.dag_id}-test"

    @property
    def task_id(self) -> str:
        return self._task.id

    @property
    def try_number(self) -> int:
        return self._number

    @property
    def map_index(self) -> int:
        return self._index

    @property
    def conf(self) -> Any:
        return self._walk.conf

    @property
    def logical_date(self) -> Any:
        return self._walk.logical_date

    def ended(self, dag_id: str, at: Any) -> Optional[Dict[str, Any]]:
        """There is no other DAG here: what is waited for is there at once."""
        return {"state": "done", "tasks": None}

    def effect_key(self, call: int) -> str:
        return _frames.effect_key(self._walk.identity, self._task.id, self._index, call)

    @property
    def traceparent(self) -> Optional[str]:
        """Nobody traces here: what the event brought is handed on."""
        events = self.events
        return _frames.given_traceparent(events[0].headers) if events else None

    @property
    def tracestate(self) -> Optional[str]:
        events = self.events
        return _frames.given_tracestate(events[0].headers) if events else None

    def result_of(self, task_id: str) -> Any:
        return self._walk.result_of(task_id)

    def committed(self, name: str) -> Any:
        return self._walk.state_of(self._task).get(name)

    def ask(self, kind: str, **args: Any) -> Any:
        if kind == "xcom_pull":
            return self._walk.pulled(args["task_id"], args["key"], args["map_index"])
        name = next(iter(args.values()), "")
        if kind not in ("connection", "secret"):
            raise missing(kind, name)
        declared = options(self._task).get(f"{kind}s", [])
        if name not in declared:
            raise RuntimeError(undeclared(self._task.id, kind, name))
        given = self._walk.plan.outside.get(f"{kind}s", {})
        if name not in given:
            raise missing(kind, name)
        return given[name]

    def should_stop(self) -> bool:
        return False

    def progress(self, value: Any) -> None:
        _values.encode(value)


#: Scope of `ctx.state` (W5): what the order says, and the task where names are its own.
Scope = Tuple[Any, ...]


class Walk:
    """One activation on its way."""

    def __init__(
        self,
        plan: Plan,
        event: Any,
        lane: str,
        key: Optional[bytes],
        identity: bytes,
        conf: Any,
        state: Dict[Scope, Any],
        logical_date: Any = None,
    ) -> None:
        self.plan = plan
        self.event = event
        self.lane = lane
        self.key = key
        self.identity = identity
        self.conf = conf
        self.logical_date = logical_date
        self.state = state
        self.ends: Dict[str, End] = {}
        #: Of each task, the changes it made; they count for later activations.
        self.written: Dict[Task, List[Dict[str, Any]]] = {}

    def run(self) -> str:
        """Runs every task there is to run; how the activation settles."""
        for task in self.plan.tasks:
            self.ends[task.id] = self._end(task)
        for task, changes in self.written.items():
            scope = self.state.setdefault(self._scope(task), {})
            for change in changes:
                scope[change["name"]] = _applied(scope.get(change["name"]), change)
                if change["op"] == "delete":
                    del scope[change["name"]]
        return self._settled()

    # What a task is told.

    def result_of(self, task_id: str) -> Any:
        end = self.ends.get(task_id)
        if end is None:
            return None
        return [one.result for one in end.instances] if end.instances else end.result

    def pulled(self, task_id: str, key: str, map_index: Optional[int]) -> Any:
        end = self.ends.get(task_id)
        if end is None:
            return None
        if end.instances and map_index is None:
            return [_named(one, key) for one in end.instances]
        if end.instances:
            end = end.instances[map_index]
        return _named(end, key)

    def state_of(self, task: Task) -> Dict[str, Any]:
        """What earlier activations left; under `serial` also what tasks before this one wrote."""
        state = dict(self.state.get(self._scope(task), {}))
        if self.plan.order == "serial":
            for before in self.plan.tasks:
                if task in self.plan.below[before]:
                    for change in self.written.get(before, ()):
                        state[change["name"]] = _applied(state.get(change["name"]), change)
        return state

    def _scope(self, task: Task) -> Scope:
        order = self.plan.order
        if order == "key":
            return (self.lane, self.key, task.id)
        if order == "partition":
            return (self.lane, task.id)
        return (self.lane,) if order == "serial" else ()

    # How a task ends.

    def _end(self, task: Task) -> End:
        above = [node for node in task.ancestors() if node.is_source]
        if (above and self.plan.source not in above) or self._is_closed(task):
            return End(SKIPPED)
        states: List[str] = []
        for before in task.upstream:
            if before.is_source:
                states.append(SUCCESS if before is self.plan.source else SKIPPED)
                continue
            end = self.ends[before.id]
            states.extend([one.state for one in end.instances] or [end.state])
        said = verdict(self.plan.option(task, "trigger_rule", "all_success"), states)
        if said != RUN:
            return End(said)
        if task.kind == "noop":
            return End(SUCCESS)
        return self._mapped(task) if task.mapped else self._tried(task, -1)

    def _is_closed(self, task: Task) -> bool:
        """Whether a branch right before it chose otherwise, or a short circuit above it said no."""
        for guard in self.plan.tasks:
            if task not in self.plan.below[guard] or self.ends[guard.id].state != SUCCESS:
                continue
            end = self.ends[guard.id]
            if guard.kind == "short_circuit" and not end.proceed:
                return True
            if guard.kind == "branch" and guard in task.upstream and not self._follows(end.chosen or (), task):
                return True
        return False

    def _follows(self, chosen: Tuple[str, ...], task: Task) -> bool:
        below = self.plan.below
        return any(task.id == one.id or task in below[one] for one in self.plan.tasks if one.id in chosen)

    def _mapped(self, task: Task) -> End:
        length = 1
        for over in task.mapped.values():
            items = self.ends[over.id].result if isinstance(over, Task) else over
            if not isinstance(items, (list, tuple, dict)):
                why = TypeError(f"{over.id!r} returned no list to map {task.id!r} over")
                return End(FAILED, error=why)
            length *= len(items)
        ends = tuple(self._tried(task, index) for index in range(length))
        states = {end.state for end in ends}
        failed = next((end.error for end in ends if end.state == FAILED), None)
        state = FAILED if FAILED in states else SUCCESS if SUCCESS in states else SKIPPED
        return End(state, sum(end.tries for end in ends), [end.result for end in ends], failed, ends)

    def _tried(self, task: Task, index: int) -> End:
        retries = self.plan.option(task, "retries", 0)
        for number in range(1, retries + 2):
            handle = Attempt(self, task, number, index)
            end = self._attempt(task, handle, number)
            if end.state != FAILED or _is(end.error, "Fail", "AirflowFailException"):
                break
            if isinstance(end.error, _values.Unserialisable):
                break
        if end.state == SUCCESS and handle.state_ops:
            self.written.setdefault(task, []).extend(handle.state_ops)
        return end

    def _attempt(self, task: Task, handle: Attempt, number: int) -> End:
        program = self.plan.programs[task.id]
        try:
            value = self._called(task, program, handle)
            if program.run_batch is not None and isinstance(value, BaseException):
                raise value
            end = self._success(program.kind, value, handle, number)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a task may raise anything, SystemExit among it
            if _is(error, "Skip", "AirflowSkipException"):
                return End(SKIPPED, number)
            return End(FAILED, number, error=error)
        return end

    def _called(self, task: Task, program: Program, handle: Attempt) -> Any:
        if not task.poking:
            return program.run(self.event, make_context(handle))

        def question() -> Any:
            # What was said along with *not yet* is of no account.
            handle.state_ops = handle.xcoms = None
            return program.run(self.event, make_context(handle))

        return getattr(Patience(task).ask(question), "xcom_value", None)

    def _success(self, kind: str, value: Any, handle: Attempt, number: int) -> End:
        xcoms = {name: _values.decode(text.encode()) for name, text in (handle.xcoms or {}).items()}
        # What JSON does to a value is part of what the next task sees.
        result = None if value is None else _values.decode(_values.encode(value))
        if kind == "branch":
            chosen = () if value is None else (value,) if isinstance(value, str) else tuple(value)
            return End(SUCCESS, number, result, xcoms=xcoms, chosen=chosen)
        proceed = bool(value) if kind == "short_circuit" else True
        return End(SUCCESS, number, result, xcoms=xcoms, proceed=proceed)

    def _settled(self) -> str:
        """W10: a failed leaf makes the activation fail, and the strictest policy of what failed decides."""
        leaves = [self.ends[task.id].state for task in self.plan.tasks if not self.plan.below[task]]
        if not {FAILED, UPSTREAM_FAILED} & set(leaves):
            return "skipped" if leaves and set(leaves) == {SKIPPED} else "done"
        policies = {self.plan.policy(task) for task in self.plan.tasks if self.ends[task.id].state == FAILED}
        for policy, settled in (("stop", "stopped"), ("block", "blocked"), ("park", "parked"), ("drop", "dropped")):
            if policy in policies:
                return settled
        return "parked"


def _named(end: End, key: str) -> Any:
    return end.result if key == "return_value" else end.xcoms.get(key)


def _in_order(tasks: List[Task]) -> List[Task]:
    """Each task after all that come before it; ties as declared."""
    done: Set[Node] = set()
    order: List[Task] = []
    waiting = list(tasks)
    while waiting:
        ready = [task for task in waiting if all(before.is_source or before in done for before in task.upstream)]
        order.extend(ready)
        done.update(ready)
        waiting = [task for task in waiting if task not in done]
    return order


