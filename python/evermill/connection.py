"""Where a connection leads, as a task sees it: `ctx.connection("warehouse")`."""

from __future__ import annotations

from typing import Any, Dict, Optional
from urllib.parse import parse_qsl, unquote, urlsplit


class Connection:
    """The address that somebody gave a connection, whole as `url` and in its parts."""

    __slots__ = ("id", "url", "scheme", "host", "port", "user", "password", "path", "settings")

    def __init__(self, id: str, url: str) -> None:
        #: Its id.
        self.id = id
        #: The whole address, fit for a client: with user, password and settings.
        self.url = url
        parts = urlsplit(url if "://" in url else "//" + url)
        #: What stands before `://`; None where nothing does.
        self.scheme: Optional[str] = parts.scheme or None
        login, _, place = parts.netloc.rpartition("@")
        user, has_password, password = login.partition(":")
        #: As given, without its percent-encoding. None where there is none.
        self.user: Optional[str] = unquote(user) if login else None
        self.password: Optional[str] = unquote(password) if has_password else None
        # Of several hosts, the first one.
        first = place.split(",")[0]
        host, port = _split(first)
        self.host: Optional[str] = host or None
        self.port: Optional[int] = port
        #: What stands behind the host, without its first stroke: a database's name, for example.
        self.path: str = unquote(parts.path.lstrip("/"))
        #: The settings behind `?`, by name.
        self.settings: Dict[str, str] = dict(parse_qsl(parts.query, keep_blank_values=True))

    def __repr__(self) -> str:
        # The address may hold a password.
        where = self.host if self.port is None else f"{self.host}:{self.port}"
        return f"<Connection {self.id!r} to {where}>"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Connection) and (self.id, self.url) == (other.id, other.url)

    __hash__ = None  # type: ignore


def _split(place: str) -> tuple:
    if place.startswith("["):  # IPv6
        host, _, rest = place[1:].partition("]")
        port = rest.lstrip(":")
    else:
        host, _, port = place.partition(":")
    return host, int(port) if port.isdigit() else None
