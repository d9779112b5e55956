import evermill


@evermill.task(retries=-1, timeout="3 fortnights", trigger_rule="all_succes")
def load(event):
    pass


@evermill.dag
def flow():
    load(evermill.kafka("orders"))
