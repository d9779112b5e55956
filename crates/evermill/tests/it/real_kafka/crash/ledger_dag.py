"""The DAG under test: every attempt leaves a line in a file that no crash of the engine can reach.

A line is one `write` to a descriptor opened for appending, so lines of many processes never mix. It
is not fsynced: a killed process loses nothing that the kernel has.
"""

import json
import os

import evermill

FOLDER = os.environ.get("LEDGER_FOLDER", ".")
#: Which start of the engine this worker belongs to.
LIFE = int(os.environ.get("LEDGER_LIFE", "0"))
TOPIC = os.environ.get("LEDGER_TOPIC", "none")
_file = None


def leave(task, event, ctx, **more):
    global _file
    if _file is None:
        _file = os.open(os.path.join(FOLDER, "effects.jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    line = {"life": LIFE, "task": task, "lane": event.lane, "position": event.position, "key": ctx.effect_key()}
    os.write(_file, (json.dumps({**line, **more}) + "\n").encode())


def first_time(name):
    try:
        os.close(os.open(os.path.join(FOLDER, name), os.O_CREAT | os.O_EXCL, 0o600))
        return True
    except FileExistsError:
        return False


@evermill.task
def check(event, ctx):
    token = os.urandom(8).hex()
    leave("check", event, ctx, seq=int(event.text()), token=token)
    # Some results are too large to travel with their event, and have a row of their own.
    padding = "x" * (20_000 if int(event.text()) % 5 == 0 else 0)
    return {"seq": int(event.text()), "token": token, "padding": padding}


@evermill.task
def count(event, check, ctx):
    n = ctx.state.get("count", 0) + 1
    ctx.state.set("count", n)
    leave("count", event, ctx, token=check["token"], n=n)


@evermill.task(retries=5, retry_delay="10ms")
def act(event, check, ctx):
    seq = check["seq"]
    if seq % 61 == 7 and first_time(f"failed-{event.lane.replace('/', '-')}-{seq}"):
        raise RuntimeError("the first attempt of some events fails")
    if seq % 97 == 11 and first_time(f"died-{event.lane.replace('/', '-')}-{seq}"):
        os._exit(3)
    leave("act", event, ctx, token=check["token"])


@evermill.task
def glance(event):
    """Reads nothing but its event, so it may start before any commit."""
    return len(event.text())


@evermill.task(retries=5, retry_delay="1100ms")
def rest(event):
    """Some events wait for longer than a wave does, so they get rows of their own."""
    seq = int(event.text())
    if seq % 53 == 5 and first_time(f"rested-{event.lane.replace('/', '-')}-{seq}"):
        raise RuntimeError("it goes on after a rest")


@evermill.task
def close(event, ctx):
    leave("close", event, ctx)


@evermill.dag
def ledger():
    source = evermill.kafka(TOPIC, group_id=TOPIC, auto_offset_reset="earliest", order="partition")
    glance(source)
    rest(source)
    checked = check(source)
    [count(source, checked), act(source, checked)] >> close(source)


@evermill.task
def listing(events, ctx):
    leave("list", events[0], ctx, positions=[event.position for event in events])


@evermill.dag
def lists():
    source = evermill.kafka(TOPIC, group_id=TOPIC + "-lists", auto_offset_reset="earliest", name="lists")
    listing(source.batch(max_events=7, linger="30ms"))
