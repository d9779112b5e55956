"""Where Airflow 3 has it."""

from airflow.sensors.time_sensor import TimeSensor, TimeSensorAsync

__all__ = ["TimeSensor", "TimeSensorAsync"]
