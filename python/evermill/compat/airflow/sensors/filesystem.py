"""Airflow's sensor of files: at the root of a DAG without a schedule it is a source."""

from __future__ import annotations

import glob
from typing import Any

from airflow.sensors.base import BaseSensorOperator

from evermill._files import files_config

__all__ = ["FileSensor"]


class FileSensor(BaseSensorOperator):
    """A file, a folder or a path with wildcards. Each version of each file is an event: `event.path` says which.

    A relative `filepath` counts from the address of `fs_conn_id`, which is `/` for `fs_default`. `recursive` is part of
    the pattern here: `**` goes to any depth in any case. Inside an activation it waits until there is one, on this machine. `timeout`,
    `mode`, `soft_fail` and `deferrable` concern that; a source listens for ever.
    """

    def __init__(
        self,
        *,
        task_id: str,
        filepath: Any,
        fs_conn_id: str = "fs_default",
        recursive: bool = False,
        poke_interval: Any = None,
        start_from_trigger: bool = False,
        trigger_kwargs: Any = None,
        **options: Any,
    ) -> None:
        own = fs_conn_id == "fs_default"
        listens = files_config(
            f"task {task_id!r}",
            path=f"/{filepath}" if own and isinstance(filepath, str) and not filepath.startswith("/") else filepath,
            connection=None if own else fs_conn_id,
            poke_interval=60 if poke_interval is None else poke_interval,
        )
        super().__init__(task_id=task_id, poke_interval=poke_interval, **options)
        self.listens = {"kind": "files", **listens}
        self.path = listens.get("path", "")
        if not own:
            # Where the files are is known to the engine alone.
            self.poking = {}

    def poke(self, context: Any) -> bool:
        return bool(glob.glob(self.path, recursive=True))
