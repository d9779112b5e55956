"""Datasets, which Airflow 3 calls assets: what a task has made, and a DAG begins by.

Each is a topic (`evermill.topic`): a task that has it as outlet says so in the commit of its success, and a DAG whose
schedule it is hears that.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Dict, List, Optional, Tuple

from evermill._fault import DagError, blame

__all__ = ["Asset", "Dataset"]


class Dataset:
    """Something that tasks make, by its URI."""

    def __init__(self, uri: Any = None, extra: Optional[Dict[str, Any]] = None, *, name: Optional[str] = None, group: str = "") -> None:
        self.uri = str(uri if uri is not None else name)
        self.name = name or self.uri
        self.extra = dict(extra or {})

    @property
    def topic(self) -> str:
        """The topic it is: letters and digits of its URI, and a digest that tells it from one that looks alike."""
        plain = re.sub(r"[^a-zA-Z0-9._-]+", "-", self.uri).strip("-.")[:200]
        return f"{plain or 'dataset'}-{hashlib.sha256(self.uri.encode()).hexdigest()[:8]}"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Dataset) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"


class Asset(Dataset):
    """The same by its newer name: `Asset("name")`, `Asset(uri="s3://...")` or both."""

    def __init__(self, name: Any = None, uri: Any = None, *, extra: Optional[Dict[str, Any]] = None, group: str = "") -> None:
        super().__init__(uri if uri is not None else name, extra, name=None if name is None else str(name))


def outlets(owner: str, given: Any) -> List[Tuple[str, Dict[str, Any]]]:
    """What a task says to which topics once it has succeeded."""
    made = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    wrong = [one for one in made if not isinstance(one, Dataset)]
    if wrong:
        blame(DagError("not_built", f"{owner}: outlets={wrong!r} is not built", "an outlet is a Dataset or an Asset"))
    return [(one.topic, {"uri": one.uri, "extra": one.extra}) for one in made if isinstance(one, Dataset)]


def heard(owner: str, schedule: Any) -> Optional[Dict[str, Any]]:
    """The `config` of the source that a schedule of datasets stands for; None if it is none."""
    made = schedule if isinstance(schedule, (list, tuple)) else [schedule]
    if not made or not all(isinstance(one, Dataset) for one in made):
        return None
    if len(made) > 1:
        what = f"{owner}: schedule={schedule!r}: to wait for all of several datasets is not built"
        blame(DagError("not_built", what, "name the one that comes last, or make a DAG of each"))
    return {"name": made[0].topic}
