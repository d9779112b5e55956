"""Several bundles in one process: what is imported from a bundle's folder is that bundle's own.

Two versions of a DAG, or two DAGs, may each bring a module of the same name. One bundle is current at a time:
its folder comes first in the search for modules, and modules of others are put aside until theirs is
current again.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Dict, List, Optional, Set

#: Bundles whose modules are remembered; that of the longest absence is forgotten and would be imported again.
WORLDS_MAX = 64

#: By folder, oldest use first: modules by name.
_aside: Dict[str, Dict[str, ModuleType]] = {}
_current: Optional[str] = None
#: Where the current bundle's modules are looked for.
_paths: List[str] = []
#: Names of modules that are known to belong to no bundle.
_common: Set[str] = set()


def enter(folder: str, archive: Optional[str] = None) -> None:
    """Makes a bundle current; `archive` is its entry file if modules are looked for in there."""
    global _current
    if folder != _current:
        _put_aside()
        _current = folder
        sys.modules.update(_aside.pop(folder, {}))
    for path in (folder, archive):
        if path is not None and path not in _paths:
            _paths.append(path)
            sys.path[:] = [path, *(known for known in sys.path if known != path)]


def _put_aside() -> None:
    if _current is None:
        _common.update(sys.modules)
        return
    own = {}
    for name in sys.modules.keys() - _common:
        if _is_from(_current, sys.modules[name]):
            own[name] = sys.modules.pop(name)
        else:
            _common.add(name)
    _aside[_current] = own
    sys.path[:] = [path for path in sys.path if path not in _paths]
    _paths.clear()
    while len(_aside) > WORLDS_MAX:
        del _aside[next(iter(_aside))]


def _is_from(folder: str, module: Optional[ModuleType]) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        # A folder without __init__.py.
        file = next(iter(getattr(module, "__path__", [])), "")
    return os.path.abspath(file).startswith(folder + os.sep)
