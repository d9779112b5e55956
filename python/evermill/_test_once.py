"""`evermill test`: one activation in this process, with the terminal as standard input for a debugger.

Started as `python -m evermill._test_once SPEC`. SPEC is a JSON file with `file`, `dag`, `events` (as `evermill parked
export` writes them) or null, `source`, `conf`, `logical_date`, `pdb` and `result`: the file that is written at the
end. What tasks print goes to standard error; standard output is left to the one who started this.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional

from . import _patience, _place, testing
from ._values import encode
from .event import Event, moment


def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    dag = testing.load(spec["file"], spec["dag"])
    _patience.really = True
    _patience.place = _place.asking(spec.get("connections") or {})
    given = spec["logical_date"]
    date = datetime.fromisoformat(given) if given else None
    events = spec["events"]
    made = None if events is None else [_event(one) for one in events]
    given_events = {spec["source"]: made} if made is not None and spec["source"] else made
    try:
        outside = {"connections": spec.get("connections"), "secrets": spec.get("secrets")}
        result = testing.run(dag, given_events, conf=spec["conf"], logical_date=date, codecs=False, **outside)
    except ValueError as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    told = [_told(one) for one in result.activations]
    for one in result.activations:
        _explain(one, spec["pdb"])
    answer = {"activations": told, "date": (date or _date(made)).isoformat()}
    with open(spec["result"], "w", encoding="utf-8") as file:
        json.dump(answer, file)
    return 0


def _event(given: Dict[str, Any]) -> Event:
    stamp = given.get("timestamp_ms")
    return Event.of(
        _bytes(given.get("value")),
        key=_bytes(given.get("key")),
        headers=[(name, _bytes(value) or b"") for name, value in given.get("headers", [])],
        timestamp=None if stamp is None else moment(stamp),
        position=given.get("position", 0),
        lane=given.get("lane", ""),
    )


def _bytes(given: Any) -> Optional[bytes]:
    if given is None:
        return None
    return given.encode() if isinstance(given, str) else base64.b64decode(given["base64"])


def _date(events: Optional[List[Event]]) -> datetime:
    stamp = events[0].timestamp if events else None
    return stamp or datetime.now(timezone.utc)


def _told(activation: testing.Activation) -> Dict[str, Any]:
    tasks: List[Dict[str, Any]] = []
    for task_id, end in activation.tasks.items():
        if end.instances:
            tasks.extend(_instance(task_id, index, one) for index, one in enumerate(end.instances))
        else:
            tasks.append(_instance(task_id, -1, end))
    return {"settled": activation.state, "tasks": tasks}


def _instance(task_id: str, index: int, end: testing.TaskEnd) -> Dict[str, Any]:
    xcoms = dict(end.xcoms)
    if end.result is not None:
        xcoms["return_value"] = end.result
    error = None if end.error is None else f"{type(end.error).__name__}: {end.error}"
    return {
        "task_id": task_id,
        "map_index": index,
        "state": end.state,
        "try_number": end.tries,
        "xcoms": json.loads(encode(xcoms)),
        "error": error,
    }


def _explain(activation: testing.Activation, pdb: bool) -> None:
    """The traceback of each failure, from the task's own code on; under `pdb`, the debugger where it was raised."""
    for task_id, end in activation.tasks.items():
        if end.error is None:
            continue
        print(f"{task_id} failed:", file=sys.stderr)
        below = _own(end.error.__traceback__)
        traceback.print_exception(type(end.error), end.error, below)
        if pdb and below is not None:
            import pdb as debugger

            debugger.post_mortem(below)


def _own(trace: Any) -> Any:
    """Leaves out the package's own frames at the start."""
    home = os.path.dirname(os.path.abspath(__file__)) + os.sep
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(home):
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
