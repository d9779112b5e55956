"""What a task's code finds around it: environment variables, working directory, priority, a limit on memory.

They are put in place for the time of a dispatch and taken back after it, because a worker serves many
tasks. Only priority cannot be taken back by a process without privileges: the engine gives a task
that wants a higher one another worker.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, Optional

from ._fault import DagError

#: What a process allocates: private writable memory, the libraries it maps apart. Elsewhere than on
#: Linux nothing but the address space can be limited.
_LIMIT = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS


class Surroundings:
    """Those of one task."""

    __slots__ = ("task", "env", "memory")

    def __init__(self, task: str, fields: Dict[str, Any]) -> None:
        self.task = task
        self.env: Dict[str, str] = fields.get("env", {})
        self.memory: Optional[int] = fields.get("memory_limit_bytes")

    @contextmanager
    def around(self, cwd: Optional[str], nice: int) -> Iterator[None]:
        """Puts them in place and takes them back."""
        with ExitStack() as stack:
            if self.env:
                stack.enter_context(_environment(self.env))
            if cwd is not None:
                stack.enter_context(_folder(self.task, cwd))
            if nice:
                _yield_to_others(nice)
            if self.memory is not None:
                stack.enter_context(_memory(self.task, self.memory))
            yield

    def __bool__(self) -> bool:
        return bool(self.env) or self.memory is not None


def limit_memory(bytes: int) -> None:
    """For the rest of this process's life, unless less is allowed already."""
    _, most = resource.getrlimit(_LIMIT)
    if most == resource.RLIM_INFINITY or most > bytes:
        resource.setrlimit(_LIMIT, (bytes, bytes))


@contextmanager
def _environment(wanted: Dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _folder(task: str, cwd: str) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY)
    try:
        try:
            os.chdir(cwd)
        except OSError as why:
            cure = "make the folder, or change cwd="
            raise DagError("bad_value", f"task {task!r} cannot run in {cwd!r}: {why.strerror}", cure) from None
        yield
    finally:
        os.fchdir(before)
        os.close(before)


_base_nice: Optional[int] = None


def _yield_to_others(nice: int) -> None:
    """Counted from what the engine runs with."""
    global _base_nice
    now = os.getpriority(os.PRIO_PROCESS, 0)
    if _base_nice is None:
        _base_nice = now
    wanted = min(19, _base_nice + nice)
    if wanted > now:
        os.setpriority(os.PRIO_PROCESS, 0, wanted)


@contextmanager
def _memory(task: str, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(_LIMIT)
    taken = _taken()
    if taken >= limit:
        raise DagError(
            "bad_value",
            f"task {task!r} may take {limit} bytes, and its worker has taken {taken} before the task begins",
            "raise memory_limit; what the DAG file imports counts",
        )
    resource.setrlimit(_LIMIT, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(_LIMIT, (soft, hard))


def _taken() -> int:
    """What counts against the limit now; 0 where the system does not say."""
    try:
        with open("/proc/self/status") as status:
            sizes = [line.split()[1] for line in status if line.startswith("VmData:")]
        return int(sizes[0]) * 1024
    except (OSError, LookupError, ValueError):
        return 0
