"""When a wall clock shows a time, from 2011 to 2031, by zoneinfo: a line for each zone and cron expression, with the instants
in seconds since 1970. A time in a gap counts at the gap's end, one that comes twice the first time; both at one instant
count once, and a day that is left out whole has none."""

import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

FROM, TO = 1_293_926_400, 1_924_905_600
TIMES = {"30 2 * * *": (2, 30), "0 0 * * *": (0, 0), "45 1 * * 0": (1, 45)}


def instant(zone, local):
    first = int(local.replace(tzinfo=zone, fold=0).astimezone(timezone.utc).timestamp())
    if shown(zone, first) == local:
        return first
    # In a gap: it ends where the offset changes.
    before, after = first - 2 * 86_400, first + 2 * 86_400
    old = offset(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if offset(zone, middle) == old else (before, middle)
    is_left_out = shown(zone, after - 1).date() < local.date() < shown(zone, after).date()
    return None if is_left_out else after


def shown(zone, at):
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None)


def offset(zone, at):
    return datetime.fromtimestamp(at, zone).utcoffset()


def instants(zone, expr):
    hour, minute = TIMES[expr]
    day, end = datetime(2010, 12, 30, hour, minute), datetime(2031, 1, 4)
    found = set()
    while day < end:
        if not expr.endswith("0") or day.isoweekday() == 7:
            found.add(instant(zone, day))
        day += timedelta(days=1)
    return sorted(at for at in found if at and FROM <= at < TO)


for name in sys.argv[1:]:
    zone = ZoneInfo(name)
    for expr in TIMES:
        print(name, expr, " ".join(map(str, instants(zone, expr))), sep="\t")
