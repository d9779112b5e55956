import evermill


@evermill.task(trigger_rule="one_failed")
def alarm(event):
    pass


@evermill.dag
def flow():
    alarm(evermill.kafka("orders"))
