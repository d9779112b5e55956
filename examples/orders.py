"""Each order is written once and counted. Try it: evermill run examples/orders.py"""

import json

import evermill


@evermill.task(retries=3, retry_delay="1s", timeout=30)
def load(event, ctx):
    order = event.json()
    ctx.state.incr("seen")
    print(json.dumps({"key": ctx.effect_key(), "order": order}))
    return order["total"]


@evermill.task.short_circuit
def is_large(total):
    return total >= 1000


@evermill.task(on_failure="drop")
def notify(event):
    print("a large order:", event.text())


@evermill.dag(tags=["orders"])
def orders():
    source = evermill.kafka("orders", group_id="billing", auto_offset_reset="earliest")
    is_large(load(source)) >> notify(source)
