"""A sensor that waits for a day of the week."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Iterable, Set, Union

from airflow.sensors.base import BaseSensorOperator
from evermill._fault import DagError, blame, nearest

__all__ = ["DayOfWeekSensor"]

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class DayOfWeekSensor(BaseSensorOperator):
    """Waits for one of these days, by UTC: the day it is asked on, or that of the logical date."""

    def __init__(
        self,
        *,
        task_id: str,
        week_day: Any,
        use_task_logical_date: bool = False,
        use_task_execution_day: bool = False,
        **options: Any,
    ) -> None:
        self.week_day = week_day
        self.days = _days(f"task {task_id!r}", week_day)
        self.use_task_logical_date = use_task_logical_date or use_task_execution_day
        super().__init__(task_id=task_id, **options)

    def poke(self, context: Any) -> bool:
        date = context["logical_date"] if self.use_task_logical_date else datetime.now(timezone.utc)
        return date.weekday() in self.days


def _days(owner: str, given: Union[str, Any, Iterable[Any]]) -> Set[int]:
    several = given if isinstance(given, (list, tuple, set, frozenset, dict)) else [given]
    found = set()
    for one in several:
        name = str(getattr(one, "name", one)).lower()
        if name in _DAYS:
            found.add(_DAYS.index(name))
        else:
            blame(DagError("bad_value", f"{owner}: week_day={one!r} is no day", nearest(name, _DAYS)))
    return found
