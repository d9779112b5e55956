"""What Airflow's arguments mean here, and which ones say nothing.

An argument is translated, inert (it concerns people or a scheduler that is not there), or refused: none
is dropped in silence that would have changed what runs.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Tuple

from evermill import _option
from evermill._fault import DagError, blame, nearest

#: Airflow's name -> ours.
TASK_NAMES = {
    "retries": "retries",
    "retry_delay": "retry_delay",
    "retry_exponential_backoff": "retry_exponential_backoff",
    "max_retry_delay": "max_retry_delay",
    "execution_timeout": "timeout",
    "sla": "deadline",
    "trigger_rule": "trigger_rule",
    "pool": "pool",
    "priority_weight": "priority",
}

_INERT_TASK = {
    "owner", "email", "email_on_failure", "email_on_retry", "doc", "doc_md", "doc_json", "doc_yaml", "doc_rst",
    "start_date", "weight_rule", "queue", "executor", "task_display_name", "do_xcom_push", "provide_context",
    "show_return_value_in_logs", "templates_exts",
}  # fmt: skip

#: Refused unless they hold one of the values that change nothing.
_REFUSED_TASK: Dict[str, Tuple[Any, ...]] = {
    "depends_on_past": (None, False),
    "wait_for_downstream": (None, False),
    "on_failure_callback": (None,),
    "on_success_callback": (None,),
    "on_retry_callback": (None,),
    "on_execute_callback": (None,),
    "on_skipped_callback": (None,),
    "end_date": (None,),
    "params": (None, {}),
    "pool_slots": (None, 1),
    "inlets": (None, []),
    "outlets": (None, []),
    "templates_dict": (None, {}),
    "max_active_tis_per_dag": (None,),
    "max_active_tis_per_dagrun": (None,),
    "run_as_user": (None,),
    "multiple_outputs": (None, False),
    "ignore_downstream_trigger_rules": (None, True),
}

#: Airflow waits this long before a retry when nobody says otherwise.
_RETRY_DELAY_MS = 300_000


def task_fields(
    owner: str, given: Dict[str, Any], defaults: Dict[str, Any], also: Iterable[str] = ()
) -> Dict[str, Any]:
    """Fields of the manifest for an operator's arguments, under a DAG's defaults.

    `also` are arguments of the operator itself, to be named when one is mistyped.
    """
    known = [*TASK_NAMES, *_INERT_TASK, *_REFUSED_TASK]
    for name in given:
        if name not in known:
            blame(DagError("unknown_option", f"{owner} has no option {name!r}", nearest(name, [*known, *also])))
    refuse(owner, given, _REFUSED_TASK)
    ours = {TASK_NAMES[name]: value for name, value in given.items() if name in TASK_NAMES}
    fields = _option.convert(owner, _option.TASK, ours)
    both = {**defaults, **fields}
    if both.get("retries") and "retry_delay_ms" not in both:
        fields["retry_delay_ms"] = _RETRY_DELAY_MS
    return fields


def default_fields(owner: str, default_args: Dict[str, Any]) -> Dict[str, Any]:
    """The same for `default_args`, where Airflow passes over what an operator does not know."""
    refuse(owner, default_args, _REFUSED_TASK)
    ours = {TASK_NAMES[name]: value for name, value in default_args.items() if name in TASK_NAMES}
    return _option.convert(owner, _option.TASK, ours)


def refuse(owner: str, given: Dict[str, Any], harmless: Dict[str, Tuple[Any, ...]]) -> None:
    """Raises for the first argument whose value asks for something that is not there yet."""
    for name, value in given.items():
        if name in harmless and value not in harmless[name]:
            blame(DagError("not_built", f"{owner}: {name}={value!r} is not built yet", f"leave {name} out"))


def refuse_templates(owner: str, values: Iterable[Any]) -> None:
    """Jinja in arguments would reach the callable as it stands."""
    for value in values:
        if isinstance(value, str) and ("{{" in value or "{%" in value):
            cure = "ask for the value by a parameter of the callable: ds, ts, run_id, params, ti"
            blame(DagError("not_built", f"{owner}: the template {value!r} is not rendered yet", cure))
        if isinstance(value, (list, tuple, dict)):
            refuse_templates(owner, value.values() if isinstance(value, dict) else value)
