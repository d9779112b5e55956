"""Exceptions with a meaning to whoever runs the task."""

from __future__ import annotations

from evermill.context import Fail, Skip


class AirflowException(Exception):
    """Something went wrong."""


class AirflowSkipException(Skip, AirflowException):
    """The task ends as skipped."""


class AirflowFailException(Fail, AirflowException):
    """The task fails, and no retry follows."""
