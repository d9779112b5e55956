import evermill


@evermill.task
def load(event):
    pass
