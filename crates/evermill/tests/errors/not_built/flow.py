import evermill


@evermill.task
def load(event):
    pass


@evermill.dag
def flow():
    load(evermill.after("orders"))
