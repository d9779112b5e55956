"""A sensor that waits for some time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.models.baseoperator import BaseOperator
from airflow.sensors._time import UntilSensor
from evermill._option import milliseconds
from evermill._sensor import POKE

__all__ = ["TimeDeltaSensor", "TimeDeltaSensorAsync", "WaitSensor"]


class TimeDeltaSensor(UntilSensor):
    """Waits until `delta` after the end of the data interval, which is the logical date of what was triggered."""

    def __init__(self, *, task_id: str, delta: timedelta, **options: Any) -> None:
        self.delta = delta
        super().__init__(task_id=task_id, **options)

    def target(self, context: Any) -> datetime:
        return context["data_interval_end"] + self.delta


class TimeDeltaSensorAsync(TimeDeltaSensor):
    """The same: no sensor holds a worker here."""

    def __init__(self, *, end_from_trigger: bool = False, **options: Any) -> None:
        super().__init__(**options)


class WaitSensor(BaseOperator):
    """Waits for `time_to_wait`, a timedelta or minutes, from when its turn has come. No worker is asked."""

    def __init__(self, *, task_id: str, time_to_wait: Any, deferrable: bool = False, **options: Any) -> None:
        delta = time_to_wait if isinstance(time_to_wait, timedelta) else timedelta(minutes=time_to_wait)
        super().__init__(task_id=task_id, kind="sensor", **{name: one for name, one in options.items() if name not in POKE})
        self.wait = {"delay_ms": milliseconds(delta)}
