"""Large orders wait for somebody's word; the others go on at once.

    evermill run examples/approval.py --connection kafka=127.0.0.1:9092 --listen 127.0.0.1:4700
    evermill signal approvals approve '{"yes": true}' --key 4711
    curl -X POST 'http://127.0.0.1:4700/api/v1/runs/approvals/signals/approve?key=4711' \\
         -H 'Idempotency-Key: mail-17' -d '{"yes": true}'

What was approved goes to every DAG that listens to the topic `approved`.
"""

import evermill


@evermill.task
def ask(event):
    order = event.json()
    print("order", order["id"], "of", order["amount"], "waits for an answer")
    return order


@evermill.task
def decide(order, answer):
    if not (answer or {}).get("yes"):
        raise evermill.Skip()
    evermill.emit("approved", order, key=str(order["id"]))


@evermill.dag(tags=["orders"])
def approvals():
    order = ask(evermill.kafka("large-orders", auto_offset_reset="earliest"))
    decide(order, evermill.wait(signal="approve", after=order))


@evermill.task
def ship(event):
    print("shipping order", event.json()["id"])


@evermill.dag(tags=["orders"])
def deliveries():
    ship(evermill.topic("approved", order="key"))
