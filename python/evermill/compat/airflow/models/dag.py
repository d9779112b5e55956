"""`DAG`."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, Callable, Dict, Optional, Tuple

from airflow._option import default_fields, refuse
from airflow.datasets import heard
from evermill import _option
from evermill._dag import Dag, declared
from evermill._fault import DagError, blame, nearest
from evermill._source import CRON, EVERY, clock_config
from evermill._task import beside

_SCHEDULES = {None: "none", "@continuous": "continuous", "@once": "once"}
_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_INERT = {
    "description", "doc_md", "default_view", "orientation", "is_paused_upon_creation", "access_control", "owner_links",
    "dag_display_name", "auto_register", "render_template_as_native_obj", "template_searchpath",
    "jinja_environment_kwargs", "user_defined_macros", "user_defined_filters",
}  # fmt: skip

_REFUSED = {
    "timetable": (None,),
    "end_date": (None,),
    "dagrun_timeout": (None,),
    "max_active_tasks": (None,),
    "concurrency": (None,),
    "on_failure_callback": (None,),
    "on_success_callback": (None,),
    "fail_stop": (None, False),
    "fail_fast": (None, False),
    "template_undefined": (None,),
}


class DAG(Dag):
    """Airflow's DAG. Operators made within `with DAG(...)` belong to it."""

    def __init__(
        self,
        dag_id: str,
        description: Optional[str] = None,
        schedule: Any = None,
        start_date: Optional[datetime] = None,
        catchup: bool = False,
        tags: Any = None,
        default_args: Optional[Dict[str, Any]] = None,
        params: Optional[Dict[str, Any]] = None,
        schedule_interval: Any = None,
        max_active_runs: Optional[int] = None,
        max_consecutive_failed_dag_runs: int = 0,
        sla_miss_callback: Optional[Callable[..., Any]] = None,
        **others: Any,
    ) -> None:
        owner = f"DAG {dag_id!r}"
        named = (
            "schedule",
            "start_date",
            "catchup",
            "tags",
            "default_args",
            "params",
            "schedule_interval",
            "max_active_runs",
            "max_consecutive_failed_dag_runs",
            "sla_miss_callback",
        )
        for name in others:
            if name not in _INERT and name not in _REFUSED:
                cure = nearest(name, [*named, *_INERT, *_REFUSED])
                blame(DagError("unknown_option", f"{owner} has no option {name!r}", cure))
        refuse(owner, others, _REFUSED)
        default_args = dict(default_args or {})
        fields = _option.convert(owner, _option.DAG, {"tags": tags})
        given = schedule if schedule is not None else schedule_interval
        begins = start_date or default_args.get("start_date")
        clock = _clock(owner, given, begins, catchup)
        fields["schedule"] = "none" if clock else _schedule(owner, given)
        fields["catchup"] = bool(catchup)
        start = _instant(owner, begins)
        if start is not None:
            fields["start_date"] = start
        if max_active_runs == 1:
            fields["order"] = "serial"
        else:
            fields.update(_option.convert(owner, _option.DAG, {"max_active_runs": max_active_runs}))
        super().__init__(dag_id, fields, default_fields(owner, default_args))
        self.dag_id = dag_id
        #: As given: sensors take their own options from it.
        self.default_args = default_args
        self.clock = clock
        self.failures_in_a_row = max_consecutive_failed_dag_runs
        self.params = {name: getattr(value, "value", value) for name, value in (params or {}).items()}
        declared.append(self)
        if sla_miss_callback is not None:
            beside(self, "sla_miss_callback", _sla_miss(self, sla_miss_callback), ["deadline_missed"])

    def __enter__(self) -> "DAG":
        self._built = self.build()
        self._built.__enter__()
        return self

    def __exit__(self, *_raised: Any) -> None:
        self._built.__exit__(None, None, None)


def _sla_miss(dag: "DAG", callback: Any) -> Any:
    """Airflow's callback as a task that an alert starts."""
    if not callable(callback):
        return callback

    def sla_miss(event: Any) -> None:
        alert = event.json()
        task, at = alert.get("task") or "", datetime.fromtimestamp(alert["at_ms"] / 1000, timezone.utc)
        missed = SimpleNamespace(dag_id=dag.dag_id, task_id=task, timestamp=at, execution_date=at, description=alert["text"])
        callback(dag, f"{task} on {at.isoformat()}", "", [missed], [])

    return sla_miss


def _clock(owner: str, value: Any, begins: Any, catchup: bool) -> Optional[Tuple[str, Dict[str, Any]]]:
    """The source that a schedule stands for, if it is a clock's."""
    missed = "all" if catchup else "none"
    if isinstance(value, timedelta):
        return "every", clock_config(owner, EVERY, duration=value, catchup=missed)
    dataset = heard(owner, value)
    if dataset is not None:
        return "topic", dataset
    if not isinstance(value, str) or value in _SCHEDULES:
        return None
    zone = getattr(begins, "tzinfo", None)
    name = getattr(zone, "key", None) or getattr(zone, "name", None) or "UTC"
    expr = _PRESETS.get(value, value)
    if expr.startswith("@"):
        return None
    return "cron", clock_config(owner, CRON, expr=expr, timezone=name, catchup=missed)


def _schedule(owner: str, value: Any) -> str:
    try:
        return _SCHEDULES[value]
    except (KeyError, TypeError):
        cure = "use None, '@once', '@continuous', a preset such as '@daily', a cron expression, a timedelta or a Dataset"
        blame(DagError("not_built", f"{owner}: schedule={value!r} is not built yet", cure))
        return "none"


def _instant(owner: str, value: Any) -> Optional[str]:
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, timedelta) or not isinstance(value, datetime):
        blame(DagError("bad_value", f"{owner}: start_date={value!r} is no date", "write datetime(2025, 1, 30)"))
        return None
    return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).isoformat()
