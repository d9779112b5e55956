"""Where Airflow 3 has it."""

from airflow.sensors.weekday import DayOfWeekSensor

__all__ = ["DayOfWeekSensor"]
