"""Sensors that wait for a time: asked once, and again when it has come."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.exceptions import AirflowRescheduleException
from airflow.sensors.base import BaseSensorOperator


class UntilSensor(BaseSensorOperator):
    """Waits until `target(context)`, whatever its `poke_interval`. A time is one of an activation, so it is no source."""

    may_be_asked = False

    def target(self, context: Any) -> datetime:
        """The instant, aware."""
        raise NotImplementedError

    def poke(self, context: Any) -> bool:
        target = aware(self.target(context))
        if datetime.now(timezone.utc) < target:
            raise AirflowRescheduleException(target)
        return True


def aware(instant: datetime) -> datetime:
    """UTC where no zone is given."""
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)
