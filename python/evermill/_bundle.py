"""The files a DAG is made of: its entry file, and what that imports from the DAG folder (W16)."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from typing import Any, Dict, Iterator, List, Set

from ._manifest import relative

#: Parts of a path below the DAG folder that hold other people's code.
_FOREIGN = ("site-packages", "dist-packages", "__pycache__")


def bundle(entry: str, folder: str) -> List[Dict[str, str]]:
    """Path and SHA-256 of each file, sorted by path.

    What was imported is known from `sys.modules`; what functions import later is found by reading
    their source. Data files are no part of it.
    """
    found: Set[str] = set()
    waiting = [os.path.realpath(entry), *_imported()]
    while waiting:
        path = waiting.pop()
        if path not in found and _is_own(path, folder) and ".zip" + os.sep not in path:
            found.add(path)
            waiting.extend(() if path.endswith(".zip") else _named_in(path, folder))
    files = [{"path": relative(path, folder), "sha256": _sha256(path)} for path in found]
    return sorted(files, key=lambda file: file["path"])


def _imported() -> Iterator[str]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            yield os.path.realpath(file)


def _is_own(path: str, folder: str) -> bool:
    name = relative(path, folder)
    sdk = os.path.dirname(os.path.realpath(__file__)) + os.sep
    return bool(name) and not path.startswith(sdk) and not any(part in _FOREIGN for part in name.split("/"))


def _named_in(path: str, folder: str) -> Iterator[str]:
    """Files of the folder that a file's import statements can mean, wherever they stand."""
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree: Any = ast.parse(source, path)
    except SyntaxError:  # it was never executed, or it could not have been imported
        return
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield from _files_of(folder, alias.name)
        elif isinstance(statement, ast.ImportFrom):
            base = path if statement.level else folder
            for _ in range(statement.level):
                base = os.path.dirname(base)
            module = statement.module or ""
            for alias in statement.names:
                yield from _files_of(base, f"{module}.{alias.name}".strip("."))


def _files_of(base: str, module: str) -> Iterator[str]:
    """For `a.b.c`: `a/__init__.py` or `a.py`, then the same below it."""
    for part in module.split("."):
        base = os.path.join(base, part)
        for candidate in (base + ".py", os.path.join(base, "__init__.py")):
            if os.path.isfile(candidate):
                yield os.path.realpath(candidate)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
