"""Frames and identities, against the golden files that the Rust tests check as well.

`EVERMILL_BLESS=1` writes the frames that a worker writes in life.
"""

import json
import os
import socket
from datetime import datetime, timezone
from pathlib import Path

import pytest
from evermill import _frames, _output, _values
from evermill.event import Event, moment

GOLDEN = Path(__file__).parents[2] / "crates/evermill-contract/golden"


def read(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        channel = _frames.Channel(ours)
        frames = []
        while True:
            frame = channel.read()
            if frame is None:
                return frames
            frames.append(frame)


def golden_frame(name):
    (frame,) = read((GOLDEN / "frames" / f"{name}.frame").read_bytes())
    return frame


def check(name, actual):
    path = GOLDEN / "frames" / f"{name}.frame"
    if "EVERMILL_BLESS" in os.environ:
        path.write_bytes(actual)
    assert path.read_bytes() == actual, f"{name} differs: the format is frozen, see docs/spec/frames.md"


def described(event):
    if event is None:
        return None
    if isinstance(event, list):
        return [described(each) for each in event]
    time = event.timestamp
    return {
        "value": None if event.value is None else list(event.value),
        "key": None if event.key is None else list(event.key),
        "headers": [[name, list(value)] for name, value in event.headers],
        "timestamp_ms": None if time is None else round((time - moment(0)).total_seconds() * 1000),
        "source": event.source,
        "lane": event.lane,
        "position": event.position,
    }


@pytest.mark.parametrize("name", ["dispatch-plain", "dispatch-rich", "dispatch-joined", "dispatch-stateful"])
def test_dispatches_mean_what_the_engine_meant(name):
    dispatch = _frames.Dispatch(golden_frame(name))
    expected = json.loads((GOLDEN / "frames/dispatches.json").read_text("utf-8"))[name]
    members = [
        {
            "event": described(event),
            "try_number": dispatch.table.number("try_number", member, 1),
            "map_index": dispatch.table.number("map_index", member, -1),
            "scope": dispatch.table.number("scope", member, 0),
            "effect_keys": [
                _frames.effect_key(
                    dispatch.activation(member), dispatch.task, dispatch.table.number("map_index", member, -1), call
                )
                for call in (0, 1)
            ],
        }
        for member, event in enumerate(dispatch.events())
    ]
    for member, meant in enumerate(members):
        if dispatch.rows("joined", member):
            meant["joined"] = [described(event) for event in dispatch.seen(member)]
        if dispatch.table.part("state", member) is not None:
            meant["state"] = list(dispatch.table.part("state", member))
    actual = {
        name: getattr(dispatch, name)
        for name in ("call", "entry", "folder", "dag", "run", "task", "vectorised", "slice_ns", "order", "cwd", "nice", "traced")
    }
    actual["members"] = members
    actual["results"] = [
        [member, task, None if value is None else list(value)] for (member, task), value in dispatch.results.items()
    ]
    # The run in a dispatch is for the task's context; in these files lanes belong to orders-1.
    assert actual == expected


def test_a_member_of_a_join_names_events_by_source():
    dispatch = _frames.Dispatch(golden_frame("dispatch-joined"))
    assert not dispatch.is_plain
    values = [
        [event and event.value for event in (dispatch.event_of(member, source) for source in ("orders", "prices"))]
        for member in range(dispatch.members)
    ]
    assert values == [[b"order", b"price"], [None, b"price"], [None, None]]
    assert [[event.value for event in dispatch.seen(member)] for member in range(3)] == [[b"order", b"price"], [b"price"], []]


def test_the_one_event_is_that_of_its_own_source_and_of_no_other():
    dispatch = _frames.Dispatch(golden_frame("dispatch-rich"))
    assert dispatch.event_of(0, "kafka").position == 41
    assert dispatch.event_of(0, "sqs") is None
    assert [event.position for event in dispatch.event_of(4, "kafka")] == [41, 2**64 - 2]
    assert dispatch.event_of(5, "kafka") is None and dispatch.seen(5) == []


def test_frames_of_the_engine_are_understood():
    assert golden_frame("welcome").content()["limits"]["result_bytes_max"] == 4 * 1024 * 1024
    assert (golden_frame("recall").kind, golden_frame("recall").call) == (_frames.RECALL, 4)
    assert golden_frame("stop").kind == _frames.STOP
    assert golden_frame("retire").kind == _frames.RETIRE
    value = golden_frame("answer-value")
    assert (value.call, value.content(), value.raw) == (3, {"found": True}, b'{"a":[1]}')
    assert golden_frame("answer-missing").content() == {"found": False}
    assert golden_frame("answer-refused").content() == {"found": False, "refused": "not yours"}


def test_frames_of_a_worker_are_golden():
    hello = {"protocols": [1], "codecs": ["json"], "pid": 1, "python": "3.9.0", "sdk": "evermill"}
    check("hello", _frames.encode(0, _frames.HELLO, _frames.content(hello)))

    times = 1000, 2000
    outcomes = _frames.Outcomes(1000)
    outcomes.close(997, 2000)
    detail = {
        "branch": ["left"],
        "proceed": True,
        "state": [
            {"op": "put", "name": "a", "value": {"x": [1]}},
            {"op": "delete", "name": "b"},
            {"op": "incr", "name": "c", "by": 2},
            {"op": "max", "name": "d", "value": 1.5},
            {"op": "set_add", "name": "e", "values": ["x", 1]},
        ],
        "xcoms": {"other": '{"n":1}'},
    }
    outcomes.end(997, *times, _frames.VALUE, b"[1,2]", _frames.content(detail), 2)
    outcomes.end(998, *times, _frames.SKIPPED)
    outcomes.end(999, *times, _frames.WAITING)
    outcomes.end(1000, *times, _frames.HELD, count=2)
    error = {"kind": "raised", "class": "ValueError", "message": "no", "traceback": "Traceback: ä", "retryable": True}
    outcomes.end(1002, *times, _frames.FAILED, b"", _frames.content(error), count=3)
    outcomes.end(1005, *times, _frames.VALUE, b"1")
    outcomes.end(1006, *times, _frames.WAITING, b"", _frames.content({"until_ms": 1_700_000_000_000}))
    check("outcomes", outcomes.take(4))
    assert outcomes.take(4) == b""

    check("finished", _frames.encode(4, _frames.FINISHED, _frames.content({"tail": 7})))
    check("returned", _frames.encode(4, _frames.RETURNED, _frames.content({"from": 3})))
    question = {"kind": "xcom_pull", "task_id": "extract", "key": "return_value", "map_index": None}
    ask = {"dispatch": 4, "member": 2, "question": question}
    check("ask", _frames.encode(1, _frames.ASK, _frames.content(ask)))
    check("progress", _frames.encode(4, _frames.PROGRESS, _frames.content({"member": 3}), b"0.5"))

    capture = capture_of(1000, 1000, 10_000)
    capture.begin(4)
    for member, origin, text in [(0, "out", "one\n"), (0, "out", "two\n"), (1, 30, "mine: careful ä\n"), (-1, "err", "three")]:
        capture.member = lambda member=member: member
        capture.add(origin, text)
    check("log", capture.end())


def capture_of(head, tail, total, send=lambda frame: None):
    limits = {"log_head_bytes_max": head, "log_tail_bytes_max": tail, "log_dispatch_bytes_max": total}
    return _output.Capture(_output.Guard(), send, limits)


def test_a_stream_that_ends_anywhere_fails_closed():
    data = (GOLDEN / "frames/dispatch-rich.frame").read_bytes()
    assert read(b"") == []
    for end in range(1, len(data)):
        with pytest.raises(_frames.FrameError, match="ended inside"):
            read(data[:end])


def test_a_flipped_bit_fails_closed():
    data = (GOLDEN / "frames/dispatch-rich.frame").read_bytes()
    covered = 20 + len(golden_frame("dispatch-rich").control)
    for bit in range(covered * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(_frames.FrameError):
            read(bytes(flipped))


def test_identities_are_golden():
    for vector in json.loads((GOLDEN / "identity.json").read_text("utf-8")):
        parts = (vector[name].encode() for name in ("run", "source", "incarnation"))
        lane = _frames.fields(b"evermill.activation.1", *parts)
        activation = _frames.activation_id(lane, vector["kind"], bytes.fromhex(vector["value"]), vector["generation"])
        assert activation.hex() == vector["activation"]
        for key in vector["effect_keys"]:
            assert _frames.effect_key(activation, key["task"], key["map_index"], key["call"]) == key["key"]


def test_an_event_can_be_made_for_tests():
    at = datetime(2024, 2, 29, tzinfo=timezone.utc)
    event = Event.of(b'{"a": 1}', key=b"k", headers=[("h", b"v")], timestamp=at, position=7, source="s", lane="l")
    assert (event.json(), event.text()[0], event.key, event.headers) == ({"a": 1}, "{", b"k", [("h", b"v")])
    assert (event.timestamp, event.position, event.source, event.lane) == (at, 7, "s", "l")
    with pytest.raises(ValueError, match="tombstone"):
        Event.of(None).json()


VALUES = [
    None,
    True,
    [1, 2.5, "ä", {"a": None}],
    {"$bytes": "mine"},
    {"$$x": {"$float": 1}},
    {"$a": 1, "$b": 2},
    b"\x00\xff",
    {1, 2, 3},
    datetime(2024, 2, 29, 12, tzinfo=timezone.utc),
    float("inf"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back(value):
    encoded = _values.encode(value)
    json.loads(encoded)
    assert _values.decode(encoded) == value


def test_text_with_half_a_pair_is_refused_by_name():
    with pytest.raises(_values.Unserialisable, match="surrogate"):
        _values.encode({"a": "\ud800"})


def test_a_flood_of_output_keeps_beginning_and_end():
    sent = []
    capture = capture_of(100, 50, 100_000, sent.append)
    capture.member = lambda: 3
    capture.begin(2)
    for line in range(10_000):
        capture.add("out", f"{line:09}\n")
    (log,) = read(capture.end())
    texts = log.raw.decode()
    assert texts.startswith("000000000\n") and texts.endswith("000009999\n")
    assert "99850 characters of output were left out here" in texts
    assert len(texts) < 250
