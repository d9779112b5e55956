"""evermill: DAGs that run continuously.

    import evermill

    @evermill.task(retries=3, timeout=30)
    def load(event, ctx):
        ctx.state.incr("seen")
        write(event.json(), key=ctx.effect_key())

    @evermill.dag(tags=["orders"])
    def orders():
        load(evermill.kafka("orders", group_id="billing", auto_offset_reset="earliest"))

`evermill run FILE` runs it. This package only declares: importing it starts nothing.
"""

from ._asked import PokeReturnValue
from ._fault import DagError
from ._files import files
from ._http import http
from ._inbox import inbox
from ._inside import after, emit, topic
from ._sensor import poll, sensor
from ._sink import to_file, to_http, to_kafka, to_sqs
from ._source import alerts, cron, every, kafka, loop, signal
from ._sqs import sqs
from ._task import dag, task
from ._wait import wait, wait_http
from ._webhook import webhook
from .context import Context, Fail, Skip, State
from .event import Event

__version__ = "0.0.0"

__all__ = [
    "Context", "DagError", "Event", "Fail", "PokeReturnValue", "Skip", "State", "after", "alerts", "cron", "dag", "emit",
    "every", "files", "http", "inbox", "kafka", "loop", "poll", "sensor", "signal", "sqs", "task", "to_file", "to_http", "to_kafka", "to_sqs", "topic",
    "wait", "wait_http", "webhook",
]  # fmt: skip
