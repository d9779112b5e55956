"""Airflow's sensor of HTTP: at the root of a DAG without a schedule it is a source."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from airflow.sensors.base import BaseSensorOperator

from evermill._http import functions, http_config

__all__ = ["HttpSensor"]


class HttpSensor(BaseSensorOperator):
    """Asks an endpoint again and again. As a source an event is the moment in which what is asked for becomes true;
    inside an activation it waits for that, and an answer such as 503 is a failed try, as in Airflow.

    An answer is true when its status is 2xx and `response_check` holds, false when it does not or the
    status is 404. `timeout`, `mode`, `soft_fail` and `deferrable` concern a sensor that waits inside an
    activation; a source listens for ever.
    """

    def __init__(
        self,
        *,
        task_id: str,
        endpoint: str,
        http_conn_id: str = "http_default",
        method: str = "GET",
        request_params: Optional[Dict[str, Any]] = None,
        headers: Optional[Dict[str, str]] = None,
        response_check: Any = None,
        poke_interval: Any = None,
        **options: Any,
    ) -> None:
        listens = http_config(
            f"task {task_id!r}",
            endpoint=endpoint,
            connection=http_conn_id,
            method=method,
            request_params=request_params,
            headers=headers,
            response_check=response_check,
            poke_interval=60 if poke_interval is None else poke_interval,
        )
        tests = self._asked_for(request_params or {}) if response_check is None else []
        if tests:
            listens["check"] = {"tests": tests}
        super().__init__(task_id=task_id, poke_interval=poke_interval, **options)
        self.poking["strict"] = True
        self.fn = None  # whoever asks for it needs no worker
        self.polls = listens
        self.listens = {"kind": "http", **listens}
        self.functions = functions(response_check)

    def _asked_for(self, params: Dict[str, Any]) -> List[dict]:
        """What has to hold of an answer where nobody says it: nothing, as in Airflow."""
        return []
