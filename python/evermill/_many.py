"""Many members of a task at once: `concurrency=`.

Coroutine functions share the event loop of the process, other callables get a thread each. What ends is
reported in the order of members, as always; a long one keeps back the report of those behind it,
not their work.

The shared page has room for one member. It shows the one that started last, whom nobody may
suspect too little if the process dies; where threads have a timeout, the one that has run longest, for
it is the one to blame. Coroutines are timed here, where one can be cancelled without the others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextvars import ContextVar
from typing import Any, Dict, Optional, Tuple

from . import _frames
from ._handle import Handle

#: How often the main thread looks up from waiting.
_TICK_S = 0.01

#: Who runs, for what it prints.
current: "ContextVar[int]" = ContextVar("evermill_member", default=-1)

_pools: Dict[Tuple[int, int], Any] = {}


class Many:
    """The members of one dispatch."""

    def __init__(self, worker: Any, dispatch: _frames.Dispatch, program: Any) -> None:
        self.worker = worker
        self.dispatch = dispatch
        self.program = program
        #: Members that have ended, by member, until all before them have: their outcomes' parts.
        self.kept: Dict[int, Tuple[Any, ...]] = {}
        #: All before this one were handed to the outcomes.
        self.settled = 0
        #: The next one to start.
        self.next = 0
        #: When those that run have started.
        self.running: Dict[int, int] = {}
        #: Why the process is to end, if a coroutine heard of it.
        self.ended: Optional[BaseException] = None

    def run(self) -> int:
        """Runs members; how many ended, from the first."""
        if self.program.run_async is None:
            self._in_threads()
        else:
            from ._runtime import event_loop

            event_loop().run_until_complete(self._in_loop())
        self.settle()
        return self.settled

    def settle(self) -> None:
        """Hands over what ended, as far as it goes without a gap."""
        outcomes = self.worker.outcomes
        while self.settled in self.kept:
            outcomes.end(self.settled, *self.kept.pop(self.settled))
            self.settled += 1

    def _may_start(self) -> bool:
        worker = self.worker
        if self.next >= self.dispatch.members or len(self.running) >= self.program.concurrency:
            return False
        if worker.stopping or self.dispatch.call in worker.recalled:
            return False
        return self.next == 0 or time.monotonic_ns() < worker.slice_end

    def _start(self) -> int:
        member = self.next
        self.next += 1
        self.running[member] = time.monotonic_ns()
        self._publish()
        return member

    def _publish(self) -> None:
        """Says on the shared page who runs."""
        worker = self.worker
        running = dict(self.running)
        if not running:
            return
        member = max(running)
        if self.program.run_async is not None:
            # A loop that is alive says so; one that a callable blocks runs into the timeout.
            began = time.monotonic_ns()
        else:
            if self.dispatch.timeout_s is not None:
                member = min(running, key=running.__getitem__)
            began = running[member]
        worker.start[0] = began
        worker.place[0] = member

    def _look(self) -> None:
        """Between waits: reports what ended, listens to the engine."""
        worker = self.worker
        self.settle()
        self._publish()
        now = time.monotonic_ns()
        if now >= worker.flush_at:
            worker.flush()
            worker.pump()
            worker.return_rest(self.dispatch, self.next)
            worker.flush_at = now + worker.flush_ns

    def _arguments(self, member: int) -> Tuple[Any, Any, Any]:
        """What the call gets, and the handle behind its context."""
        event = self.dispatch.event(member) if self.program.wants_event else None
        if not self.program.wants_ctx:
            return event, None, None
        from ._runtime import make_context

        handle = Handle(self.worker, self.dispatch, member)
        return event, make_context(handle), handle

    def _succeed(self, member: int, value: Any, handle: Any) -> None:
        started, kind = self.running[member], self.program.kind
        if value is None and kind in ("call", "noop") and (handle is None or not (handle.state_ops or handle.xcoms or handle.says)):
            self.worker.end(member, started, _frames.SUCCESS)
        else:
            self.worker.succeed(member, started, kind, value, handle)

    # Threads.

    def _in_threads(self) -> None:
        pool = _pool(self.program.concurrency)
        changed = threading.Event()
        while True:
            while self._may_start():
                pool.submit(self._one, self._start(), changed)
            if not self.running:
                return
            changed.wait(_TICK_S)
            changed.clear()
            self._look()

    def _one(self, member: int, changed: threading.Event) -> None:
        current.set(member)
        try:
            event, ctx, handle = self._arguments(member)
            self._succeed(member, self.program.run(event, ctx), handle)
        except BaseException as error:
            self.worker.fail(member, self.running[member], error)
        finally:
            if self.worker.stray:
                os._exit(0)
            del self.running[member]
            changed.set()

    # Coroutines.

    async def _in_loop(self) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        tasks = set()

        def tick() -> None:
            changed.set()
            self.timer = loop.call_later(_TICK_S, tick)

        tick()
        try:
            while True:
                while self._may_start():
                    member = self._start()
                    current.set(member)
                    task = loop.create_task(self._one_of_loop(member, changed))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                if not self.running:
                    return
                await changed.wait()
                changed.clear()
                if self.ended is not None:
                    raise self.ended
                self._look()
        finally:
            self.timer.cancel()

    async def _one_of_loop(self, member: int, changed: asyncio.Event) -> None:
        timeout = self.dispatch.timeout_s
        try:
            event, ctx, handle = self._arguments(member)
            self._succeed(member, await asyncio.wait_for(self.program.run_async(event, ctx), timeout), handle)
        except BaseException as error:
            if isinstance(error, asyncio.TimeoutError) and self._is_late(member):
                error = TimeoutError(f"ran longer than its timeout of {timeout} s and was cancelled")
            try:
                self.worker.fail(member, self.running[member], error)
            except BaseException as ended:
                self.ended = ended
        finally:
            if self.worker.stray:
                os._exit(0)
            del self.running[member]
            changed.set()

    def _is_late(self, member: int) -> bool:
        timeout = self.dispatch.timeout_s
        return timeout is not None and time.monotonic_ns() - self.running[member] >= timeout * 1e9


def _pool(size: int) -> Any:
    """Threads are kept for the next dispatch; those of a process do not survive its fork."""
    key = os.getpid(), size
    if key not in _pools:
        from concurrent.futures import ThreadPoolExecutor

        _pools[key] = ThreadPoolExecutor(size, "evermill-task")
    return _pools[key]
