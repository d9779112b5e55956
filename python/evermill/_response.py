"""What a place answered, as a `response_check` sees it."""

from __future__ import annotations

import json
from http.client import responses
from typing import Any, Dict, Iterator, List, MutableMapping, Optional, Tuple

from .event import Event


class Headers(MutableMapping):  # type: ignore[type-arg]
    """Headers by name, whatever its case; values of a repeated name are joined by commas."""

    def __init__(self, pairs: List[Tuple[str, str]]) -> None:
        self._found: Dict[str, Tuple[str, str]] = {}
        for name, value in pairs:
            before = self._found.get(name.lower())
            self._found[name.lower()] = (name, f"{before[1]}, {value}" if before else value)

    def __getitem__(self, name: str) -> str:
        return self._found[name.lower()][1]

    def __setitem__(self, name: str, value: str) -> None:
        self._found[name.lower()] = (name, value)

    def __delitem__(self, name: str) -> None:
        del self._found[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return repr(dict(self))


class Response:
    """An answer over HTTP, with the names that `requests` has for its parts."""

    def __init__(self, status: int, url: str, headers: List[Tuple[str, str]], content: bytes) -> None:
        self.status_code = status
        self.url = url
        self.headers = Headers(headers)
        #: The body, decompressed.
        self.content = content
        self.encoding: Optional[str] = _charset(self.headers.get("content-type", ""))

    @classmethod
    def of(cls, event: Event) -> "Response":
        """From the event in which the engine sends it along: two headers that no server can send come first."""
        own: Dict[str, str] = {}
        theirs: List[Tuple[str, str]] = []
        for name, value in event.headers:
            text = value.decode("latin-1")
            if name.startswith(":"):
                own[name] = text
            else:
                theirs.append((name, text))
        return cls(int(own[":status"]), own[":url"], theirs, event.value or b"")

    @property
    def ok(self) -> bool:
        """Whether the status says that all went well."""
        return self.status_code < 400

    @property
    def reason(self) -> str:
        """The status in words."""
        return responses.get(self.status_code, "")

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode(self.encoding or "utf-8", "replace")

    def json(self, **how: Any) -> Any:
        """The body, read as JSON."""
        return json.loads(self.content, **how)

    def raise_for_status(self) -> None:
        """Raises if the status tells of an error."""
        if not self.ok:
            raise ValueError(f"{self.status_code} {self.reason} for url: {self.url}")

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"


def _charset(content_type: str) -> Optional[str]:
    for part in content_type.split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name.lower() == "charset" and value:
            return value.strip("\"'")
    return None
