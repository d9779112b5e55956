"""What all sensors share: they are asked again and again until what they wait for is there."""

from __future__ import annotations

from typing import Any, Dict, Optional

from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.models.baseoperator import BaseOperator

from evermill._asked import PokeReturnValue
from evermill._dag import Dag, building
from evermill._sensor import POKE, poke_fields

__all__ = ["BaseSensorOperator", "PokeReturnValue"]

#: Airflow waits this long for what does not come, seconds: a week.
_TIMEOUT = 7 * 24 * 3600


def asked(owner: str, dag: Optional[Dag], given: Dict[str, Any]) -> Dict[str, Any]:
    """The manifest's `poke` for a sensor's arguments, over `default_args` and Airflow's own defaults."""
    own = {name: value for name, value in given.items() if value is not None}
    inherited = {name: value for name, value in getattr(dag, "default_args", {}).items() if name in POKE}
    return poke_fields(owner, {"timeout": _TIMEOUT, **inherited, **own})


class BaseSensorOperator(BaseOperator):
    """A sensor is a subclass with `poke(context)`. Each poke is a short attempt; between two of them nothing runs,
    so `mode="poke"` and `mode="reschedule"` are the same here. At the root of a DAG without a schedule it is a source:
    asked for ever, and an event is the moment in which it becomes true.
    """

    may_be_asked = True

    def __init__(
        self,
        *,
        task_id: str,
        poke_interval: Any = None,
        timeout: Any = None,
        soft_fail: Optional[bool] = None,
        mode: Optional[str] = None,
        exponential_backoff: Optional[bool] = None,
        max_wait: Any = None,
        silent_fail: bool = False,
        never_fail: bool = False,
        deferrable: bool = False,
        dag: Optional[Dag] = None,
        **options: Any,
    ) -> None:
        dag = dag or building()
        poke = asked(
            f"task {task_id!r}",
            dag,
            {
                "poke_interval": poke_interval,
                "timeout": timeout,
                "soft_fail": soft_fail,
                "mode": mode,
                "exponential_backoff": exponential_backoff,
                "max_wait": max_wait,
            },
        )
        super().__init__(task_id=task_id, dag=dag, kind="sensor", fn=self._poke, **options)
        self.poking = poke
        self.poke_interval = poke.get("interval_ms", 60_000) / 1000
        self.timeout = poke["timeout_ms"] / 1000
        self.soft_fail = poke.get("soft_fail", False)
        self.silent_fail = silent_fail
        self.never_fail = never_fail
        self.mode = mode or "poke"
        #: What is remembered of a source's answers belongs to this.
        self.asked_as = type(self).__name__

    def poke(self, context: Any) -> Any:
        """Whether what is waited for is there: True, False, or a `PokeReturnValue` with what was found."""
        raise NotImplementedError(f"{type(self).__name__} has no poke(context)")

    def _poke(self, **context: Any) -> Any:
        try:
            return self.poke(context)
        except AirflowSkipException:
            raise
        except AirflowFailException as failed:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(failed)) from failed
            raise
        except Exception as failed:
            if getattr(failed, "reschedule_date", None) is not None:
                raise
            if self.silent_fail:
                print(f"{self.task_id}: {type(failed).__name__}: {failed}")
                return False
            if self.never_fail:
                raise AirflowSkipException(str(failed)) from failed
            raise
