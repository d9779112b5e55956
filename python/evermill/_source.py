"""The sources a DAG can listen to."""

from __future__ import annotations

import re
from typing import Any, NoReturn, Optional

from . import _option
from ._dag import Source
from ._fault import DagError, blame

#: Kafka takes no other names; `.` and `..` would be folders to it.
_TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")

_KAFKA = {
    "topic": ("topic", _option.text),
    "group_id": ("group_id", _option.text),
    "auto_offset_reset": ("auto_offset_reset", _option.one_of("latest", "earliest")),
    "connection": ("connection", _option.text),
    "membership": ("membership", _option.flag),
    "from_group": ("from_group", _option.text),
    "poke_interval": ("poke_interval_ms", _option.milliseconds),
}
_OWN = {"name": ("name", _option.text), "order": _option.DAG["order"], "freshness": _option.DAG["freshness"]}
_KAFKA_DEFAULTS = {"auto_offset_reset": "latest", "connection": "kafka_default", "membership": False}


def kafka_config(owner: str, **given: Any) -> dict:
    """The manifest's `config` of a Kafka source, without what is default."""
    fields = _option.convert(owner, _KAFKA, given)
    topic = fields.get("topic", "")
    if topic and not _TOPIC.fullmatch(topic):
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
    name: Optional[str] = None,
    freshness: Any = None,
    **unknown: NoReturn,
) -> Source:
    """Every message of a Kafka topic, each an activation of its own, from the moment it arrives.

    All partitions are ours unless `membership=True` joins `group_id`. A partition that was never read
    begins at `auto_offset_reset`, or at what `from_group` had committed. `order` keeps messages of one
    key, one partition, or all of them in line. `connection` is the id that `--connection ID=HOST:PORT`
    gives an address to. The source's id is `name`, else `kafka`.
    """
    owner = f"kafka({topic!r})"
    known = {**_OWN, **_KAFKA}
    fields = _option.convert(owner, known, {"order": order, "freshness": freshness, **unknown})
    config = kafka_config(
        owner,
        topic=topic,
        group_id=group_id,
        auto_offset_reset=auto_offset_reset,
        connection=connection,
        membership=membership,
        from_group=from_group,
    )
    if fields.get("order") == "none":  # the DAG's word holds
        del fields["order"]
    return Source("kafka", config, name, fields)
