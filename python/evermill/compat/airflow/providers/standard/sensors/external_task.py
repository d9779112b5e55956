"""The path of Airflow 3."""

from airflow.sensors.external_task import ExternalTaskSensor

__all__ = ["ExternalTaskSensor"]
