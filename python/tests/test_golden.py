"""The golden manifests, which the Rust side decodes too.

After a change that is meant: `EVERMILL_WRITE_GOLDEN=1 python -m pytest tests/test_golden.py`, then look
at the difference.
"""

import hashlib
import json
import os

import pytest
from conftest import ROOT, load_file

GOLDEN = ROOT / "crates" / "evermill-contract" / "golden"
FILES = [*sorted((ROOT / "examples").glob("*.py")), ROOT / "python" / "tests" / "dags" / "mapped.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_loads_to_its_golden_manifest(path):
    loaded = load_file(path)
    assert loaded.code == 0, loaded.out + loaded.err
    manifest = loaded.manifest
    for dag in manifest["dags"]:
        if "start_date" in dag:
            dag["start_date"] = "2025-01-30T00:00:00+00:00"
        for task in dag["tasks"]:
            if "cwd" in task:
                # Counted from the folder of the file, wherever that is.
                task["cwd"] = os.path.relpath(task["cwd"], path.parent)
    golden = GOLDEN / f"manifest-{path.stem}.json"
    if os.environ.get("EVERMILL_WRITE_GOLDEN"):
        golden.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    assert manifest == json.loads(golden.read_text())


def test_each_golden_manifest_has_its_file():
    stems = {path.name[len("manifest-") : -len(".json")] for path in GOLDEN.glob("manifest-*.json")}
    assert stems == {path.stem for path in FILES}


def test_the_versions_follow_from_what_the_specification_says():
    versions = {}
    for path in GOLDEN.glob("manifest-*.json"):
        manifest = json.loads(path.read_text())
        for dag in manifest["dags"]:
            dag.pop("start_date", None)
            text = "".join(
                json.dumps(file["path"], ensure_ascii=False) + f" {file['sha256']}\n" for file in manifest["files"]
            )
            text += json.dumps(dag, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            versions[dag["id"]] = hashlib.sha256(b"evermill dag version 1\n" + text.encode()).hexdigest()
    golden = GOLDEN / "versions.json"
    if os.environ.get("EVERMILL_WRITE_GOLDEN"):
        golden.write_text(json.dumps(versions, indent=2, sort_keys=True) + "\n")
    assert versions == json.loads(golden.read_text())
