import evermill


@evermill.dag
def flow():
    evermill.kafka("orders")
