import evermill


@evermill.task
def load(event):
    print(event.text())


@evermill.dag
def flow():
    load(evermill.kafka("orders", order="key"))
    load(evermill.kafka("returns", order="partition"))
