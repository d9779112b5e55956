import evermill


@evermill.task
def price(event):
    evermill.emit("priced", event.json())


@evermill.dag
def prices():
    price(evermill.topic("orders"))


@evermill.task
def book(event):
    evermill.emit("orders", event.json())


@evermill.dag
def books():
    book(evermill.topic("priced"))
