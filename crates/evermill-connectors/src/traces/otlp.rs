//! What a collector is told: `ExportTraceServiceRequest` in the JSON form of OTLP, where ids are hexadecimal and 64-bit
//! numbers are texts.
//!
//! ```text
//! the span of others      (`traceparent` of the event, if it has one)
//!  └ orders kafka         from the event's arrival to the commit of its end
//!     ├ load              from the first dispatch of the task to its last outcome
//!     ├ notify
//!     └ commit            from the last outcome to the end of the commit
//! ```

use evermill_contract::trace::{Traced, TracedTask, text};
use serde_json::{Value, json};

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_CONSUMER`.
const INTERNAL: u8 = 1;
const CONSUMER: u8 = 5;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// The body of a request.
pub(super) fn request(service: &str, traced: &[Traced]) -> Vec<u8> {
    let spans: Vec<Value> = traced.iter().flat_map(spans).collect();
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": [string("service.name", service)] },
        "scopeSpans": [{
            "scope": { "name": "evermill", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
        }],
    }]});
    serde_json::to_vec(&request).expect("keys are texts")
}

/// Spans that an answer says were not taken, with why.
pub(super) fn refused(answer: &[u8]) -> Option<(u64, String)> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected = &partial["rejectedSpans"];
    let count = rejected
        .as_u64()
        .or_else(|| rejected.as_str()?.parse().ok());
    let why = partial["errorMessage"]
        .as_str()
        .unwrap_or("it does not say why");
    count
        .filter(|count| *count > 0)
        .map(|count| (count, why.to_owned()))
}

fn spans(traced: &Traced) -> Vec<Value> {
    let place = traced.place();
    let trace = text(
        &traced
            .parent
            .map_or_else(|| place.trace(), |parent| parent.trace),
    );
    // What runs again after it had been parked, and each of several activations of an event, is its own.
    let once = traced.round == 0 && traced.child == 0;
    let id = |what: Option<&str>| match once {
        true => text(&place.span(what)),
        false => {
            let what = what.unwrap_or_default();
            let what = format!("{what}\n{}\n{}", traced.child, traced.round);
            text(&place.span(Some(&what)))
        }
    };
    let root = id(None);
    let mut whole = span(
        (
            &trace,
            &root,
            traced.parent.map(|parent| text(&parent.span)),
        ),
        &format!("{} {}", traced.dag, traced.source),
        CONSUMER,
        (traced.arrived_us, traced.committed_us),
    );
    whole["attributes"] = json!([
        string("evermill.dag", &traced.dag),
        string("evermill.run", &traced.run),
        string("evermill.version", &traced.version),
        string("evermill.source", &traced.source),
        string("evermill.lane", &traced.lane),
        number("evermill.position", traced.position),
        string("evermill.ended", traced.ended),
    ]);
    let failed = traced.tasks.iter().find(|task| task.state == "failed");
    if matches!(traced.ended, "parked" | "dropped") {
        let why = failed.map(|task| format!("{} failed", task.task));
        whole["status"] = json!({ "code": ERROR, "message": why.unwrap_or_default() });
    }
    let mut spans = vec![whole];
    for task in &traced.tasks {
        let ids = (trace.as_str(), id(Some(&task.task)), Some(root.clone()));
        spans.push(of_task((ids.0, &ids.1, ids.2), task));
    }
    // A task's id has no line feed.
    let commit = id(Some("\ncommit"));
    spans.push(span(
        (&trace, &commit, Some(root)),
        "commit",
        INTERNAL,
        (traced.settled_us, traced.committed_us),
    ));
    spans
}

fn of_task(ids: (&str, &str, Option<String>), task: &TracedTask) -> Value {
    let mut span = span(ids, &task.task, INTERNAL, (task.begun_us, task.ended_us));
    span["attributes"] = json!([
        string("evermill.task", &task.task),
        string("evermill.state", task.state),
        number("evermill.tries", u64::from(task.tries)),
    ]);
    if let Some(error) = task.error.as_ref().filter(|_| task.state == "failed") {
        span["status"] = json!({ "code": ERROR, "message": error });
    }
    span
}

/// Ids are those of the trace, of the span and of its parent.
fn span(
    (trace, id, parent): (&str, &str, Option<String>),
    name: &str,
    kind: u8,
    (begun_us, ended_us): (u64, u64),
) -> Value {
    // Clocks may be set back meanwhile; a span does not end before it begins.
    let ended_us = ended_us.max(begun_us);
    let mut span = json!({
        "traceId": trace,
        "spanId": id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": (begun_us * 1_000).to_string(),
        "endTimeUnixNano": (ended_us * 1_000).to_string(),
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = parent.into();
    }
    span
}

fn string(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use evermill_contract::trace::TraceParent;

    pub(in crate::traces) fn traced(position: u64) -> Traced {
        Traced {
            dag: "orders".to_owned(),
            run: "orders-1".to_owned(),
            version: "0d5a".to_owned(),
            source: "kafka".to_owned(),
            lane: "orders/3".to_owned(),
            position,
            child: 0,
            round: 0,
            ended: "done",
            parent: None,
            arrived_us: 1_000_000,
            settled_us: 4_000_000,
            committed_us: 4_200_000,
            tasks: vec![TracedTask {
                task: "load".to_owned(),
                state: "success",
                tries: 1,
                begun_us: 1_500_000,
                ended_us: 4_000_000,
                error: None,
            }],
        }
    }

    fn told(traced: &Traced) -> Vec<Value> {
        let body = request("me", std::slice::from_ref(traced));
        let request: Value = serde_json::from_slice(&body).unwrap();
        let resource = &request["resourceSpans"][0];
        let service = &resource["resource"]["attributes"][0];
        assert_eq!(service["value"]["stringValue"], "me");
        resource["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap()
            .clone()
    }

    #[test]
    fn a_trace_goes_from_the_source_over_its_tasks_to_the_commit() {
        let spans = told(&traced(7));
        let names: Vec<_> = spans.iter().map(|span| &span["name"]).collect();
        assert_eq!(names, ["orders kafka", "load", "commit"]);
        assert!(spans[0].get("parentSpanId").is_none());
        for span in &spans {
            assert_eq!(span["traceId"], spans[0]["traceId"]);
            assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
            assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
        }
        for span in &spans[1..] {
            assert_eq!(span["parentSpanId"], spans[0]["spanId"]);
        }
        assert_eq!(spans[0]["startTimeUnixNano"], "1000000000");
        assert_eq!(spans[2]["startTimeUnixNano"], "4000000000");
        assert_eq!(spans[2]["endTimeUnixNano"], "4200000000");
        assert_ne!(told(&traced(8))[0]["traceId"], spans[0]["traceId"]);
    }

    #[test]
    fn the_span_of_others_is_the_parent() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = TraceParent::parse(given.as_bytes());
        let spans = told(&Traced {
            parent,
            ..traced(7)
        });
        assert_eq!(spans[0]["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(spans[1]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        let handed_on = traced(7).place().of_task("load", parent).to_string();
        assert!(handed_on.contains(spans[1]["spanId"].as_str().unwrap()));
    }

    #[test]
    fn a_failure_is_an_error_with_its_reason() {
        let mut failed = traced(7);
        failed.ended = "parked";
        failed.tasks[0].state = "failed";
        failed.tasks[0].tries = 3;
        failed.tasks[0].error = Some("ValueError: no".to_owned());
        let spans = told(&failed);
        assert_eq!(spans[0]["status"]["code"], 2);
        assert_eq!(spans[0]["status"]["message"], "load failed");
        assert_eq!(spans[1]["status"]["message"], "ValueError: no");
        assert_eq!(spans[1]["attributes"][2]["value"]["intValue"], "3");
    }

    #[test]
    fn what_runs_again_after_it_was_parked_has_spans_of_its_own() {
        let ids = |round| {
            let spans = told(&Traced { round, ..traced(7) });
            spans
                .iter()
                .map(|span| span["spanId"].to_string())
                .collect::<Vec<_>>()
        };
        assert!(ids(0).iter().all(|id| !ids(1).contains(id)));
    }

    #[test]
    fn spans_that_a_collector_refuses_are_counted() {
        let answer = br#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#;
        assert_eq!(refused(answer), Some((2, "too old".to_owned())));
        assert_eq!(refused(b"{\"partialSuccess\":{}}"), None);
        assert_eq!(refused(b"{}"), None);
        assert_eq!(refused(b""), None);
    }
}
