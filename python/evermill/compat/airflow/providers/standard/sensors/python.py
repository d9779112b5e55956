"""Where Airflow 3 has it."""

from airflow.sensors.python import PythonSensor

__all__ = ["PythonSensor"]
