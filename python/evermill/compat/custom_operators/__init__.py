"""Sensors that listen: at the root of a DAG without a schedule they are sources."""

from __future__ import annotations

from typing import Any, Optional

from airflow.models.baseoperator import BaseOperator

from evermill._source import kafka_config

__all__ = ["KafkaSensor"]


class KafkaSensor(BaseOperator):
    """Every message of a Kafka topic, each an activation of its own.

    `poke_interval` is the longest wait between two checks, never a delay: a message is seen when it
    arrives. `timeout`, `mode`, `soft_fail` and `deferrable` concern a sensor that waits inside an
    activation; a source listens for ever.
    """

    def __init__(
        self,
        *,
        task_id: str,
        topic: str,
        group_id: Optional[str] = None,
        auto_offset_reset: str = "latest",
        poke_interval: Any = None,
        kafka_conn_id: str = "kafka_default",
        timeout: Any = None,
        mode: str = "poke",
        soft_fail: bool = False,
        deferrable: bool = False,
        **options: Any,
    ) -> None:
        listens = kafka_config(
            f"task {task_id!r}",
            topic=topic,
            group_id=group_id,
            auto_offset_reset=auto_offset_reset,
            connection=kafka_conn_id,
            poke_interval=poke_interval,
        )
        super().__init__(task_id=task_id, kind="sensor", **options)
        self.listens = {"kind": "kafka", **listens}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"custom_operators has no {name!r} yet; it has {', '.join(__all__)}", name=__name__)
