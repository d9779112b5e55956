"""Tasks that send a value to a place outside."""

import json

import pytest

import evermill
from evermill import testing
from evermill._fault import DagError, collecting
from evermill._file import build
from evermill._manifest import dag_manifest, faults


def manifest(made):
    with collecting() as found:
        dag = build(made)
        assert not found and not faults(dag)
    return {task["id"]: task for task in dag_manifest(dag, "/", "flow.py")["tasks"]}


@evermill.task
def double(event):
    n = event.json()
    return {"n": n, "twice": 2 * n} if n % 2 == 0 else None


def test_a_result_goes_to_a_topic():
    @evermill.dag
    def flow():
        evermill.to_kafka("out", double(evermill.kafka("in")), key="/n", connection="other", timeout=5)

    task = manifest(flow)["to_kafka"]
    assert task["sink"] == {"kind": "kafka", "topic": "out", "connection": "other", "key": "/n", "value_from": "double"}
    assert (task["retries"], task["timeout_ms"]) == (10_000, 5_000)
    assert task["upstream"] == [{"node": "double", "kind": "task", "reads_result": True}]
    assert task["wants"]["results"] == ["double"]


def test_events_are_passed_on():
    @evermill.dag(order="serial")
    def flow():
        evermill.to_kafka("out", evermill.kafka("in"), key=None, name="copy", retries=2)

    task = manifest(flow)["copy"]
    assert task["sink"] == {"kind": "kafka", "topic": "out", "key": "none"}
    assert task["retries"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"topic": "no topic"}, "write a topic's name"),
        ({"key": "id"}, "a JSON pointer"),
        ({"env": {}}, "has no option 'env'"),
        ({"value": 5}, "no result of a task"),
    ],
)
def test_what_cannot_be_is_said(options, said):
    @evermill.dag
    def flow():
        evermill.to_kafka(**{"topic": "out", "value": double(evermill.kafka("in")), **options})

    with collecting() as found:
        try:
            build(flow)
        except DagError as fault:
            found.append(fault)
    text = " ".join(f"{fault.message} {fault.cure}" for fault in found)
    assert said in text


def test_in_a_test_what_would_be_sent_is_the_result():
    @evermill.dag
    def flow():
        evermill.to_kafka("out", double(evermill.kafka("in")))

    result = testing.run(flow, [json.dumps(4).encode()])
    assert result.done == 1
    assert result.activations[0]["to_kafka"].result == {"n": 4, "twice": 8}


def test_a_worker_never_takes_it_for_a_function():
    from evermill import _sink

    with pytest.raises(RuntimeError, match="the engine sends"):
        _sink._deliver(1)
