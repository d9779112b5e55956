"""Connections and secrets, as tasks see them."""

import pytest

import evermill
from evermill import testing
from evermill.connection import Connection


@pytest.mark.parametrize(
    "url, expected",
    [
        (
            "postgresql://ada:p%40w@db.example:5433/shop?sslmode=require",
            ("postgresql", "db.example", 5433, "ada", "p@w", "shop", {"sslmode": "require"}),
        ),
        ("broker-1:9093,broker-2:9093?x=1", (None, "broker-1", 9093, None, None, "", {"x": "1"})),
        ("https://h.example", ("https", "h.example", None, None, None, "", {})),
        ("http://[::1]:8080/a/b", ("http", "::1", 8080, None, None, "a/b", {})),
        ("redis://:only@h", ("redis", "h", None, "", "only", "", {})),
    ],
)
def test_an_address_comes_in_its_parts(url, expected):
    found = Connection("x", url)
    assert found.url == url
    assert (found.scheme, found.host, found.port, found.user, found.password, found.path, found.settings) == expected


def test_a_connection_is_shown_without_its_password():
    assert repr(Connection("shop", "postgresql://ada:tulips@h:1/x")) == "<Connection 'shop' to h:1>"


def flow(**options):
    @evermill.task(**options)
    def ask(event, ctx):
        kind, name = event.text().split()
        return ctx.secret(name) if kind == "secret" else ctx.connection(name).url

    @evermill.dag
    def asking():
        ask(evermill.kafka("t"))

    return asking


def test_a_task_gets_what_it_declares_and_there_is():
    dag = flow(connections=["shop"], secrets=["key", "missing"])
    events = ["connection shop", "secret key", "secret other", "connection other", "secret missing"]
    found = testing.run(dag, events, connections={"shop": "http://h", "other": "http://o"}, secrets={"key": "k", "other": "o"})
    ends = [one["ask"] for one in found.activations]
    assert [end.result for end in ends] == ["http://h", "k", None, None, None]
    assert str(ends[2].error) == (
        "task 'ask' does not declare the secret 'other', so it does not get it: "
        'write secrets=["other"] on the task, or on its DAG'
    )
    assert "does not declare the connection 'other'" in str(ends[3].error)
    assert str(ends[4].error) == "there is no secret 'missing': set it by `evermill secrets set missing`"
    assert isinstance(ends[4].error, KeyError)


def test_what_a_dag_declares_holds_for_all_its_tasks(load):
    found = load(
        """
import evermill

@evermill.task(secrets="b")
def one(event): ...

@evermill.task
def two(event): ...

@evermill.dag(secrets=["a"], connections=("shop",))
def flow():
    source = evermill.kafka("t")
    one(source), two(source)
"""
    )
    one, two = found.manifest["dags"][0]["tasks"]
    assert (one["secrets"], two["secrets"], two["connections"]) == (["a", "b"], ["a"], ["shop"])


def test_a_name_that_is_none_is_refused_with_its_place(load):
    found = load("import evermill\n\n@evermill.task(secrets=['a b'])\ndef one(event): ...\n\n@evermill.dag\ndef flow():\n    one(evermill.kafka('t'))\n")
    (fault,) = found.faults
    assert (fault["code"], fault["line"]) == ("bad_value", 3) and "'a b' is no name" in fault["cure"]
