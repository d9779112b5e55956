import evermill


@evermill.task
def work():
    pass


@evermill.dag
def flow():
    first, second, third = [work.override(name=name)() for name in ("first", "second", "third")]
    evermill.kafka("orders") >> first >> second >> third >> first
