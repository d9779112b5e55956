"""A sensor that waits for a time of the day."""

from __future__ import annotations

from datetime import datetime, time, timezone
from typing import Any

from airflow.sensors._time import UntilSensor, aware

__all__ = ["TimeSensor", "TimeSensorAsync"]


class TimeSensor(UntilSensor):
    """Waits until `target_time` of the day on which it is first asked, by the clock of the DAG's time zone."""

    def __init__(self, *, task_id: str, target_time: time, **options: Any) -> None:
        self.target_time = target_time
        super().__init__(task_id=task_id, **options)

    def target(self, context: Any) -> datetime:
        zone = self.target_time.tzinfo or getattr(self.dag, "timezone", None) or timezone.utc
        begun = aware(context["ti"].logical_date)
        return datetime.combine(begun.astimezone(zone).date(), self.target_time.replace(tzinfo=None), zone)


class TimeSensorAsync(TimeSensor):
    """The same: no sensor holds a worker here."""
