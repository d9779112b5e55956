"""The path of Airflow 3."""

from airflow.operators.empty import EmptyOperator

__all__ = ["EmptyOperator"]
