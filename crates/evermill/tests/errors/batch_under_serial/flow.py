import evermill


@evermill.task(batch=100)
def load(events):
    print(len(events))


@evermill.dag(order="serial")
def flow():
    load(evermill.kafka("orders"))
