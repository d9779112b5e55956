"""Sensors where no engine waits: in `evermill.testing`, where waiting takes no time, and in `evermill test`."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Optional

from ._dag import Task
from ._worker import _is
from .context import Fail, Skip

#: Whether time passes: in `evermill test` it does, in tests of an author's nobody waits.
really = False

#: What asks a place over HTTP for a sensor that has no function; none in tests, where it is true at once.
place: Optional[Callable[[Task], Any]] = None

#: Questions after which a sensor in a test is taken for one that never comes true.
_QUESTIONS_MAX = 100_000


class Patience:
    """One sensor's waiting, by the rules of the engine: exponential intervals, and one last question at the end."""

    def __init__(self, task: Task) -> None:
        self._task = task
        poke: Dict[str, Any] = task.poking
        self._interval = poke.get("interval_ms", 60_000) / 1000
        self._exponential = poke.get("exponential", False)
        self._most = poke.get("max_interval_ms", 24 * 3600 * 1000) / 1000
        timeout = poke.get("timeout_ms")
        self._timeout = None if timeout is None else timeout / 1000
        self._soft = poke.get("soft_fail", False)
        self._asked = 0
        #: Since the first *not yet*, in seconds; of a clock that only we move unless `really`.
        self._waited = 0.0

    def ask(self, question: Callable[[], Any]) -> Any:
        """Asks until it is true; what it said then."""
        while True:
            until = None
            try:
                said = place(self._task) if self._task.polls and place else self._task.polls or question()
            except BaseException as error:
                if not _is(error, "", "AirflowRescheduleException"):
                    raise
                said, until = False, getattr(error, "reschedule_date", None)
            if said or (until is not None and not really):
                return said
            self._wait(until)

    def _wait(self, until: Optional[datetime]) -> None:
        self._asked += 1
        left = None if self._timeout is None else self._timeout - self._waited
        if (left is not None and left <= 0) or self._asked >= _QUESTIONS_MAX:
            text = f"it was not there within {self._waited:g} s"
            raise Skip(text) if self._soft else Fail(text)
        wait = min(self._interval * 2 ** (min(self._asked - 1, 40) if self._exponential else 0), self._most)
        if until is not None:
            wait = max(0.0, (until - datetime.now(timezone.utc)).total_seconds())
        wait = wait if left is None else min(wait, left)
        if really:
            print(f"{self._task.id}: not yet; asked again in {wait:g} s", file=sys.stderr, flush=True)
            time.sleep(wait)
        self._waited += max(wait, 0.001)
