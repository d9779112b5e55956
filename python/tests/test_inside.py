"""What one DAG hears of another: what a file says, and what the manifest has of it."""

from datetime import datetime, timezone

import pytest
from evermill.context import Context

import evermill

NATIVE = "import evermill\n@evermill.task\ndef a(event): pass\n@evermill.dag\ndef flow():\n    a({})\n"

EMITS = """
import evermill
@evermill.task
def a(event):
    {}
@evermill.task
def b(event):
    return 1
@evermill.dag
def flow():
    wait = evermill.signal("go")
    a(wait)
    b(wait)
"""


def config(load, source):
    loaded = load(NATIVE.format(source))
    assert loaded.code == 0, loaded.out
    (source,) = loaded.manifest["dags"][0]["sources"]
    return source["config"]


@pytest.mark.parametrize(
    "source, expected",
    [
        ("evermill.after('orders')", {"kind": "after", "dag": "orders"}),
        ("evermill.after('orders', states=('done',))", {"kind": "after", "dag": "orders"}),
        ("evermill.after('orders', states='failed')", {"kind": "after", "dag": "orders", "states": ["failed"]}),
        (
            "evermill.after('orders', states=['skipped', 'done'])",
            {"kind": "after", "dag": "orders", "states": ["done", "skipped"]},
        ),
        ("evermill.topic('paid')", {"kind": "topic", "name": "paid"}),
    ],
)
def test_sources_become_the_manifest(load, source, expected):
    assert config(load, source) == expected


@pytest.mark.parametrize(
    "source", ["evermill.after('x', states=['well'])", "evermill.after('x', states=[])", "evermill.topic('a b')", "evermill.after(7)"]
)
def test_what_is_wrong_is_said(load, source):
    loaded = load(NATIVE.format(source))
    assert loaded.code == 3 and "bad_value" in loaded.out


@pytest.mark.parametrize("body", ["evermill.emit('paid', 1)", "[evermill.emit('paid', n) for n in (1, 2)]"])
def test_a_task_that_emits_gets_a_context_and_the_others_do_not(load, body):
    tasks = load(EMITS.format(body)).manifest["dags"][0]["tasks"]
    assert [task["wants"].get("ctx", False) for task in tasks] == [True, False]


def test_emitting_outside_of_a_task_is_refused_with_a_cure():
    import contextvars

    with pytest.raises(RuntimeError, match="ctx.emit"):
        contextvars.Context().run(evermill.emit, "paid", 1)


@pytest.mark.parametrize("args, error", [(("a b", 1), "topic's name"), (("paid", 1, 7), "a key is a text"), (("paid", object()), "object")])
def test_what_cannot_be_emitted_fails_the_task(args, error):
    from evermill._inside import message

    with pytest.raises(Exception, match=error):
        message(*(args if len(args) == 3 else (*args, None)))


def test_a_message_is_json_with_a_key_if_there_is_one():
    from evermill._inside import message

    assert message("paid", {"n": 1}, None) == {"topic": "paid", "value": '{"n":1}'}
    assert message("paid", "x", b"k") == {"topic": "paid", "value": '"x"', "key": "k"}


SENSOR = """
from airflow import DAG
from airflow.operators.empty import EmptyOperator
from {} import ExternalTaskSensor
with DAG(dag_id="flow", schedule=None) as dag:
    ExternalTaskSensor(task_id="wait", {}) >> EmptyOperator(task_id="next")
"""


@pytest.mark.parametrize("path", ["airflow.sensors.external_task", "airflow.providers.standard.sensors.external_task"])
def test_airflows_sensor_of_a_dag_at_the_root_is_a_source(load, path):
    (source,) = load(SENSOR.format(path, "external_dag_id='orders'")).manifest["dags"][0]["sources"]
    assert source["config"] == {"kind": "after", "dag": "orders"}
    said = "external_dag_id='orders', allowed_states=['success', 'failed']"
    (source,) = load(SENSOR.format(path, said)).manifest["dags"][0]["sources"]
    assert source["config"]["states"] == ["done", "failed"]
    assert "not_built" in load(SENSOR.format(path, "external_dag_id='o', external_task_group_id='g'")).out
    assert "bad_value" in load(SENSOR.format(path, "external_dag_id='o', allowed_states=['running']")).out


INSIDE = """
from datetime import datetime, timedelta, timezone
from airflow import DAG
from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.operators.empty import EmptyOperator
from airflow.sensors.external_task import ExternalTaskSensor
with DAG(dag_id="flow", schedule="@daily") as dag:
    ExternalTaskSensor(task_id="wait", external_dag_id="orders", {}) >> EmptyOperator(task_id="next")
"""


class Elsewhere:
    """A handle whose engine knows one activation of another DAG."""

    state_ops = xcoms = says = None
    events = ()
    logical_date = datetime(2024, 5, 2, tzinfo=timezone.utc)

    def __init__(self, told):
        self.told, self.asked = told, []

    def ended(self, dag_id, at):
        self.asked.append((dag_id, at.isoformat()))
        return self.told

    def __getattr__(self, name):
        return "" if name in ("run_id", "dag_id", "task_id") else {} if name == "conf" else 1


@pytest.mark.parametrize(
    "said, told, expected",
    [
        ("", None, False),
        ("", {"state": "done", "tasks": {}}, True),
        ("", {"state": "skipped", "tasks": {}}, True),
        ("", {"state": "failed", "tasks": {}}, False),
        ("allowed_states=['skipped']", {"state": "done", "tasks": {}}, False),
        ("failed_states=['failed']", {"state": "failed", "tasks": {}}, "AirflowFailException"),
        ("skipped_states=['skipped']", {"state": "skipped", "tasks": {}}, "AirflowSkipException"),
        ("external_task_id='t'", {"state": "failed", "tasks": {"t": "success"}}, True),
        ("external_task_ids=['t', 'u']", {"state": "done", "tasks": {"t": "success", "u": "skipped"}}, False),
        ("external_task_id='t'", {"state": "done", "tasks": {"u": "success"}}, "AirflowFailException"),
        ("external_task_id='t'", {"state": "failed", "tasks": {}}, False),
    ],
)
def test_a_sensor_of_a_dag_inside_an_activation_goes_by_how_that_ended(program, said, told, expected):
    sensor = program(INSIDE.format(said), "wait")
    handle = Elsewhere(told)
    try:
        assert sensor.run(None, Context(handle)) is expected
    except Exception as raised:
        assert type(raised).__name__ == expected
    assert handle.asked == [("orders", "2024-05-02T00:00:00+00:00")]


@pytest.mark.parametrize(
    "said, dates",
    [
        ("execution_delta=timedelta(hours=1)", ["2024-05-01T23:00:00+00:00"]),
        ("execution_date_fn=lambda d: [d, d - timedelta(days=1)]", ["2024-05-02T00:00:00+00:00", "2024-05-01T00:00:00+00:00"]),
    ],
)
def test_a_sensor_of_a_dag_asks_for_the_dates_it_is_told(program, said, dates):
    sensor, handle = program(INSIDE.format(said), "wait"), Elsewhere({"state": "done", "tasks": {}})
    assert sensor.run(None, Context(handle)) is True
    assert [date for _, date in handle.asked] == dates


def test_topics_that_a_function_names_where_it_emits_are_in_the_manifest(load):
    loaded = load(
        "import evermill\n"
        "from evermill import emit\n"
        "PAID = 'paid'\n"
        "OTHER = 7\n"
        "@evermill.task\n"
        "def a(event, ctx):\n"
        "    evermill.emit('first', 1)\n"
        "    emit(PAID, event.json(), key='k')\n"
        "    def later():\n"
        "        ctx.emit('inner', 2)\n"
        "    later()\n"
        "    emit(event.text(), 3)\n"
        "    emit(OTHER, 'no topic')\n"
        "    print('emit', 'not said')\n"
        "@evermill.task\n"
        "def b(event):\n"
        "    print('emit')\n"
        "@evermill.dag\n"
        "def flow():\n"
        "    asked = evermill.topic('asked', circle=True)\n"
        "    a(asked) >> b(asked)\n"
    )
    assert loaded.code == 0, loaded.out
    (dag,) = loaded.manifest["dags"]
    a, b = dag["tasks"]
    assert a["emits"] == ["first", "inner", "paid"]
    assert "emits" not in b
    assert dag["sources"][0]["config"] == {"kind": "topic", "name": "asked", "circle": True}
