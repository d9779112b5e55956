"""The path of Airflow 3."""

from airflow.sensors.filesystem import FileSensor

__all__ = ["FileSensor"]
