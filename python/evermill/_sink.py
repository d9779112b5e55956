"""Places outside that take what a DAG makes: tasks of the engine's own, without a function."""

from __future__ import annotations

from typing import Any, Dict, Optional

from . import _option
from ._dag import Node, Task, building
from ._fault import DagError
from ._source import TOPIC
from ._sqs import queue as _queue

#: Options of tasks that mean something where no function runs.
_OPTIONS = (
    "trigger_rule", "retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay", "timeout", "on_failure",
    "on_interrupt", "pool", "priority", "deadline", "history",
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
