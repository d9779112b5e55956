"""DAG files written for Airflow."""

from types import SimpleNamespace

import pytest
from conftest import ROOT, Handle, load_file

from evermill import _runtime

PIPELINE = ROOT / "examples" / "continuous_kafka_pipeline.py"
HEAD = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.operators.python import BranchPythonOperator, PythonOperator, ShortCircuitOperator
from airflow.operators.empty import EmptyOperator
from custom_operators import KafkaSensor
"""


def test_the_first_pipeline_loads_as_it_is_written():
    (dag,) = load_file(PIPELINE).manifest["dags"]
    (source,), (task,) = dag["sources"], dag["tasks"]
    assert (dag["id"], dag["tags"]) == ("continuous_kafka_pipeline", ["continuous", "kafka"])
    assert source["id"] == source["promoted_from_task"] == "wait_for_new_message"
    assert source["config"] == {
        "kind": "kafka",
        "topic": "my-topic",
        "group_id": "my-group",
        "poke_interval_ms": 10_000,
    }
    assert (task["id"], task["upstream"]) == (
        "process_message_data",
        [{"node": "wait_for_new_message", "kind": "source"}],
    )


def test_the_first_pipelines_callable_runs(capsys):
    program = _runtime.load_program(str(PIPELINE), "continuous_kafka_pipeline", "process_message_data")
    assert program.run(None, None) is None
    assert capsys.readouterr().out == "Message Received and Processed\n"


def test_the_old_paths_and_the_new_ones_give_the_same_things(load):
    loaded = load(
        "from airflow.operators.python_operator import PythonOperator as A\n"
        "from airflow.providers.standard.operators.python import PythonOperator as B\n"
        "from airflow.operators.python import PythonOperator as C\n"
        "from airflow.operators.dummy import DummyOperator as D\n"
        "from airflow.operators.dummy_operator import DummyOperator as E\n"
        "from airflow.providers.standard.operators.empty import EmptyOperator as F\n"
        "from airflow.models import DAG as G, BaseOperator\nfrom airflow.sdk import DAG as H, dag, task, TriggerRule\n"
        "from airflow.utils.trigger_rule import TriggerRule as T\nfrom airflow.exceptions import AirflowSkipException\n"
        "assert A is B is C and D is E is F and G is H and TriggerRule is T\n"
        "with G('flow'):\n    D(task_id='a')\n"
    )
    assert loaded.code == 0, loaded.out


def test_operators_carry_over_their_arguments(load):
    loaded = load(
        HEAD
        + "with DAG('flow', schedule='@continuous', start_date=datetime(2025, 1, 30), catchup=True, max_active_runs=1,\n"
        "         default_args={'owner': 'x', 'retries': 2, 'unheard_of': 1, 'email_on_failure': False}):\n"
        "    k = KafkaSensor(task_id='k', topic='t', kafka_conn_id='other', auto_offset_reset='earliest', timeout=60, mode='reschedule')\n"
        "    a = PythonOperator(task_id='a', python_callable=lambda: 1, execution_timeout=timedelta(minutes=1), doc_md='x')\n"
        "    b = BranchPythonOperator(task_id='b', python_callable=lambda: 'c', retries=0, trigger_rule='all_done')\n"
        "    c = EmptyOperator(task_id='c', priority_weight=3, pool='p')\n"
        "    k >> a >> b >> [c, ShortCircuitOperator(task_id='d', python_callable=bool, op_args=[a.output])]\n"
    )
    (dag,) = loaded.manifest["dags"]
    assert (dag["schedule"], dag["start_date"], dag["order"], dag["catchup"]) == (
        "continuous",
        "2025-01-30T00:00:00+00:00",
        "serial",
        True,
    )
    assert dag["sources"][0]["config"] == {
        "kind": "kafka",
        "topic": "t",
        "connection": "other",
        "auto_offset_reset": "earliest",
    }
    a, b, c, d = dag["tasks"]
    assert (a["retries"], a["retry_delay_ms"], a["timeout_ms"]) == (2, 300_000, 60_000)
    assert (b["kind"], b["trigger_rule"]) == ("branch", "all_done") and "retries" not in b
    assert (c["kind"], c["priority"], c["pool"]) == ("noop", 3, "p")
    assert (d["kind"], d["wants"]["results"]) == ("short_circuit", ["a"])


def test_a_sensor_behind_no_ops_is_promoted_and_they_stay_in_its_component(load):
    loaded = load(
        HEAD + "with DAG('flow'):\n    EmptyOperator(task_id='begin') >> KafkaSensor(task_id='k', topic='t')"
        " >> PythonOperator(task_id='a', python_callable=print)\n"
    )
    (dag,) = loaded.manifest["dags"]
    assert dag["sources"][0]["after"] == ["begin"]
    assert [task["id"] for task in dag["tasks"]] == ["begin", "a"]


def test_a_callable_gets_the_context_it_names_and_the_event(program):
    text = HEAD + (
        "def work(first, ds, params, event, second=2, **context):\n"
        "    return first, params['x'], event, second, context['ti'].xcom_pull(task_ids='b'), context['task'].task_id\n"
        "with DAG('flow', params={'x': 5}):\n"
        "    k = KafkaSensor(task_id='k', topic='t')\n"
        "    b = EmptyOperator(task_id='b')\n"
        "    k >> b >> PythonOperator(task_id='t', python_callable=work, op_args=[1], op_kwargs={'second': 3}, provide_context=True)\n"
    )
    made = program(text, "t")
    assert made.run("E", _runtime.make_context(Handle(None, {"b": 7}))) == (1, 5, "E", 3, 7, "t")


def test_taskflow_declares_when_it_is_called(load):
    loaded = load(
        "from airflow.decorators import dag, task\n@task(task_id='first', retries=1)\ndef a(): return 1\n@task\ndef b(x): return x\n"
        "@dag(schedule=None, tags=['x'])\ndef flow():\n    b(b(a()))\n@dag\ndef never(): pass\nflow()\n"
    )
    (dag,) = loaded.manifest["dags"]
    assert [task["id"] for task in dag["tasks"]] == ["first", "b", "b__1"]
    assert dag["tasks"][0]["retry_delay_ms"] == 300_000


@pytest.mark.parametrize(
    "body, code, words",
    [
        ("from custom_operators import SqsSensor", "import_error", "it has HttpSensor, KafkaSensor"),
        ("from airflow.operators.bash import BashOperator", "import_error", "airflow.operators.python"),
        ("with DAG('flow', schedule='@midnight'):\n    EmptyOperator(task_id='a')", "not_built", "'@midnight'"),
        ("with DAG('flow', scheduel=None): pass", "unknown_option", "did you mean 'schedule'?"),
        ("with DAG('flow'):\n    EmptyOperator(task_id='a', retry=3)", "unknown_option", "did you mean 'retries'?"),
        (
            "with DAG('flow'):\n    KafkaSensor(task_id='a', topic='t', group='g')",
            "unknown_option",
            "did you mean 'group_id'?",
        ),
        (
            "with DAG('flow'):\n    EmptyOperator(task_id='a', on_failure_callback=print)",
            "not_built",
            "on_failure_callback",
        ),
        ("with DAG('flow', default_args={'depends_on_past': True}): pass", "not_built", "depends_on_past"),
        ("with DAG('flow', max_active_runs=0): pass", "bad_value", "max_active_runs=0"),
        (
            "with DAG('flow'):\n    PythonOperator(task_id='a', python_callable=print, op_args=['{{ ds }}'])",
            "not_built",
            "{{ ds }}",
        ),
        (
            "with DAG('flow'):\n    PythonOperator(task_id='a', python_callable=lambda: 1) >> KafkaSensor(task_id='k', topic='t')",
            "not_built",
            "'k'",
        ),
        (
            "with DAG('flow'):\n    PythonOperator(task_id='a', python_callable=lambda unheard_of: 1)",
            "unbound_parameter",
            "'unheard_of'",
        ),
        ("with DAG('flow'):\n    PythonOperator(task_id='a', python_callable=3)", "bad_value", "python_callable=3"),
        ("EmptyOperator(task_id='a')", "no_dag", "in no DAG"),
    ],
)
def test_what_is_not_there_is_refused_by_name(load, body, code, words):
    loaded = load(HEAD + body + "\n")
    assert loaded.code == 3
    fault = loaded.faults[0]
    assert fault["code"] == code and words in fault["message"] + fault.get("cure", ""), fault


def test_an_sla_is_a_deadline_and_its_callback_a_dag_that_hears_of_misses(load, program, capsys):
    text = HEAD + (
        "def missed(dag, task_list, blocking_task_list, slas, blocking_tis):\n"
        "    print(dag.dag_id, task_list, len(slas), slas[0].task_id)\n"
        "with DAG('flow', schedule='@continuous', sla_miss_callback=missed):\n"
        "    KafkaSensor(task_id='in', topic='t') >> PythonOperator(\n"
        "        task_id='work', python_callable=print, sla=timedelta(minutes=5))\n"
    )
    loaded = load(text)
    assert loaded.code == 0, loaded.out
    flow, beside = loaded.manifest["dags"]
    assert beside["id"] == "flow.sla_miss_callback"
    assert beside["sources"][0]["config"] == {"kind": "alerts", "kinds": ["deadline_missed"], "dags": ["flow"]}
    assert flow["tasks"][0]["deadline_ms"] == 300_000
    alert = SimpleNamespace(json=lambda: {"task": "work", "at_ms": 0, "text": "late"})
    made = program(text, beside["tasks"][0]["id"], beside["id"])
    made.run(alert, _runtime.make_context(Handle(None, {})))
    assert capsys.readouterr().out == "flow work on 1970-01-01T00:00:00+00:00 1 work\n"
