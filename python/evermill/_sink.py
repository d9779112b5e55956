"""Places outside that take what a DAG makes: tasks of the engine's own, without a function."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Optional, Sequence, Union

from . import _option
from ._dag import Node, Task, building
from ._fault import DagError, declared_at
from ._http import params, statuses
from ._source import TOPIC
from ._sqs import queue as _queue

#: Options of tasks that mean something where no function runs.
_OPTIONS = (
    "trigger_rule", "retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay", "timeout", "on_failure",
    "on_interrupt", "pool", "priority", "rate_limit", "rate_limit_per_key", "deadline", "history",
)  # fmt: skip

#: A broker is away for longer now and then: a week of trying, a minute apart at last.
_PATIENCE = {"retries": 10_000, "retry_delay": 1, "retry_exponential_backoff": True, "max_retry_delay": 60}

#: In `evermill.testing` a value that would be sent is the task's result.
pretend = False


def _topic(value: Any) -> str:
    if not isinstance(value, str) or not TOPIC.fullmatch(value):
        raise ValueError("write a topic's name: letters, digits, '.', '_' and '-', at most 249")
    return value


def _key(value: Any) -> str:
    if value is None:
        return "none"
    if value == "event" or (isinstance(value, str) and value.startswith("/")):
        return value
    raise ValueError("write 'event' for the event's own, None, or a JSON pointer into the value such as '/customer/id'")


#: What may stand in braces in a name that is made of a record.
_HOLE = re.compile(r"\{\{|\}\}|\{(effect_key|key|source|date|hour|/[^}]*)\}|([{}])")
_HOLES = (
    "write {effect_key}, {key}, {source}, {date}, {hour} or a JSON pointer into the value such as {/customer/id}; {{ and }} are braces"
)
_HOST = re.compile(r"https?://[^/?#@{}]+([/?#].*)?", re.DOTALL)
_BUCKET = re.compile(r"s3://[a-z0-9.-]{3,63}/.*", re.DOTALL)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _template(value: Any) -> str:
    text = _option.text(value)
    if any(found[2] for found in _HOLE.finditer(text)):
        raise ValueError(_HOLES)
    return text


def _endpoint(value: Any) -> str:
    text = _template(value)
    if "://" in text and not _HOST.fullmatch(text):
        raise ValueError("write a path, or http:// or https:// and a host; credentials belong into a connection, braces behind the host")
    return text


def _path(value: Any) -> str:
    text = _template(_option.path(value))
    cure = "write a file's path such as out/{date}/{effect_key}.json, or s3://BUCKET/out/{effect_key}.json"
    if not any(found[1] for found in _HOLE.finditer(text)):
        raise ValueError(f"each event would write over the one before; {cure}")
    if text.endswith(("/", "/.", "/..")):
        raise ValueError(f"it ends with a folder; {cure}")
    scheme, found, _ = text.partition("://")
    if not found:
        return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(declared_at()[0])), text))
    if scheme != "s3":
        raise ValueError(f"files of {scheme}:// cannot be written; {cure}")
    if not _BUCKET.fullmatch(text):
        raise ValueError("write s3://BUCKET/KEY; a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-', and no braces")
    return text


def _header(value: Any) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("write a header's name, or None to send none")
    return value


def _deliver(value: Any) -> Any:
    if not pretend:
        raise RuntimeError("this is no function to call: the engine sends the value, as long as the DAG file declares that")
    return value


def to_kafka(
    topic: str,
    value: Any,
    *,
    key: Optional[str] = "event",
    connection: str = "kafka_default",
    name: Optional[str] = None,
    **options: Any,
) -> Task:
    """Writes a message to a Kafka topic for each activation: `value` is the result of a task, or a source whose
    events are passed on.

    A result is sent as it is if it is a text, else as JSON; a task that returned None sends nothing, and this one
    is skipped. `key` is the event's own, None, or what a JSON pointer such as `"/customer/id"` finds in the value.

    What is to be sent is committed before it is sent, and it is sent until the brokers have it: at least once, with
    the effect key in the header `evermill-effect-key`, by which a reader knows a message that came twice. Options of
    tasks can be given; `retries` is 10,000 unless you say otherwise.
    """
    known = {"topic": ("topic", _topic), "connection": ("connection", _option.text), "key": ("key", _key)}
    config = {"topic": topic, "connection": connection}
    defaults = {"connection": "kafka_default", "key": "event"}
    return _sink("kafka", f"to_kafka({topic!r})", known, config, defaults, key, value, name, options)


def to_sqs(
    queue: str,
    value: Any,
    *,
    key: Optional[str] = "event",
    connection: str = "aws_default",
    name: Optional[str] = None,
    **options: Any,
) -> Task:
    """Sends a message to a queue of Amazon SQS for each activation: `value` is the result of a task, or a source
    whose events are passed on.

    What is sent is text: a result as it is if it is a text, else as JSON; a task that returned None sends nothing, and
    this one is skipped. In a FIFO queue `key` names the message's group: the event's own key, what a JSON pointer
    such as `"/customer/id"` finds in the value, or one group for all when there is none.

    What is to be sent is committed before it is sent, and it is sent until the queue has it: at least once, with the
    effect key in the attribute `evermill-effect-key`, and in a FIFO queue as deduplication id, by which SQS itself
    drops what comes twice within five minutes. Options of tasks can be given; `retries` is 10,000 unless you say
    otherwise.
    """
    known = {"queue": ("queue", _queue), "connection": ("connection", _option.text), "key": ("key", _key)}
    config = {"queue": queue, "connection": connection}
    defaults = {"connection": "aws_default", "key": "event"}
    return _sink("sqs", f"to_sqs({queue!r})", known, config, defaults, key, value, name, options)


def to_http(
    endpoint: str,
    value: Any,
    *,
    method: str = "POST",
    headers: Optional[Dict[str, str]] = None,
    expect: Union[int, Sequence[int], None] = None,
    idempotency_key: Optional[str] = "Idempotency-Key",
    key: Optional[str] = "event",
    connection: str = "http_default",
    name: Optional[str] = None,
    **options: Any,
) -> Task:
    """Sends a request to a service for each activation: `value` is the result of a task, or a source whose events
    are passed on.

    `endpoint` is a path below the address of `connection`, or a whole URL. `{/id}` in it is what stands there in the
    value, `{key}` and `{effect_key}` are the keys, `{date}` and `{hour}` those of the event. `method` is POST, PUT,
    PATCH or DELETE, which sends no body. The body is a text as it is, else JSON; a task that returned None sends
    nothing, and this one is skipped.

    It has arrived when the status is one of `expect`, 200 to 299 unless said. A `Retry-After` is waited for, a status
    that says that the request itself is wrong is final, anything else is tried again: at least once, with the effect
    key in the header `idempotency_key`, by which the service knows a request that came twice. Options of tasks can be
    given; `retries` is 10,000 unless you say otherwise.
    """
    known = {
        "endpoint": ("endpoint", _endpoint),
        "connection": ("connection", _option.text),
        "method": ("method", _option.one_of("POST", "PUT", "PATCH", "DELETE")),
        "headers": ("headers", params),
        "expect": ("expect", statuses),
        "idempotency_key": ("idempotency_key", _header),
        "key": ("key", _key),
    }
    config = {
        "endpoint": endpoint,
        "connection": connection,
        "method": method,
        "headers": headers or None,
        "expect": expect,
        "idempotency_key": idempotency_key,
    }
    defaults = {"connection": "http_default", "method": "POST", "idempotency_key": "Idempotency-Key", "key": "event"}
    made = _sink("http", f"to_http({endpoint!r})", known, config, defaults, key, value, name, options)
    if idempotency_key is None:
        made.sink["idempotency_key"] = None
    return made


def to_file(
    path: Any,
    value: Any,
    *,
    key: Optional[str] = "event",
    connection: str = "aws_default",
    name: Optional[str] = None,
    **options: Any,
) -> Task:
    """Writes a file for each activation: `value` is the result of a task, or a source whose events are passed on.

    `path` is where, in a folder of this machine or as `s3://BUCKET/KEY`: `"out/{date}/{effect_key}.json"`. In braces
    stands what is another one for each: `{effect_key}`, `{key}`, `{source}`, `{date}`, `{hour}`, or what a JSON pointer
    such as `{/customer/id}` finds in the value. A relative path counts from the folder of the DAG file. Folders are made.

    The content is a text as it is, else JSON; a task that returned None writes nothing, and this one is skipped. A
    file is there whole or not at all, and durable when the task is done. What is written again after a crash has the
    same name and the same bytes. Options of tasks can be given; `retries` is 10,000 unless you say otherwise.
    """
    known = {"path": ("path", _path), "connection": ("connection", _option.text), "key": ("key", _key)}
    config = {"path": path, "connection": connection}
    defaults = {"connection": "aws_default", "key": "event"}
    return _sink("file", f"to_file({path!r})", known, config, defaults, key, value, name, options)


def _sink(
    kind: str,
    owner: str,
    known: Dict[str, Any],
    config: Dict[str, Any],
    defaults: Dict[str, str],
    key: Optional[str],
    value: Any,
    name: Optional[str],
    options: Dict[str, Any],
) -> Task:
    """The task that gives `value` to a place outside."""
    sink = _option.convert(owner, known, config)
    if key is None:
        sink["key"] = "none"
    else:
        sink.update(_option.convert(owner, known, {"key": key}))
    if not isinstance(value, Node):
        raise DagError("bad_call", f"{owner}: {value!r} is no result of a task, and no source", "pass what a task returns, or a source")
    of_task = {option: _option.TASK[option] for option in _OPTIONS}
    given = {**_PATIENCE, **options} if "retries" not in options else options
    fields = _option.convert(owner, of_task, given)
    dag = building()
    usual = f"to_{kind}"
    made = Task(name or (dag.free_id(usual) if dag else usual), "call", _deliver, (value,), {}, fields, dag)
    made.sink = {"kind": kind, **{option: one for option, one in sink.items() if defaults.get(option) != one}}
    if not value.is_source:
        made.sink["value_from"] = value.id
    return made
