"""The HTTP source: what a file says, and what the manifest has of it."""

import pytest

NATIVE = "import evermill\n@evermill.task\ndef a(event): pass\n@evermill.dag\ndef flow():\n    a(evermill.http({}))\n"


def config(load, arguments):
    loaded = load(NATIVE.format(arguments))
    assert loaded.code == 0, loaded.err
    (source,) = loaded.manifest["dags"][0]["sources"]
    assert source["id"] == "http"
    return source["config"]


def test_what_is_default_is_left_out(load):
    assert config(load, "'/status'") == {"kind": "http", "endpoint": "/status"}
    said = "'/status', connection='http_default', poke_interval=60, method='GET', request_params={}, fire_on_start=True"
    assert config(load, said) == {"kind": "http", "endpoint": "/status"}


@pytest.mark.parametrize(
    "said, field, value",
    [
        ("poke_interval='500ms'", "poke_interval_ms", 500),
        ("request_params={'n': 1, 'x': None}", "request_params", {"n": "1"}),
        ("select='/version'", "select", "/version"),
        ("cursor='since'", "cursor", {"param": "since"}),
        (
            "cursor={'param': 'after', 'items': '/rows', 'id': '/id', 'newest_first': True}",
            "cursor",
            {"param": "after", "items": "/rows", "newest_first": True},
        ),
        ("response_check={'status': 200}", "check", {"status": [200]}),
        (
            "response_check=[{'status': (200, 202), 'pointer': '/s', 'equals': 'x'}, {'pointer': '/n', 'above': 2}]",
            "check",
            {
                "status": [200, 202],
                "tests": [
                    {"pointer": "/s", "op": "equals", "value": "x"},
                    {"pointer": "/n", "op": "above", "value": 2},
                ],
            },
        ),
        ("response_check=lambda answer: answer.ok", "check", {"function": "<lambda>"}),
        ("response_check=[{'status': 202}, bool]", "check", {"status": [202], "function": "bool"}),
        ("fire_on_start=False", "fire_on_start", False),
    ],
)
def test_settings_become_the_fields_of_the_manifest(load, said, field, value):
    assert config(load, f"'/status', {said}") == {"kind": "http", "endpoint": "/status", field: value}


@pytest.mark.parametrize(
    "said, code, words",
    [
        ("''", "bad_value", "write a text"),
        ("'/s', method='get'", "bad_value", "GET"),
        ("'/s', select='version'", "bad_value", "JSON pointer"),
        ("'/s', select='/v', cursor='since'", "bad_value", "exclude each other"),
        ("'/s', response_check={'pointer': '/s'}", "bad_value", "one of equals"),
        ("'/s', response_check={'pointer': '/s', 'equal': 1}", "bad_value", "did you mean 'equals'?"),
        ("'/s', response_check={'pointer': '/s', 'above': 'x'}", "bad_value", "cannot be compared"),
        ("'/s', response_check={'status': 20}", "bad_value", "a status such as 200"),
        ("'/s', response_check=lambda: True", "bad_call", "called with one argument"),
        ("'/s', response_check=[len, all]", "bad_value", "one function has the last word"),
        ("'/s', cursor={'items': '/x'}", "bad_value", "the name of the parameter"),
        ("'/s', poke_intervall=3", "unknown_option", "did you mean 'poke_interval'?"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(load, said, code, words):
    loaded = load(NATIVE.format(said))
    assert loaded.code == 3
    faults = [fault for fault in loaded.faults if fault["code"] == code]
    assert faults and words in faults[0]["message"] + faults[0].get("cure", ""), loaded.faults


def test_a_sensor_looks_for_what_it_asks_for_unless_it_has_a_check(load):
    head = "from airflow import DAG\nfrom airflow.operators.empty import EmptyOperator\n"
    body = "with DAG('flow'):\n    HttpSensor(task_id='s', endpoint='/x', request_params={{'a/b': 1}}{}) >> EmptyOperator(task_id='e')\n"

    def check(sensor, more=""):
        loaded = load(f"{head}from {sensor} import HttpSensor\n{body.format(more)}")
        assert loaded.code == 0, loaded.err
        (source,) = loaded.manifest["dags"][0]["sources"]
        return source["config"].get("check")

    own = {"tests": [{"pointer": "/a~1b", "op": "same_text", "value": "1", "if_present": True}]}
    assert check("custom_operators") == own
    assert check("custom_operators", ", response_check={'status': 200}") == {"status": [200]}
    assert check("airflow.providers.http.sensors.http") is None
