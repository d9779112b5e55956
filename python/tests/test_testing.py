"""`evermill.testing`: DAGs in pytest. That it agrees with the engine is tested where the engine is built, too."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

import evermill
from evermill import _dag
from evermill._walk import verdict
from evermill.testing import event, load, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def declared():
    """What a test declares does not outlive it."""
    before = list(_dag.declared)
    yield
    _dag.declared[:] = before


COLUMNS = {
    "AS": "all_success", "AF": "all_failed", "AD": "all_done", "AK": "all_skipped", "1S": "one_success", "1F": "one_failed",
    "1D": "one_done", "NF": "none_failed", "NFS": "none_failed_min_one_success", "NK": "none_skipped",
    "ADS": "all_done_min_one_success",
}  # fmt: skip
STATES = {"S": "success", "F": "failed", "U": "upstream_failed", "K": "skipped"}
WORDS = {"UF": "upstream_failed", "skip": "skipped", "run": "run"}


def test_every_line_of_the_truth_table_in_the_specification():
    text = (ROOT / "docs/spec/trigger-rules.md").read_text(encoding="utf-8")
    table = text.split("## 4.")[1].split("\n\n`all_done_setup_success`")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    head, lines = rows[0], rows[2:]
    assert len(lines) == 15 and set(head[1:]) == set(COLUMNS)
    for flags, *said in lines:
        states = [STATES[flag] for flag in flags if flag != "·"]
        for column, word in zip(head[1:], said):
            assert verdict(COLUMNS[column], states) == WORDS[word], (flags, column)
        assert verdict("always", states) == "run"


def test_each_event_goes_its_own_way():
    @evermill.task
    def load(event):
        return event.json()["total"]

    @evermill.task.short_circuit
    def is_large(load):
        return load >= 1000

    @evermill.task
    def notify(event):
        return event.key.decode()

    @evermill.dag
    def orders():
        source = evermill.kafka("orders")
        is_large(load(source)) >> notify(source)

    result = run(orders, events=[event({"total": 1200}, key="ada"), {"total": 5}])
    large, small = result.activations
    assert (large["load"].result, large["notify"].result, large.state) == (1200, "ada", "done")
    # The leaf of the second one was skipped, so the activation was.
    assert (small["notify"].state, small.state) == ("skipped", "skipped")
    assert (result.done, result.skipped, result.parked) == (1, 1, 0)
    assert repr(result) == "<Result done 1, skipped 1>"


def test_tries_follow_each_other_and_keep_their_effect_keys():
    keys = []

    @evermill.task(retries=2, retry_delay="1h")
    def charge(event, ctx):
        keys.append(ctx.effect_key())
        if ctx.try_number < 3:
            raise ConnectionError("busy")

    @evermill.dag
    def shop():
        charge(evermill.kafka("orders"))

    result = run(shop, events=["a", "b"])
    assert [one["charge"].tries for one in result.activations] == [3, 3]
    assert len(set(keys)) == 2 and keys[0] == keys[1] == keys[2] != keys[3]


def test_what_fails_for_good_is_parked_with_its_error_and_raises_nothing():
    @evermill.task(retries=5)
    def check(event):
        raise evermill.Fail("no such customer")

    @evermill.task
    def after(check):
        pass

    @evermill.dag
    def shop():
        after(check(evermill.kafka("orders")))

    [activation] = run(shop, events=[b"x"]).activations
    assert (activation.state, activation["check"].tries, activation["after"].state) == ("parked", 1, "upstream_failed")
    assert str(activation.error) == "no such customer"


def test_state_counts_for_later_events_of_its_scope_and_only_when_the_task_succeeds():
    @evermill.task
    def count(event, ctx):
        ctx.state.set("seen", ctx.state.get("seen", 0) + 1)
        if event.text() == "bad":
            raise ValueError

    @evermill.dag(order="key")
    def shop():
        count(evermill.kafka("orders"))

    result = run(shop, events=[event(text, key=key) for text, key in [("", "a"), ("", "b"), ("bad", "a"), ("", "a")]])
    assert result.state("count", key="a") == {"seen": 2}
    assert result.state("count", key="b") == {"seen": 1}


def test_under_block_the_scope_waits_and_others_go_on():
    @evermill.task(on_failure="block")
    def work(event):
        if event.text() == "bad":
            raise ValueError

    @evermill.dag(order="key")
    def shop():
        work(evermill.kafka("orders"))

    result = run(shop, events=[event(text, key=key) for text, key in [("bad", "a"), ("", "b"), ("", "a")]])
    assert [one.state for one in result.activations] == ["parked", "done", "held"]


def test_a_batch_is_one_activation_of_a_list():
    @evermill.task
    def work(events):
        return [event.text() for event in events]

    @evermill.dag
    def readings():
        work(evermill.kafka("readings").batch(max_events=2))

    result = run(readings, events=["a", "b", "c"])
    assert [one["work"].result for one in result.activations] == [["a", "b"], ["c"]]
    assert result.done == 3


def test_a_mapped_task_runs_once_per_item():
    @evermill.task
    def items():
        return [1, 2, 3]

    @evermill.task
    def double(item):
        if item == 2:
            raise evermill.Skip
        return 2 * item

    @evermill.task
    def total(values):
        return sum(value or 0 for value in values)

    @evermill.dag
    def flow():
        total(double.expand(item=items()))

    [activation] = run(flow).activations
    # One instance was skipped, so `all_success` skips what comes after.
    assert [one.state for one in activation["double"].instances] == ["success", "skipped", "success"]
    assert (activation["double"].result, activation["total"].state) == ([2, None, 6], "skipped")


def test_a_result_is_what_json_makes_of_it():
    @evermill.task
    def pair():
        return (1, 2)

    @evermill.task
    def look(pair):
        return type(pair).__name__

    @evermill.task
    def strange():
        return object()

    @evermill.dag
    def flow():
        look(pair())
        strange()

    [activation] = run(flow).activations
    assert activation["look"].result == "list"
    assert activation["strange"].state == "failed" and "cannot be written as JSON" in str(activation.error)


def test_a_file_for_airflow_runs_where_there_is_no_airflow(capsys):
    dag = load(str(ROOT / "examples/continuous_kafka_pipeline.py"))
    result = run(dag, events=["hello"])
    assert result.done == 1
    assert capsys.readouterr().out == "Message Received and Processed\n"


def test_the_examples_run():
    for name in ("demo", "orders", "readings", "shipping"):
        dag = load(str(ROOT / f"examples/{name}.py"))
        events = {
            "demo": [event({"number": 1, "customer": "Ada", "items": {"tea": 1}}, key="Ada")],
            "orders": [{"total": 1000}],
            "readings": ["a=1", "b=2"],
            "shipping": None,
        }[name]
        result = run(dag, events=events)
        assert result.done == max(1, len(events or ())), [one.error for one in result.activations]


def test_what_the_engine_would_refuse_is_refused():
    @evermill.task
    def work(ctx):
        return ctx.state.get("x")

    @evermill.dag
    def flow():
        work()

    with pytest.raises(evermill.DagError, match="in no order") as found:
        run(flow)
    assert found.value.code == "state_needs_order"


def test_events_must_have_somewhere_to_go():
    @evermill.task
    def work():
        pass

    @evermill.dag
    def alone():
        work()

    with pytest.raises(ValueError, match="has no source"):
        run(alone, events=["x"])

    @evermill.dag
    def two():
        evermill.kafka("a", name="a") >> work()
        evermill.kafka("b", name="b") >> work()

    with pytest.raises(ValueError, match=re.escape("of a, b")):
        run(two, events=["x"])
    result = run(two, events={"b": ["x", "y"]})
    # What only the other source leads to has no part in it.
    assert [list(one.tasks) for one in result.activations] == [["work_2"], ["work_2"]]
    assert result.done == 2


def test_sources_that_meet_are_refused():
    @evermill.task
    def work():
        pass

    @evermill.dag
    def joined():
        [evermill.kafka("a", name="a"), evermill.kafka("b", name="b")] >> work()

    with pytest.raises(evermill.DagError, match="does not join sources"):
        run(joined, events={"a": ["x"]})


def test_a_task_sees_its_events_and_the_context_of_airflow():
    @evermill.task
    def look(event, ctx, ti, ds):
        return [ds, len(ctx.events), ti.task_id]

    @evermill.dag
    def told():
        look(evermill.kafka("orders"))

    stamp = datetime(2026, 1, 31, tzinfo=timezone.utc)
    [activation] = run(told, events=[event({}, timestamp=stamp)]).activations
    assert activation["look"].result == ["2026-01-31", 1, "look"], activation.error
    [dated] = run(told, events=[{}], logical_date=stamp).activations
    assert dated["look"].result == ["2026-01-31", 1, "look"], dated.error
