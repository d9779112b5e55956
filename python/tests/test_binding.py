"""What a task's parameters get, and how it runs in a worker."""

import json

import pytest
from conftest import Handle

from evermill import _runtime
from evermill._fault import DagError
from evermill.event import Event

HEAD = "import evermill\nfrom evermill import dag, kafka, task\n"
FLOW = "\n@dag\ndef flow():\n    k = kafka('t')\n    "


def run(program, event=None, **kwargs):
    """Runs one member as the worker does: what is not wanted is not given."""
    handle = Handle(event, **kwargs)
    ctx = _runtime.make_context(handle) if program.wants_ctx else None
    return program.run(event if program.wants_event else None, ctx), handle


def test_a_callable_without_parameters_is_given_nothing(program):
    made = program(HEAD + "@task\ndef a(): return 7" + FLOW + "a() << k", "a")
    assert not made.wants_event and not made.wants_ctx
    assert made.run(None, None) == 7


def test_a_callable_of_event_and_ctx_is_called_without_anything_in_between(program):
    made = program(HEAD + "@task\ndef a(event, ctx): return event, ctx" + FLOW + "a(k)", "a")
    assert made.run.__name__ == "a"
    assert made.run(1, 2) == (1, 2)


@pytest.mark.parametrize(
    "signature, call, expected",
    [
        ("event", "a() << k", ["E"]),
        ("message", "a(k)", ["E"]),
        ("message", "a(message=k)", ["E"]),
        ("event, limit=5", "a() << k", ["E", 5]),
        ("event, limit=5", "a(limit=6) << k", ["E", 6]),
        ("event, *rest", "a(k, 1, 2)", ["E", 1, 2]),
        ("event, /, x", "a(k, 3)", ["E", 3]),
        ("*, event, b", "a() << b(k)", ["E", "result of b"]),
        ("b", "a() << b(k)", ["result of b"]),
        ("anything", "a(b(k))", ["result of b"]),
        ("b", "a() << c(b(k))", ["result of b"]),
        ("both", "a([b(k), c(k)])", [["result of b", "result of c"]]),
        ("named", "a({'x': b(k), 'y': (k, 1)})", [{"x": "result of b", "y": ["E", 1]}]),
    ],
)
def test_a_parameter_is_bound_by_what_was_passed_or_by_its_name(program, signature, call, expected):
    names = signature.replace("/, ", "").replace("*, ", "")
    values = ", ".join(name.split("=")[0] for name in names.split(", "))
    text = HEAD + f"@task\ndef a({signature}): return [{values}]\n@task\ndef b(event): pass\n@task\ndef c(event): pass"
    made = program(text + FLOW + call, "a")
    value, _ = run(made, "E", results={"b": "result of b", "c": "result of c"})
    assert json.loads(json.dumps(value)) == expected


def test_kwargs_get_airflows_context_without_what_is_named_already(program):
    text = HEAD + "@task\ndef a(ds, **context): return ds, sorted(context), context['extra'], context['event']"
    made = program(text + FLOW + "a(extra=1) << k", "a")
    event = Event.of(b"1")
    (ds, keys, extra, seen), _ = run(made, event)
    assert extra == 1 and seen is event and "ds" not in keys and {"ti", "ts", "params", "dag_run"} <= set(keys)


def test_a_context_key_follows_the_event(program):
    from datetime import datetime, timezone

    event = Event.of(b"1", timestamp=datetime(2025, 1, 30, 6, 30, tzinfo=timezone.utc))
    made = program(
        HEAD + "@task\ndef a(ds, ts, ts_nodash, logical_date): return ds, ts, ts_nodash" + FLOW + "a() << k", "a"
    )
    assert run(made, event)[0] == ("2025-01-30", "2025-01-30T06:30:00+00:00", "20250130T063000")


def test_ti_pulls_and_pushes_through_the_handle(program):
    text = HEAD + (
        "@task\ndef b(event): pass\n"
        "@task\ndef a(ti):\n    ti.xcom_push('k', 1)\n    return ti.xcom_pull(task_ids='b'), ti.xcom_pull('b', key='other'),"
        " ti.xcom_pull(['b', 'b']), ti.xcom_pull('none', default=3)"
    )
    made = program(text + FLOW + "a() << b(k)", "a")
    value, handle = run(made, results={"b": 5})
    assert value == (5, "answer", [5, 5], 3)
    assert handle.said == [("push", "k", 1), ("xcom_pull", {"task_id": "b", "key": "other", "map_index": None})]


def test_a_branch_may_choose_only_what_comes_right_after_it(program):
    text = (
        HEAD
        + "@task.branch\ndef a(event): return event\n@task\ndef b(): pass\n@task\ndef c(): pass"
        + FLOW
        + "a(k) >> b() >> c()"
    )
    made = program(text, "a")
    assert made.kind == "branch"
    assert [made.run(chosen, None) for chosen in ("b", ["b"], None)] == ["b", ["b"], None]
    with pytest.raises(ValueError, match="chose 'c'"):
        made.run("c", None)


def test_a_short_circuit_keeps_what_it_returned_as_its_result(program):
    made = program(HEAD + "@task.short_circuit\ndef a(event): return event" + FLOW + "a(k)", "a")
    assert made.kind == "short_circuit"
    assert made.run([0], None) == [0]


def test_a_vectorised_task_gets_lists_and_gives_one_value_each(program):
    text = (
        HEAD
        + "@task\ndef b(event): pass\n@task(batch=10)\ndef a(events, b, ctxs, x=1): return [*zip(events, b)][:CUT]"
        + FLOW
        + "a(k) << b(k)"
    )
    ctxs = [_runtime.make_context(Handle(n, {"b": n * 10})) for n in (1, 2)]
    made = program(text.replace("CUT", "9"), "a")
    assert made.run_batch([1, 2], ctxs) == [(1, 10), (2, 20)]
    assert made.run(1, ctxs[0]) == (1, 10)
    with pytest.raises(ValueError, match="one value for each of the 2 events"):
        program(text.replace("CUT", "1"), "a").run_batch([1, 2], ctxs)


def test_a_mapped_task_gets_its_item_the_last_list_turning_fastest(program):
    text = (
        HEAD
        + "@task\ndef b(event): pass\n@task\ndef a(x, y, z): return x, y, z"
        + FLOW
        + "a.partial(z=9).expand(x=b(k), y=[1, 2])"
    )
    made = program(text, "a")
    found = []
    for index in range(4):
        handle = Handle(results={"b": {"p": 1, "q": 2}})
        handle.map_index = index
        found.append(made.run(None, _runtime.make_context(handle)))
    assert found == [(("p", 1), 1, 9), (("p", 1), 2, 9), (("q", 2), 1, 9), (("q", 2), 2, 9)]


def test_a_batch_of_a_source_is_a_list(program):
    made = program(
        HEAD + "@task\ndef a(events): return len(events)\n@dag\ndef flow(): a(kafka('t').batch(max_events=5))", "a"
    )
    assert made.wants_event and made.run([1, 2, 3], None) == 3


def test_a_coroutine_function_is_awaited(program):
    made = program(
        HEAD
        + "import asyncio\n@task\nasync def a(event):\n    await asyncio.sleep(0)\n    return event"
        + FLOW
        + "a(k)",
        "a",
    )
    assert made.run(4, None) == 4


def test_a_task_function_is_the_plain_function_outside_of_a_dag():
    import evermill

    @evermill.task(retries=3)
    def double(x):
        """Twice."""
        return 2 * x

    assert double(4) == 8 and double.__doc__ == "Twice."


def test_an_unknown_task_is_named_with_the_nearest_one(program):
    with pytest.raises(DagError, match="did you mean 'load'"):
        program(HEAD + "@task\ndef load(event): pass" + FLOW + "load(k)", "laod")


def test_the_file_is_executed_once_for_all_its_tasks(tmp_path):
    path = tmp_path / "once.py"
    path.write_text(
        HEAD
        + "import builtins\nbuiltins.loads = getattr(builtins, 'loads', 0) + 1\n@task\ndef a(): return loads\n@task\ndef b(): return loads"
        + FLOW
        + "a() >> b() << k"
    )
    assert [_runtime.load_program(str(path), "flow", id).run(None, None) for id in "ab"] == [1, 1]


# Context.


def test_each_call_gives_another_effect_key_the_same_in_every_attempt():
    first, second = (_runtime.make_context(Handle()) for _ in range(2))
    assert [first.effect_key(), first.effect_key()] == [second.effect_key(), second.effect_key()] == ["key-0", "key-1"]


def test_state_is_read_only_where_events_are_in_order(program):
    text = (
        HEAD
        + "@task\ndef a(ctx): return helper(ctx)\ndef helper(ctx):\n    ctx.state.incr('n')\n    return ctx.state.get('n', 5)"
    )
    unordered = program(text + FLOW + "a() << k", "a")
    with pytest.raises(RuntimeError, match=r"ctx.state.get\('n'\) needs events in order"):
        run(unordered)
    ordered = program(text + "\n@dag(order='key')\ndef flow():\n    a() << kafka('t')", "a")
    value, handle = run(ordered)
    assert value == 5 and handle.said == [("incr", "n", 1), ("get", "n", None)]


@pytest.mark.parametrize(
    "body, wants",
    [
        ("ctx.effect_key()", {"ctx": True}),
        ("ctx.log.info('x')", {"ctx": True}),
        ("ctx.state.incr('n')", {"ctx": True, "state": True}),
        ("ctx.state.set('n', 1)", {"ctx": True, "state": True}),
        ("return ctx.state.get('n')", {"ctx": True, "state": True, "reads_state": True}),
        ("s = ctx.state; s.incr('n')", {"ctx": True, "state": True, "reads_state": True}),
        ("ctx.event.json()", {"ctx": True, "event": True}),
        ("helper(ctx)", {"ctx": True, "event": True, "state": True}),
        ("return ctx", {"ctx": True, "event": True, "state": True}),
        ("x = 1; return x, ctx", {"ctx": True, "event": True, "state": True}),
        ("return lambda: ctx.log", {"ctx": True, "event": True, "state": True}),
        ("ctx = ctx.log", {"ctx": True, "event": True, "state": True}),
    ],
)
def test_what_is_uncertain_is_wanted(load, body, wants):
    flow = FLOW.replace("@dag", "@dag(order='key')")
    loaded = load(HEAD + f"@task\ndef a(ctx): {body}" + flow + "a() << k\n")
    assert loaded.manifest["dags"][0]["tasks"][0]["wants"] == wants


TWO = "\n@dag\ndef flow():\n    o = kafka('o', name='orders')\n    p = kafka('p', name='prices')\n    "


@pytest.mark.parametrize(
    "signature, call, expected",
    [
        ("order, price", "a(o, p)", ["order", "price"]),
        ("price, order", "a(order=o, price=p)", ["price", "order"]),
        ("prices, orders", "a() << [o, p]", ["price", "order"]),
        ("events", "a() << [o, p]", [["order", "price"]]),
        ("both", "a([p, o])", [["price", "order"]]),
        ("named", "a({'x': (o, 1)}) << p", [{"x": ["order", 1]}]),
        ("event, orders", "a() << [o, p]", ["order", "order"]),
    ],
)
def test_several_sources_are_bound_each_to_its_own_event(program, signature, call, expected):
    values = ", ".join(f"plain({name})" for name in signature.split(", "))
    text = HEAD + (
        "def plain(value):\n"
        "    if isinstance(value, (list, tuple)): return [plain(item) for item in value]\n"
        "    if isinstance(value, dict): return {key: plain(item) for key, item in value.items()}\n"
        "    return value.text() if hasattr(value, 'text') else value\n"
        f"@task\ndef a({signature}): return [{values}]"
    )
    made = program(text + TWO + call, "a")
    handle = Handle([Event.of(b"order", source="orders"), Event.of(b"price", source="prices")])
    ctx = _runtime.make_context(handle) if made.wants_ctx else None
    assert made.run(handle.events[0] if made.wants_event else None, ctx) == expected


def test_a_source_that_has_not_fired_gives_none(program):
    made = program(HEAD + "@task\ndef a(order, price): return order, price" + TWO + "a(o, p)", "a")
    handle = Handle([Event.of(b"price", source="prices")])
    order, price = made.run(handle.events[0], _runtime.make_context(handle))
    assert order is None and price.text() == "price"


def test_one_of_several_sources_of_a_dag_is_bound_as_if_it_were_alone(program):
    made = program(HEAD + "@task\ndef a(event): pass\n@task\ndef b(o, p): pass" + TWO + "a(o); b(o, p)", "a")
    assert made.plain is not None


@pytest.mark.parametrize(
    "options, expected", [("", 1), ("concurrency=8", 8), ("concurrency=8, on_interrupt='fail'", 1)]
)
def test_a_task_that_must_not_run_twice_has_no_company(program, options, expected):
    made = program(HEAD + f"@task({options})\ndef a(event): pass" + FLOW + "a(k)", "a")
    assert made.concurrency == expected and made.run_async is None
