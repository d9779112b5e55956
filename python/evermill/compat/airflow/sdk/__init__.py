"""The authoring names of Airflow 3."""

from airflow.datasets import Asset
from airflow.decorators import dag, task
from airflow.models.baseoperator import BaseOperator
from airflow.models.dag import DAG
from airflow.sensors.base import BaseSensorOperator, PokeReturnValue
from airflow.utils.trigger_rule import TriggerRule

__all__ = ["Asset", "DAG", "BaseOperator", "BaseSensorOperator", "PokeReturnValue", "TriggerRule", "dag", "task"]
