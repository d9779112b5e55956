"""`python -m evermill._load FILE [--folder DIR]`: what a DAG file declares, for the engine.

The engine runs this as a child. The last line of standard output is either
`EVERMILL-MANIFEST {...}` (exit code 0) or `EVERMILL-FAULTS [...]` (exit code 3). Whatever the DAG
file itself prints goes to standard error, also from below Python.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import re
import sys
import threading
import tokenize
import traceback
from types import FrameType
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import evermill

from ._bundle import bundle
from ._dag import Dag
from ._fault import DagError, argument_at, collecting, found_so_far, nearest
from ._file import build, dag_of, declared_in, import_file, is_stand_in, stand_ins
from ._manifest import FORMAT, dag_manifest, faults, relative
from ._surroundings import limit_memory

EXIT_FAULTS = 3

#: What to do about an exception that nothing more is known of.
_RAISED = "put this line right, or move what may fail into a task"


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
    with collecting() as found:
        dags = _declared(path, folder, entry, found)
        if found:
            raise Faults(_said(found, path))
    made = [dag_manifest(dag, folder, entry) for dag in dags]
    return {"format": FORMAT, "entry": entry, "dags": made, "files": bundle(path, folder)}


def _declared(path: str, folder: str, entry: str, found: List[DagError]) -> List[Dag]:
    if not entry:
        found.append(DagError("bad_value", f"the file is not below the DAG folder {folder}", at=(path, 0)))
        return []
    try:
        module = import_file(path, folder)
    except BaseException as why:  # a DAG file may raise anything, SystemExit among it
        found.append(_explained(why, path, folder))
        return []
    dags = _built(declared_in(module), path, folder, found)
    if not dags and not found:
        cure = "decorate a function with @evermill.dag"
        found.append(DagError("no_dag", "the file declares no DAG", cure, (path, 0)))
    return dags


def _built(declared: Sequence[Any], path: str, folder: str, found: List[DagError]) -> List[Dag]:
    dags: Dict[str, Dag] = {}
    for made in declared:
        dag = dag_of(made)
        other = dags.setdefault(dag.id, dag)
        if other is not dag:
            message = f"two DAGs have the id {dag.id!r}: the other one is at line {other.line}"
            found.append(DagError("duplicate_id", message, "give one of them another id", (dag.file, dag.line)))
            continue
        before = len(found)
        try:
            built = build(made)
            # What follows from a node that could not be declared would only distract from it.
            found.extend(faults(built) if len(found) == before else [])
        except BaseException as why:
            found.append(_explained(why, path, folder))
    return list(dags.values())


def _explained(why: BaseException, path: str, folder: str) -> DagError:
    """An exception of the author's code as a fault, at the line of theirs that is nearest to it."""
    if isinstance(why, DagError):
        return why
    if isinstance(why, SyntaxError) and why.filename:
        text = (why.text or "").strip()
        message = f"{why.msg}: {text}" if text else why.msg
        cure = "put this line right, or the end of the one before it"
        return DagError("syntax_error", message, cure, (why.filename, why.lineno or 0), column=why.offset or 0)
    frames = traceback.walk_tb(why.__traceback__)
    at = _authors(frames, folder) or (path, 0)
    if isinstance(why, ImportError):
        return DagError("import_error", why.msg, _import_cure(why), at)
    if isinstance(why, MemoryError):
        cure = "move what needs much memory from the top of the file into tasks"
        return DagError("too_large", "loading needs more memory than a DAG file may have", cure, at)
    return DagError("raised", f"{type(why).__name__}: {why}", _name_cure(why), at)


def _asked_of_the_package(why: BaseException) -> str:
    """The name that `evermill` was asked for and does not have; Python 3.9 says it in the message alone."""
    said = re.match(r"module 'evermill' has no attribute '(\w+)'", str(why))
    return said[1] if said and isinstance(why, AttributeError) else ""


def _authors(frames: Iterable[Tuple[FrameType, int]], folder: str) -> Optional[Tuple[str, int]]:
    """File and line of the last frame whose code is in the DAG folder."""
    found = None
    for frame, line in frames:
        name = frame.f_code.co_filename
        if relative(name, folder) and (os.path.isfile(name) or ".zip" + os.sep in name):
            found = name, line
    return found


def _name_cure(why: BaseException) -> str:
    """For a name that does not exist: the nearest one that does."""
    name = getattr(why, "name", None)
    if _asked_of_the_package(why):
        return nearest(_asked_of_the_package(why), evermill.__all__)
    if isinstance(why, NameError) and name and why.__traceback__:
        frame = [frame for frame, _ in traceback.walk_tb(why.__traceback__)][-1]
        cure = nearest(name, {*frame.f_globals, *frame.f_locals, *dir(builtins)})
        return cure if cure.startswith("did you mean") else _RAISED
    return _RAISED


def _import_cure(why: ImportError) -> str:
    if not isinstance(why, ModuleNotFoundError):
        return "import a name that the module has"
    if is_stand_in(why.name or ""):
        return nearest(why.name or "", stand_ins())
    return "install it for the interpreter that runs the DAG"


def _said(found: Iterable[DagError], path: str) -> List[Dict[str, Any]]:
    """The faults as the engine reads them. A fault that a second use of the same thing found again is left out."""
    made: Dict[Tuple[str, str, str], Dict[str, Any]] = {}
    for fault in found:
        file = fault.file or path
        line, column = _place(fault, file)
        one = {"file": os.path.relpath(file), "line": line, "code": fault.code, "message": fault.message}
        if column:
            one["column"] = column
        made.setdefault((file, fault.code, fault.message), {**one, "cure": fault.cure} if fault.cure else one)
    return list(made.values())


def _place(fault: DagError, file: str) -> Tuple[int, int]:
    """Line and column of a fault: of the argument it is about, if that can be found in the text."""
    if fault.option:
        try:
            with tokenize.open(file) as source:
                found = argument_at(source.read(), fault.line, fault.option)
        except (OSError, SyntaxError, ValueError):
            found = None
        if found:
            return found
    return fault.line, fault.column


def _watch(path: str, folder: str, seconds: float, say: Callable[[List[Dict[str, Any]]], None]) -> threading.Timer:
    """Ends the process when the file takes too long, with the line of the author's that it is at."""
    main = threading.main_thread().ident

    def late() -> None:
        frame = sys._current_frames().get(main) if main is not None else None
        steps = [(step, step.f_lineno) for step in _outwards(frame)]
        at = _authors(reversed(steps), folder) or (path, 0)
        cure = "move slow work from the top of the file into tasks"
        say(_said([*found_so_far(), DagError("loader_timeout", f"loading took longer than {seconds:g} s", cure, at)], path))
        os._exit(EXIT_FAULTS)

    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    return timer


def _outwards(frame: Optional[FrameType]) -> Iterable[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evermill._load", description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--folder", help="the DAG folder; else the file's own")
    parser.add_argument("--memory-limit", type=int, metavar="BYTES", help="the most that loading may allocate")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="the longest the file may take")
    args = parser.parse_args()
    out = os.dup(1)
    os.dup2(2, 1)
    path = os.path.abspath(args.file)
    folder = os.path.abspath(args.folder or os.path.dirname(path))

    def say(line: str) -> None:
        with os.fdopen(out, "w", encoding="utf-8") as stdout:
            stdout.write(line + "\n")

    def say_faults(found: List[Dict[str, Any]]) -> None:
        say("EVERMILL-FAULTS " + json.dumps(found))

    if args.memory_limit:
        limit_memory(args.memory_limit)
    timer = _watch(path, folder, args.time_limit, say_faults) if args.time_limit else None
    try:
        line = "EVERMILL-MANIFEST " + json.dumps(manifest(path, folder))
    except Faults as why:
        _stop(timer)
        say_faults(why.found)
        return EXIT_FAULTS
    _stop(timer)
    say(line)
    return 0


def _stop(timer: Optional[threading.Timer]) -> None:
    if timer is not None:
        timer.cancel()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that the file left behind must not hold us up
