"""The worker: takes dispatches, runs members, reports how they ended.

One process, one thread of ours, blocking. The loop over members is the hot path of the whole
engine: what it does besides the author's call is counted in tens of nanoseconds.

Started as `python -m evermill._worker` this module becomes the fork server (`_server.py`).
"""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from itertools import repeat
from typing import Any, Deque, Dict, List, Optional, Set, Tuple

from . import _frames, _output, _values
from ._handle import Handle
from .event import Event


class Terminated(BaseException):
    """The engine, or somebody, sent TERM: user code unwinds and the process ends."""


class Worker:
    """Runs dispatches until the engine hangs up."""

    def __init__(self, channel: _frames.Channel, page: mmap.mmap, permits: int, limits: Dict[str, int]) -> None:
        self.channel = channel
        #: A pipe that the engine reads too: the calls that may begin, oldest first. See `may_begin`.
        self.permits = permits
        #: One that was read and not used.
        self.permit: Optional[int] = None
        #: Shared with the engine: member and call that run; when the member started (0: none does).
        self.place = memoryview(page).cast("I")
        self.start = memoryview(page).cast("Q")[1:2]
        self.limits = limits
        self.flush_ns = limits["flush_interval_ms"] * 1_000_000
        self.flush_bytes = limits["flush_bytes"]
        self.result_bytes_max = limits["result_bytes_max"]
        self.guard = _output.Guard()
        #: Held by whoever reads frames. Not by one thread twice: a signal may come in the middle of a frame.
        self.reading = threading.Lock()
        self.output = _output.Capture(self.guard, channel.write, limits)
        self.output.member = self.member
        self.queue: Deque[_frames.Dispatch] = deque()
        self.recalled: Set[int] = set()
        self.answers: Dict[int, _frames.Frame] = {}
        self.next_ask = 1
        self.stopping = False
        self.retiring = False
        #: True in a child that user code forked and that came back into our loop.
        self.stray = False
        self.programs: Dict[Tuple[str, str, str], Any] = {}
        #: The one that everything is in place for.
        self.settled: Any = None
        self.dispatch: Optional[_frames.Dispatch] = None
        self.outcomes = _frames.Outcomes(0)
        #: Members that run side by side, if they do.
        self.many: Any = None
        #: True while the main thread counts an outcome: a signal handler then keeps out.
        self.counting = False
        #: When the loop has to look up from its members; 0 for at once.
        self.flush_at = 0
        self.slice_end = 0

    def serve(self) -> None:
        while True:
            while self.queue:
                dispatch = self.queue.popleft()
                if self.may_begin(dispatch.call):
                    self.run(dispatch)
            if self.retiring:
                return
            self.channel.wait()
            self.receive()

    def may_begin(self, call: int) -> bool:
        """Whether the engine has not taken this dispatch back: then whoever has it runs it."""
        while self.permit != call:
            if self.permit is not None and (self.permit - call) % _CALLS < _CALLS // 2:
                return False  # For one that comes later.
            try:
                self.permit = int.from_bytes(os.read(self.permits, 4), sys.byteorder)
            except BlockingIOError:
                return False
        self.permit = None
        return True

    # Frames from the engine.

    def receive(self) -> None:
        frame = self.channel.read()
        if frame is None:
            os._exit(0)
        if frame.kind == _frames.DISPATCH:
            self.queue.append(_frames.Dispatch(frame))
        elif frame.kind == _frames.ANSWER:
            self.answers[frame.call] = frame
        elif frame.kind == _frames.RECALL:
            # One that is not here has ended; its FINISHED is on the way.
            here = [self.dispatch] if self.dispatch else []
            if any(dispatch.call == frame.call for dispatch in here + list(self.queue)):
                self.recalled.add(frame.call)
        elif frame.kind == _frames.STOP:
            self.stopping = True
        elif frame.kind == _frames.RETIRE:
            self.retiring = True
        else:
            raise _frames.FrameError(f"frame kind {frame.kind} is not for a worker")

    def pump(self) -> None:
        """Takes what has come from the engine, without waiting."""
        if not self.reading.acquire(blocking=False):
            return  # Somebody else waits for an answer, and takes what comes.
        try:
            while _readable(self.channel.sock):
                self.receive()
        except _frames.FrameError:
            # We may be in the middle of the author's code, which could catch this and go on.
            traceback.print_exc()
            os._exit(1)
        finally:
            self.reading.release()

    def should_stop(self) -> bool:
        if not self.stopping:
            self.pump()
        return self.stopping

    def ask(self, call: int, member: int, question: Dict[str, Any]) -> Tuple[bool, bytes]:
        if self.dispatch is None or self.dispatch.call != call:
            raise RuntimeError("the task that this ctx belonged to has ended")
        if threading.current_thread() is threading.main_thread():
            self.flush()
        with self.reading:
            asked = self.next_ask
            self.next_ask += 2
            content = {"dispatch": call, "member": member, "question": question}
            self.send(_frames.encode(asked, _frames.ASK, _frames.content(content)))
            while asked not in self.answers:
                self.channel.wait()
                self.receive()
            answer = self.answers.pop(asked)
        content = answer.content()
        if "refused" in content:
            raise RuntimeError(content["refused"])
        return content["found"], answer.raw

    def progress(self, call: int, member: int, value: bytes) -> None:
        self.send(_frames.encode(call, _frames.PROGRESS, _frames.content({"member": member}), value))

    def send(self, data: bytes) -> None:
        if self.stray:
            raise RuntimeError("a child process forked by a task cannot speak to the engine")
        with self.guard:
            self.channel.write(data)

    # One dispatch.

    def run(self, dispatch: _frames.Dispatch) -> None:
        now = time.monotonic_ns()
        self.outcomes = _frames.Outcomes(now)
        self.slice_end = now + dispatch.slice_ns
        returned = self.stopping or dispatch.call in self.recalled
        self.flush_at = 0 if returned else min(now + self.flush_ns, self.slice_end)
        self.start[0] = now
        self.place[0] = 0
        self.place[1] = dispatch.call
        self.output.begin(dispatch.call)
        self.dispatch = dispatch
        # A stop or a recall that came first: nothing was started, not even the import.
        ended = 0 if returned else self.run_all(dispatch)
        if self.stray:
            os._exit(0)
        now = time.monotonic_ns()
        self.start[0] = 0
        with self.guard:
            self.outcomes.close(ended, now)
            self.dispatch = None
            finished = _frames.content({"tail": dispatch.end - ended})
            self.channel.write(
                self.output.end()
                + self.outcomes.take(dispatch.call)
                + _frames.encode(dispatch.call, _frames.FINISHED, finished)
            )
        self.recalled.discard(dispatch.call)

    def run_all(self, dispatch: _frames.Dispatch) -> int:
        """Runs members; how many ended, from the first."""
        try:
            program = self.program(dispatch)
        except Terminated:
            raise
        except BaseException as error:
            self.fail_all(dispatch, error, "load")
            return dispatch.end
        if not (program.surroundings or dispatch.cwd or dispatch.nice):
            return self.run_program(dispatch, program)
        surroundings = program.surroundings.around(dispatch.cwd, dispatch.nice)
        try:
            surroundings.__enter__()
        except Terminated:
            raise
        except BaseException as error:
            self.fail_all(dispatch, error, "load")
            return dispatch.end
        try:
            return self.run_program(dispatch, program)
        finally:
            surroundings.__exit__(None, None, None)

    def run_program(self, dispatch: _frames.Dispatch, program: Any) -> int:
        if dispatch.vectorised and program.run_batch is not None:
            return self.run_together(dispatch, program)
        if program.concurrency > 1 and dispatch.order == "independent":
            return self.run_many(dispatch, program)
        if program.plain is not None and dispatch.is_plain and dispatch.order == "independent":
            return self.run_plain(dispatch, program.plain)
        return self.run_members(dispatch, program)

    def program(self, dispatch: _frames.Dispatch) -> Any:
        key = (dispatch.entry, dispatch.dag, dispatch.task)
        program = self.programs.get(key)
        if program is None:
            from . import _runtime

            if len(self.programs) >= _PROGRAMS_MAX:
                self.programs.clear()
            program = _runtime.load_program(dispatch.entry, dispatch.dag, dispatch.task, dispatch.folder)
            self.programs[key] = program
        elif program is not self.settled:
            from . import _runtime

            _runtime.settle(program, dispatch.folder or os.path.dirname(dispatch.entry))
        self.settled = program
        return program

    def run_plain(self, dispatch: _frames.Dispatch, run: Any) -> int:
        """Members of a task that takes its event and nothing else: what most of them are.

        The hottest lines of the SDK: no call of ours per member, not even to make its event.
        """
        table = dispatch.table
        body = table.body
        place, start, clock = self.place, self.start, time.monotonic_ns
        for member, begin, end in zip(range(dispatch.members), *table.places("value")):
            # From here on it is not among those that can be returned (`return_rest`).
            place[0] = member
            now = clock()
            if now >= self.flush_at and self.between(dispatch, member, now):
                return member
            start[0] = now
            event = Event()
            event.value = body[begin:end] if begin else None
            event._table = table
            event._row = member
            try:
                value = run(event)
                if value is not None:
                    self.succeed(member, now, "call", value, None)
            except BaseException as error:
                self.fail(member, now, error)
        return dispatch.members

    def run_members(self, dispatch: _frames.Dispatch, program: Any) -> int:
        run = program.run
        plain = program.kind in ("call", "noop")
        independent = dispatch.order == "independent"
        held: Set[int] = set()
        place, start, clock = self.place, self.start, time.monotonic_ns
        context: Any = None
        handles: Any = repeat(None)
        if program.wants_ctx:
            from ._runtime import make_context as context

            handles = map(Handle, repeat(self), repeat(dispatch), range(dispatch.members))
        events: Any = dispatch.events() if program.wants_event else repeat(None)
        for member, event, handle in zip(range(dispatch.members), events, handles):
            place[0] = member
            now = clock()
            if now >= self.flush_at and self.between(dispatch, member, now):
                return member
            if held and dispatch.table.number("scope", member, 0) in held:
                self.end(member, now, _frames.HELD)
                continue
            start[0] = now
            try:
                value = run(event, None if handle is None else context(handle))
                if value is None and plain and (handle is None or not (handle.state_ops or handle.xcoms or handle.says)):
                    continue
                good = self.succeed(member, now, program.kind, value, handle)
            except BaseException as error:
                good = self.fail(member, now, error)
            if good or independent:
                continue
            if dispatch.order == "stop_on_failure":
                return member + 1
            # Scope 0 is none, so nobody else is in it.
            held.update(filter(None, [dispatch.table.number("scope", member, 0)]))
        return dispatch.members

    def run_together(self, dispatch: _frames.Dispatch, program: Any) -> int:
        """`@task(batch=N)`: one call for all members, an outcome for each."""
        from ._runtime import make_context

        handles = [Handle(self, dispatch, member) for member in range(dispatch.members)]
        started = time.monotonic_ns()
        self.place[0] = dispatch.members - 1
        try:
            values = program.run_batch(list(dispatch.events()), [make_context(handle) for handle in handles])
        except Terminated:
            raise
        except BaseException as error:
            self.fail_all(dispatch, error, None)
            return dispatch.members
        for member, (value, handle) in enumerate(zip(values, handles)):
            if isinstance(value, BaseException):
                self.fail(member, started, value)
            elif value is not None or handle.state_ops or handle.xcoms or handle.says:
                try:
                    self.succeed(member, started, "call", value, handle)
                except BaseException as error:
                    self.fail(member, started, error)
            if self.flush_at == 0:
                self.flush()
                self.flush_at = self.slice_end
        return dispatch.members

    def run_many(self, dispatch: _frames.Dispatch, program: Any) -> int:
        """`concurrency=`: members side by side."""
        from ._many import Many

        self.many = Many(self, dispatch, program)
        ended = self.many.run()
        self.many = None
        return ended

    def between(self, dispatch: _frames.Dispatch, member: int, now: int) -> bool:
        """Reports, listens; whether the members from this one on are to be returned."""
        if self.stray:
            os._exit(0)
        self.start[0] = 0
        self.flush(member)
        self.pump()
        if self.stopping or dispatch.call in self.recalled or (member and now >= self.slice_end):
            return True
        self.flush_at = min(now + self.flush_ns, max(self.slice_end, now + 1))
        return False

    # Outcomes.

    def end(self, member: int, started: int, kind: int, *values: Any) -> None:
        if self.many is not None:
            self.many.kept[member] = started, time.monotonic_ns(), kind, *values
            return
        self.counting = True
        outcomes = self.outcomes
        outcomes.end(member, started, time.monotonic_ns(), kind, *values)
        if outcomes.bytes >= self.flush_bytes:
            self.flush_at = 0
        self.counting = False

    def succeed(self, member: int, started: int, kind: str, value: Any, handle: Optional[Handle]) -> bool:
        detail: Dict[str, Any] = {}
        if kind == "call":
            pass
        elif kind == "branch":
            detail["branch"] = [] if value is None else [value] if isinstance(value, str) else list(value)
        elif kind == "short_circuit":
            detail["proceed"] = bool(value)
        elif kind == "sensor":
            # Airflow's PokeReturnValue is true or false and may carry a value.
            if not value:
                self.end(member, started, _frames.WAITING)
                return False
            value = getattr(value, "xcom_value", None)
        if handle is not None:
            if handle.state_ops:
                detail["state"] = handle.state_ops
            if handle.xcoms:
                detail["xcoms"] = handle.xcoms
            if handle.says:
                detail["says"] = handle.says
        result = b"" if value is None else _values.encode(value)
        encoded = _frames.content(detail) if detail else b""
        if len(result) > self.result_bytes_max or len(encoded) > self.result_bytes_max:
            raise _TooLarge(max(len(result), len(encoded)), self.result_bytes_max)
        length = len(value) if isinstance(value, (list, tuple, dict)) else -1
        self.end(member, started, _frames.VALUE, result, encoded, length)
        return True

    def fail(self, member: int, started: int, error: BaseException) -> bool:
        """How a member that raised ends; whether those behind it may go on all the same."""
        if isinstance(error, Terminated):
            raise error
        if _is(error, "Skip", "AirflowSkipException"):
            self.end(member, started, _frames.SKIPPED)
            return True
        if _is(error, "", "AirflowRescheduleException"):
            self.end(member, started, _frames.WAITING, b"", _until(error))
            return False
        self.end(member, started, _frames.FAILED, b"", self.describe(error))
        return False

    def fail_all(self, dispatch: _frames.Dispatch, error: BaseException, kind: Optional[str]) -> None:
        described = self.describe(error, kind)
        # No signal may change how many there are.
        self.counting = True
        self.end(0, self.outcomes.since, _frames.FAILED, b"", described, -1, dispatch.end)

    def describe(self, error: BaseException, kind: Optional[str] = None) -> bytes:
        retryable = not _is(error, "Fail", "AirflowFailException")
        if isinstance(error, (_values.Unserialisable, _TooLarge)):
            kind = "unserialisable" if isinstance(error, _values.Unserialisable) else "too_large"
            retryable = False
        elif kind is None:
            kind = "exited" if isinstance(error, (SystemExit, KeyboardInterrupt)) else "raised"
        described = {
            "kind": kind,
            "class": _class_name(type(error)),
            "message": _capped(_text(error), self.limits["error_message_bytes_max"]),
            "traceback": _capped(_trace(error), self.limits["error_traceback_bytes_max"]),
            "retryable": retryable,
        }
        return _frames.content(described)

    def flush(self, member: Optional[int] = None) -> None:
        """Sends what is known of the members before the one that runs."""
        if self.stray:
            raise RuntimeError("a child process forked by a task cannot speak to the engine")
        with self.guard:
            dispatch = self.dispatch
            if dispatch is not None:
                # A vectorised call has no member that runs before the others.
                ended = self.member() if member is None else member
                if self.many is not None:
                    self.many.settle()
                elif not dispatch.vectorised:
                    self.outcomes.close(ended, time.monotonic_ns())
                data = self.output.take() + self.outcomes.take(dispatch.call)
                if data:
                    self.channel.write(data)

    def member(self) -> int:
        """Who runs, by the shared page; -1 where nobody does, or all do."""
        dispatch = self.dispatch
        if self.many is not None:
            from ._many import current

            return current.get()
        return -1 if dispatch is None or dispatch.vectorised else self.place[0]

    # Signals and forks.

    def on_term(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    def on_urge(self, *_: Any) -> None:
        """The engine sees a member that runs long while outcomes before it wait to be sent."""
        if self.counting or self.guard.busy or self.stray or self.many is not None:
            self.flush_at = 0
        elif self.dispatch is not None:
            self.flush()
            self.pump()
            # Under an order those behind it have to wait for it anyway.
            if self.dispatch.order == "independent" and not self.dispatch.vectorised:
                self.return_rest(self.dispatch, self.place[0] + 1)

    def return_rest(self, dispatch: _frames.Dispatch, begin: int) -> None:
        """The dispatch was recalled and what runs of it takes long: members from `begin` on are not started.

        A loop over members says on the page which one it comes to before it looks up, and looks up at
        once from now on, so that it starts none of those.
        """
        if dispatch.call in self.recalled and begin < dispatch.end:
            dispatch.end = begin
            self.flush_at = 0
            self.send(_frames.encode(dispatch.call, _frames.RETURNED, _frames.content({"from": begin})))

    def on_fork(self) -> None:
        self.stray = True
        self.flush_at = 0
        self.channel.sock.close()
        os.close(self.permits)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGURG, signal.SIG_IGN)
        _output.uninstall()


class _TooLarge(Exception):
    """A value beyond the bound."""

    def __init__(self, size: int, bound: int) -> None:
        super().__init__(
            f"the returned value takes {size} bytes as JSON and at most {bound} are kept; "
            "keep it elsewhere (a file, an object store) and return where it is"
        )


def _readable(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return True
    except BlockingIOError:
        return False


def _is(error: BaseException, own: str, airflow: str) -> bool:
    """Whether it is one of the exceptions that say how to end. Airflow's are known by name, so
    that those of an installed Airflow count as well."""
    for kind in type(error).__mro__:
        if kind.__name__ == airflow or (kind.__name__ == own and kind.__module__ == "evermill.context"):
            return True
    return False


def _until(error: BaseException) -> bytes:
    """When a sensor wants to be asked again, if it says so."""
    date = getattr(error, "reschedule_date", None)
    return b"" if date is None else _frames.content({"until_ms": max(0, round(date.timestamp() * 1000))})


def _class_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as failed:
        if isinstance(failed, Terminated):
            raise
        return f"<the exception's text cannot be had: its __str__ raised {type(failed).__name__}>"


#: Numbers of calls; they begin anew at the end.
_CALLS = 2**32
#: Frames of a traceback that are shown; the last ones, where it happened.
_TRACE_FRAMES = 50
#: Programs that are kept ready; versions of DAGs come and go.
_PROGRAMS_MAX = 4096


def _trace(error: BaseException) -> str:
    try:
        # The first frame is our own.
        trace = error.__traceback__ and error.__traceback__.tb_next
        return "".join(traceback.format_exception(type(error), error, trace, limit=-_TRACE_FRAMES))
    except BaseException as failed:
        if isinstance(failed, Terminated):
            raise
        return f"<the traceback cannot be had: {type(failed).__name__}>"


def _capped(text: str, bound: int) -> str:
    """The text, or its beginning and end when it is longer than the bound, in bytes."""
    data = text[: bound * 2].encode("utf-8", "backslashreplace") if len(text) <= bound else None
    if data is not None and len(data) <= bound:
        return data.decode()
    half = bound // 8
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"


def hello(channel: _frames.Channel) -> Dict[str, int]:
    """Says hello; what the engine answers are the bounds."""
    channel.send(
        0,
        _frames.HELLO,
        {
            "protocols": [_frames.PROTOCOL],
            "codecs": ["json"],
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "sdk": "evermill " + str(getattr(sys.modules["evermill"], "__version__", "")),
        },
    )
    frame = channel.read()
    if frame is None:
        os._exit(0)
    if frame.kind != _frames.WELCOME:
        raise _frames.FrameError(f"frame kind {frame.kind} instead of a welcome")
    return frame.content()["limits"]


def work(sock: socket.socket, page_fd: int, permits_fd: int) -> None:
    """The life of a worker process, after the fork."""
    channel = _frames.Channel(sock)
    limits = hello(channel)
    page = mmap.mmap(page_fd, mmap.PAGESIZE)
    os.close(page_fd)
    worker = Worker(channel, page, permits_fd, limits)
    _output.install(worker.output)
    signal.signal(signal.SIGTERM, worker.on_term)
    signal.signal(signal.SIGURG, worker.on_urge)
    signal.siginterrupt(signal.SIGURG, False)
    os.register_at_fork(after_in_child=worker.on_fork)
    try:
        worker.serve()
        atexit._run_exitfuncs()
    except Terminated:
        if not (worker.counting or worker.guard.busy or worker.stray):
            worker.flush()
        os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    from ._server import main

    main()
