import evermill


@evermill.task
def load(event):
    print(event.text())


@evermill.dag(on_failure="block")
def flow():
    load(evermill.kafka("orders"))
