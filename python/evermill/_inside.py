"""What one DAG says to another."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NoReturn, Optional, Sequence

from . import _option
from ._dag import Dag, Source
from ._source import OWN, TOPIC, declare

STATES = ("done", "failed", "skipped")

#: The context of the attempt that runs here, for `emit`.
speaker: "ContextVar[Any]" = ContextVar("evermill_speaker", default=None)


def _dag_id(value: Any) -> str:
    """A DAG's id, or the DAG, or the function that declares it."""
    value = getattr(value, "dag", value)
    return _option.text(value.id if isinstance(value, Dag) else value)


def _states(value: Any) -> list:
    given = [value] if isinstance(value, str) else list(value)
    for state in given:
        _option.one_of(*STATES)(state)
    if not given:
        raise ValueError(f"write one of {', '.join(STATES)}, or several")
    return sorted(set(given))


def _topic(value: Any) -> str:
    if not isinstance(value, str) or not TOPIC.fullmatch(value):
        raise ValueError("write a topic's name: letters, digits, '.', '_' and '-', at most 249")
    return value


def after_config(owner: str, **given: Any) -> dict:
    """The manifest's `config` of a source of another DAG's ends, without what is default."""
    fields = _option.convert(owner, {"dag_id": ("dag", _dag_id), "states": ("states", _states)}, given)
    return {name: value for name, value in fields.items() if (name, value) != ("states", ["done"])}


def after(
    dag_id: Any,
    *,
    states: Sequence[str] = ("done",),
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    **unknown: NoReturn,
) -> Source:
    """Every activation of another DAG that ended so: `"done"`, `"failed"` (parked, or dropped) or `"skipped"`.

    An event is kept in the very commit that settles what it tells of, so that none is lost or doubled. `event.json()`
    says which activation it was and how it ended; the key is that of its event. One hears from the DAG's first start on.
    """
    owner = f"after({getattr(dag_id, '__name__', dag_id)!r})"
    config = after_config(owner, dag_id=dag_id, states=states)
    return declare("after", config, name, _option.convert(owner, OWN, {"order": order, "freshness": freshness, **unknown}))


def topic(
    topic: str,
    *,
    order: str = "none",
    name: Optional[str] = None,
    freshness: Any = None,
    circle: bool = False,
    **unknown: NoReturn,
) -> Source:
    """Every message that a task of any DAG emits to this topic, by `evermill.emit(topic, value)`. `event.json()` is the value.

    `circle=True` says that what is heard here may lead back to this topic, and that you see to it that it ends.
    """
    owner = f"topic({topic!r})"
    shapes = {"topic": ("name", _topic), "circle": ("circle", _option.flag)}
    config = _option.convert(owner, shapes, {"topic": topic, "circle": None if circle is False else circle})
    return declare("topic", config, name, _option.convert(owner, OWN, {"order": order, "freshness": freshness, **unknown}))


def emit(topic: str, value: Any, key: Optional[str] = None) -> None:
    """Says a value to every DAG that listens to the topic. It counts once this attempt has succeeded, in the same commit."""
    ctx = speaker.get()
    if ctx is None:
        raise RuntimeError(
            "evermill.emit() needs a task around it that is known to emit: call it in the task's own function, "
            "or take ctx as a parameter and call ctx.emit()"
        )
    ctx.emit(topic, value, key)


def message(topic: str, value: Any, key: Any) -> dict:
    """What the engine gets of it."""
    from ._values import encode

    made = {"topic": _topic(topic), "value": encode(value).decode()}
    if isinstance(key, bytes):
        key = key.decode()
    if key is not None and not isinstance(key, str):
        raise TypeError(f"emit({topic!r}): a key is a text, not {type(key).__name__}")
    return made if key is None else {**made, "key": key}
