"""DAGs by chance, always the same ones: every rule, branches, short circuits, mapping, tries and policies.

The engine and `evermill.testing.run` both run them; `testing.rs` compares what came of it. Run by itself,
as `python flows.py`, this file prints what the latter says, in the shape of `run --json`.
"""

import json
import random

import evermill
from evermill._option import TRIGGER_RULES

COUNT = 60


def answer(seed, name, number):
    """What try `number` of a task does: decided by chance, and the same for everybody."""
    dice = random.Random(f"{seed}/{name}/{number}")
    return dice.choices(("value", "nothing", "fails", "gives up", "skips"), (40, 25, 20, 5, 10))[0]


def body(seed, name, kind, below):
    def work(ctx, item=None):
        what = answer(seed, f"{name}/{item}", ctx.try_number)
        if what == "fails":
            raise ValueError(name)
        if what == "gives up":
            raise evermill.Fail(name)
        if what == "skips":
            raise evermill.Skip(name)
        dice = random.Random(f"{seed}/{name}/result")
        if kind == "branch":
            return [id for id in below if dice.random() < 0.5]
        if kind == "short_circuit":
            return dice.random() < 0.7
        return list(range(dice.randint(0, 3))) if what == "value" else None

    return work


def declare(seed):
    dice = random.Random(seed)
    names = [f"t{number}" for number in range(dice.randint(2, 9))]
    above = {name: [other for other in names[:at] if dice.random() < 0.4] for at, name in enumerate(names)}

    @evermill.dag(name=f"flow{seed}", on_failure=dice.choice(("park", "drop", "stop")))
    def flow():
        made = {}
        for name in names:
            kind = dice.choices(("call", "branch", "short_circuit"), (70, 15, 15))[0]
            below = [other for other in names if name in above[other]]
            options = dict(name=name, retries=dice.randint(0, 2), retry_delay="1ms")
            if above[name]:
                options["trigger_rule"] = dice.choice(TRIGGER_RULES)
            if dice.random() < 0.3:
                options["on_failure"] = dice.choice(("park", "drop"))
            decorate = {"call": evermill.task, "branch": evermill.task.branch, "short_circuit": evermill.task.short_circuit}
            task = decorate[kind](body(seed, name, kind, below), **options)
            lists = [made[other] for other in above[name] if made[other].kind == "call" and not made[other].mapped]
            if kind == "call" and lists and dice.random() < 0.3:
                made[name] = task.expand(item=dice.choice([lists[0], [10, 20]]))
            else:
                made[name] = task()
            for other in above[name]:
                made[other] >> made[name]


for number in range(COUNT):
    declare(number)


def attempts(end):
    """Attempts of a task by how they ended."""
    found = {"succeeded": 0, "skipped": 0, "failed": 0}
    for one in end.instances or [end]:
        if one.tries:
            found["failed"] += one.tries - (one.state != "failed")
            found["succeeded"] += one.state == "success"
            found["skipped"] += one.state == "skipped"
    return found


if __name__ == "__main__":
    from evermill.testing import load, run

    for number in range(COUNT):
        dag = load(__file__, f"flow{number}")
        result = run(dag)
        ends = result.activations[0].tasks
        tasks = [{"id": task.id, **attempts(ends[task.id])} for task in dag.tasks()]
        counts = {name: getattr(result, name) for name in ("done", "skipped", "parked", "dropped")}
        print(json.dumps({"dag": dag.id, **counts, "tasks": tasks}))
