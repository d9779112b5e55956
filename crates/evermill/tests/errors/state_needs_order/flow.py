import evermill


@evermill.task
def load(event, ctx):
    ctx.state.set("last", ctx.state.get("last", 0) + 1)


@evermill.dag
def flow():
    load(evermill.kafka("orders"))
