import evermill


@evermill.task
def load(event):
    print(event.text())


@evermill.dag
def flow():
    load.override(name="same")(evermill.kafka("orders"))
    load.override(name="same")()
