"""What DAG files for Apache Airflow import, as far as evermill stands in for it."""

from airflow.datasets import Dataset
from airflow.models.dag import DAG

__all__ = ["DAG", "Dataset"]
