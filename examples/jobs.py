"""A queue in, a queue out: jobs from SQS, their results to another queue, a message gone only once it is kept."""

import evermill


@evermill.task(retries=3, timeout=30)
def work(event):
    job = event.json()
    return {"id": job["id"], "sum": sum(job["numbers"])}


@evermill.dag(tags=["jobs"])
def jobs():
    evermill.to_sqs("results", work(evermill.sqs("jobs")))
