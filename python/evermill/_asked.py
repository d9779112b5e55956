"""Functions of a source: what the engine asks the DAG file about, outside of any task.

A source keeps them in `functions`, by the option that each was given as. The engine asks by the name
`source?option` and gets JSON.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, List, Optional

from ._dag import Node
from ._fault import DagError, blame
from ._response import Response
from .event import Event

RESPONSE_CHECK = "response_check"
#: A root sensor's own function.
POKE = "poke"


class PokeReturnValue:
    """Whether what a sensor waits for is there, and what was found: the event's content, or the task's result."""

    def __init__(self, is_done: bool, xcom_value: Any = None) -> None:
        self.is_done = is_done
        self.xcom_value = xcom_value

    def __bool__(self) -> bool:
        return bool(self.is_done)


def name_of(owner: str, option: str, fn: Callable[..., Any]) -> str:
    """What a function is called, in the manifest. Refuses one that takes more than the one thing it is asked about."""
    try:
        inspect.signature(fn).bind(None)
    except TypeError:
        cure = "give it one parameter, such as lambda response: response.json()['ready']"
        blame(DagError("bad_call", f"{owner}: {option} is called with one argument", cure))
    except ValueError:  # some built-in callables have no signature
        pass
    return str(getattr(fn, "__name__", None) or type(fn).__name__)


def _checks(fn: Callable[..., Any]) -> Callable[[Event], List[Any]]:
    def check(event: Event) -> List[Any]:
        return word(fn(Response.of(event)))

    return check


def word(said: Any) -> List[Any]:
    """True or false, and what was found if there is something: an Airflow's own PokeReturnValue counts as well."""
    found = getattr(said, "xcom_value", None) if hasattr(said, "is_done") else None
    return [bool(said)] if found is None or not said else [True, found]


def _pokes(fn: Callable[..., Any]) -> Callable[[Event], List[Any]]:
    return lambda event: word(fn())


#: By option: the author's function as one that takes the event and gives what the engine reads.
_WRAPPED: Dict[str, Callable[[Callable[..., Any]], Callable[[Event], Any]]] = {RESPONSE_CHECK: _checks, POKE: _pokes}


def poked(run: Callable[[Any, Any], Any]) -> Callable[[Any, Any], List[Any]]:
    """A sensor's function as a source's. One that names a time to come back at has said *not yet*."""

    def ask(event: Any, ctx: Any) -> List[Any]:
        try:
            return word(run(event, ctx))
        except Exception as error:
            if getattr(error, "reschedule_date", None) is None:
                raise
            return [False]

    return ask


class Asked:
    """A function of a source, ready to run where tasks do (`_runtime.Program` has the meaning of each name)."""

    kind = "call"
    surroundings: Any = None
    concurrency = 1
    plain: Optional[Callable[[Any], Any]] = None
    run_batch: Any = None
    run_async: Any = None
    wants_event = True
    wants_ctx = False

    def __init__(self, node: Node, option: str, awaited: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self.id = f"{node.id}?{option}"
        fn = node.functions[option]
        call = _WRAPPED[option](awaited(fn) if inspect.iscoroutinefunction(fn) else fn)
        self.run: Callable[[Any, Any], Any] = lambda event, ctx: call(event)
