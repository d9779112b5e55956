"""Readings in batches, in order within each partition; the last value of each sensor is kept."""

import evermill


@evermill.task(priority=5, memory_limit="256MiB")
def keep_last(events, ctx):
    for event in events:
        sensor, _, value = event.text().partition("=")
        ctx.state.set(sensor, value)
    ctx.log.info("kept %d readings", len(events))
    return len(events)


@evermill.task(on_interrupt="fail", deadline="5m", env={"REPORT": "short"})
def report(keep_last):
    print(keep_last, "readings")


@evermill.dag(history="full", freshness="10m")
def readings():
    source = evermill.kafka("readings", order="partition", name="meters").batch(max_events=500, linger="200ms")
    keep_last(source) >> report()
