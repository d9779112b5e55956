"""One order by hand, no source: results passed on, and a choice between two ways."""

import evermill


@evermill.task
def read_order():
    return {"express": True, "parcels": 3}


@evermill.task.branch
def choose(order):
    return "express" if order["express"] else "standard"


@evermill.task
def express(order):
    return f"{order['parcels']} parcels by air"


@evermill.task
def standard(order):
    return f"{order['parcels']} parcels by road"


@evermill.task(trigger_rule="none_failed_min_one_success")
def close(express, standard, ctx):
    ctx.log.info("sent %s", express or standard)


@evermill.dag(on_failure="stop", retries=1)
def shipping():
    order = read_order()
    choose(order) >> [express(order), standard(order)] >> close()
