"""A sensor that asks a command."""

from __future__ import annotations

import os
import subprocess
from typing import Any, Dict, Optional

from airflow._option import refuse_templates
from airflow.exceptions import AirflowFailException
from airflow.sensors.base import BaseSensorOperator

__all__ = ["BashSensor"]


class BashSensor(BaseSensorOperator):
    """What is waited for is there once the command ends with 0. With `retry_exit_code` any other code than that one
    fails the task at once.
    """

    def __init__(
        self,
        *,
        task_id: str,
        bash_command: str,
        env: Optional[Dict[str, str]] = None,
        output_encoding: str = "utf-8",
        retry_exit_code: Optional[int] = None,
        **options: Any,
    ) -> None:
        refuse_templates(f"task {task_id!r}", [bash_command, *(env or {}).values()])
        self.bash_command, self.own_env, self.retry_exit_code = bash_command, env, retry_exit_code
        super().__init__(task_id=task_id, **options)

    def poke(self, context: Any) -> bool:
        env = dict(os.environ) if self.own_env is None else self.own_env
        code = subprocess.run(["bash", "-c", self.bash_command], env=env, check=False).returncode
        if code and self.retry_exit_code is not None and code != self.retry_exit_code:
            raise AirflowFailException(f"the command ended with {code}, not with 0 or {self.retry_exit_code}")
        return code == 0
