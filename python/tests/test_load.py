"""The loader as the engine runs it: what it prints, and what it says about files that are wrong."""

import pytest

HEAD = "import evermill\nfrom evermill import dag, kafka, task\n"
TASK = HEAD + "@task\ndef a(event): pass\n"


def only_fault(loaded):
    assert loaded.code == 3
    (fault,) = loaded.faults
    return fault


def test_output_of_the_file_cannot_reach_the_manifest(load):
    loaded = load(
        TASK + "import os\nprint('EVERMILL-MANIFEST {}')\nos.write(1, b'below python\\n')\nos.system('echo child')\n"
        "@dag\ndef flow(): a(kafka('t'))\n"
    )
    assert loaded.code == 0
    assert loaded.out.count("\n") == 1
    assert loaded.manifest["dags"][0]["id"] == "flow"
    assert "below python" in loaded.err and "child" in loaded.err


@pytest.mark.parametrize(
    "body, code, line, words",
    [
        ("def broken(:\n", "syntax_error", 1, "def broken(:"),
        ("\nimport no_such_module_here\n", "import_error", 2, "no_such_module_here"),
        ("x = 1\nraise KeyError('x')\n", "raised", 2, "KeyError: 'x'"),
        ("import sys\nsys.exit(4)\n", "raised", 2, "SystemExit: 4"),
        ("x = 1\n", "no_dag", 0, "declares no DAG"),
        (TASK + "@dag\ndef flow():\n    a(kafka('t', group=1))\n", "unknown_option", 7, "'group'"),
        (HEAD + "@task(retires=3)\ndef a(): pass\n", "unknown_option", 3, "'retires'"),
        (HEAD + "@task(retries=-1)\ndef a(): pass\n", "bad_value", 3, "retries=-1"),
        (HEAD + "@task(timeout='3 fortnights')\ndef a(): pass\n", "bad_value", 3, "3 fortnights"),
        (HEAD + "@task(order='key')\ndef a(): pass\n", "unknown_option", 3, "'order'"),
        (TASK + "@dag\ndef flow():\n    a(kafka('t', auto_offset_reset='newest'))\n", "bad_value", 7, "newest"),
        (
            TASK + "@dag\ndef flow():\n    k = kafka('t')\n    x = a(k)\n    y = a(k)\n    x >> y >> x\n",
            "cycle",
            8,
            "a >> a_2 >> a",
        ),
        (TASK + "@dag\ndef flow():\n    kafka('t')\n", "no_task", 5, "has no task"),
        (TASK + "@dag\ndef flow():\n    a(kafka('t'))\n    kafka('u')\n", "no_task", 8, "'kafka_2'"),
        (TASK + "@dag\ndef flow():\n    a(kafka('t'))\n    a()\n", "never_runs", 8, "'a_2'"),
        (TASK + "@dag\ndef flow():\n    kafka('t') >> a\n", "bad_edge", 7, "is no task"),
        (TASK + "kafka('t')\n", "no_dag", 5, "outside of a DAG"),
        (
            TASK + "@dag\ndef flow():\n    kafka('t', name='a') >> a() >> a.override(name='a')()\n",
            "duplicate_id",
            7,
            "line 7",
        ),
        (
            HEAD + "@task\ndef a(evnt): pass\n@dag\ndef flow():\n    a() << kafka('t')\n",
            "unbound_parameter",
            7,
            "'evnt'",
        ),
        (
            HEAD + "@task\ndef a(events): pass\n@dag\ndef flow():\n    a() << kafka('t')\n",
            "unbound_parameter",
            7,
            "'events'",
        ),
        (TASK + "@dag\ndef flow():\n    a(1, 2, 3) << kafka('t')\n", "bad_call", 7, "too many"),
        (
            HEAD + "@task\ndef a(ctx): ctx.state.get('n')\n@dag\ndef flow():\n    a() << kafka('t')\n",
            "state_needs_order",
            7,
            "ctx.state.get()",
        ),
        (
            TASK + "@dag(on_failure='block')\ndef flow():\n    a(kafka('t'))\n",
            "block_needs_order",
            7,
            "on_failure='block'",
        ),
        (
            TASK + "@dag\ndef f():\n    global x\n    x = a(kafka('t'))\n@dag\ndef g(): a(x)\nf()\n",
            "unknown_upstream",
            10,
            "'f'",
        ),
        (TASK + "@dag(name='no spaces')\ndef flow(): a(kafka('t'))\n", "bad_value", 5, "no spaces"),
    ],
)
def test_a_fault_names_its_line_and_what_is_wrong(load, body, code, line, words):
    fault = only_fault(load(body))
    assert (fault["code"], fault["line"]) == (code, line), fault
    assert fault["file"] == "flow.py"
    assert words in fault["message"]


@pytest.mark.parametrize(
    "body, cure",
    [
        (HEAD + "@task(retires=3)\ndef a(): pass\n", "did you mean 'retries'?"),
        (HEAD + "@task(order='key')\ndef a(): pass\n", "it is an option of a DAG"),
        (HEAD + "@task(trigger_rule='all_succes')\ndef a(): pass\n", "did you mean 'all_success'?"),
        (HEAD + "@task\ndef a(evnt): pass\n@dag\ndef flow():\n    a() << kafka('t')\n", "did you mean 'event'?"),
        (TASK + "@dag\ndef flow():\n    kafka('t') >> a\n", "call it: a()"),
        (TASK + "@dag\ndef flow():\n    a(kafka('t', group='x'))\n", "did you mean 'group_id'?"),
    ],
)
def test_a_fault_names_the_cure(load, body, cure):
    assert only_fault(load(body))["cure"] == cure


def test_all_faults_of_a_file_come_at_once(load):
    loaded = load(
        HEAD + "@task\ndef a(evnt): pass\n@task\ndef b(ctx): ctx.state.set('n', 1)\n"
        "@dag\ndef f():\n    a() >> b() << kafka('t')\n@dag\ndef g(): pass\n"
    )
    assert [fault["code"] for fault in loaded.faults] == ["unbound_parameter", "state_needs_order", "no_task"]


def test_roots_beside_a_source_belong_to_it_and_what_only_they_lead_to(load):
    text = (
        HEAD
        + "@task\ndef a(): pass\n@dag\ndef flow():\n    config = a()\n    a() << [kafka('t'), config]\n    config >> a()\n"
    )
    assert load(text).code == 0
    fault = only_fault(load(text + "    list(evermill._dag.building().nodes.values())[-1] << a()\n"))
    assert (fault["code"], "'a_4'" in fault["message"]) == ("never_runs", True)


def test_a_sources_order_goes_before_that_of_its_dag(load):
    read = (
        HEAD
        + "@task\ndef a(ctx): ctx.state.get('n')\n@dag(ORDER)\ndef flow():\n    a() << [kafka('t', order='key'), kafka('u')]\n"
    )
    assert only_fault(load(read.replace("ORDER", "")))["code"] == "state_needs_order"
    (dag,) = load(read.replace("ORDER", "order='serial'")).manifest["dags"]
    assert (dag["order"], [source.get("order") for source in dag["sources"]]) == ("serial", ["key", None])


def test_two_dags_of_one_id_are_refused(load):
    body = TASK + "@dag\ndef flow(): a(kafka('t'))\n@dag\ndef flow(): a(kafka('t'))\n"
    assert only_fault(load(body))["code"] == "duplicate_id"


def test_a_fault_in_an_imported_file_names_that_file(load):
    fault = only_fault(load("import lib.deep\n", **{"lib/deep": "x = 1\nx.y\n"}))
    assert fault["file"].endswith("lib/deep.py") and fault["line"] == 2


def test_the_bundle_holds_what_the_file_imports_now_or_later(load):
    loaded = load(
        TASK
        + "import lib\n@task\ndef late():\n    from lib.late import x\n@dag\ndef flow(): a(kafka('t')) >> late()\n",
        **{
            "lib/__init__": "from . import now\n",
            "lib/now": "import json\n",
            "lib/late": "x = 1\n",
            "unused": "x = 1\n",
        },
    )
    paths = [file["path"] for file in loaded.manifest["files"]]
    assert paths == ["flow.py", "lib/__init__.py", "lib/late.py", "lib/now.py"]


def test_dags_of_imported_modules_start_with_their_own_file_only(load):
    other = TASK + "@dag\ndef other(): a(kafka('t'))\n"
    loaded = load("import lib\n" + TASK + "@dag\ndef flow(): a(kafka('t'))\n", lib=other)
    assert [dag["id"] for dag in loaded.manifest["dags"]] == ["flow"]
    loaded = load("from lib import other\n" + TASK + "@dag\ndef flow(): a(kafka('t'))\n", lib=other)
    assert [dag["id"] for dag in loaded.manifest["dags"]] == ["other", "flow"]


def test_a_dag_that_a_function_elsewhere_makes_belongs_to_the_caller(load):
    factory = TASK + "def make(id):\n    @dag(name=id)\n    def made(): a(kafka('t'))\n    return made\n"
    loaded = load("from factory import make\nfor id in 'xy': make(id)\n", factory=factory)
    assert [(dag["id"], dag["file"], dag["line"]) for dag in loaded.manifest["dags"]] == [
        ("x", "factory.py", 6),
        ("y", "factory.py", 6),
    ]


def test_calling_a_dag_as_well_is_harmless(load):
    loaded = load(TASK + "@dag\ndef flow(): a(kafka('t'))\nflow()\nflow()\n")
    assert len(loaded.manifest["dags"][0]["tasks"]) == 1


def test_an_authors_own_module_wins_over_the_compatibility_layer(load):
    loaded = load(
        "from custom_operators import KafkaSensor\nassert KafkaSensor == 'mine'\n",
        custom_operators="KafkaSensor = 'mine'\n",
    )
    assert only_fault(loaded)["code"] == "no_dag"


def test_a_loaded_file_is_the_same_each_time(load):
    body = TASK + "@dag(tags={'b', 'a', 'c'})\ndef flow(): a(kafka('t'))\n"
    assert load(body).out == load(body).out


def test_a_subfolder_keeps_its_path(load, tmp_path):
    from conftest import load_file

    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "flow.py").write_text(TASK + "import shared\n@dag\ndef flow(): a(kafka('t'))\n")
    (tmp_path / "shared.py").write_text("")
    manifest = load_file(tmp_path / "team" / "flow.py", tmp_path).manifest
    assert manifest["entry"] == manifest["dags"][0]["file"] == "team/flow.py"
    assert [file["path"] for file in manifest["files"]] == ["shared.py", "team/flow.py"]


def test_every_code_the_package_can_say_has_a_page():
    import re

    from conftest import ROOT

    said = set()
    for path in (ROOT / "python" / "evermill").rglob("*.py"):
        said.update(re.findall(r'DagError\(\s*"(\w+)"', path.read_text()))
    pages = {page.stem for page in (ROOT / "docs" / "errors").glob("*.md")}
    assert len(said) > 15
    assert said <= pages


def test_what_goes_before_an_exception_is_said_as_well(load):
    loaded = load(HEAD + "@task(retires=3)\ndef a(event): pass\nraise ValueError('later')\n")
    assert [(fault["code"], fault["line"]) for fault in loaded.faults] == [("unknown_option", 3), ("raised", 5)]


def test_a_wrong_option_is_said_once_however_often_the_task_is_used(load):
    loaded = load(HEAD + "@task(retires=3)\ndef a(event): pass\n@dag\ndef flow():\n    k = kafka('t')\n    a(k), a(k)\n")
    assert [(fault["code"], fault["line"]) for fault in loaded.faults] == [("unknown_option", 3)]
