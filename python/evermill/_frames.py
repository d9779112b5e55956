"""Frames between engine and worker, as docs/spec/frames.md defines them.

Both sides check themselves against the same golden files.
"""

from __future__ import annotations

import hashlib
import json
import re
import select
import socket
import struct
import zlib
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from .event import Event, moment

PROTOCOL = 1

HELLO = 1
WELCOME = 2
DISPATCH = 3
OUTCOMES = 4
FINISHED = 5
RECALL = 6
ASK = 7
ANSWER = 8
LOG = 9
PROGRESS = 10
RETIRE = 11
STOP = 12
FORK = 13
FORKED = 14
ENDED = 15
PRELOAD = 16
PRELOADED = 17
RETURNED = 18

_HEAD = struct.Struct("<5I")
_CHECKED = struct.Struct("<II")

#: Bounds until the handshake says otherwise.
FRAME_BYTES_MAX = 256 * 1024 * 1024
CONTROL_BYTES_MAX = 8 * 1024 * 1024


class FrameError(Exception):
    """The stream cannot be read on."""


class Frame(NamedTuple):
    """A frame that was read. Places in `body` count from its first byte."""

    call: int
    kind: int
    control: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.body[len(self.control) :]

    def content(self) -> Any:
        return json.loads(self.control)


def encode(call: int, kind: int, control: bytes = b"{}", raw: bytes = b"") -> bytes:
    """A whole frame."""
    check = zlib.crc32(control, zlib.crc32(_CHECKED.pack(kind, len(control)), zlib.crc32(call.to_bytes(4, "little"))))
    return _HEAD.pack(16 + len(control) + len(raw), call, check, kind, len(control)) + control + raw


def content(value: Any) -> bytes:
    """A control part."""
    return json.dumps(value, separators=(",", ":")).encode()


class Channel:
    """One side of a socket that carries frames. Reading fails closed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fds: List[int] = []

    def read(self) -> Optional[Frame]:
        """The next frame; None at an orderly end."""
        head = self._exactly(_HEAD.size, at_start=True)
        if head is None:
            return None
        length, call, check, kind, control_length = _HEAD.unpack(head)
        rest = length - 16
        if rest < 0 or length > FRAME_BYTES_MAX or control_length > min(rest, CONTROL_BYTES_MAX):
            raise FrameError(f"a frame of {length} bytes with {control_length} bytes of control is not possible")
        body = self._exactly(rest)
        control = body[:control_length]
        if zlib.crc32(control, zlib.crc32(head[12:], zlib.crc32(head[4:8]))) != check:
            raise FrameError("a frame's check does not match")
        if not HELLO <= kind <= RETURNED:
            raise FrameError(f"frame kind {kind} is not known")
        return Frame(call, kind, control, body)

    def _exactly(self, size: int, at_start: bool = False) -> Any:
        part = self._receive(size)
        if len(part) == size:
            return part
        if at_start and not part:
            return None
        parts = [part]
        missing = size - len(part)
        while missing and part:
            part = self._receive(missing)
            parts.append(part)
            missing -= len(part)
        if missing:
            raise FrameError("the stream ended inside a frame")
        return b"".join(parts)

    def _receive(self, size: int) -> bytes:
        return self.sock.recv(size, socket.MSG_WAITALL) if size else b""

    def wait(self) -> None:
        """Until there is something to read. A process that waits in `recv` itself is also woken each time
        the other side takes something that we sent."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.poll()

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, call: int, kind: int, value: Any = None, raw: bytes = b"") -> None:
        self.write(encode(call, kind, b"{}" if value is None else content(value), raw))


class PassingChannel(Channel):
    """A channel whose frames may carry descriptors: they collect in `fds`."""

    def _receive(self, size: int) -> bytes:
        if not size:
            return b""
        part, fds, flags, _ = socket.recv_fds(self.sock, size, 8, socket.MSG_CMSG_CLOEXEC)
        self.fds += fds
        if flags & socket.MSG_CTRUNC:
            raise FrameError("descriptors were lost: this process has too many open files")
        return part


# Tables.

#: Columns: type of one number, or None for two columns of places.
_COLUMNS: Dict[str, Optional[str]] = {
    "map_index": "i",
    "try_number": "H",
    "scope": "I",
    "has_event": "B",
    "batch": None,
    "joined": None,
    "position": "Q",
    "timestamp": "q",
    "lane": "H",
    "key": None,
    "headers": None,
    "value": None,
    "id": None,
    "state": None,
}

_NO_TIME = -(2**63)

#: Kinds of activation ids (docs/spec/identity.md).
POSITION, MESSAGE, KEY, INSTANT, ITERATION, MEMBERS = 1, 2, 3, 4, 5, 6


class Table:
    """Events by column; a column that is missing holds its default in every row."""

    __slots__ = ("size", "lanes", "body", "columns", "end")

    def __init__(self, body: bytes, at: int, size: int, names: List[str], lanes: List["Lane"]) -> None:
        self.size = size
        self.lanes = lanes
        self.body = body
        self.columns: Dict[str, Any] = {}
        view = memoryview(body)
        for name in names:
            code = _COLUMNS[name]
            end = at + size * (8 if code is None else struct.calcsize(code))
            self.columns[name] = view[at:end].cast("I" if code is None else code)
            if len(self.columns[name]) != (size * 2 if code is None else size):
                raise FrameError(f"column {name} is cut short")
            at = end
        self.end = at

    def number(self, name: str, row: int, default: int) -> int:
        column = self.columns.get(name)
        return default if column is None else column[row]

    def part(self, name: str, row: int) -> Optional[bytes]:
        column = self.columns.get(name)
        if column is None or not column[row]:
            return None
        return self.body[column[row] : column[self.size + row]]

    def places(self, name: str) -> Tuple[List[int], List[int]]:
        """Where the parts begin and end in `body`, by row; a part that begins at 0 is none."""
        column = self.columns.get(name)
        if column is None:
            return [0] * self.size, [0] * self.size
        places = column.tolist()
        return places[: self.size], places[self.size :]

    def events(self) -> Iterator[Event]:
        """The events of all rows, each made when it is asked for."""
        body = self.body
        for row, start, end in zip(range(self.size), *self.places("value")):
            yield Event._at(body[start:end] if start else None, self, row)

    def event(self, row: int) -> Event:
        return Event._at(self.part("value", row), self, row)

    # What an event asks of its table.

    def key(self, row: int) -> Optional[bytes]:
        return self.part("key", row)

    def headers(self, row: int) -> List[Tuple[str, bytes]]:
        packed = self.part("headers", row)
        return [] if packed is None else unpack_headers(packed)

    def timestamp(self, row: int) -> Any:
        milliseconds = self.number("timestamp", row, _NO_TIME)
        return None if milliseconds == _NO_TIME else moment(milliseconds)

    def position(self, row: int) -> Union[int, str]:
        named = self.part("id", row)
        if named is not None:
            return named.decode("utf-8", "backslashreplace")
        return _signed(self.number("position", row, 0), self.lanes[self.number("lane", row, 0)].kind)

    def source(self, row: int) -> str:
        return self.lanes[self.number("lane", row, 0)].source

    def lane(self, row: int) -> str:
        return self.lanes[self.number("lane", row, 0)].lane

    def identity(self, row: int) -> Tuple[int, bytes]:
        """Kind and value of what tells the event apart in its lane."""
        kind = self.lanes[self.number("lane", row, 0)].kind
        if kind in (MESSAGE, KEY):
            return kind, self.part("id", row) or b""
        return kind, self.number("position", row, 0).to_bytes(8, "big")


def _signed(number: int, kind: int) -> int:
    return number - 2**64 if kind == INSTANT and number >= 2**63 else number


def unpack_headers(packed: bytes) -> List[Tuple[str, bytes]]:
    """`u32 name length | name | u32 value length | value`; length 2**32-1: no value, given as b""."""
    headers = []
    at = 0
    while at < len(packed):
        name_end = at + 4 + int.from_bytes(packed[at : at + 4], "little")
        length = int.from_bytes(packed[name_end : name_end + 4], "little")
        end = name_end + 4 + (0 if length == 0xFFFFFFFF else length)
        if end > len(packed):
            raise FrameError("an event's headers are cut short")
        headers.append((packed[at + 4 : name_end].decode("utf-8", "replace"), packed[name_end + 4 : end]))
        at = end
    return headers


class Lane(NamedTuple):
    """A lane that members come from."""

    identity: bytes
    kind: int
    generation: int
    source: str
    lane: str


class Dispatch:
    """Members of one task."""

    __slots__ = ("call", "entry", "folder", "dag", "run", "task", "order", "vectorised", "slice_ns", "members", "end")
    __slots__ += ("table", "batched", "results", "cwd", "nice", "timeout_s", "traced")

    def __init__(self, frame: Frame) -> None:
        control = frame.content()
        self.call = frame.call
        self.entry: str = control["entry"]
        self.folder: Optional[str] = control["folder"]
        self.dag: str = control["dag"]
        self.run: str = control["run"]
        self.task: str = control["task"]
        self.order: str = control["order"]
        self.vectorised: bool = control["vectorised"]
        self.slice_ns: int = control["slice_us"] * 1000
        self.members: int = control["members"]
        #: Members before this one run here: fewer than all once the rest was returned.
        self.end = self.members
        timeout: Optional[int] = control["timeout_ms"]
        self.timeout_s = None if timeout is None else timeout / 1000
        self.cwd: Optional[str] = control.get("cwd")
        self.nice: int = control.get("nice", 0)
        self.traced: bool = control.get("traced", False)
        lanes = [
            Lane(bytes.fromhex(lane["identity"]), lane["kind"], lane["generation"], lane["source"], lane["lane"])
            for lane in control["lanes"]
        ]
        body = frame.body
        self.table = Table(body, len(frame.control), self.members, control["columns"], lanes)
        self.batched = Table(body, self.table.end, control["events"], control["event_columns"], lanes)
        self.results = _results(body, self.batched.end, control["results"], control["upstream"])

    @property
    def is_plain(self) -> bool:
        """Whether each member's `event` is one of its own."""
        return not self.table.columns.keys() & {"batch", "joined", "has_event"}

    def events(self) -> Iterator[Any]:
        """What each member's callable gets as `event`."""
        return self.table.events() if self.is_plain else map(self.event, range(self.members))

    def event(self, member: int) -> Any:
        joined = self.rows("joined", member)
        if joined is not None:
            return self.batched.event(joined[0])
        if not self.table.number("has_event", member, 1):
            return None
        span = self.rows("batch", member)
        return self.table.event(member) if span is None else [self.batched.event(row) for row in span]

    def seen(self, member: int) -> List[Event]:
        """All events that the member's callable may see, by the order of their sources."""
        rows = self.rows("joined", member) or self.rows("batch", member)
        if rows is not None:
            return [self.batched.event(row) for row in rows]
        event = self.event(member)
        return [] if event is None else [event]

    def event_of(self, member: int, source: str) -> Any:
        """The event of one of several sources (a list if it batches); None if that one has not fired."""
        rows = self.rows("joined", member)
        if rows is None:
            event = self.event(member)
            events = event if isinstance(event, list) else [] if event is None else [event]
            return event if events and events[0].source == source else None
        events = map(self.batched.event, rows)
        return next((event for event in events if event.source == source), None)

    def rows(self, name: str, member: int) -> Optional[range]:
        """Rows of the event table that a member names; None if it names none."""
        column = self.table.columns.get(name)
        if column is None or not column[self.members + member]:
            return None
        return range(column[member], column[self.members + member])

    def activation(self, member: int) -> bytes:
        """The canonical encoding of the member's activation (docs/spec/identity.md)."""
        lane = self.table.lanes[self.table.number("lane", member, 0)]
        span = self.rows("batch", member)
        if span is None:
            kind, value = self.table.identity(member)
        else:
            kind = MEMBERS
            value = b"".join(fields(bytes([kind]), value) for kind, value in map(self.batched.identity, span))
        return activation_id(lane.identity, kind, value, lane.generation)

    def traceparent(self, member: int) -> Optional[str]:
        """What the member hands on as the parent of what it starts; what its event brought where nobody traces here."""
        row, table = member, self.table
        given = given_traceparent(table.headers(row))
        if not self.traced:
            return given
        position = table.number("position", row, 0)
        return traceparent(self.run, table.source(row), table.lane(row), position, self.task, given)

    def tracestate(self, member: int) -> Optional[str]:
        """What the member hands on beside it: what the systems before us know of the trace."""
        return given_tracestate(self.table.headers(member))


def _results(body: bytes, at: int, count: int, upstream: List[str]) -> Dict[Tuple[int, str], Optional[bytes]]:
    if not count:
        return {}
    column = memoryview(body)[at : at + count * 16].cast("I").tolist()
    members, tasks, starts, ends = (column[part * count : (part + 1) * count] for part in range(4))
    return {
        (member, upstream[task]): body[start:end] if start else None
        for member, task, start, end in zip(members, tasks, starts, ends)
    }


# Identity (docs/spec/identity.md).


def fields(*values: bytes) -> bytes:
    """Each value behind its length, so that no two sequences have equal encodings."""
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)


def activation_id(lane_identity: bytes, kind: int, value: bytes, generation: int) -> bytes:
    return lane_identity + fields(bytes([kind]), value, generation.to_bytes(8, "big"))


def effect_key(activation: bytes, task: str, map_index: int, call: int) -> str:
    numbers = map_index.to_bytes(8, "big", signed=True), call.to_bytes(8, "big")
    encoded = fields(b"evermill.effect.1", activation, task.encode(), *numbers)
    return hashlib.sha256(encoded).hexdigest()[:32]


# Traces (crates/evermill-contract/src/trace.rs has the same).

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def given_traceparent(headers: List[Tuple[str, bytes]]) -> Optional[str]:
    """The span of others that an event names in its headers, as this version of the header writes it."""
    for name, value in headers:
        if name.lower() == "traceparent":
            found = _TRACEPARENT.fullmatch(value.decode("utf-8", "replace").strip())
            if found is None or found[1] == "00" and found[5]:
                return None
            return f"00-{found[2]}-{found[3]}-{int(found[4], 16) & 1:02x}"
    return None


def given_tracestate(headers: List[Tuple[str, bytes]]) -> Optional[str]:
    """What an event's headers say of the state of its trace; nothing without a span, nor of what is too long."""
    if given_traceparent(headers) is None:
        return None
    values = (value.decode("utf-8", "replace").strip() for name, value in headers if name.lower() == "tracestate")
    state = ",".join(value for value in values if value)
    return state if re.fullmatch("[ -~]{1,512}", state) else None


def traceparent(run: str, source: str, lane: str, position: int, task: str, given: Optional[str]) -> str:
    """A task's own span, in the trace of its event."""
    place = run.encode(), source.encode(), lane.encode(), position.to_bytes(8, "big")
    span = hashlib.sha256(fields(b"evermill.span.1", *place, task.encode())).hexdigest()[:16]
    if given is not None:
        return f"{given[:36]}{span}{given[52:]}"
    trace = hashlib.sha256(fields(b"evermill.trace.1", *place, b"")).hexdigest()[:32]
    return f"00-{trace}-{span}-01"


# Outcomes.

SUCCESS, VALUE, SKIPPED, WAITING, HELD, FAILED = 0, 1, 2, 3, 4, 5

_RECORD = struct.Struct("<IIQQIiII")


class Outcomes:
    """Outcomes on their way out, in member order. Members that are passed over when a later one
    ends, or when a run is closed, were plain successes: nothing has to be done for them."""

    __slots__ = ("records", "values", "bytes", "next", "since")

    def __init__(self, since: int) -> None:
        self.records: List[bytes] = []
        self.values: List[bytes] = []
        self.bytes = 0
        #: The first member that is not accounted for, and when it started.
        self.next = 0
        self.since = since

    def close(self, member: int, now: int) -> None:
        """All members before this one ended, and nothing was said of the last ones."""
        if member > self.next:
            self.records.append(_RECORD.pack(self.next, member - self.next, self.since, now, SUCCESS, -1, 0, 0))
            self.bytes += _RECORD.size
            self.next = member
        self.since = now

    def end(
        self,
        member: int,
        started: int,
        ended: int,
        kind: int,
        result: bytes = b"",
        detail: bytes = b"",
        map_length: int = -1,
        count: int = 1,
    ) -> None:
        """This member, or `count` from it on, ended so."""
        if member > self.next:
            self.close(member, started)
        size, more = len(result), len(detail)
        self.records.append(_RECORD.pack(member, count, started, ended, kind, map_length, size, more))
        if size:
            self.values.append(result)
        if more:
            self.values.append(detail)
        self.bytes += _RECORD.size + size + more
        self.next = member + count
        self.since = ended

    def take(self, call: int) -> bytes:
        """All that was added, as a frame; b"" if that is nothing."""
        if not self.records:
            return b""
        raw = b"".join(self.records + self.values)
        frame = encode(call, OUTCOMES, b'{"runs":%d}' % len(self.records), raw)
        self.records.clear()
        self.values.clear()
        self.bytes = 0
        return frame
