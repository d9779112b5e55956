"""Days of the week."""

from __future__ import annotations

import enum


class WeekDay(enum.IntEnum):
    """By their ISO numbers."""

    MONDAY = 1
    TUESDAY = 2
    WEDNESDAY = 3
    THURSDAY = 4
    FRIDAY = 5
    SATURDAY = 6
    SUNDAY = 7
