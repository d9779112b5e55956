"""The name of old."""

from airflow.operators.empty import EmptyOperator as DummyOperator

__all__ = ["DummyOperator"]
