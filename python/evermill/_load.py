"""`python -m evermill._load FILE [--folder DIR]`: what a DAG file declares, for the engine.

The engine runs this as a child. The last line of standard output is either
`EVERMILL-MANIFEST {...}` (exit code 0) or `EVERMILL-FAULTS [...]` (exit code 3). Whatever the DAG
file itself prints goes to standard error, also from below Python.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from typing import Any, Dict, List, Optional, Sequence

from ._bundle import bundle
from ._dag import Dag
from ._fault import DagError
from ._file import build, dag_of, declared_in, import_file, is_stand_in, stand_ins
from ._manifest import FORMAT, dag_manifest, faults, relative

EXIT_FAULTS = 3


class Faults(Exception):
    """Everything that is wrong with a file, as the objects the engine reads."""

    def __init__(self, found: List[Dict[str, Any]]) -> None:
        super().__init__(f"{len(found)} faults")
        self.found = found


def manifest(path: str, folder: Optional[str] = None) -> Dict[str, Any]:
    """Loads a DAG file. Raises `Faults` with all that can be found at once."""
    path = os.path.abspath(path)
    folder = os.path.abspath(folder) if folder else os.path.dirname(path)
    entry = relative(path, folder)
    found: List[Dict[str, Any]] = []
    if not entry:
        raise Faults([_fault(path, 0, "bad_value", f"the file is not below the DAG folder {folder}")])
    try:
        module = import_file(path, folder)
    except BaseException as why:  # a DAG file may raise anything, SystemExit among it
        raise Faults([_explained(why, path, folder)]) from None
    dags = _built(declared_in(module), path, folder, found)
    if found:
        raise Faults(found)
    if not dags:
        raise Faults([_fault(path, 0, "no_dag", "the file declares no DAG", "decorate a function with @evermill.dag")])
    made = [dag_manifest(dag, folder, entry) for dag in dags]
    return {"format": FORMAT, "entry": entry, "dags": made, "files": bundle(path, folder)}


def _built(declared: Sequence[Any], path: str, folder: str, found: List[Dict[str, Any]]) -> List[Dag]:
    dags: Dict[str, Dag] = {}
    for made in declared:
        dag = dag_of(made)
        other = dags.setdefault(dag.id, dag)
        if other is not dag:
            message = f"two DAGs have the id {dag.id!r}: the other one is at line {other.line}"
            found.append(_fault(dag.file, dag.line, "duplicate_id", message, "give one of them another id"))
            continue
        try:
            found.extend(_of(fault, path) for fault in faults(build(made)))
        except BaseException as why:
            found.append(_explained(why, path, folder))
    return list(dags.values())


def _explained(why: BaseException, path: str, folder: str) -> Dict[str, Any]:
    """An exception of the author's code as a fault, at the line of theirs that is nearest to it."""
    if isinstance(why, DagError):
        return _of(why, path)
    if isinstance(why, SyntaxError) and why.filename:
        text = (why.text or "").strip()
        return _fault(why.filename, why.lineno or 0, "syntax_error", f"{why.msg}: {text}" if text else why.msg)
    file, line = path, 0
    for frame, at in traceback.walk_tb(why.__traceback__):
        name = frame.f_code.co_filename
        if relative(name, folder) and os.path.isfile(name):
            file, line = name, at
    if isinstance(why, ImportError):
        return _fault(file, line, "import_error", why.msg, _import_cure(why))
    return _fault(file, line, "raised", f"{type(why).__name__}: {why}")


def _import_cure(why: ImportError) -> str:
    if is_stand_in(why.name or ""):
        return "evermill stands in for " + ", ".join(stand_ins())
    return "install it for the interpreter that runs the DAG" if isinstance(why, ModuleNotFoundError) else ""


def _of(fault: DagError, path: str) -> Dict[str, Any]:
    return _fault(fault.file or path, fault.line, fault.code, fault.message, fault.cure)


def _fault(file: str, line: int, code: str, message: str, cure: str = "") -> Dict[str, Any]:
    made = {"file": os.path.relpath(file), "line": line, "code": code, "message": message}
    return {**made, "cure": cure} if cure else made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evermill._load", description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--folder", help="the DAG folder; else the file's own")
    args = parser.parse_args()
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        line, code = "EVERMILL-MANIFEST " + json.dumps(manifest(args.file, args.folder)), 0
    except Faults as why:
        line, code = "EVERMILL-FAULTS " + json.dumps(why.found), EXIT_FAULTS
    with os.fdopen(out, "w", encoding="utf-8") as stdout:
        stdout.write(line + "\n")
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that the file left behind must not hold us up
