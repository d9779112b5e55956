"""A sensor that waits until an instant."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Union

from airflow._option import refuse_templates
from airflow.sensors._time import UntilSensor
from evermill._fault import DagError, blame

__all__ = ["DateTimeSensor", "DateTimeSensorAsync"]


class DateTimeSensor(UntilSensor):
    """Waits until `target_time`, a datetime or a text in ISO 8601."""

    def __init__(self, *, task_id: str, target_time: Union[str, datetime], **options: Any) -> None:
        owner = f"task {task_id!r}"
        refuse_templates(owner, [target_time])
        if isinstance(target_time, str):
            try:
                target_time = datetime.fromisoformat(target_time.replace("Z", "+00:00"))
            except ValueError:
                cure = "write a datetime, or a text such as 2026-01-31T12:00:00+00:00"
                blame(DagError("bad_value", f"{owner}: target_time={target_time!r} is no instant", cure))
        self.target_time = target_time
        super().__init__(task_id=task_id, **options)

    def target(self, context: Any) -> Any:
        return self.target_time


class DateTimeSensorAsync(DateTimeSensor):
    """The same: no sensor holds a worker here."""

    def __init__(self, *, start_from_trigger: bool = False, trigger_kwargs: Any = None, **options: Any) -> None:
        super().__init__(**options)
