import evermill


@evermill.task(secrets=["api_key"])
def load(event, ctx):
    print(len(ctx.secret("api_key")))


@evermill.dag
def flow():
    load(evermill.every("1h"))
