"""What `evermill.inbox` refuses before it asks any database."""

import pytest

import evermill


@pytest.mark.parametrize("table", ["a b", "a;drop", "1st", "a.b.c", '"a"', ""])
def test_a_table_name_is_plain(table):
    with pytest.raises(ValueError, match="write a plain name"):
        evermill.inbox(None, "k", table=table)
    with pytest.raises(ValueError):
        evermill.inbox.sql(table)


def test_what_is_no_connection_is_named():
    with pytest.raises(TypeError, match="not dict"):
        with evermill.inbox({}, "k"):
            pass


def test_a_result_is_kept_by_the_attempt_that_is_first():
    with pytest.raises(RuntimeError, match="the attempt that is first"):
        evermill.inbox(None, "k").keep(1)


def test_the_statement_can_be_had_for_migrations():
    assert evermill.inbox.sql("shop.seen").startswith("CREATE TABLE IF NOT EXISTS shop.seen (effect_key text PRIMARY KEY")
