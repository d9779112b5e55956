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
