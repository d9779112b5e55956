"""Exceptions with a meaning to whoever runs the task."""

from __future__ import annotations

from typing import Any

from evermill.context import Fail, Skip


class AirflowException(Exception):
    """Something went wrong."""


class AirflowSkipException(Skip, AirflowException):
    """The task ends as skipped."""


class AirflowFailException(Fail, AirflowException):
    """The task fails, and no retry follows."""


class AirflowSensorTimeout(AirflowFailException):
    """What a sensor waited for did not come in time."""


class AirflowRescheduleException(AirflowException):
    """A sensor is to be asked again at this time, and not before."""

    def __init__(self, reschedule_date: Any) -> None:
        super().__init__(f"asked again at {reschedule_date}")
        self.reschedule_date = reschedule_date
