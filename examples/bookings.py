"""Rows in PostgreSQL, each exactly once: the effect key is committed in the transaction that writes the row."""

import os

import evermill

#: Where the shop's database is.
SHOP = os.environ.get("SHOP", "postgresql://postgres@127.0.0.1/postgres")

_conn = None


def shop():
    """One connection for as long as the worker lives, with the tables there."""
    import psycopg  # pip install "psycopg[binary]"

    global _conn
    if _conn is None or _conn.closed:
        _conn = psycopg.connect(SHOP)
        _conn.execute("CREATE TABLE IF NOT EXISTS booking (id bigserial PRIMARY KEY, customer text, total numeric)")
        evermill.inbox.create(_conn)
    return _conn


@evermill.task(retries=5, retry_delay="1s", retry_exponential_backoff=True)
def book(event, ctx):
    order = event.json()
    with evermill.inbox(shop(), ctx) as first:
        if first:
            insert = "INSERT INTO booking (customer, total) VALUES (%s, %s) RETURNING id"
            first.keep(shop().execute(insert, [order["customer"], order["total"]]).fetchone()[0])
    # The same number in every attempt.
    return first.result


@evermill.task
def confirm(event, book):
    print(f"{event.json()['customer']}: booking {book}")


@evermill.dag
def bookings():
    orders = evermill.kafka("orders", group_id="bookings", auto_offset_reset="earliest")
    confirm(orders, book(orders))
