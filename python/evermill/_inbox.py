"""Effects in a PostgreSQL database, once: the effect key is kept in the same transaction as what was written."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Iterator, Optional, Union

from . import _option, _values

#: A name, perhaps behind a schema: nothing that would have to be quoted.
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62})?")
_UNDEFINED_TABLE = "42P01"

#: Keys that one call of `clean` deletes, unless told otherwise.
_CLEANED_MAX = 10_000

# A second attempt waits in `claim` until the first one's transaction has ended, then finds its key, or nothing.
_CREATE = (
    # Two that create at once would collide in the catalogue.
    "SELECT pg_advisory_xact_lock(hashtext('evermill_inbox'))",
    "CREATE TABLE IF NOT EXISTS {table} (effect_key text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), result text)",
)
_CLAIM = "INSERT INTO {table} (effect_key) VALUES ({0}) ON CONFLICT DO NOTHING"
_KEPT = "SELECT result FROM {table} WHERE effect_key = {0}"
_KEEP = "UPDATE {table} SET result = {0} WHERE effect_key = {1}"
_CLEAN = (
    "DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table} "
    "WHERE at < now() - make_interval(secs => {0}) LIMIT {1} FOR UPDATE SKIP LOCKED)"
)


class inbox:
    """`with evermill.inbox(conn, ctx) as first:` is one transaction of `conn`, and tells whether this effect is new.

        with psycopg.connect(DSN) as conn, evermill.inbox(conn, ctx) as first:
            if first:
                row = conn.execute("INSERT INTO booking(total) VALUES (%s) RETURNING id", [total]).fetchone()
                first.keep(row[0])
        return first.result

    The effect key is inserted into the table `evermill_inbox` first; what the block writes is committed together with
    it at the end of the block, and nothing is when the block raises. An attempt that comes later (after a crash, or
    beside one that was given up) finds the key: `first` is false, and `first.result` what was kept. Of two attempts at
    the same time the second one waits for the first.

    `conn` is a connection of psycopg 3, psycopg2 or SQLAlchemy (also its session); `async with` takes one of asyncpg
    or an asynchronous one of psycopg. `ctx` is the task's context, or a key of your own. With `commit=False` the
    transaction around the block is yours: the block neither commits nor rolls back.
    """

    def __init__(self, conn: Any, ctx: Any, *, commit: bool = True, table: str = "evermill_inbox") -> None:
        self._conn = conn
        self._table = _checked(table)
        self._commit = commit
        self._transaction: Any = None
        self._kept: Optional[str] = None
        #: The key, taken when this is made: each one of a task has another.
        self.key: str = ctx if isinstance(ctx, str) else ctx.effect_key()
        #: Whether no attempt has committed this effect yet. The same as asking this object for its truth.
        self.first: bool = False
        #: What the attempt that was first kept; None before anything is.
        self.result: Any = None

    def __bool__(self) -> bool:
        return self.first

    def keep(self, result: Any) -> None:
        """Keeps a value beside the key, for attempts that come later; it has to be JSON."""
        if not self.first:
            raise RuntimeError("keep() is for the attempt that is first; this one has its result in .result")
        text = _values.encode(result)
        self._kept, self.result = text.decode(), _values.decode(text)

    # One transaction of a blocking connection.

    def __enter__(self) -> "inbox":
        with _explained(self._table, self._conn):
            self._transaction = _begins_by_hand(self._conn, self._commit)
            if self._transaction:
                _execute(self._conn, "BEGIN")
            try:
                self.first = _execute(self._conn, self._sql(_CLAIM), self.key).rowcount == 1
                if not self.first:
                    self._found(_execute(self._conn, self._sql(_KEPT), self.key).fetchone())
            except BaseException:
                self._end("rollback")
                raise
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            self._end("rollback")
            return
        try:
            if self._kept is not None:
                _execute(self._conn, self._sql(_KEEP), self._kept, self.key)
        except BaseException:
            self._end("rollback")
            raise
        self._end("commit")

    def _end(self, how: str) -> None:
        if self._transaction:
            _execute(self._conn, how.upper())
        elif self._commit:
            getattr(self._conn, how)()

    # One transaction of an asynchronous connection.

    async def __aenter__(self) -> "inbox":
        with _explained(self._table, self._conn):
            if _is_asyncpg(self._conn):
                if self._commit:
                    self._transaction = self._conn.transaction()
                    await self._transaction.start()
                elif not self._conn.is_in_transaction():
                    raise RuntimeError(_NO_TRANSACTION)
            elif _begins_by_hand(self._conn, self._commit):
                raise RuntimeError("evermill.inbox needs an asynchronous connection without autocommit")
            try:
                self.first = bool(await self._asked(_CLAIM + " RETURNING 1", self.key))
                if not self.first:
                    self._found(await self._asked(_KEPT, self.key))
            except BaseException:
                await self._aend("rollback")
                raise
        return self

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            await self._aend("rollback")
            return
        try:
            if self._kept is not None:
                await self._asked(_KEEP + " RETURNING 1", self._kept, self.key)
        except BaseException:
            await self._aend("rollback")
            raise
        await self._aend("commit")

    async def _asked(self, sql: str, *values: Any) -> Any:
        """The first row, if there is one."""
        if _is_asyncpg(self._conn):
            return await self._conn.fetchrow(self._sql(sql, "${}"), *values)
        cursor = _cursor(self._conn)
        await cursor.execute(self._sql(sql), values)
        return await cursor.fetchone()

    async def _aend(self, how: str) -> None:
        if self._commit:
            await getattr(self._transaction or self._conn, how)()

    def _sql(self, text: str, mark: str = "%s") -> str:
        return text.format(*(mark.format(number) for number in (1, 2)), table=self._table)

    def _found(self, row: Any) -> None:
        # Cleaned away between the two statements: then it is a repeat of which nothing more is known.
        text = row[0] if row else None
        self.result = None if text is None else _values.decode(text.encode())

    # The table.

    @staticmethod
    def create(conn: Any, *, table: str = "evermill_inbox") -> None:
        """Makes the table unless it is there, and commits. `inbox.sql()` is the statement, for migrations."""
        _checked(table)
        with _own_transaction(conn):
            for text in _CREATE:
                _execute(conn, text.format(table=table))

    @staticmethod
    def sql(table: str = "evermill_inbox") -> str:
        """The statement that makes the table."""
        return _CREATE[1].format(table=_checked(table)) + ";"

    @staticmethod
    def clean(
        conn: Any,
        older_than: Union[timedelta, str, float] = "30d",
        *,
        at_most: int = _CLEANED_MAX,
        table: str = "evermill_inbox",
    ) -> int:
        """Deletes keys that are older, and commits; how many. Call it again while it answers `at_most`.

        An attempt whose key is gone is taken for the first one. So keep keys for longer than an event may be run again:
        retries, a parked event that somebody retries, a replay.
        """
        _checked(table)
        seconds = _option.milliseconds(older_than) / 1000
        with _own_transaction(conn):
            return _execute(conn, _CLEAN.format("%s", "%s", table=table), seconds, at_most).rowcount


_NO_TRANSACTION = (
    "evermill.inbox(..., commit=False) needs a transaction around it, and this connection is in none: "
    "begin one, or leave commit=False out"
)


def _checked(table: str) -> str:
    if not _TABLE.fullmatch(table):
        raise ValueError(f"table={table!r}: write a plain name, such as 'evermill_inbox' or 'shop.evermill_inbox'")
    return table


def _is_asyncpg(conn: Any) -> bool:
    return hasattr(conn, "fetchrow")


def _execute(conn: Any, sql: str, *values: Any) -> Any:
    """Runs a statement in the connection's transaction; what has `rowcount` and `fetchone`."""
    session = getattr(conn, "connection", None)
    if callable(session):  # SQLAlchemy's session
        conn = session()
    if hasattr(conn, "exec_driver_sql"):  # SQLAlchemy's connection
        return conn.exec_driver_sql(sql, values)
    cursor = _cursor(conn)
    cursor.execute(sql, values or None)
    return cursor


def _cursor(conn: Any) -> Any:
    """One whose rows are tuples, whatever the connection's are."""
    rows = sys.modules.get("psycopg.rows")
    if rows is not None and hasattr(conn, "row_factory"):
        return conn.cursor(row_factory=rows.tuple_row)
    extensions = sys.modules.get("psycopg2.extensions")
    if extensions is not None and isinstance(conn, extensions.connection):
        return conn.cursor(cursor_factory=extensions.cursor)
    return conn.cursor()


def _driver(conn: Any) -> Any:
    """The connection of the driver itself."""
    session = getattr(conn, "connection", None)
    if callable(session):
        conn = session()
        session = conn.connection
    return getattr(session, "dbapi_connection", None) or conn


def _begins_by_hand(conn: Any, commit: bool) -> bool:
    """Whether the connection begins no transaction by itself, so that the key would be committed alone."""
    driver = _driver(conn)
    if not hasattr(driver, "cursor"):
        raise TypeError(f"evermill.inbox takes a connection of a PostgreSQL client, not {type(conn).__name__}")
    if getattr(driver, "autocommit", False) is not True:
        return False
    is_open = driver.info.transaction_status != 0
    if not commit:
        if not is_open:
            raise RuntimeError(_NO_TRANSACTION)
        return False
    if is_open:
        raise RuntimeError(
            "evermill.inbox commits at the end of its block, and this connection is in a transaction of yours: "
            "use the inbox outside of it, or commit=False"
        )
    return True


@contextmanager
def _own_transaction(conn: Any) -> Iterator[None]:
    by_hand = _begins_by_hand(conn, True)
    if by_hand:
        _execute(conn, "BEGIN")
    end = (lambda how: _execute(conn, how.upper())) if by_hand else (lambda how: getattr(conn, how)())
    try:
        yield
    except BaseException:
        end("rollback")
        raise
    end("commit")


@contextmanager
def _explained(table: str, conn: Any) -> Iterator[None]:
    """Says what to do about a table that is not there."""
    try:
        yield
    except Exception as error:
        said = getattr(error, "orig", error)
        code = getattr(said, "sqlstate", None) or getattr(said, "pgcode", None)
        if code != _UNDEFINED_TABLE:
            raise
        raise RuntimeError(
            f"the database has no table {table!r} for effect keys: make it once by evermill.inbox.create(conn), "
            f"or by\n{inbox.sql(table)}"
        ) from error
