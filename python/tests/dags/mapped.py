"""Everything the examples leave out: mapping, vectorised tasks, old rule names, every option."""

import evermill


@evermill.task
def parcels(event):
    return event.json()["parcels"]


@evermill.task(pool="printers", concurrency=4, cwd="labels", max_retry_delay="1h", retry_exponential_backoff=True)
def label(parcel, size, carrier):
    return f"{carrier}-{parcel}-{size}"


@evermill.task(batch=100, history="sampled", trigger_rule="none_failed_or_skipped")
def write(events, label):
    return [len(labels) for labels in label]


@evermill.task(trigger_rule="dummy")
def always():
    pass


@evermill.dag(order="key", python="/usr/bin/python3", deadline="2h", on_failure="block", tags=["a", "b"])
def mapped():
    source = evermill.kafka("parcels", connection="depot", membership=True, from_group="old", order="key")
    labels = label.partial(carrier="dhl").expand(parcel=parcels(source), size=[1, 2])
    labels >> write() >> always()
