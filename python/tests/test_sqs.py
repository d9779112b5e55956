"""Queues of Amazon SQS: what a file says, and what the manifest has of it."""

import json

import pytest

import evermill
from evermill import testing

NATIVE = "import evermill\n@evermill.task\ndef a(event): pass\n@evermill.dag\ndef flow():\n    a(evermill.sqs({}))\n"


@pytest.mark.parametrize(
    "said, config, order",
    [
        ("'jobs'", {"queue": "jobs"}, None),
        ("'jobs', ack='ingest', order='none', connection='aws_default'", {"queue": "jobs"}, None),
        ("'jobs', ack='outcome', connection='other', order='serial'", {"queue": "jobs", "ack": "outcome", "connection": "other"}, "serial"),
        ("'jobs.fifo'", {"queue": "jobs.fifo"}, "key"),
        ("'jobs.fifo', order='none'", {"queue": "jobs.fifo"}, "none"),
        ("'arn:aws:sqs:eu-west-1:1:jobs.fifo'", {"queue": "arn:aws:sqs:eu-west-1:1:jobs.fifo"}, "key"),
        ("'https://sqs.eu-west-1.amazonaws.com/1/jobs'", {"queue": "https://sqs.eu-west-1.amazonaws.com/1/jobs"}, None),
    ],
)
def test_settings_become_the_fields_of_the_manifest(load, said, config, order):
    loaded = load(NATIVE.format(said))
    assert loaded.code == 0, loaded.err
    (source,) = loaded.manifest["dags"][0]["sources"]
    assert source["id"] == "sqs"
    assert source["config"] == {"kind": "sqs", **config}
    assert source.get("order") == order


@pytest.mark.parametrize(
    "said, code, words",
    [
        ("'two words'", "bad_value", "write a queue's name"),
        ("''", "bad_value", "write a queue's name"),
        ("'arn:aws:sns:eu-west-1:1:t'", "bad_value", "arn:aws:sqs:REGION:ACCOUNT:NAME"),
        ("'http://127.0.0.1:9324/'", "bad_value", "ends with its name"),
        ("'jobs', ack='later'", "bad_value", "'later'"),
        ("'jobs', visiblity=30", "unknown_option", "'visiblity'"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(load, said, code, words):
    loaded = load(NATIVE.format(said))
    assert loaded.code == 3
    fault = loaded.faults[0]
    assert fault["code"] == code and words in fault["message"] + fault.get("cure", ""), loaded.faults


@evermill.task
def double(event):
    return {"n": 2 * event.json()}


def test_a_result_goes_to_a_queue(load):
    text = NATIVE.format("'jobs'").replace("    a(", "    evermill.to_sqs('done.fifo', a(").replace("))\n", ")), key='/n', timeout=5)\n", 1)
    loaded = load(text)
    assert loaded.code == 0, loaded.err
    task = loaded.manifest["dags"][0]["tasks"][1]
    assert task["id"] == "to_sqs"
    assert task["sink"] == {"kind": "sqs", "queue": "done.fifo", "key": "/n", "value_from": "a"}
    assert (task["retries"], task["timeout_ms"]) == (10_000, 5_000)


def test_in_a_test_what_would_be_sent_is_the_result():
    @evermill.dag
    def flow():
        evermill.to_sqs("done", double(evermill.sqs("jobs")))

    result = testing.run(flow, [json.dumps(4).encode()])
    assert result.done == 1
    assert result.activations[0]["to_sqs"].result == {"n": 8}
