"""Sensors: tasks that are asked again and again until what they wait for is there."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, NoReturn, Optional, Tuple

from . import _option
from ._asked import POKE as ASKED
from ._dag import Dag, Source, Task
from ._fault import DagError, blame
from ._source import OWN, declare
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


def asked_config(sensor: Task) -> Dict[str, Any]:
    """The `config` of the source that a root sensor becomes whose function is asked."""
    name = getattr(sensor, "asked_as", None) or getattr(sensor.fn, "__name__", None) or sensor.id
    return poll_config(str(name), sensor.poking.get("interval_ms", _DEFAULTS["interval_ms"]))


def poll_config(function: str, interval_ms: int) -> Dict[str, Any]:
    """The `config` of a source that asks a function, without what is default."""
    config: Dict[str, Any] = {"kind": "poll", "function": function}
    if interval_ms != _DEFAULTS["interval_ms"]:
        config["poke_interval_ms"] = interval_ms
    return config


def poll(
    function: Callable[[], Any],
    *,
    poke_interval: Any = 60,
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Asks a function every `poke_interval`, for ever. An event is the moment in which it becomes true, or in which
    what it found is something else.

    It returns True or False, or a `PokeReturnValue` whose value is the event's content. It runs in a worker, outside
    of any task, and what it raises says nothing: it is asked again.
    """
    owner = f"poll({getattr(function, '__name__', function)})"
    if not callable(function):
        blame(DagError("bad_value", f"{owner}: it is no function", "give it a function that says True or False"))
    else:
        try:
            inspect.signature(function).bind()
        except TypeError:
            cure = "give it no parameters; what it needs it can reach by itself"
            blame(DagError("bad_call", f"{owner}: the function is called without arguments", cure))
        except ValueError:  # some built-in callables have no signature
            pass
    interval = _option.convert(owner, {"poke_interval": POKE["poke_interval"]}, {"poke_interval": poke_interval})
    config = poll_config(str(getattr(function, "__name__", type(function).__name__)), interval.get("interval_ms", 60_000))
    own = {"order": order, "freshness": freshness, "rate_limit": rate_limit, **unknown}
    source = declare("poll", config, name, _option.convert(owner, OWN, own))
    source.functions = {ASKED: function}
    return source


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
