"""Sensors: tasks that are asked again and again until what they wait for is there."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from . import _option
from ._dag import Dag, Task
from ._task import TaskDecorator, TaskFunction, task

#: Option of a sensor -> (field of the manifest's `poke`, converter).
POKE: Dict[str, Tuple[str, _option.Converter]] = {
    "poke_interval": ("interval_ms", _option.milliseconds),
    "exponential_backoff": ("exponential", _option.flag),
    "max_wait": ("max_interval_ms", _option.milliseconds),
    "timeout": ("timeout_ms", _option.milliseconds),
    "soft_fail": ("soft_fail", _option.flag),
    # One row waits whatever it is called: both words mean the same.
    "mode": ("mode", _option.one_of("poke", "reschedule")),
}
_DEFAULTS = {"interval_ms": 60_000, "exponential": False, "soft_fail": False}


def poke_fields(owner: str, given: Dict[str, Any]) -> Dict[str, Any]:
    """The manifest's `poke`, without what is default; never empty, so that it says what it is."""
    fields = _option.convert(owner, POKE, given)
    fields.pop("mode", None)
    kept = {name: value for name, value in fields.items() if _DEFAULTS.get(name) != value}
    return kept or {"interval_ms": _DEFAULTS["interval_ms"]}


class SensorFunction(TaskFunction):
    """A function that says whether what is waited for is there."""

    def settle(self, dag: Optional[Dag]) -> Tuple[Optional[str], Dict[str, Any]]:
        name, fields = TaskFunction(self.fn, self.kind, self._task_options(), {}).settle(dag)
        poke_fields(self._owner(name), self._poke_options())  # a wrong option shows where it stands
        return name, fields

    def _declare(self, dag: Dag, args: tuple, kwargs: Dict[str, Any]) -> Task:
        made = super()._declare(dag, args, kwargs)
        made.poking = poke_fields(self._owner(made.id), self._poke_options())
        return made

    def _owner(self, name: Optional[str]) -> str:
        return f"sensor {name or self.__name__!r}"

    def _poke_options(self) -> Dict[str, Any]:
        return {name: value for name, value in self.options.items() if name in POKE}

    def _task_options(self) -> Dict[str, Any]:
        """What any task has; `timeout` is that of the waiting here, `poke_timeout` that of one question."""
        options = {name: value for name, value in self.options.items() if name not in POKE}
        if "poke_timeout" in options:
            options["timeout"] = options.pop("poke_timeout")
        return options


#: The function is asked every `poke_interval` until it is true, for `timeout` at most; in between nothing of it runs.
#: It returns True or False, or a `PokeReturnValue` whose value becomes the task's result.
sensor = TaskDecorator("sensor", SensorFunction)
task.sensor = sensor
