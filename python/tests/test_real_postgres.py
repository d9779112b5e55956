"""`evermill.inbox` against a real PostgreSQL, through every client that it takes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest

import evermill
from evermill import testing


def dsn() -> str:
    found = os.environ.get("EVERMILL_TEST_POSTGRES")
    assert found, "these tests need a PostgreSQL: `cargo xtask postgres` starts one and prints what EVERMILL_TEST_POSTGRES is to be"
    return found


def psycopg3(**options):
    import psycopg

    return psycopg.connect(dsn(), **options)


def psycopg3_with_dicts():
    from psycopg.rows import dict_row

    return psycopg3(row_factory=dict_row)


def psycopg3_autocommit():
    return psycopg3(autocommit=True)


def psycopg2():
    import psycopg2

    return psycopg2.connect(dsn())


def psycopg2_autocommit():
    conn = psycopg2()
    conn.autocommit = True
    return conn


def psycopg2_with_dicts():
    import psycopg2.extras

    return psycopg2.connect(dsn(), cursor_factory=psycopg2.extras.RealDictCursor)


def sqlalchemy(driver: str, **options):
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    address = dsn().replace("postgresql://", f"postgresql+{driver}://")
    return create_engine(address, poolclass=NullPool, **options)


def sqlalchemy_psycopg():
    return sqlalchemy("psycopg").connect()


def sqlalchemy_psycopg2_autocommit():
    return sqlalchemy("psycopg2", isolation_level="AUTOCOMMIT").connect()


def sqlalchemy_session():
    from sqlalchemy.orm import Session

    return Session(sqlalchemy("psycopg2"))


CONNECTS = [
    psycopg3,
    psycopg3_with_dicts,
    psycopg3_autocommit,
    psycopg2,
    psycopg2_autocommit,
    psycopg2_with_dicts,
    sqlalchemy_psycopg,
    sqlalchemy_psycopg2_autocommit,
    sqlalchemy_session,
]


class Shop:
    """A schema of one test: the inbox, and the table that effects go to."""

    def __init__(self) -> None:
        self.schema = f"t{uuid.uuid4().hex[:12]}"
        self.inbox = f"{self.schema}.evermill_inbox"
        with psycopg3(autocommit=True) as conn:
            conn.execute(f"CREATE SCHEMA {self.schema}")
            conn.execute(f"CREATE TABLE {self.schema}.booking (total int)")

    def write(self, conn, total: int) -> None:
        from evermill._inbox import _execute

        _execute(conn, f"INSERT INTO {self.schema}.booking VALUES (%s)", total)

    def totals(self) -> list:
        with psycopg3(autocommit=True) as conn:
            return [total for (total,) in conn.execute(f"SELECT total FROM {self.schema}.booking ORDER BY 1")]

    def keys(self) -> list:
        with psycopg3(autocommit=True) as conn:
            return [key for (key,) in conn.execute(f"SELECT effect_key FROM {self.inbox} ORDER BY 1")]


@pytest.fixture
def shop():
    made = Shop()
    with psycopg3() as conn:
        evermill.inbox.create(conn, table=made.inbox)
    yield made
    with psycopg3(autocommit=True) as conn:
        conn.execute(f"DROP SCHEMA {made.schema} CASCADE")


@pytest.fixture(params=CONNECTS, ids=lambda connect: connect.__name__)
def conn(request):
    with request.param() as made:
        yield made


def test_a_repeat_writes_nothing_and_gets_what_the_first_attempt_kept(shop, conn):
    kept = {"id": 7, "at": datetime(2026, 1, 2, tzinfo=timezone.utc)}
    for attempt in range(3):
        with evermill.inbox(conn, "k", table=shop.inbox) as first:
            assert bool(first) == (attempt == 0) == first.first
            if first:
                shop.write(conn, 7)
                first.keep(kept)
        assert first.result == kept
    assert (shop.totals(), shop.keys()) == ([7], ["k"])


def test_a_block_that_raises_leaves_neither_key_nor_row(shop, conn):
    for attempt in range(2):
        with pytest.raises(RuntimeError, match="cut off"), evermill.inbox(conn, "k", table=shop.inbox) as first:
            assert first
            shop.write(conn, 1)
            raise RuntimeError("cut off")
    with evermill.inbox(conn, "k", table=shop.inbox) as first:
        shop.write(conn, 2)
    assert (shop.totals(), shop.keys()) == ([2], ["k"])


def test_a_result_that_is_no_json_is_refused_and_nothing_is_committed(shop, conn):
    with pytest.raises(evermill._values.Unserialisable), evermill.inbox(conn, "k", table=shop.inbox) as first:
        shop.write(conn, 1)
        first.keep(object())
    assert (shop.totals(), shop.keys()) == ([], [])


def test_without_its_table_the_inbox_says_how_to_make_it(shop, conn):
    with pytest.raises(RuntimeError, match=r"evermill.inbox.create\(conn\)"):
        with evermill.inbox(conn, "k", table=f"{shop.schema}.nobody_made_it"):
            raise AssertionError("it must not begin")
    # The connection is as fit as before.
    with evermill.inbox(conn, "k", table=shop.inbox) as first:
        assert first


def test_create_can_run_twice_and_also_at_once(shop):
    faults = []

    def create():
        try:
            with psycopg3() as conn:
                evermill.inbox.create(conn, table=f"{shop.schema}.at_once")
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with psycopg3() as conn:
        evermill.inbox.create(conn, table=f"{shop.schema}.at_once")


@pytest.mark.parametrize("connect", [psycopg3, psycopg2], ids=["psycopg3", "psycopg2"])
@pytest.mark.parametrize("ends_well", [True, False])
def test_of_two_attempts_at_the_same_time_exactly_one_commits(shop, connect, ends_well):
    """A zombie that was given up, and the attempt after it: the second one waits for the first."""
    zombie, later = connect(), connect()
    told = []

    def attempt():
        with evermill.inbox(later, "k", table=shop.inbox) as first:
            told.append((bool(first), first.result))
            if first:
                shop.write(later, 2)

    thread = threading.Thread(target=attempt)
    try:
        with evermill.inbox(zombie, "k", table=shop.inbox) as first:
            assert first
            shop.write(zombie, 1)
            first.keep("of the zombie")
            thread.start()
            waits_for_a_lock(shop)
            assert told == []
            if not ends_well:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    thread.join()
    zombie.close()
    later.close()
    assert told == ([(False, "of the zombie")] if ends_well else [(True, None)])
    assert shop.totals() == ([1] if ends_well else [2])


def waits_for_a_lock(shop) -> None:
    deadline = time.monotonic() + 60
    with psycopg3(autocommit=True) as conn:
        ask = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        while conn.execute(ask, [f"%{shop.inbox}%"]).fetchone() == (0,):
            assert time.monotonic() < deadline, "the second attempt does not wait"


def test_a_connection_that_is_lost_before_the_commit_leaves_nothing(shop):
    import psycopg

    with pytest.raises(psycopg.OperationalError):
        with psycopg3() as conn, evermill.inbox(conn, "k", table=shop.inbox) as first:
            assert first
            shop.write(conn, 1)
            with psycopg3(autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
    assert (shop.totals(), shop.keys()) == ([], [])


def test_within_a_transaction_of_the_authors_the_key_is_committed_with_it(shop):
    with psycopg3() as conn:
        with pytest.raises(ZeroDivisionError), conn.transaction():
            with evermill.inbox(conn, "k", commit=False, table=shop.inbox) as first:
                assert first
                shop.write(conn, 1)
            raise ZeroDivisionError
        assert (shop.totals(), shop.keys()) == ([], [])
        with conn.transaction():
            with evermill.inbox(conn, "k", commit=False, table=shop.inbox) as first:
                assert first
                shop.write(conn, 2)
    assert (shop.totals(), shop.keys()) == ([2], ["k"])
    with sqlalchemy("psycopg2").begin() as conn, evermill.inbox(conn, "k", commit=False, table=shop.inbox) as first:
        assert not first


def test_the_key_is_never_committed_before_what_belongs_to_it(shop):
    """Autocommit would do that, and a transaction that the inbox cannot end would leave both to chance."""
    with psycopg3(autocommit=True) as conn:
        with pytest.raises(RuntimeError, match="needs a transaction around it"):
            with evermill.inbox(conn, "k", commit=False, table=shop.inbox):
                pass
        with conn.transaction(), pytest.raises(RuntimeError, match="a transaction of yours"):
            with evermill.inbox(conn, "k", table=shop.inbox):
                pass
    import psycopg

    with psycopg3() as conn, pytest.raises(psycopg.ProgrammingError):
        with conn.transaction(), evermill.inbox(conn, "k", table=shop.inbox):
            shop.write(conn, 1)
    assert (shop.totals(), shop.keys()) == ([], [])


def test_old_keys_are_cleaned_in_portions_and_young_ones_stay(shop):
    with psycopg3() as conn:
        ages = [40, 35, 31, 29, 0]
        for days in ages:
            conn.execute(f"INSERT INTO {shop.inbox} VALUES (%s, now() - make_interval(days => %s))", [f"{days:02}", days])
        conn.commit()
        assert evermill.inbox.clean(conn, at_most=2, table=shop.inbox) == 2
        assert evermill.inbox.clean(conn, at_most=2, table=shop.inbox) == 1
        assert evermill.inbox.clean(conn, at_most=2, table=shop.inbox) == 0
        assert shop.keys() == ["00", "29"]
        assert evermill.inbox.clean(conn, timedelta(days=1), table=shop.inbox) == 1
        with pytest.raises(ValueError):
            evermill.inbox.clean(conn, -1, table=shop.inbox)
    with psycopg2_autocommit() as conn:
        assert evermill.inbox.clean(conn, 0, table=shop.inbox) == 1


def test_each_inbox_of_a_task_has_a_key_of_its_own_that_stays_over_attempts(shop):
    keys = []

    @evermill.task(retries=1)
    def book(event, ctx):
        with psycopg3() as conn:
            for total in (1, 2):
                with evermill.inbox(conn, ctx, table=shop.inbox) as first:
                    keys.append(first.key)
                    if first:
                        shop.write(conn, total)
        if len(keys) == 2:
            raise RuntimeError("after both were committed")

    @evermill.dag
    def bookings():
        book(evermill.kafka("orders"))

    result = testing.run(bookings, events=["x"])
    assert result.done == 1, result
    assert keys[:2] == keys[2:] and len(set(keys)) == 2
    assert shop.totals() == [1, 2]


# Asynchronous connections.


async def asyncpg_connect():
    import asyncpg

    return await asyncpg.connect(dsn())


async def psycopg_connect():
    import psycopg

    return await psycopg.AsyncConnection.connect(dsn())


@pytest.mark.parametrize("connect", [asyncpg_connect, psycopg_connect], ids=["asyncpg", "psycopg"])
def test_asynchronous_connections_do_the_same(shop, connect):
    async def attempts():
        conn = await connect()
        write = f"INSERT INTO {shop.schema}.booking VALUES (1)"
        with pytest.raises(ZeroDivisionError):
            async with evermill.inbox(conn, "k", table=shop.inbox) as first:
                assert first
                await conn.execute(write)
                raise ZeroDivisionError
        for attempt in range(3):
            async with evermill.inbox(conn, "k", table=shop.inbox) as first:
                assert bool(first) == (attempt == 0)
                if first:
                    await conn.execute(write)
                    first.keep([1, "two"])
            assert first.result == [1, "two"]
        with pytest.raises(RuntimeError, match="evermill.inbox.create"):
            async with evermill.inbox(conn, "k", table=f"{shop.schema}.nobody_made_it"):
                pass
        async with conn.transaction(), evermill.inbox(conn, "other", commit=False, table=shop.inbox) as first:
            assert first
        await conn.close()

    asyncio.run(attempts())
    assert (shop.totals(), shop.keys()) == ([1], ["k", "other"])
