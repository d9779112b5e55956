"""What the tests share: loading a DAG file the way the engine does, and a stand-in for the worker's handle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Loaded(NamedTuple):
    """What the loader's process left behind."""

    code: int
    out: str
    err: str

    @property
    def manifest(self) -> Dict[str, Any]:
        return self._last("EVERMILL-MANIFEST ")

    @property
    def faults(self) -> List[Dict[str, Any]]:
        return self._last("EVERMILL-FAULTS ")

    def _last(self, mark: str) -> Any:
        last = self.out.splitlines()[-1] if self.out else ""
        assert last.startswith(mark), f"exit {self.code}\n{self.out}\n{self.err}"
        return json.loads(last[len(mark) :])


def load_file(path: Path, folder: Optional[Path] = None) -> Loaded:
    command = [sys.executable, "-m", "evermill._load", str(path), *(["--folder", str(folder)] if folder else [])]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, cwd=str(path.parent), capture_output=True, text=True, timeout=60)
    return Loaded(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def load(tmp_path):
    """Loads the text of a DAG file, beside other files of its folder."""

    def run(text: str, **others: str) -> Loaded:
        for name, content in others.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "flow.py").write_text(text)
        return load_file(tmp_path / "flow.py", tmp_path)

    return run


def sink_of(loaded: Loaded) -> Any:
    """The last task of the first DAG, and the place that it writes to."""
    assert loaded.code == 0, loaded.err
    task = loaded.manifest["dags"][0]["tasks"][-1]
    return task, task["sink"]


class Handle:
    """The worker's side of a context, for one member."""

    dag_id = "flow"
    run_id = "run-1"
    task_id = "t"
    try_number = 1
    map_index = -1

    def __init__(self, event: Any = None, results: Optional[Dict[str, Any]] = None) -> None:
        self.event = event
        self.events = event if isinstance(event, list) else [] if event is None else [event]
        self.results = results or {}
        self.said: List[Any] = []

    def event_of(self, source: str) -> Any:
        return next((event for event in self.events if event.source == source), None)

    def effect_key(self, call_index: int) -> str:
        return f"key-{call_index}"

    def ask(self, kind: str, **args: Any) -> Any:
        self.said.append((kind, args))
        return "answer"

    def state_op(self, op: str, key: str, value: Any) -> Any:
        self.said.append((op, key, value))

    def result_of(self, task_id: str) -> Any:
        return self.results.get(task_id)

    def xcom_push(self, key: str, value: Any) -> None:
        self.said.append(("push", key, value))

    def should_stop(self) -> bool:
        return False

    def progress(self, value: Any) -> None:
        self.said.append(("progress", value))


@pytest.fixture
def program(tmp_path):
    """Loads one task of a DAG file's text as the worker does. Each text is a file of its own."""
    from evermill import _runtime

    count = iter(range(1000))

    def make(text: str, task_id: str, dag_id: str = "flow"):
        path = tmp_path / f"flow_{next(count)}.py"
        path.write_text(text)
        return _runtime.load_program(str(path), dag_id, task_id)

    return make
