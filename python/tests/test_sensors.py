"""Sensors inside an activation: what a file says of them, and what they do where no engine waits."""

from datetime import datetime, timezone

import pytest
from evermill import testing

HEAD = """
from datetime import datetime, timedelta, timezone
from airflow import DAG
from airflow.decorators import dag, task
from airflow.exceptions import AirflowException, AirflowSkipException
from airflow.operators.python import PythonOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.standard.sensors.bash import BashSensor
from airflow.providers.standard.sensors.date_time import DateTimeSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor, WaitSensor
from airflow.providers.standard.sensors.weekday import DayOfWeekSensor
from airflow.sensors.base import BaseSensorOperator, PokeReturnValue
"""


def task_of(load, text, id="s"):
    loaded = load(text)
    assert loaded.code == 0, loaded.err
    return next(task for task in loaded.manifest["dags"][0]["tasks"] if task["id"] == id)


def test_options_of_a_sensor_become_its_poke(load):
    text = (
        "import evermill\n"
        "@evermill.sensor(poke_interval=5, timeout='1h', soft_fail=True, exponential_backoff=True, max_wait='10m', mode='poke',"
        " poke_timeout=3, retries=2)\n"
        "def s(event): return True\n"
        "@evermill.dag\ndef flow():\n    s(evermill.kafka('t'))\n"
    )
    made = task_of(load, text)
    assert made["kind"] == "sensor" and made["retries"] == 2 and made["timeout_ms"] == 3_000
    assert made["poke"] == {
        "interval_ms": 5_000,
        "exponential": True,
        "max_interval_ms": 600_000,
        "timeout_ms": 3_600_000,
        "soft_fail": True,
    }


def test_a_place_is_asked_without_python_unless_a_function_judges(load):
    text = (
        "import evermill\n@evermill.task\ndef a(event): pass\n@evermill.dag\ndef flow():\n"
        "    evermill.wait_http('/m', select='/v', timeout=9, after=a(evermill.kafka('t')), name='s'{})\n"
    )
    made = task_of(load, text.format(""))
    assert made["polls"] == {"endpoint": "/m", "select": "/v"} and "wants" not in made
    assert made["poke"] == {"timeout_ms": 9_000}
    made = task_of(load, text.format(", response_check=lambda r: r.ok"))
    assert made["polls"]["check"] == {"function": "<lambda>"}


def test_default_args_and_a_week_hold_for_airflows_sensors(load):
    text = HEAD + (
        "with DAG('flow', default_args={'poke_interval': 7, 'retries': 1}):\n"
        "    PythonOperator(task_id='a', python_callable=print) >> PythonSensor(task_id='s', python_callable=lambda: 1)\n"
    )
    made = task_of(load, text)
    assert made["poke"] == {"interval_ms": 7_000, "timeout_ms": 604_800_000} and made["retries"] == 1


@pytest.mark.parametrize(
    "said, code, words",
    [
        ("@evermill.sensor(poke_intervall=3)", "unknown_option", "poke_intervall"),
        ("@evermill.sensor(timeout='soon')", "bad_value", "timeout='soon'"),
        ("@evermill.sensor(mode='wait')", "bad_value", "mode='wait'"),
        ("@evermill.sensor(on_interrupt='fail')", "bad_value", "asked more than once"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(load, said, code, words):
    text = f"import evermill\n{said}\ndef s(event): return True\n@evermill.dag\ndef flow():\n    s(evermill.kafka('t'))\n"
    loaded = load(text)
    assert loaded.code == 3
    faults = [fault for fault in loaded.faults if fault["code"] == code]
    assert faults and words in faults[0]["message"] + faults[0].get("cure", ""), loaded.faults


@pytest.fixture
def ends(tmp_path):
    """Runs a DAG of Airflow's style once; how its tasks ended."""

    def run(body, **how):
        path = tmp_path / f"flow{len(list(tmp_path.iterdir()))}.py"
        path.write_text(HEAD + body)
        (activation,) = testing.run(testing.load(str(path)), **how).activations
        return activation.tasks

    return run


def sensors(*lines):
    body = "".join(f"    {line}\n" for line in lines)
    return "said = iter([False, False, True])\nwith DAG('flow') as dag:\n" + body


def test_a_sensor_is_asked_until_it_is_true_and_counts_one_try(ends):
    tasks = ends(sensors("PythonSensor(task_id='s', python_callable=lambda: next(said))"))
    assert (tasks["s"].state, tasks["s"].tries) == ("success", 1)


def test_one_that_never_comes_fails_at_its_timeout_or_is_skipped(ends):
    tasks = ends(
        sensors(
            "PythonSensor(task_id='f', python_callable=lambda: False, timeout=180, retries=5)",
            "PythonSensor(task_id='s', python_callable=lambda: False, timeout=180, soft_fail=True)",
        )
    )
    assert (tasks["f"].state, tasks["f"].tries) == ("failed", 1)
    assert str(tasks["f"].error) == "it was not there within 180 s"
    assert tasks["s"].state == "skipped"


def test_a_poke_of_ones_own_gets_airflows_context_and_gives_its_value_on(ends):
    tasks = ends(
        "class Mine(BaseSensorOperator):\n"
        "    def __init__(self, *, wanted, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.wanted = wanted\n"
        "    def poke(self, context):\n"
        "        return PokeReturnValue(context['ds'] == self.wanted, {'ds': context['ds'], 'try': context['ti'].try_number})\n"
        + sensors("Mine(task_id='s', wanted='2024-01-15', poke_interval=3)"),
        logical_date=datetime(2024, 1, 15, tzinfo=timezone.utc),
    )
    assert tasks["s"].result == {"ds": "2024-01-15", "try": 1}


@pytest.mark.parametrize(
    "more, raised, state",
    [
        ("", "ValueError", "failed"),
        (", soft_fail=True", "ValueError", "failed"),
        (", never_fail=True", "ValueError", "skipped"),
        (", silent_fail=True, timeout=60, soft_fail=True", "ValueError", "skipped"),
        ("", "AirflowSkipException", "skipped"),
    ],
)
def test_what_a_poke_raises_counts_as_it_does_in_airflow(ends, more, raised, state):
    body = f"def bad():\n    raise {raised}('no')\n" + sensors(f"PythonSensor(task_id='s', python_callable=bad{more})")
    assert ends(body)["s"].state == state


def test_commands_days_and_times(ends):
    tasks = ends(
        sensors(
            "BashSensor(task_id='yes', bash_command='exit 0')",
            "BashSensor(task_id='no', bash_command='exit 1', timeout=60, soft_fail=True)",
            "BashSensor(task_id='bad', bash_command='exit 3', retry_exit_code=1)",
            "DayOfWeekSensor(task_id='monday', week_day='Monday', use_task_logical_date=True)",
            "DateTimeSensor(task_id='past', target_time='2020-01-01T00:00:00+00:00')",
            "TimeDeltaSensor(task_id='delta', delta=timedelta(days=400))",
            "WaitSensor(task_id='wait', time_to_wait=timedelta(hours=1))",
        ),
        logical_date=datetime(2024, 1, 15, tzinfo=timezone.utc),
    )
    failed = [id for id, end in tasks.items() if end.state == "failed"]
    skipped = [id for id, end in tasks.items() if end.state == "skipped"]
    assert (failed, skipped) == (["bad"], ["no"])


def test_a_time_that_is_waited_for_is_named_so_that_nobody_asks_before(program):
    text = HEAD + "with DAG('flow'):\n    DateTimeSensor(task_id='s', target_time=datetime(2100, 1, 1))\n"
    sensor = program(text, "s")
    from evermill._worker import _until
    from evermill.context import Context

    from conftest import Handle

    with pytest.raises(Exception) as raised:
        sensor.run(None, Context(Handle()))
    assert type(raised.value).__name__ == "AirflowRescheduleException"
    assert _until(raised.value) == b'{"until_ms":4102444800000}'


def test_a_response_check_sees_the_answer_as_requests_has_it(program):
    from evermill.event import Event

    text = HEAD + (
        "def check(r):\n"
        "    assert (r.status_code, r.ok, r.url, r.text, r.headers['X-A'], r.headers.get('none')) =="
        " (201, True, 'http://h/x', '{\"v\": 2}', 'b', None)\n"
        "    return PokeReturnValue(r.json()['v'] > 1, r.json())\n"
        "with DAG('flow') as d:\n"
        "    HttpSensor(task_id='h', endpoint='/x', response_check=check) >> PythonOperator(task_id='a', python_callable=print)\n"
    )
    asked = program(text, "h?response_check")
    headers = [(":status", b"201"), (":url", b"http://h/x"), ("x-a", b"b")]
    assert asked.run(Event.of(b'{"v": 2}', headers=headers), None) == [True, {"v": 2}]


def test_the_golden_of_airflows_own_sensor_decorator(ends):
    """`example_sensor_decorator` of Airflow 3.3.2, by what its golden says."""
    tasks = ends(
        "@dag(schedule=None, start_date=datetime(2021, 1, 1, tzinfo=timezone.utc), catchup=False, tags=['example'])\n"
        "def example_sensor_decorator():\n"
        "    @task.sensor(poke_interval=60, timeout=3600, mode='reschedule')\n"
        "    def wait_for_upstream() -> PokeReturnValue:\n"
        "        return PokeReturnValue(is_done=True, xcom_value='xcom_value')\n"
        "    @task\n"
        "    def dummy_operator() -> None:\n"
        "        pass\n"
        "    wait_for_upstream() >> dummy_operator()\n"
        "tutorial_etl_dag = example_sensor_decorator()\n"
    )
    assert {id: (end.state, end.tries) for id, end in tasks.items()} == {
        "wait_for_upstream": ("success", 1),
        "dummy_operator": ("success", 1),
    }
    assert tasks["wait_for_upstream"].result == "xcom_value"


MINE = (
    "class Mine(BaseSensorOperator):\n"
    "    def poke(self, context):\n"
    "        return PokeReturnValue(bool(context['ds']), {{'n': 1}})\n"
    "with DAG('flow', schedule={}) as dag:\n"
    "    Mine(task_id='s', poke_interval=5) >> PythonOperator(task_id='a', python_callable=lambda event=None: event and event.json())\n"
)


@pytest.mark.parametrize("schedule, is_source", [("None", True), ("'@continuous'", True), ("'@once'", False), ("'@daily'", False)])
def test_any_sensor_at_the_root_is_a_source_unless_something_else_begins(load, schedule, is_source):
    loaded = load(HEAD + MINE.format(schedule))
    assert loaded.code == 0, loaded.out
    dag = loaded.manifest["dags"][0]
    sources = {one["id"]: one["config"] for one in dag.get("sources", [])}
    assert ("s" in sources) is is_source
    assert ("s" in [one["id"] for one in dag["tasks"]]) is not is_source
    if is_source:
        assert sources["s"] == {"kind": "poll", "function": "Mine", "poke_interval_ms": 5_000}


def test_in_an_activation_by_hand_it_is_a_sensor_and_with_an_event_a_source(ends):
    body = MINE.format("None").replace("'flow'", "'by_hand'")
    tasks = ends(body)
    assert tasks["s"].result == {"n": 1} and tasks["a"].result is None
    assert ends(body, events=[{"m": 2}])["a"].result == {"m": 2}


def test_a_clock_alone_needs_no_event_for_an_activation_by_hand(ends):
    assert ends(MINE.format("'@daily'"))["s"].state == "success"


def test_a_root_sensor_as_a_source_says_what_it_found(program):
    asked = program(HEAD + MINE.format("None"), "s?poke")
    from evermill.context import Context

    from conftest import Handle

    assert asked.run(None, Context(Handle())) == [True, {"n": 1}]


def test_one_that_waits_for_a_time_stays_a_task(load):
    body = "with DAG('flow', schedule=None) as d:\n    TimeDeltaSensor(task_id='s', delta=timedelta(1)) >> WaitSensor(task_id='w', time_to_wait=1)\n"
    assert "sources" not in load(HEAD + body).manifest["dags"][0]


POLL = "import evermill\n@evermill.task\ndef a(event): pass\ndef ready(): return {}\n@evermill.dag\ndef flow():\n    a(evermill.poll({}))\n"


def test_a_function_is_polled_and_its_word_is_true_or_false_and_what_it_found(load, program):
    loaded = load(POLL.format("True", "ready, poke_interval='10s', name='r'"))
    (source,) = loaded.manifest["dags"][0]["sources"]
    assert (source["id"], source["config"]) == ("r", {"kind": "poll", "function": "ready", "poke_interval_ms": 10_000})
    for said, word in [("1", [True]), ("[]", [False]), ("evermill.PokeReturnValue(True, 7)", [True, 7])]:
        assert program(POLL.format(said, "ready"), "poll?poke").run(None, None) == word


@pytest.mark.parametrize("given, code", [("7", "bad_value"), ("lambda x: x", "bad_call"), ("ready, poke_interval='soon'", "bad_value")])
def test_what_is_wrong_with_a_polled_function_is_said(load, given, code):
    loaded = load(POLL.format("True", given))
    assert loaded.code == 3 and code in loaded.out


def test_one_behind_a_no_op_is_a_source_that_says_so(load):
    body = "from airflow.operators.empty import EmptyOperator\n" + MINE.format("None").replace(
        "    Mine(", "    EmptyOperator(task_id='begin') >> Mine("
    )
    dag = load(HEAD + body).manifest["dags"][0]
    (source,) = dag["sources"]
    assert (source["promoted_from_task"], source["after"]) == ("s", ["begin"])
    assert "begin" in [task["id"] for task in dag["tasks"]]
