"""A simulation that runs until a state is reached: the same as `long_running_simulation.py`, lap by lap.

Each lap is an activation of its own, durable when it ends. A crash costs the lap that was under way; what the
laps before it left in `ctx.state` is there. `until` is asked after each lap; once it says yes the run is finished.
"""

import evermill

WARM_ENOUGH = 20.0


@evermill.task(retries=2, retry_delay="1s")
def simulate(event, ctx):
    temperature = ctx.state.get("temperature", 15.0)
    temperature += 0.5
    ctx.state.set("temperature", temperature)
    print(f"lap {event.position}: {temperature} degrees")
    return temperature


def is_warm_enough(simulate):
    return simulate >= WARM_ENOUGH


@evermill.dag(tags=["simulation"])
def simulation():
    simulate(evermill.loop(delay="200ms", until=is_warm_enough))
