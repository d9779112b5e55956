"""The source of files: what a file says, and what the manifest has of it."""

import pytest

from evermill.event import Event

NATIVE = "import evermill\n@evermill.task\ndef a(event): pass\n@evermill.dag\ndef flow():\n    a(evermill.files({}))\n"

SENSOR = """
from airflow import DAG
from airflow.operators.empty import EmptyOperator
from {} import FileSensor
with DAG(dag_id="flow", schedule=None) as dag:
    FileSensor(task_id="wait", {}) >> EmptyOperator(task_id="after")
"""


def config(load, text):
    loaded = load(text)
    assert loaded.code == 0, loaded.err
    (source,) = loaded.manifest["dags"][0]["sources"]
    return source["config"]


def test_what_is_default_is_left_out(load):
    assert config(load, NATIVE.format("'/in'")) == {"kind": "files", "path": "/in"}
    said = "'/in', pattern=None, connection=None, poke_interval=10, settle=1, fire_on_start=True"
    assert config(load, NATIVE.format(said)) == {"kind": "files", "path": "/in"}


@pytest.mark.parametrize(
    "said, field, value",
    [
        ("pattern='**/*.csv'", "pattern", "**/*.csv"),
        ("settle='500ms'", "settle_ms", 500),
        ("poke_interval=0.5", "poke_interval_ms", 500),
        ("fire_on_start=False", "fire_on_start", False),
        ("connection='fs_in'", "connection", "fs_in"),
    ],
)
def test_settings_become_the_fields_of_the_manifest(load, said, field, value):
    assert config(load, NATIVE.format(f"'/in', {said}")) == {"kind": "files", "path": "/in", field: value}


def test_a_relative_path_counts_from_the_folder_of_the_file_unless_a_connection_says_where(load, tmp_path):
    found = config(load, NATIVE.format("'../in/*.csv'"))["path"]
    assert found.startswith("/") and found.endswith("/in/*.csv") and ".." not in found
    assert config(load, NATIVE.format("'in', connection='fs_in'"))["path"] == "in"
    assert config(load, "import pathlib\n" + NATIVE.format("pathlib.Path('/in')"))["path"] == "/in"


@pytest.mark.parametrize("said", ["7", "'/in', settle='soon'", "'/in', patern='*.csv'"])
def test_what_is_wrong_is_said(load, said):
    loaded = load(NATIVE.format(said))
    assert loaded.code == 3 and "EVERMILL-FAULTS" in loaded.out


@pytest.mark.parametrize("path", ["airflow.sensors.filesystem", "airflow.providers.standard.sensors.filesystem"])
def test_airflows_sensor_at_the_root_is_a_source(load, path):
    found = config(load, SENSOR.format(path, "filepath='/in/done.flag'"))
    assert found == {"kind": "files", "path": "/in/done.flag", "poke_interval_ms": 60_000}
    assert config(load, SENSOR.format(path, "filepath='in/*.csv'"))["path"] == "/in/*.csv"
    found = config(load, SENSOR.format(path, "filepath='a', fs_conn_id='fs_in'"))
    assert (found["path"], found["connection"]) == ("a", "fs_in")


def test_an_event_of_a_file_says_where_it_is_and_another_one_says_that_it_is_none():
    event = Event.of(b'{"path": "/in/a.csv", "url": "file:///in/a.csv"}')
    assert (event.path, event.url) == ("/in/a.csv", "file:///in/a.csv")
    for value in (b"7", b"{}", b"no JSON", None):
        with pytest.raises(ValueError, match="no file of evermill.files"):
            Event.of(value).path
