"""Models a DAG file names."""

from airflow.models.baseoperator import BaseOperator
from airflow.models.dag import DAG

__all__ = ["DAG", "BaseOperator"]
