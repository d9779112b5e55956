"""A shop's orders, as `evermill demo` runs them. Change anything and try it: evermill demo THIS_FILE

Each order is an activation of its own, from the moment it is on the topic.
"""

import evermill

PRICES = {"tea": 4, "coffee": 7, "cake": 12, "samovar": 480}


@evermill.task
def order(event):
    order = event.json()
    order["total"] = sum(PRICES[item] * count for item, count in order["items"].items())
    return order


# A parameter with the name of a task before this one is what that task returned.
@evermill.task(retries=5, retry_delay="100ms")
def charge(order, ctx):
    # Now and then the payment service is busy. The engine tries again; other customers do not wait.
    if ctx.try_number == 1 and order["number"] % 50 == 0:
        raise ConnectionError("the payment service is busy")
    # A real service would get ctx.effect_key(): the same in every attempt, so that nobody pays twice.


@evermill.task.branch
def choose(order):
    return "courier" if order["total"] >= 480 else "post"


@evermill.task
def courier():
    return "within the hour"


@evermill.task
def post():
    return "tomorrow"


@evermill.task(trigger_rule="none_failed_min_one_success")
def thank(order, ctx):
    # Kept by the engine for each customer, and committed together with this task.
    count = ctx.state.get("orders", 0) + 1
    ctx.state.set("orders", count)
    if count % 25 == 0:
        print(f"{order['customer']} has ordered {count} times: a cake for free")


@evermill.dag(order="key")
def shop():
    orders = evermill.kafka("orders", auto_offset_reset="earliest", name="orders")
    order(orders) >> charge() >> choose() >> [courier(), post()] >> thank()
