"""`EmptyOperator`."""

from __future__ import annotations

from typing import Any

from airflow.models.baseoperator import BaseOperator


class EmptyOperator(BaseOperator):
    """Does nothing; edges meet here."""

    def __init__(self, *, task_id: str, **options: Any) -> None:
        super().__init__(task_id=task_id, **options)
