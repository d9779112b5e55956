"""Tasks that send a value to a service over HTTP."""

import json

import pytest
from conftest import sink_of

import evermill
from evermill import testing

FLOW = """import evermill
@evermill.task
def a(event): return event.json()
@evermill.dag
def flow():
    evermill.to_http({})
"""


@pytest.mark.parametrize(
    "said, config",
    [
        ("'/orders', a(evermill.kafka('in'))", {"endpoint": "/orders", "value_from": "a"}),
        ("'/orders', evermill.kafka('in')", {"endpoint": "/orders"}),
        (
            "'https://shop.example/orders/{/id}?day={date}', evermill.kafka('in'), method='PUT'",
            {"endpoint": "https://shop.example/orders/{/id}?day={date}", "method": "PUT"},
        ),
        ("'/x', evermill.kafka('in'), headers={'X-Of': 1}, expect=201", {"endpoint": "/x", "headers": {"X-Of": "1"}, "expect": [201]}),
        ("'/x', evermill.kafka('in'), idempotency_key=None, key=None", {"endpoint": "/x", "idempotency_key": None, "key": "none"}),
        ("'/x', evermill.kafka('in'), idempotency_key='X-Key', key='/id'", {"endpoint": "/x", "idempotency_key": "X-Key", "key": "/id"}),
        ("'/x', evermill.kafka('in'), connection='shop', method='POST'", {"endpoint": "/x", "connection": "shop"}),
    ],
)
def test_settings_become_the_fields_of_the_manifest(load, said, config):
    task, found = sink_of(load(FLOW.format(said)))
    assert found == {"kind": "http", **config}
    assert (task["id"], task["retries"]) == ("to_http", 10_000)


def test_options_of_a_task_hold_for_it(load):
    task, _ = sink_of(load(FLOW.format("'/x', evermill.kafka('in'), name='tell', retries=3, timeout='10s', rate_limit='5/s', on_failure='drop'")))
    assert task["id"] == "tell"
    assert (task["retries"], task["timeout_ms"], task["on_failure"]) == (3, 10_000, "drop")
    assert task["rate_limit"] == {"members": 5, "interval_ms": 1000}


@pytest.mark.parametrize(
    "said, code, words",
    [
        ("'', evermill.kafka('in')", "bad_value", "write a text"),
        ("'/orders/{id}', evermill.kafka('in')", "bad_value", "{/customer/id}"),
        ("'/orders/{', evermill.kafka('in')", "bad_value", "{/customer/id}"),
        ("'https://{key}.example/x', evermill.kafka('in')", "bad_value", "behind the host"),
        ("'https://ann:geheim@example/x', evermill.kafka('in')", "bad_value", "credentials belong into a connection"),
        ("'/x', evermill.kafka('in'), method='GET'", "bad_value", "GET"),
        ("'/x', evermill.kafka('in'), expect=99", "bad_value", "write a status"),
        ("'/x', evermill.kafka('in'), idempotency_key='two words'", "bad_value", "a header's name"),
        ("'/x', evermill.kafka('in'), params={}", "unknown_option", "params"),
        ("'/x', 5", "bad_call", "no result of a task"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(load, said, code, words):
    loaded = load(FLOW.format(said))
    assert loaded.code == 3
    fault = loaded.faults[0]
    assert fault["code"] == code and words in fault["message"] + fault.get("cure", ""), loaded.faults


def test_braces_can_be_written(load):
    _, found = sink_of(load(FLOW.format("'/x?filter={{{key}}}', evermill.kafka('in')")))
    assert found["endpoint"] == "/x?filter={{{key}}}"


@evermill.task
def double(event):
    return {"n": 2 * event.json()}


def test_in_a_test_nothing_is_sent_and_what_would_be_is_the_result():
    @evermill.dag
    def flow():
        evermill.to_http("https://nobody.invalid/{/n}", double(evermill.kafka("in")))

    result = testing.run(flow, [json.dumps(4).encode()])
    assert result.done == 1
    assert result.activations[0]["to_http"].result == {"n": 8}
