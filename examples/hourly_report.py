"""A clock: what is due each hour, on the wall clock of Berlin, also where daylight saving time begins and ends.

An hour that passed while nobody listened is made up for: `catchup="all"`. Each fires once.
"""

import evermill


@evermill.task(retries=3, retry_delay="10s")
def report(event):
    print(f"the hour until {event.timestamp:%Y-%m-%d %H:%M} UTC is over")


@evermill.dag(tags=["reports"])
def hourly_report():
    report(evermill.cron("0 * * * *", timezone="Europe/Berlin", catchup="all", name="full_hour"))
