"""Queues of Amazon SQS."""

from __future__ import annotations

import re
from typing import Any, NoReturn, Optional

from . import _option
from ._dag import Source
from ._source import OWN

_NAME = re.compile(r"(?=.{1,80}$)[A-Za-z0-9_-]+(\.fifo)?")
_ARN = re.compile(r"arn:[a-z-]+:sqs:[a-z0-9-]+:[^:]+:(?P<name>[^:]+)")


def queue(value: Any) -> str:
    """A queue's name, its URL or its ARN."""
    text = value if isinstance(value, str) else ""
    name = text
    if text.startswith(("http://", "https://")):
        name = text.rpartition("/")[2]
        cure = "a queue's URL ends with its name"
    elif text.startswith("arn:"):
        found = _ARN.fullmatch(text)
        name = found["name"] if found else ""
        cure = "a queue's ARN is arn:aws:sqs:REGION:ACCOUNT:NAME"
    else:
        cure = "write a queue's name (letters, digits, '-' and '_', at most 80, with .fifo behind it if it is one), its URL or its ARN"
    if not _NAME.fullmatch(name):
        raise ValueError(cure)
    return text


_SQS = {
    "queue": ("queue", queue),
    "connection": ("connection", _option.text),
    "ack": ("ack", _option.one_of("ingest", "outcome")),
}
_DEFAULTS = {"connection": "aws_default", "ack": "ingest"}


def sqs(
    queue: str,
    *,
    connection: str = "aws_default",
    ack: str = "ingest",
    order: Optional[str] = None,
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Every message of a queue of Amazon SQS, each an activation of its own.

    `queue` is its name, its URL or its ARN. With `ack="ingest"` a message is deleted from the queue once it is
    durable here, so no task is ever too slow for the queue. With `ack="outcome"` the queue keeps it, hidden from
    others, until its activation is settled; SQS allows 12 hours for that. The messages of a FIFO queue's group stay
    in line (`order="key"`) unless `order` says otherwise. Region and credentials are those of `connection`, and else
    the machine's own, as for other programs. The source's id is `name`, else `sqs`.
    """
    owner = f"sqs({queue!r})"
    given = {"order": order, "freshness": freshness, "rate_limit": rate_limit, "queue": queue, "connection": connection, "ack": ack, **unknown}
    fields = _option.convert(owner, {**OWN, **_SQS}, given)
    config = {option: fields.pop(option) for option in _SQS if option in fields}
    if config.get("queue", "").endswith(".fifo"):
        fields.setdefault("order", "key")
    elif fields.get("order") == "none":
        del fields["order"]
    config = {option: value for option, value in config.items() if _DEFAULTS.get(option) != value}
    return Source("sqs", config, name, fields)
