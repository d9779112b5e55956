import evermill


@evermill.task
def load(event):
    print(event.text())


@evermill.dag
def flow():
    global first
    first = load(evermill.kafka("orders"))


@evermill.dag
def other():
    load(first)
