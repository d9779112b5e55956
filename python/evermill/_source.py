"""The sources a DAG can listen to."""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, List, NoReturn, Optional, Union

from . import _option
from ._content import CONTENT
from ._dag import Source
from ._fault import DagError, blame

#: Kafka takes no other names; `.` and `..` would be folders to it.
TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")

_KAFKA = {
    "topic": ("topic", _option.text),
    "group_id": ("group_id", _option.text),
    "auto_offset_reset": ("auto_offset_reset", _option.one_of("latest", "earliest")),
    "connection": ("connection", _option.text),
    "membership": ("membership", _option.flag),
    "from_group": ("from_group", _option.text),
    "poke_interval": ("poke_interval_ms", _option.milliseconds),
}
#: Options of a source of any kind.
OWN = {
    "name": ("name", _option.text),
    "order": _option.DAG["order"],
    "freshness": _option.DAG["freshness"],
    "rate_limit": _option.TASK["rate_limit"],
    **CONTENT,
}
_KAFKA_DEFAULTS = {"auto_offset_reset": "latest", "connection": "kafka_default", "membership": False}


def kafka_config(owner: str, **given: Any) -> dict:
    """The manifest's `config` of a Kafka source, without what is default."""
    fields = _option.convert(owner, _KAFKA, given)
    topic = fields.get("topic", "")
    if topic and not TOPIC.fullmatch(topic):
        cure = "a topic's name has letters, digits, '.', '_' and '-', at most 249"
        blame(DagError("never_fires", f"{owner}: no Kafka topic can be called {topic!r}, so no event would ever come", cure))
    return {name: value for name, value in fields.items() if _KAFKA_DEFAULTS.get(name) != value}


def kafka(
    topic: str,
    *,
    group_id: Optional[str] = None,
    auto_offset_reset: str = "latest",
    connection: str = "kafka_default",
    order: str = "none",
    membership: bool = False,
    from_group: Optional[str] = None,
    codec: Optional[str] = None,
    schema: Union[Dict[str, Any], str, None] = None,
    schema_registry: Optional[str] = None,
    validator: Optional[Callable[..., Any]] = None,
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Every message of a Kafka topic, each an activation of its own, from the moment it arrives.

    All partitions are ours unless `membership=True` joins `group_id`. A partition that was never read
    begins at `auto_offset_reset`, or at what `from_group` had committed. `order` keeps messages of one
    key, one partition, or all of them in line. `connection` is the id that `--connection ID=HOST:PORT`
    gives an address to. The source's id is `name`, else `kafka`.

    `codec` is what a value has to be: `"bytes"`, `"text"`, `"json"`, or `"avro"` and `"protobuf"`, which tasks read as
    JSON. `schema` is a JSON Schema or an Avro schema, as a dict or a file's path, or for Protobuf a path such as
    `"order.proto#shop.Order"`; `schema_registry` is the connection of the registry that messages name their schemas in. `validator` is called with each event, and raises or returns False
    where it is not valid. What does not pass is parked as `invalid`, and no task sees it.
    """
    owner = f"kafka({topic!r})"
    known = {**OWN, **_KAFKA}
    content = {"codec": codec, "schema": schema, "schema_registry": schema_registry, "validator": validator}
    own = {"order": order, "freshness": freshness, "rate_limit": rate_limit}
    fields = _option.convert(owner, known, {**own, **content, **unknown})
    config = kafka_config(
        owner,
        topic=topic,
        group_id=group_id,
        auto_offset_reset=auto_offset_reset,
        connection=connection,
        membership=membership,
        from_group=from_group,
    )
    return declare("kafka", config, name, fields)


def declare(kind: str, config: dict, name: Optional[str], fields: dict) -> Source:
    """The source with these fields of the manifest; without an order of its own the DAG's word holds."""
    if fields.get("order") == "none":
        del fields["order"]
    validator = fields.pop("validator", None)
    source = Source(kind, config, name, fields)
    source.validator = validator
    return source


_CATCHUP = _option.one_of("none", "last", "all")
CRON = {
    "expr": ("expr", _option.text),
    "timezone": ("timezone", _option.text),
    "catchup": ("catchup", _CATCHUP),
}
EVERY = {"duration": ("interval_ms", _option.milliseconds), "catchup": ("catchup", _CATCHUP)}
LOOP = {
    "delay": ("delay_ms", _option.milliseconds),
    "max_consecutive_failures": ("max_consecutive_failures", _option.whole(1)),
}
_CLOCK_DEFAULTS = {"timezone": "UTC", "catchup": "none", "delay_ms": 0}


def clock_config(owner: str, known: dict, **given: Any) -> dict:
    """The manifest's `config` of a clock or a loop, without what is default."""
    fields = _option.convert(owner, known, given)
    if fields.get("interval_ms") == 0:
        cure = "evermill.loop() goes on at once; an interval is longer than nothing"
        blame(DagError("bad_value", f"{owner}: an interval of 0 never ends", cure))
    return {name: value for name, value in fields.items() if _CLOCK_DEFAULTS.get(name) != value}


def cron(
    expr: str,
    *,
    timezone: str = "UTC",
    catchup: str = "none",
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Every instant that a cron expression names: five fields, or six with seconds first.

    The wall clock is that of `timezone`. `catchup` says what becomes of instants that passed while nobody
    listened: `"none"`, the `"last"` of them, or `"all"`. An event has its nominal instant as `timestamp`.
    """
    owner = f"cron({expr!r})"
    config = clock_config(owner, CRON, expr=expr, timezone=timezone, catchup=catchup)
    return _source("cron", config, owner, name, {"order": order, "freshness": freshness, "rate_limit": rate_limit, **unknown})


def every(
    duration: Any,
    *,
    catchup: str = "none",
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Instants at equal distances: seconds, a timedelta, or a text such as `"500ms"`. Restarts do not shift them."""
    owner = f"every({duration!r})"
    config = clock_config(owner, EVERY, duration=duration, catchup=catchup)
    return _source("every", config, owner, name, {"order": order, "freshness": freshness, "rate_limit": rate_limit, **unknown})


def _source(kind: str, config: dict, owner: str, name: Optional[str], given: dict) -> Source:
    return declare(kind, config, name, _option.convert(owner, OWN, given))


def loop(
    *,
    delay: Any = 0,
    until: Optional[Callable[..., Any]] = None,
    max_consecutive_failures: Optional[int] = None,
    name: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """One lap of the DAG after the other, `delay` after the end of the last one.

    `until` is called at the end of each lap, with the same parameters as a task; once it is true the run is
    finished. `ctx.state` lasts from lap to lap, and over restarts. A lap that fails fails the run, unless
    `max_consecutive_failures` lets it go on, with growing pauses.
    """
    owner = "loop()"
    config = clock_config(owner, LOOP, delay=delay, max_consecutive_failures=max_consecutive_failures)
    _option.convert(owner, OWN, unknown)
    if until is not None and not callable(until):
        blame(DagError("bad_value", f"{owner}: until={until!r} is no function", "give it a function that says whether to end"))
        until = None
    source = Source("loop", config, name, {"order": "serial"})
    source.until = until
    return source


ALERT_KINDS = (
    "deadline_missed", "freshness_missed", "parked", "run_failed", "source_degraded", "source_stalled", "source_ended",
    "lane_stopped",
)  # fmt: skip


def _kinds(value: Any) -> List[str]:
    return [_option.one_of(*ALERT_KINDS)(word) for word in _option.texts(value)]


_ALERTS = {"kinds": ("kinds", _kinds), "dags": ("dags", _option.texts)}


def alerts(
    *,
    kinds: Optional[List[str]] = None,
    dags: Optional[List[str]] = None,
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """What goes wrong with other DAGs of this engine, each an event: `event.json()` has `id`, `kind`, `dag`, `run`,
    `text`, `count`, and where it is known `source`, `lane`, `position` and `task`; its key is the DAG's id.

    `kinds` and `dags` choose among them. A DAG that listens to alerts causes none for others that do.
    """
    owner = "alerts()"
    config = _option.convert(owner, _ALERTS, {"kinds": kinds, "dags": dags})
    return _source("alerts", config, owner, name, {"order": order, "freshness": freshness, "rate_limit": rate_limit, **unknown})


_SIGNAL = {"signal": ("name", _option.text)}


def signal(
    signal: str,
    *,
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    rate_limit: Optional[str] = None,
    **unknown: NoReturn,
) -> Source:
    """Every message that somebody sends by `evermill signal RUN NAME`, from then on durable. `event.json()` is what
    was sent along, None when nothing was.
    """
    owner = f"signal({signal!r})"
    config = _option.convert(owner, _SIGNAL, {"signal": signal})
    return _source("signal", config, owner, name, {"order": order, "freshness": freshness, "rate_limit": rate_limit, **unknown})
