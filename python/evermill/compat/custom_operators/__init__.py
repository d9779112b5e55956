"""Sensors that listen: at the root of a DAG without a schedule they are sources."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from airflow.models.baseoperator import BaseOperator
from airflow.providers.http.sensors import http

from evermill._source import kafka_config

__all__ = ["HttpSensor", "KafkaSensor"]


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


class HttpSensor(http.HttpSensor):
    """Airflow's, which also looks for what it asks for: `request_params={"status": "deployed"}` is not
    met by an answer that is JSON and says `"status": "pending"`. An answer without that name is not
    looked into. With a `response_check`, that alone decides.
    """

    def _asked_for(self, params: Dict[str, Any]) -> List[dict]:
        def pointer(name: str) -> str:
            return "/" + name.replace("~", "~0").replace("/", "~1")

        return [
            {"pointer": pointer(name), "op": "same_text", "value": str(value), "if_present": True}
            for name, value in params.items()
            if value is not None
        ]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"custom_operators has no {name!r} yet; it has {', '.join(__all__)}", name=__name__)
