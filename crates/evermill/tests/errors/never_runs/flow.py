import evermill


@evermill.task
def load():
    pass


@evermill.dag
def flow():
    evermill.kafka("orders") >> load()
    load()
