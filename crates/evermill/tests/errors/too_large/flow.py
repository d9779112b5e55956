import evermill


@evermill.task
def load():
    pass


@evermill.dag
def flow():
    for number in range(10_001):
        load.override(name=f"load_{number}")()
