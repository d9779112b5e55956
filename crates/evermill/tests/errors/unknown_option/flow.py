import evermill


@evermill.task(retires=3, order="key")
def load(event):
    pass


@evermill.dag
def flow():
    load(evermill.kafka("orders", group="billing"))
