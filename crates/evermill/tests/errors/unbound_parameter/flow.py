import evermill


@evermill.task
def load(evnt):
    pass


@evermill.dag
def flow():
    load() << evermill.kafka("orders")
