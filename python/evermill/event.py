"""What a source emitted, as a task sees it: `event`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, List, Optional, Sequence, Tuple, Union

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Event:
    """One event. Its parts are cut out of the received bytes when they are asked for.

    An event that is kept keeps the bytes of all events that came with it.
    """

    __slots__ = ("value", "_table", "_row")

    #: The content as bytes; None for a tombstone.
    value: Optional[bytes]

    # No `__init__`: workers make events by the million and set their parts one by one.

    @classmethod
    def _at(cls, value: Optional[bytes], table: Any, row: int) -> "Event":
        event = cls()
        event.value = value
        event._table = table
        event._row = row
        return event

    @classmethod
    def of(
        cls,
        value: Optional[bytes] = None,
        *,
        key: Optional[bytes] = None,
        headers: Sequence[Tuple[str, bytes]] = (),
        timestamp: Optional[datetime] = None,
        position: Union[int, str] = 0,
        source: str = "",
        lane: str = "",
    ) -> "Event":
        """An event that did not come from a source, for tests."""
        return cls._at(value, _Single(key, list(headers), timestamp, position, source, lane), 0)

    def text(self, encoding: str = "utf-8") -> str:
        """The content as text."""
        return self._content("text").decode(encoding)

    def json(self) -> Any:
        """The content, read as JSON."""
        return json.loads(self._content("json"))

    @property
    def path(self) -> str:
        """Where the file is, for events of `evermill.files`."""
        return self._of_file("path")

    @property
    def url(self) -> str:
        """The same as a URL."""
        return self._of_file("url")

    def _of_file(self, field: str) -> str:
        try:
            return self.json()[field]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"event.{field}: this event is no file of evermill.files: {self!r}") from None

    def _content(self, what: str) -> bytes:
        if self.value is None:
            raise ValueError(f"event.{what}(): this event has no value (a tombstone): {self!r}")
        return self.value

    @property
    def key(self) -> Optional[bytes]:
        """The key as bytes; None if it has none."""
        return self._table.key(self._row)

    @property
    def headers(self) -> List[Tuple[str, bytes]]:
        """The headers in the order in which they were sent; a name may repeat."""
        return self._table.headers(self._row)

    @property
    def timestamp(self) -> Optional[datetime]:
        """When it happened, by the source's clock; None if the source does not say."""
        return self._table.timestamp(self._row)

    @property
    def position(self) -> Union[int, str]:
        """Where it stands in its lane: a number in a log, else its message id or key."""
        return self._table.position(self._row)

    @property
    def source(self) -> str:
        """The source's id within the DAG."""
        return self._table.source(self._row)

    @property
    def lane(self) -> str:
        """The lane's name, such as `orders/3`."""
        return self._table.lane(self._row)

    def __repr__(self) -> str:
        size = "no value" if self.value is None else f"{len(self.value)} bytes"
        return f"<Event {self.source} {self.lane} at {self.position}, {size}>"


def moment(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as an aware datetime, exact and also before 1970."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


class _Single:
    """What stands in for a table of events when there is only one."""

    __slots__ = ("_parts",)

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def key(self, row: int) -> Optional[bytes]:
        return self._parts[0]

    def headers(self, row: int) -> List[Tuple[str, bytes]]:
        return self._parts[1]

    def timestamp(self, row: int) -> Optional[datetime]:
        return self._parts[2]

    def position(self, row: int) -> Union[int, str]:
        return self._parts[3]

    def source(self, row: int) -> str:
        return self._parts[4]

    def lane(self, row: int) -> str:
        return self._parts[5]
