"""Loading a DAG file: its module, and the DAGs it declares."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import Any, Dict, List, Optional

from . import _archive, _dag, _world
from ._content import judged
from ._dag import Dag
from ._fault import DagError
from ._sensor import asked_config
from ._task import DagFunction

_COMPAT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compat")


def import_file(path: str, folder: Optional[str] = None) -> Any:
    """Executes a DAG file as a module of its own name, with its folder on `sys.path`.

    The compatibility layer comes last: an author's own modules, or a real Airflow, win over it.
    """
    path = os.path.abspath(path)
    folder = os.path.abspath(folder) if folder else os.path.dirname(path)
    if _COMPAT not in sys.path:
        sys.path.append(_COMPAT)
    if path.endswith(".zip"):
        _world.enter(folder, path)
        return _archive.import_archive(path)
    _world.enter(folder)
    name = "evermill_dag_" + re.sub(r"\W", "_", os.path.splitext(os.path.relpath(path, folder))[0])
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DagError("not_python", "this is no Python file", "the name of a DAG file ends in .py or .yaml", (path, 0))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def declared_in(module: Any) -> List[Any]:
    """What the file declares: DAGs made while its top level ran, and those it has names for."""
    path = os.path.abspath(module.__file__)
    named = {id(value) for value in vars(module).values()}

    def is_of(made: Any) -> bool:
        place = os.path.abspath(dag_of(made).module)
        return place == path or place.startswith(path + os.sep) or id(made) in named

    return [made for made in _dag.declared if is_of(made)]


def dag_of(made: Any) -> Dag:
    """The DAG behind what was declared."""
    return made.dag if isinstance(made, DagFunction) else made


def build(made: Any, listens: bool = True) -> Dag:
    """Calls the function that declares a DAG, unless its author did, and settles what only the whole decides."""
    if isinstance(made, DagFunction):
        made()
    dag = dag_of(made)
    promote(dag)
    begin_by_schedule(dag)
    if not listens:
        demote(dag)
    validate(dag)
    end_laps(dag)
    return dag


def promote(dag: Dag) -> None:
    """A sensor with nothing but no-ops before it becomes a source (W7), unless something else begins the
    activations: a clock, or, for one that is only asked, a source that was declared as such."""
    if dag.clock or dag.fields.get("schedule") == "once":
        return
    for node in dag.nodes.values():
        if not isinstance(node, _dag.Task) or node.is_source or node.mapped:
            continue
        if not all(isinstance(before, _dag.Task) and before.kind == "noop" for before in node.ancestors()):
            continue
        followed = any(node in other.upstream for other in dag.nodes.values())
        if node.may_be_asked and not node.listens and followed and not dag.declared_sources:
            node.listens = asked_config(node)
        node.is_source = bool(node.listens)


def demote(dag: Dag) -> None:
    """Sensors are what they are in an activation that nobody's event caused: they are asked until it is there."""
    for node in dag.nodes.values():
        if isinstance(node, _dag.Task) and node.is_source and (node.poking or node.wait):
            node.is_source = False


def begin_by_schedule(dag: Dag) -> None:
    """What a schedule begins comes after a source that stands for it."""
    clock = dag.clock
    if clock is None and dag.fields.get("schedule") == "continuous" and not dag.sources():
        # Airflow goes on after a run that failed.
        clock = "loop", {"max_consecutive_failures": dag.failures_in_a_row or 2**31 - 1}
    if clock is None or not dag.tasks() or dag.begun:
        return
    dag.begun = True
    roots = [node for node in dag.nodes.values() if not node.is_source and not node.upstream]
    with dag.build():
        kind, config = clock
        source = _dag.Source(kind, config, dag.free_id("schedule"), {"order": "serial"} if kind == "loop" else {})
    for root in roots:
        root.after(source)


def validate(dag: Dag) -> None:
    """The validator of a source is a task of its own, before all that come after the source."""
    for source in list(dag.declared_sources):
        validator, source.validator = source.validator, None
        if validator is None:
            continue
        after = [node for node in dag.tasks() if source in node.upstream]
        fields = {"retries": 0, "validates": True}
        judge = _dag.Task(dag.free_id(f"{source.id}_valid"), "call", judged(validator), fields=fields, dag=dag)
        judge.after(source)
        for node in after:
            node.after(judge)


def end_laps(dag: Dag) -> None:
    """The question whether a lap was the last one is a task of its own, after all others of the lap."""
    for source in list(dag.declared_sources):
        until, source.until = source.until, None
        if until is None:
            continue
        below = [node for node in dag.tasks() if source in node.ancestors()]
        inner = {before for node in below for before in node.upstream}
        ends = [node for node in below if node not in inner] or [source]
        asked = _dag.Task(
            dag.free_id(f"{source.id}_until"), "short_circuit", until, fields={"trigger_rule": "all_done"}, dag=dag
        )
        for node in ends:
            asked.after(node)
        source.config["until"] = asked.id


def dags(module: Any) -> Dict[str, Dag]:
    """The file's DAGs by id."""
    return {dag.id: dag for dag in map(build, declared_in(module))}


def stand_ins() -> List[str]:
    """The modules of the compatibility layer that define something."""
    found = []
    for folder, _, names in os.walk(_COMPAT):
        parts = os.path.relpath(folder, _COMPAT).split(os.sep)
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".py") and not name.startswith("_option") and "import " in _text_of(path):
                found.append(".".join(parts if name == "__init__.py" else [*parts, name[:-3]]))
    return sorted(found)


def is_stand_in(name: str) -> bool:
    """Whether a module is looked for in the compatibility layer, found there or not."""
    root = sys.modules.get(name.partition(".")[0])
    return str(getattr(root, "__file__", "")).startswith(_COMPAT + os.sep)


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
