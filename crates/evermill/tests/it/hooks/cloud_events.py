"""Sends events as the official SDK of CloudEvents writes them to a URL, in the three modes of HTTP, and prints each as a
line: what has to be read at the other end."""

import json
import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

AT = datetime(2026, 1, 31, 12, 30, 0, 250000, tzinfo=timezone.utc)
DATA = [
    ({"text": 'ü ☂ " % \\', "n": 1.5}, "application/json"),
    ({"list": [1, None, "x"]}, "application/json"),
    ("plain ü", "text/plain"),
    (b"\x00\xff\x01", "application/octet-stream"),
]


def event(id, data, sort):
    attributes = {
        "specversion": "1.0",
        "id": id,
        "source": "/shop?a=b%20c",
        "type": "made",
        "time": AT,
        "datacontenttype": sort,
        "subject": "a/b c",
        "partitionkey": 'k ü % "',
    }
    return CloudEvent(attributes=attributes, data=data)


def line(event):
    """All that an event is, in a form that two can compare."""
    attributes = {name: str(value.isoformat() if name == "time" else value) for name, value in event.get_attributes().items()}
    data = event.get_data()
    return json.dumps([attributes, repr(data) if isinstance(data, bytes) else data], sort_keys=True)


def batch(events):
    """The SDK writes no batches: one is a list of what it writes of each in structured mode."""
    parts = [to_structured_event(event).body.decode() for event in events]
    return HTTPMessage({"content-type": "application/cloudevents-batch+json"}, f"[{','.join(parts)}]".encode())


def send(url, message, events):
    request = urllib.request.Request(url, message.body, message.headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        said = json.load(answer)
    assert said == {"kept": len(events), "repeated": 0}, said
    for event in events:
        print(line(event))


def main(url):
    for mode, written in (("binary", to_binary_event), ("structured", to_structured_event)):
        for number, (data, sort) in enumerate(DATA):
            one = event(f"{mode} {number}", data, sort)
            send(url, written(one), [one])
    events = [event(f"batched {number}", data, sort) for number, (data, sort) in enumerate(DATA)]
    send(url, batch(events), events)


if __name__ == "__main__":
    main(sys.argv[1])
