"""What the values of a source have to be: what a file says, and what the manifest has of it."""

import json

import pytest
from evermill import Event, testing

NATIVE = """
import evermill

@evermill.task
def a(event):
    pass

def valid(event):
    return event.json()["total"] >= 0

@evermill.dag
def flow():
    a({})
"""
SCHEMA = {"type": "object", "required": ["id"]}


@pytest.mark.parametrize(
    "source, fields",
    [
        ("evermill.kafka('t', codec='avro', schema_registry='reg')", {"codec": "avro", "schema_registry": "reg"}),
        ("evermill.kafka('t', codec='json', schema={'type': 'object'})", {"codec": "json", "schema": {"type": "object"}}),
        ("evermill.kafka('t', schema='order.schema.json')", {"schema": SCHEMA}),
        ("evermill.webhook(codec='text')", {"codec": "text"}),
        ("evermill.http('/x', schema={'type': 'array'})", {"schema": {"type": "array"}}),
    ],
)
def test_every_kind_of_source_says_it_in_the_same_words(load, tmp_path, source, fields):
    (tmp_path / "order.schema.json").write_text(json.dumps(SCHEMA))
    loaded = load(NATIVE.format(source))
    assert loaded.code == 0, loaded.out
    (made,) = loaded.manifest["dags"][0]["sources"]
    assert {name: made[name] for name in ("codec", "schema", "schema_registry") if name in made} == fields


def test_a_proto_file_brings_what_it_imports_from_beside_it_and_above(load, tmp_path):
    (tmp_path / "protos" / "shop").mkdir(parents=True)
    order = tmp_path / "protos" / "shop" / "order.proto"
    order.write_text('import "near.proto";\nimport public "shop/far.proto";\nimport "google/protobuf/any.proto";\n')
    (order.parent / "near.proto").write_text("// near")
    (order.parent / "far.proto").write_text("// far")
    (tmp_path / "order.binpb").write_bytes(b"xyz")
    loaded = load(NATIVE.format("evermill.kafka('t', codec='protobuf', schema='protos/shop/order.proto#shop.Order')"))
    (made,) = loaded.manifest["dags"][0]["sources"]
    assert made["schema"]["proto"] == "order.proto" and made["schema"]["message"] == "shop.Order"
    assert sorted(made["schema"]["files"]) == ["near.proto", "order.proto", "shop/far.proto"]
    loaded = load(NATIVE.format("evermill.kafka('t', codec='protobuf', schema='order.binpb')"))
    (made,) = loaded.manifest["dags"][0]["sources"]
    assert made["schema"] == {"descriptors": "eHl6"}
    order.write_text('import "nowhere.proto";')
    loaded = load(NATIVE.format("evermill.kafka('t', codec='protobuf', schema='protos/shop/order.proto')"))
    assert "imports 'nowhere.proto'" in loaded.faults[0]["cure"], loaded.faults


@pytest.mark.parametrize(
    "options, words",
    [
        ("codec='yaml'", "'yaml'"),
        ("schema='missing.json'", "missing.json cannot be read"),
        ("schema=17", "a dict, or the path"),
        ("schema={'a': {1, 2}}", "a schema is JSON"),
        ("codec='protobuf', schema='missing.proto'", "missing.proto cannot be read"),
        ("validator='valid'", "a function"),
        ("schema_registri='r'", "did you mean 'schema_registry'?"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_column(load, options, words):
    loaded = load(NATIVE.format(f"evermill.kafka('t', {options})"))
    assert loaded.code == 3
    fault = loaded.faults[0]
    assert words in fault["message"] + fault.get("cure", ""), fault
    assert fault["line"] == 13


def test_a_validator_is_a_task_before_all_that_come_after_its_source(load):
    loaded = load(NATIVE.format("evermill.kafka('t', validator=valid)"))
    assert loaded.code == 0, loaded.out
    tasks = {task["id"]: task for task in loaded.manifest["dags"][0]["tasks"]}
    judge = tasks["kafka_valid"]
    assert judge["validates"] is True and "retries" not in judge
    assert [edge["node"] for edge in tasks["a"]["upstream"]] == ["kafka", "kafka_valid"]


def test_an_event_that_its_validator_does_not_want_reaches_no_task(tmp_path):
    (tmp_path / "flow.py").write_text(NATIVE.format("evermill.kafka('t', validator=valid)"))
    result = testing.run(testing.load(str(tmp_path / "flow.py")), events=[{"total": 1}, {"total": -1}, {"id": 1}])
    assert (result.done, result.parked) == (1, 2)
    good, negative, without = result.activations
    assert good["a"].state == "success"
    assert negative["a"].state == "upstream_failed"
    assert str(negative.error) == "valid returned False"
    assert isinstance(without.error, KeyError)


def test_a_validator_that_is_a_coroutine_is_awaited(program):
    text = NATIVE.format("evermill.kafka('t', validator=valid)").replace("def valid", "async def valid")
    judge = program(text, "kafka_valid")
    assert judge.run(Event.of(b'{"total": 1}'), None) is None
    with pytest.raises(ValueError, match="valid returned False"):
        judge.run(Event.of(b'{"total": -1}'), None)
