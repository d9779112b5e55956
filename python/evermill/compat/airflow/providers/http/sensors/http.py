"""Airflow's sensor of HTTP: at the root of a DAG without a schedule it is a source."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from airflow.models.baseoperator import BaseOperator

from evermill._http import http_config

__all__ = ["HttpSensor"]


class HttpSensor(BaseOperator):
    """Asks an endpoint again and again; an event is the moment in which what is asked for becomes true.

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
        poke_interval: Any = 60,
        timeout: Any = None,
        mode: str = "poke",
        soft_fail: bool = False,
        deferrable: bool = False,
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
            poke_interval=poke_interval,
        )
        tests = self._asked_for(request_params or {}) if response_check is None else []
        if tests:
            listens["check"] = {"tests": tests}
        super().__init__(task_id=task_id, kind="sensor", **options)
        self.listens = {"kind": "http", **listens}

    def _asked_for(self, params: Dict[str, Any]) -> List[dict]:
        """What has to hold of an answer where nobody says it: nothing, as in Airflow."""
        return []
