//! The API over TCP from the built binary: what it says of runs, what it tells those who listen, what it
//! refuses.

use serde_json::{Value, json};

use crate::served::Served;

#[test]
fn a_run_is_told_with_its_graph_its_activations_and_what_is_parked() {
    let served = Served::new();
    for message in ["good", "bad", "good"] {
        served.send(message);
    }
    let run = served.wait_for("/api/v1/runs/flow", |run| {
        run["done"] == 2 && run["parked"] == 1
    });
    let ids: Vec<&str> = run["graph"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["go", "first", "second"]);
    assert_eq!(run["graph"]["edges"], json!([[0, 1], [1, 2]]));
    assert_eq!(run["graph"]["queued"], json!([0, 0]));

    let all = served.get("/api/v1/runs/flow/activations?limit=2");
    assert_eq!(all["activations"].as_array().unwrap().len(), 2);
    assert_eq!(all["activations"][0]["payload"], json!([]));
    let cursor = all["next"].as_str().expect("there is one more");
    let rest = served.get(&format!("/api/v1/runs/flow/activations?cursor={cursor}"));
    assert_eq!(rest["activations"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], Value::Null);
    let bad = served.get("/api/v1/runs/flow/activations?task=first&state=parked&payload=true");
    assert_eq!(bad["activations"].as_array().unwrap().len(), 1);
    assert_eq!(bad["activations"][0]["payload"][0]["value"], "\"bad\"");

    let of_text = |text: &str| {
        let path = format!("/api/v1/runs/flow/activations?text={text}&payload=true");
        let found = served.get(&path)["activations"].clone();
        found.as_array().unwrap().len()
    };
    assert_eq!(of_text("%22bad"), 1, "in the event, and in the error");
    assert_eq!(of_text("nowhere"), 0);

    let timed = bad["activations"][0]["tasks"][0]["started_ms"].as_u64();
    let number = |name: &str| bad["activations"][0][name].as_u64().unwrap();
    let (arrived, settled) = (number("arrived_ms"), number("settled_ms"));
    assert!(
        timed.is_some_and(|began| arrived <= began && began <= settled),
        "{bad}"
    );

    let parked = served.get("/api/v1/runs/flow/parked");
    let id = parked["entries"][0]["id"].as_str().unwrap();
    let place = format!("/api/v1/runs/flow/parked/payload?id={id}");
    let seen = served.ask(&format!("GET {place}"), &[], "");
    let tag = seen.header("etag").expect("it can be changed").to_owned();
    let change = |tag: &str, body: &str| {
        let answer = served.ask(&format!("PUT {place}"), &[("if-match", tag)], body);
        answer.status
    };
    assert_eq!(change("\"other\"", "\"good\""), 412);
    assert_eq!(change(&tag, "\"good\""), 200);
    assert_eq!(
        change(&tag, "\"bad\""),
        412,
        "it is not any more what was seen"
    );
    let retry = served.ask("POST /api/v1/runs/flow/parked/retry", &[], "{}");
    assert_eq!(retry.json()["count"], 1);
    served.wait_for("/api/v1/runs/flow", |run| run["done"] == 3);
}

#[test]
fn who_listens_hears_what_changes_and_who_comes_back_what_he_missed() {
    let served = Served::new();
    let mut stream = served.listen("?run=flow", None);
    let first = stream.next();
    assert_eq!(first.name, "snapshot");
    assert_eq!(first.data["runs"][0]["dag"], "flow");
    assert_eq!(stream.next().name, "detail");
    let told = stream.next();
    assert_eq!(told.name, "told");
    served.send("good");
    let run = stream.until(|event| event.name == "run" && event.data["done"] == 1);
    assert_eq!(run.data["in"], 1);
    stream.until(|event| event.name == "detail" && event.data["done"] == 1);
    let last = stream.until(|event| event.name == "told").id.unwrap();
    drop(stream);

    served.send("good");
    served.wait_for("/api/v1/runs/flow", |run| run["done"] == 2);
    let mut back = served.listen("", Some(&last));
    let first = back.next();
    assert_ne!(first.name, "snapshot", "nothing is told twice");
    let run = match first.name.as_str() {
        "run" => first,
        _ => back.until(|event| event.name == "run"),
    };
    assert_eq!(run.data["done"], 2);
    let mut lost = served.listen("", Some("1-1"));
    assert_eq!(lost.next().name, "snapshot", "another process's id");
}

/// S21.
#[test]
fn what_is_wrong_with_a_request_is_said_as_a_problem() {
    let served = Served::new();
    type Headers = [(&'static str, &'static str)];
    let cases: [(&str, &Headers, u16, &str); 9] = [
        ("GET /api/v1/nothing", &[], 404, "unknown_resource"),
        ("GET /api/v1/runs/nobody", &[], 404, "unknown_run"),
        (
            "GET /api/v1/runs/flow/activations?limit=x",
            &[],
            400,
            "bad_request",
        ),
        ("GET /api/v1/runs?colour=red", &[], 400, "bad_request"),
        ("POST /api/v1/runs", &[], 405, "wrong_method"),
        ("TRACE /api/v1/runs", &[], 405, "wrong_method"),
        (
            "GET /api/v1/runs",
            &[("host", "evil.example")],
            421,
            "wrong_host",
        ),
        (
            "POST /api/v1/runs/flow/stop",
            &[("origin", "https://evil.example")],
            403,
            "foreign_origin",
        ),
        (
            "POST /api/v1/runs/flow/stop",
            &[("origin", "null")],
            403,
            "foreign_origin",
        ),
    ];
    for (line, headers, status, code) in cases {
        let answer = served.ask(line, headers, "");
        assert_eq!(
            (answer.status, answer.json()["code"].as_str().unwrap()),
            (status, code),
            "{line}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let post = served.ask("POST /api/v1/runs", &[], "");
    assert_eq!(post.header("allow"), Some("GET"));
    // Nothing of that has stopped it.
    assert_eq!(served.get("/api/v1/runs/flow")["state"], "running");
    assert_eq!(served.place.ps()[0]["state"], "running");
}
