"""The path of Airflow 1."""

from airflow.operators.empty import EmptyOperator as DummyOperator

__all__ = ["DummyOperator"]
