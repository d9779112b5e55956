"""`ctx.traceparent`: which span a task hands on."""

import pytest

import evermill
from evermill import _frames
from evermill.testing import event, run

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLACE = ("orders-1", "kafka", "orders/3", 1207, "load")


def test_ids_are_the_same_in_python_and_in_rust():
    # crates/evermill-contract/src/trace.rs has the same.
    alone = _frames.traceparent(*PLACE, None)
    assert alone == "00-34877763249177607824676d21d918fe-1c43e591aaf92d33-01"
    assert _frames.traceparent(*PLACE, GIVEN) == "00-4bf92f3577b34da6a3ce929d0e0e4736-1c43e591aaf92d33-01"
    assert _frames.traceparent(*PLACE, GIVEN[:-1] + "0").endswith("-00")


@pytest.mark.parametrize(
    "value, expected",
    [
        (GIVEN, GIVEN),
        ("cc" + GIVEN[2:] + "-more", GIVEN),
        (GIVEN + "-more", None),
        ("ff" + GIVEN[2:], None),
        (GIVEN.upper(), None),
        ("00-" + "0" * 32 + GIVEN[35:], None),
        (GIVEN[:36] + "0" * 16 + "-01", None),
        ("", None),
    ],
)
def test_a_header_is_read_as_the_standard_has_it(value, expected):
    assert _frames.given_traceparent([("a", b""), ("TraceParent", value.encode())]) == expected


@pytest.mark.parametrize(
    "values, expected",
    [
        ((b"a=1 ", b"b=2,c=3"), "a=1,b=2,c=3"),
        ((b"",), None),
        ((b"a=\xff",), None),
        ((b"a=\n1",), None),
        ((b"x" * 513,), None),
        ((b"x" * 512,), "x" * 512),
    ],
)
def test_the_state_of_a_trace_is_handed_on_as_it_came_and_only_beside_a_span(values, expected):
    # crates/evermill-contract/src/trace.rs has the same.
    headers = [("TraceState", value) for value in values]
    assert _frames.given_tracestate([("traceparent", GIVEN.encode()), *headers]) == expected
    assert _frames.given_tracestate(headers) is None


def test_what_an_event_brought_is_handed_on_where_nothing_is_traced():
    seen = []

    @evermill.task
    def look(event, ctx):
        seen.append((ctx.traceparent, ctx.tracestate))

    @evermill.dag
    def flow():
        look(evermill.kafka("t"))

    run(flow, [event("a", headers=[("traceparent", GIVEN.encode()), ("tracestate", b"a=1")]), event("b")])
    assert seen == [(GIVEN, "a=1"), (None, None)]
