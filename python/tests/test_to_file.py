"""Tasks that write a value into a file or an object."""

import json
import os

import pytest
from conftest import sink_of

import evermill
from evermill import testing

FLOW = """import evermill
@evermill.task
def a(event): return event.json()
@evermill.dag
def flow():
    evermill.to_file({})
"""


@pytest.mark.parametrize(
    "said, config",
    [
        ("'/out/{effect_key}', a(evermill.kafka('in'))", {"path": "/out/{effect_key}", "value_from": "a"}),
        ("'/out/x/../{date}/{/id}.json', evermill.kafka('in')", {"path": "/out/{date}/{/id}.json"}),
        ("'s3://bucket-1/out/{key}', evermill.kafka('in'), key='/id'", {"path": "s3://bucket-1/out/{key}", "key": "/id"}),
        ("'s3://bucket-1/{key}', evermill.kafka('in'), connection='other'", {"path": "s3://bucket-1/{key}", "connection": "other"}),
    ],
)
def test_settings_become_the_fields_of_the_manifest(load, said, config):
    task, found = sink_of(load(FLOW.format(said)))
    assert found == {"kind": "file", **config}
    assert (task["id"], task["retries"]) == ("to_file", 10_000)


def test_a_relative_path_counts_from_the_folder_of_the_file(load):
    _, found = sink_of(load(FLOW.format("'../out/{effect_key}.json', evermill.kafka('in')")))
    assert os.path.isabs(found["path"]) and ".." not in found["path"]
    assert found["path"].endswith("/out/{effect_key}.json")


@pytest.mark.parametrize(
    "said, words",
    [
        ("'/out/all.json', evermill.kafka('in')", "write over the one before"),
        ("'/out/{{id}}', evermill.kafka('in')", "write over the one before"),
        ("'/out/{id}', evermill.kafka('in')", "{/customer/id}"),
        ("'/out/{date}/', evermill.kafka('in')", "ends with a folder"),
        ("'s3://{key}/x', evermill.kafka('in')", "no braces"),
        ("'s3://Bucket/{key}', evermill.kafka('in')", "lower-case"),
        ("'ftp://host/{key}', evermill.kafka('in')", "cannot be written"),
        ("5, evermill.kafka('in')", "write a text"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(load, said, words):
    loaded = load(FLOW.format(said))
    assert loaded.code == 3
    fault = loaded.faults[0]
    assert fault["code"] == "bad_value" and words in fault["message"] + fault.get("cure", ""), loaded.faults


@evermill.task
def double(event):
    return {"n": 2 * event.json()}


def test_in_a_test_nothing_is_written_and_what_would_be_is_the_result(tmp_path):
    @evermill.dag
    def flow():
        evermill.to_file(str(tmp_path / "{/n}"), double(evermill.kafka("in")))

    result = testing.run(flow, [json.dumps(4).encode()])
    assert result.activations[0]["to_file"].result == {"n": 8}
    assert list(tmp_path.iterdir()) == []
