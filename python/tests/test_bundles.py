"""Several bundles in one worker process, and archives as DAG files."""

import os
import sys
import textwrap
import zipfile

import pytest

from evermill import _airflow_context, _load, _runtime, _world

DAG = """
import evermill
import helper

@evermill.task
def say(event):
    import later
    return helper.VALUE + later.VALUE

@evermill.dag
def d():
    say(evermill.webhook())
"""


@pytest.fixture(autouse=True)
def _modules_as_before():
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:] = path
    _world._current = None
    _world._aside.clear()
    _world._paths.clear()


def _version(folder, value, params="{}"):
    folder.mkdir()
    (folder / "d.py").write_text(DAG)
    (folder / "helper.py").write_text(f"VALUE = {value!r}")
    (folder / "later.py").write_text(f"VALUE = {value!r}")
    return str(folder / "d.py")


def test_two_versions_in_one_process_import_their_own_modules_at_the_top_and_in_mid_call(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    entries = [_version(folder, folder.name[0]) for folder in folders]
    programs = [_runtime.load_program(entry, "d", "say", os.path.dirname(entry)) for entry in entries]
    for at in (0, 1, 0, 1):
        _runtime.settle(programs[at], str(folders[at]))
        expected = 2 * folders[at].name[0]
        assert programs[at].run(None, None) == expected
    assert str(folders[0]) not in sys.path and sys.path[0] == str(folders[1])


def test_modules_of_bundles_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(_world, "WORLDS_MAX", 3)
    for number in range(6):
        entry = _version(tmp_path / str(number), str(number))
        _runtime.load_program(entry, "d", "say", os.path.dirname(entry))
    assert len(_world._aside) == 3 and len(_runtime._loaded) <= 3


def test_what_a_version_says_of_its_dag_holds_for_its_own_programs(tmp_path):
    text = """
from airflow import DAG
from airflow.operators.python import PythonOperator
with DAG("p", params={"n": %d}) as dag:
    PythonOperator(task_id="t", python_callable=lambda params: params["n"])
"""
    programs = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "p.py").write_text(text % number)
        programs.append(_runtime.load_program(str(folder / "p.py"), "p", "t", str(folder)))
    _runtime.settle(programs[0], str(tmp_path / "1"))
    assert _airflow_context.params["p"] == {"n": 1}


def _archive(tmp_path, files):
    path = tmp_path / "pack.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, textwrap.dedent(text))
    return path


def test_an_archive_declares_the_dags_of_the_modules_at_its_root(tmp_path):
    path = _archive(
        tmp_path,
        {
            "packed.py": DAG.replace("import helper", "from inside import helper").replace("later", "inside_later"),
            "another.py": "import evermill\nimport packed",
            "inside/__init__.py": "",
            "inside/helper.py": "VALUE = 'in'",
            "inside_later.py": "VALUE = 'side'",
            "deep/other.py": "import evermill\nraise ValueError('is not at the root')",
            "notes.txt": "evermill",
        },
    )
    made = _load.manifest(str(path))
    assert made["entry"] == "pack.zip"
    assert [dag["id"] for dag in made["dags"]] == ["d"]
    assert made["dags"][0]["file"] == "pack.zip/packed.py"
    assert [file["path"] for file in made["files"]] == ["pack.zip"]
    program = _runtime.load_program(str(path), "d", "say", str(tmp_path))
    assert program.run(None, None) == "inside"


def test_a_fault_in_an_archive_names_the_module_and_the_line(tmp_path):
    path = _archive(tmp_path, {"bad.py": "import evermill\n\nraise ValueError('here')\n"})
    with pytest.raises(_load.Faults) as raised:
        _load.manifest(str(path))
    (fault,) = raised.value.found
    assert fault["file"].endswith("pack.zip/bad.py") and fault["line"] == 3


def test_what_is_no_archive_is_said_to_be_none(tmp_path):
    path = tmp_path / "half.zip"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(_load.Faults) as raised:
        _load.manifest(str(path))
    assert raised.value.found[0]["code"] == "unreadable"
    empty = _archive(tmp_path, {"notes.py": "pass"})
    with pytest.raises(_load.Faults) as raised:
        _load.manifest(str(empty))
    assert raised.value.found[0]["code"] == "no_dag"
