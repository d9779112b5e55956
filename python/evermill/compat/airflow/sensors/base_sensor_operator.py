"""An old name."""

from airflow.sensors.base import BaseSensorOperator

__all__ = ["BaseSensorOperator"]
