"""Airflow's datasets and assets: topics, said by tasks and heard by schedules."""

import pytest
from evermill import testing
from evermill.context import Context

HEAD = """
from airflow import DAG, Dataset
from airflow.decorators import task
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.sdk import Asset
"""


def dag_of(load, text):
    loaded = load(HEAD + text)
    assert loaded.code == 0, loaded.out
    return loaded.manifest["dags"][0]


def test_a_schedule_of_a_dataset_is_a_topic_and_an_outlet_asks_for_a_context(load):
    taker = "with DAG('takes', schedule={}):\n    EmptyOperator(task_id='a')\n"
    names = set()
    for schedule in ("Dataset('s3://b/x')", "[Dataset('s3://b/x')]", "Asset(uri='s3://b/x')", "Asset('x', 's3://b/x')"):
        (source,) = dag_of(load, taker.format(schedule))["sources"]
        assert source["id"] == "schedule" and source["config"]["kind"] == "topic"
        names.add(source["config"]["name"])
    assert names == {"s3-b-x-28b1755c"}
    (other,) = dag_of(load, taker.format("Dataset('s3://b-x')"))["sources"]
    assert other["config"]["name"] not in names, "what looks alike is not the same"
    made = dag_of(load, "with DAG('makes', schedule=None):\n    EmptyOperator(task_id='a', outlets=[Dataset('s3://b/x')])\n")
    assert made["tasks"][0]["kind"] == "call" and made["tasks"][0]["wants"]["ctx"]


class Says:
    def __init__(self):
        self.said = []

    def say(self, topic, value, key):
        self.said.append((topic, value))


@pytest.mark.parametrize(
    "task, raises",
    [
        ("EmptyOperator(task_id='a', outlets=[Dataset('x', extra={'n': 1})])", False),
        ("PythonOperator(task_id='a', python_callable=lambda: 7, outlets=Dataset('x', extra={'n': 1}))", False),
        ("task(outlets=[Asset('x', extra={'n': 1})], task_id='a')(lambda: 7)()", False),
        ("PythonOperator(task_id='a', python_callable=lambda: 1 / 0, outlets=[Dataset('x')])", True),
    ],
)
def test_a_task_says_its_outlets_once_it_has_succeeded(program, task, raises):
    handle = Says()
    run = program(HEAD + f"with DAG('flow', schedule=None):\n    {task}\n", "a").run
    if raises:
        with pytest.raises(ZeroDivisionError):
            run(None, Context(handle))
        assert handle.said == []
    else:
        run(None, Context(handle))
        ((topic, said),) = handle.said
        assert topic.startswith("x-") and said == {"uri": "x", "extra": {"n": 1}, "dag_id": "flow", "task_id": "a"}


@pytest.mark.parametrize(
    "text, words",
    [
        ("with DAG('flow', schedule=[Dataset('a'), Dataset('b')]):\n    EmptyOperator(task_id='a')\n", "all of several datasets"),
        ("with DAG('flow', schedule=None):\n    EmptyOperator(task_id='a', outlets=['x'])\n", "an outlet is a Dataset"),
    ],
)
def test_what_is_not_possible_is_refused_with_its_cure(load, text, words):
    loaded = load(HEAD + text)
    assert loaded.code == 3 and "not_built" in loaded.out and words in loaded.out


def test_an_activation_by_hand_needs_no_event(tmp_path):
    path = tmp_path / "flow.py"
    path.write_text(HEAD + "with DAG('flow', schedule=Dataset('x')):\n    EmptyOperator(task_id='a')\n")
    (activation,) = testing.run(testing.load(str(path))).activations
    assert activation.state == "done"
