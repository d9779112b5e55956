"""Waiting in the middle of a DAG."""

import pytest

from evermill import testing
from evermill._file import dags, import_file

HEAD = """
import evermill

@evermill.task
def work(event):
    return 1

@evermill.task
def ship(answer):
    return answer
"""


def tasks(loaded):
    assert loaded.code == 0, loaded.out
    return {task["id"]: task for task in loaded.manifest["dags"][0]["tasks"]}


def test_a_wait_is_a_task_whose_result_is_the_message(load):
    body = "    done = work(evermill.kafka('t'))\n    ship(evermill.wait(signal='approve', after=done))\n    done >> evermill.wait('10m', name='cool')\n"
    made = tasks(load(f"{HEAD}\n@evermill.dag\ndef flow():\n{body}"))
    assert (made["wait"]["kind"], made["wait"]["wait"]) == ("sensor", {"signal": "approve"})
    assert made["wait"]["upstream"] == [{"node": "work", "kind": "task"}]
    assert made["ship"]["upstream"] == [{"node": "wait", "kind": "task", "reads_result": True}]
    assert made["cool"]["wait"] == {"delay_ms": 600_000}


@pytest.mark.parametrize("call, word", [("evermill.wait()", "one thing"), ("evermill.wait(1, signal='a')", "one thing")])
def test_a_wait_for_nothing_or_for_two_things_is_refused(load, call, word):
    loaded = load(f"{HEAD}\n@evermill.dag\ndef flow():\n    work(evermill.kafka('t')) >> {call}\n")
    assert any(word in fault["message"] for fault in loaded.faults), loaded.out


def test_a_dag_that_waits_is_run_in_a_test_without_waiting(tmp_path):
    file = tmp_path / "flow.py"
    body = "    done = work(evermill.kafka('t'))\n    ship(evermill.wait(signal='approve', after=done))\n"
    file.write_text(f"{HEAD}\n@evermill.dag\ndef flow():\n{body}")
    flow = dags(import_file(str(file)))["flow"]
    assert testing.run(flow, events=["x"]).done == 1
