"""A zip archive as a DAG file: modules at its root that declare DAGs, and whatever they import from it."""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Iterator

from ._fault import DagError

#: A module at the root is a DAG file when its text has one of these.
_SIGNS = (b"evermill", b"airflow")
#: Bytes of a module at the root that are looked through.
_MODULE_BYTES_MAX = 4 * 1024 * 1024


def import_archive(path: str) -> ModuleType:
    """Executes every DAG module at the root; the archive is on `sys.path` already."""
    whole = ModuleType("evermill_dag_archive")
    whole.__file__ = path
    for name in _dag_modules(path):
        module = _import(path, name)
        # A DAG that it imported from below counts as its own.
        for value in vars(module).values():
            setattr(whole, f"value_{id(value)}", value)
    return whole


def _import(path: str, name: str) -> ModuleType:
    known = sys.modules.get(name)
    if known is not None:
        place = getattr(known, "__file__", None) or "Python itself"
        if place.startswith(path + os.sep):
            # Another one has imported it.
            return known
        message = f"{name}.py in the archive has the name of a module that is there already: {place}"
        raise DagError("bad_value", message, "give it another name", (path, 0))
    spec = PathFinder.find_spec(name, [path])
    if spec is None or spec.loader is None:
        raise DagError("unreadable", f"{name}.py in the archive cannot be imported", "make the archive again", (path, 0))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _dag_modules(path: str) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                name, extension = os.path.splitext(entry.filename)
                if extension != ".py" or not name.isidentifier():
                    continue
                with archive.open(entry) as file:
                    text = file.read(_MODULE_BYTES_MAX)
                if any(sign in text for sign in _SIGNS):
                    yield name
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as why:
        raise DagError("unreadable", f"not an archive that can be read: {why}", "make it with `zip` or `python -m zipfile -c`", (path, 0)) from None
