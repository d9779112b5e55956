"""One task per case; the value of an event is the member's index."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import evermill
from evermill import task


@task
def silent():
    pass


@task
def echo(event):
    return event.json()


@task
def describe(event):
    return [event.text(), event.key, event.position, event.source, event.lane, event.timestamp, event.headers]


@task
def effect(event, ctx):
    return [ctx.effect_key(), ctx.effect_key(), ctx.run_id, ctx.task_id, ctx.try_number, ctx.map_index]


@task
def third_raises(event):
    if event.value == b"2":
        raise ValueError("three is too many")


@task
def third_of_each_raises(event):
    if event.json() % 3 == 2:
        raise ValueError("no")


@task
def third_skips(event):
    if event.value == b"2":
        raise evermill.Skip


@task
def third_fails_for_good(event):
    if event.value == b"2":
        raise evermill.Fail("never again")


@task
def naps(event):
    time.sleep(0.005)


@task
def own_pid(event):
    return os.getpid()


class Rude(BaseException):
    def __str__(self):
        raise RuntimeError("no text for you")


@task
def rude(event):
    raise Rude


def deeper(level):
    return deeper(level + 1)


@task
def bottomless(event):
    sys.setrecursionlimit(20_000)
    return deeper(0)


@task
def third_exits(event):
    if event.value == b"2":
        sys.exit(3)


@task
def third_leaves(event):
    if event.value == b"2":
        os._exit(7)


@task
def third_crashes(event):
    if event.value == b"2":
        ctypes.string_at(0)


@task
def third_hangs(event):
    if event.value == b"2":
        note("third_hangs", os.getpid())
        time.sleep(1000)


@task(concurrency=2)
def together_hangs(event):
    if int(event.value) >= 2:
        note("together_hangs", os.getpid())
        time.sleep(1000)


@task
def third_spins_deaf(event):
    if event.value == b"2":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        while True:
            pass


@task
def is_deaf(event):
    note("deaf", os.getpid())
    ctypes.PyDLL(None).sleep(1000)  # It keeps the interpreter: nobody handles a signal.


@task
def slow_second(event):
    if event.value == b"1":
        time.sleep(1000)


@task
def forks(event):
    if os.fork() == 0:
        return  # The classic mistake: the child comes back into the caller's loop.
    os.wait()


def note(name, pid):
    with open(os.path.join(os.path.dirname(__file__), name), "w") as file:
        file.write(f"{pid}.")


@task
def leaves_children_and_exits(event):
    note("exits", subprocess.Popen(["sleep", "1000"]).pid)
    os._exit(1)


@task
def leaves_children_and_hangs(event):
    note("hangs", subprocess.Popen(["sleep", "1000"]).pid)
    time.sleep(1000)


@task
def daemonises(event):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note("daemon", os.getpid())
            time.sleep(1000)
        os._exit(0)
    os.wait()


@task
def unserialisable(event):
    which = event.json()
    if which == 0:
        return {"rows": [1, (x for x in range(3))]}
    if which == 1:
        return lambda: None
    if which == 2:
        cycle = []
        cycle.append({"self": cycle})
        return cycle
    if which == 3:
        return {(1, 2): 3}
    return {"bytes": b"\x00\xff", "nan": float("nan"), "own": {"$bytes": 1}, "set": {2, 1}}


@task
def huge(event):
    return "x" * 100_000_000


@task
def prints(event):
    print("hello from", event.json())
    print("and again", file=sys.stderr)
    logging.getLogger("mine").warning("careful %d", event.json())
    os.system("echo from a child")


@task
def floods_print(event):
    line = "x" * 999_999
    for _ in range(200):
        print(line)


@task
def floods_descriptor(event):
    block = b"y" * 1_000_000
    for _ in range(200):
        os.write(1, block)


@task
def scribbles(event):
    """Writes garbage to every descriptor it can find."""
    for fd in range(3, 64):
        try:
            os.write(fd, b"garbage garbage garbage garbage")
        except OSError:
            pass
    time.sleep(1000)


@task
def asks(event, ctx):
    return ctx._handle.ask("variable", name="colour")


@task
def counts(event, ctx):
    ctx.state.incr("seen")
    ctx.state.set_add("names", "a", "b")


@task
def recalls(event, ctx):
    ctx.state.incr("seen")
    ctx.state.set_add("names", "b")
    return [ctx._handle.state_op("get", name) or "none" for name in ("seen", "names", "$set", "other")]


@task
def pushes(event, ctx):
    ctx._handle.xcom_push("other", {"n": 1})
    return [1, 2, 3]


@task
def waits_for_stop(event, ctx):
    print("waiting")
    while not ctx.should_stop():
        time.sleep(0.01)


@task
def progresses(event, ctx):
    ctx.progress({"done": 0.5})


@task
async def is_async(event):
    import asyncio

    await asyncio.sleep(0)
    return "async"


@task(batch=10)
def together(events):
    return [event.json() * 2 for event in events]


@task(batch=10)
def together_raises(events):
    raise ValueError("all of us")


@task(env={"GREETING": "hello"})
def greets(event):
    child = subprocess.run(["sh", "-c", "printf %s \"$GREETING\""], capture_output=True, text=True)
    return [os.environ["GREETING"], child.stdout]


@task
def is_greeted(event):
    return os.environ.get("GREETING")


@task
def where(event):
    return os.getcwd()


@task(memory_limit="200MB")
def eats(event):
    return len(bytearray(event.json() * 100_000_000))


@task
def eats_freely(event):
    return len(bytearray(event.json() * 100_000_000))


@task(memory_limit="1MB")
def starves(event):
    pass


@task(nice=5)
def yields(event):
    return [os.getpriority(os.PRIO_PROCESS, 0), os.getpid()]


everybody = threading.Barrier(4)
last_has_ended = threading.Event()


@task(concurrency=4)
def meets(event):
    """Ends only if four run at once, and the first only after all others."""
    print(f"here is {event.json()}")
    everybody.wait(60)
    if event.json() == 0:
        last_has_ended.wait(60)
    if event.json() == 1:
        raise ValueError("one is not welcome")
    if event.json() == 3:
        last_has_ended.set()
    return event.json() * 10


met = []


@task(concurrency=4)
async def meets_in_a_loop(event, ctx):
    met.append(event.json())
    print(f"here is {event.json()}")
    while len(met) < 4:
        await asyncio.sleep(0.001)
    if event.json() == 2:
        raise evermill.Skip
    ctx.state.incr("met")
    return ctx.effect_key()


@task(concurrency=4)
async def second_of_loop_hangs(event):
    await asyncio.sleep(3600 if event.json() == 1 else 0)


@task(concurrency=4)
def second_of_threads_hangs(event):
    if event.json() == 1:
        time.sleep(3600)


@task(concurrency=4)
def third_of_threads_dies(event):
    if event.json() == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)


most_at_once = [0, 0]


@task(concurrency=3)
def counts_company(event):
    most_at_once[0] += 1
    most_at_once[1] = max(most_at_once)
    time.sleep(0.002)
    most_at_once[0] -= 1
    return most_at_once[1]


@evermill.dag
def cases():
    source = evermill.kafka("t")
    for each in (
        echo,
        describe,
        effect,
        own_pid,
        naps,
        third_raises,
        third_of_each_raises,
        third_skips,
        third_fails_for_good,
        rude,
        bottomless,
        third_exits,
        third_leaves,
        third_crashes,
        third_hangs,
        third_spins_deaf,
        is_deaf,
        together_hangs,
        slow_second,
        forks,
        leaves_children_and_exits,
        leaves_children_and_hangs,
        daemonises,
        unserialisable,
        huge,
        prints,
        floods_print,
        floods_descriptor,
        scribbles,
        asks,
        counts,
        pushes,
        recalls,
        waits_for_stop,
        progresses,
        is_async,
        together,
        together_raises,
        greets,
        is_greeted,
        where,
        eats,
        eats_freely,
        starves,
        yields,
        meets,
        meets_in_a_loop,
        second_of_loop_hangs,
        second_of_threads_hangs,
        third_of_threads_dies,
        counts_company,
    ):
        each(source)
    source >> silent()
