"""Clocks, loops, and the schedules of Airflow that stand for them."""

import pytest

HEAD = """
from datetime import datetime, timedelta, timezone
from airflow import DAG
from airflow.operators.empty import EmptyOperator
from custom_operators import KafkaSensor
import evermill

@evermill.task
def work(event):
    pass
"""


def sources(loaded):
    assert loaded.code == 0, loaded.out
    (dag,) = loaded.manifest["dags"]
    return dag["sources"]


@pytest.mark.parametrize(
    "call, config, order",
    [
        ("evermill.cron('*/5 * * * *')", {"kind": "cron", "expr": "*/5 * * * *"}, None),
        (
            "evermill.cron('0 9 * * *', timezone='Europe/Berlin', catchup='last', order='serial')",
            {"kind": "cron", "expr": "0 9 * * *", "timezone": "Europe/Berlin", "catchup": "last"},
            "serial",
        ),
        ("evermill.every('1m', catchup='all')", {"kind": "every", "interval_ms": 60_000, "catchup": "all"}, None),
        ("evermill.every(timedelta(seconds=2))", {"kind": "every", "interval_ms": 2_000}, None),
        ("evermill.loop()", {"kind": "loop"}, "serial"),
        (
            "evermill.loop(delay=1, max_consecutive_failures=3)",
            {"kind": "loop", "delay_ms": 1_000, "max_consecutive_failures": 3},
            "serial",
        ),
    ],
)
def test_a_clock_or_a_loop_is_a_source(load, call, config, order):
    (source,) = sources(load(f"{HEAD}\n@evermill.dag\ndef flow():\n    work({call})\n"))
    assert (source["config"], source.get("order")) == (config, order)


def test_the_condition_of_a_loop_comes_after_all_of_a_lap(load):
    loaded = load(
        HEAD + "@evermill.task\ndef more(work):\n    pass\n\n@evermill.task\ndef last(ctx):\n    pass\n\n"
        "def enough(ctx):\n    return True\n\n"
        "@evermill.dag\ndef flow():\n    done = work(evermill.loop(until=enough))\n    more(done)\n    done >> last()\n"
    )
    (source,) = sources(loaded)
    until = loaded.manifest["dags"][0]["tasks"][-1]
    assert source["config"] == {"kind": "loop", "until": "loop_until"}
    assert (until["id"], until["kind"], until["trigger_rule"]) == ("loop_until", "short_circuit", "all_done")
    assert [edge["node"] for edge in until["upstream"]] == ["more", "last"]


@pytest.mark.parametrize(
    "schedule, config",
    [
        ("'*/5 * * * *'", {"kind": "cron", "expr": "*/5 * * * *"}),
        ("'@daily'", {"kind": "cron", "expr": "0 0 * * *"}),
        ("timedelta(minutes=5), catchup=True", {"kind": "every", "interval_ms": 300_000, "catchup": "all"}),
        ("'@continuous', max_active_runs=1", {"kind": "loop", "max_consecutive_failures": 2**31 - 1}),
        (
            "'@continuous', max_active_runs=1, max_consecutive_failed_dag_runs=3",
            {"kind": "loop", "max_consecutive_failures": 3},
        ),
    ],
)
def test_a_schedule_of_airflow_is_a_source_before_every_root(load, schedule, config):
    tasks = "    EmptyOperator(task_id='a') >> EmptyOperator(task_id='b')\n    EmptyOperator(task_id='c')\n"
    loaded = load(f"{HEAD}\nwith DAG('flow', schedule={schedule}):\n{tasks}")
    (source,) = sources(loaded)
    assert (source["id"], source["config"]) == ("schedule", config)
    upstream = {task["id"]: [edge["node"] for edge in task["upstream"]] for task in loaded.manifest["dags"][0]["tasks"]}
    assert upstream == {"a": ["schedule"], "b": ["a"], "c": ["schedule"]}


def test_the_time_zone_of_the_start_date_is_that_of_the_schedule(load):
    loaded = load(
        HEAD + "from zoneinfo import ZoneInfo\n"
        "with DAG('flow', schedule='@daily', start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo('Europe/Berlin'))):\n"
        "    EmptyOperator(task_id='a')\n"
    )
    assert sources(loaded)[0]["config"]["timezone"] == "Europe/Berlin"


def test_a_continuous_dag_with_a_listening_sensor_has_no_laps(load):
    loaded = load(
        HEAD + "with DAG('flow', schedule='@continuous', max_active_runs=1):\n"
        "    KafkaSensor(task_id='wait', topic='t') >> EmptyOperator(task_id='a')\n"
    )
    assert [source["config"]["kind"] for source in sources(loaded)] == ["kafka"]


@pytest.mark.parametrize(
    "call, word",
    [
        ("evermill.every(0)", "never ends"),
        ("evermill.cron('* * * * *', catchup='some')", "catchup='some'"),
        ("evermill.loop(until=3)", "until=3"),
        ("evermill.loop(dely=3)", "'dely'"),
    ],
)
def test_what_a_clock_cannot_be_is_said(load, call, word):
    loaded = load(f"{HEAD}\n@evermill.dag\ndef flow():\n    work({call})\n")
    assert any(word in fault["message"] for fault in loaded.faults), loaded.out
