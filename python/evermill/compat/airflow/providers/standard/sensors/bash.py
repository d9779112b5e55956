"""Where Airflow 3 has it."""

from airflow.sensors.bash import BashSensor

__all__ = ["BashSensor"]
