"""The webhook source: what a file says, and what the manifest has of it."""

import pytest

NATIVE = "import evermill\n@evermill.task\ndef a(event): pass\n@evermill.dag\ndef flow():\n    a(evermill.webhook({}))\n"


@pytest.mark.parametrize(
    "said, config",
    [
        ("", {}),
        ("codec='bytes'", {}),
        ("secret='env:HOOK'", {"secrets": ["env:HOOK"]}),
        ("secret=['env:OLD', 'env:NEW']", {"secrets": ["env:OLD", "env:NEW"]}),
    ],
)
def test_settings_become_the_fields_of_the_manifest(load, said, config):
    loaded = load(NATIVE.format(said))
    assert loaded.code == 0, loaded.err
    (source,) = loaded.manifest["dags"][0]["sources"]
    assert source["id"] == "webhook"
    assert source["config"] == {"kind": "webhook", **config}


@pytest.mark.parametrize(
    "said, code, words",
    [
        ("codec='xml'", "bad_value", "'xml'"),
        ("secret=''", "bad_value", "env:HOOK_SECRET"),
        ("secret=['a', 'b', 'c']", "bad_value", "the old one and the new one"),
        ("secrte='x'", "unknown_option", "did you mean 'secret'?"),
    ],
)
def test_what_is_wrong_is_said_with_its_cure(load, said, code, words):
    loaded = load(NATIVE.format(said))
    assert loaded.code == 3
    fault = loaded.faults[0]
    assert fault["code"] == code and words in fault["message"] + fault.get("cure", ""), loaded.faults
