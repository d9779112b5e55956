"""Sources of alerts, and limits of sources and keys."""

HEAD = """
import evermill

@evermill.task(rate_limit_per_key="2/m")
def work(event):
    return 1
"""


def loads(load, source):
    return load(f"{HEAD}\n@evermill.dag\ndef flow():\n    work({source})\n")


def test_alerts_are_a_source_and_choose_among_kinds_and_dags(load):
    loaded = loads(load, "evermill.alerts(kinds=['parked'], dags=['orders'], rate_limit='5/s')")
    assert loaded.code == 0, loaded.out
    (dag,) = loaded.manifest["dags"]
    (source,) = dag["sources"]
    assert source["id"] == "alerts"
    assert source["config"] == {"kind": "alerts", "kinds": ["parked"], "dags": ["orders"]}
    assert source["rate_limit"] == {"members": 5, "interval_ms": 1000}
    assert dag["tasks"][0]["rate_limit_per_key"] == {"members": 2, "interval_ms": 60000}


def test_an_unknown_kind_of_alert_is_named_with_the_nearest_one(load):
    loaded = loads(load, "evermill.alerts(kinds=['praked'])")
    assert loaded.code != 0
    assert "'parked'" in loaded.out


def test_every_source_takes_a_rate(load):
    for source in ("kafka('t', ", "cron('* * * * *', ", "every('1s', ", "signal('s', ", "webhook("):
        loaded = loads(load, f"evermill.{source}rate_limit='1/s')")
        assert loaded.code == 0, loaded.out
        assert loaded.manifest["dags"][0]["sources"][0]["rate_limit"]["members"] == 1


ON_DEADLINE = """
import evermill

@evermill.task(retries=2)
def page(event):
    return event.json()["text"]

@evermill.task
def work(event):
    return 1

@evermill.dag(deadline="5m", on_deadline={})
def orders():
    work(evermill.every("1h"))
"""


def test_on_deadline_is_a_dag_of_its_own_that_listens_to_misses_of_this_one(load):
    loaded = load(ON_DEADLINE.format("page"))
    assert loaded.code == 0, loaded.out
    orders, beside = loaded.manifest["dags"]
    assert (orders["id"], beside["id"]) == ("orders", "orders.on_deadline")
    assert orders["deadline_ms"] == 300000
    (source,) = beside["sources"]
    assert source["config"] == {"kind": "alerts", "kinds": ["deadline_missed"], "dags": ["orders"]}
    (made,) = beside["tasks"]
    assert (made["id"], made["retries"], made["upstream"][0]["node"]) == ("page", 2, "alerts")


def test_on_deadline_takes_a_plain_function_too_and_refuses_the_rest(load):
    loaded = load(ON_DEADLINE.format("tell").replace("@evermill.task\ndef work", "def tell(event):\n    pass\n\n@evermill.task\ndef work"))
    assert loaded.code == 0, loaded.out
    assert [task["id"] for task in loaded.manifest["dags"][1]["tasks"]] == ["tell"]
    loaded = load(ON_DEADLINE.format("'page'"))
    assert loaded.code != 0
    assert "on_deadline='page'" in loaded.out and "give it a task, or a function" in loaded.out
