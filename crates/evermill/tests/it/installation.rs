//! What belongs to an installation and not to an engine, over the API: connections, tokens, the record.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::process::Place;
use crate::served::{Answer, Served};

fn served() -> Served {
    Served::with(Place::new(), &["--connection", "given=127.0.0.1:1"])
}

fn ask(served: &Served, line: &str, body: &Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    served.ask(line, &[], &body)
}

const WAREHOUSE: &str = "/api/v1/connections/warehouse";

#[test]
fn a_connection_is_set_tried_and_forgotten_and_its_password_never_comes_out() {
    let served = served();
    let there = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = there.local_addr().unwrap();
    let address = json!({"address": format!("postgresql://app:hunter2hunter2@{place}/sales")});
    let put = format!("PUT {WAREHOUSE}");
    let set = ask(&served, &put, &address);
    assert_eq!(set.status, 200);
    let one = ask(&served, &format!("GET {WAREHOUSE}"), &Value::Null);
    let tag = one.header("etag").unwrap().to_owned();
    assert_eq!(
        one.json()["address"],
        format!("postgresql://app:***@{place}/sales")
    );
    assert_eq!(one.json()["from"], "connections set");
    assert_eq!(
        served.get("/api/v1/connections").as_array().unwrap().len(),
        2
    );

    let tried = ask(&served, &format!("POST {WAREHOUSE}/test"), &Value::Null);
    assert_eq!(tried.json()["well"], true, "{:?}", tried.json());
    let tried = ask(&served, "POST /api/v1/connections/given/test", &Value::Null);
    assert_eq!(tried.json()["well"], false, "{:?}", tried.json());

    // Another password looks the same, and is another state all the same.
    let other = json!({"address": format!("postgresql://app:othersecret@{place}/sales")});
    let with_tag = |body: &Value| served.ask(&put, &[("if-match", &tag)], &body.to_string());
    assert_eq!(with_tag(&other).status, 200);
    assert_eq!(with_tag(&address).status, 412);

    let all = [
        ask(&served, "GET /api/v1/connections", &Value::Null),
        ask(&served, "GET /api/v1/audit", &Value::Null),
    ];
    for answer in all {
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            !text.contains("hunter2") && !text.contains("othersecret"),
            "{text}"
        );
    }
    let forgotten = ask(&served, &format!("DELETE {WAREHOUSE}"), &Value::Null);
    assert_eq!(forgotten.json().as_array().unwrap().len(), 1);
    let gone = ask(&served, &format!("DELETE {WAREHOUSE}"), &Value::Null);
    assert_eq!(gone.status, 404);
    let gone = ask(&served, &format!("POST {WAREHOUSE}/test"), &Value::Null);
    assert_eq!(gone.status, 404);
}

#[test]
fn over_the_api_an_address_cannot_have_what_lies_here_sent_elsewhere() {
    let served = served();
    std::fs::write(served.place.folder().join("key"), "of the house").unwrap();
    let file = format!("file:{}/key", served.place.folder().display());
    for address in [
        "secret:api_key".to_owned(),
        "env:HOME".to_owned(),
        file.clone(),
        "https://me:secret%3Aapi_key@evil.example/".to_owned(),
        format!("https://evil.example/?header.x={file}"),
        String::new(),
    ] {
        let answer = ask(
            &served,
            &format!("PUT {WAREHOUSE}"),
            &json!({"address": address}),
        );
        assert_eq!(answer.status, 409, "{address}: {:?}", answer.json());
    }
    let answer = ask(
        &served,
        "PUT /api/v1/connections/a%2Fb",
        &json!({"address": "a:1"}),
    );
    assert_eq!(answer.status, 409);
    assert_eq!(
        served.get("/api/v1/connections").as_array().unwrap().len(),
        1
    );
}

#[test]
fn a_token_is_made_shown_once_and_taken_back() {
    let served = served();
    let wanted = json!({"name": "anna", "role": "admin"}).to_string();
    let key = [("idempotency-key", "k1")];
    let made = served.ask("POST /api/v1/tokens", &key, &wanted);
    assert_eq!(made.status, 200);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let id = made.json()["token"]["id"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {secret}");
    let anna = [("authorization", bearer.as_str()), key[0]];
    // From now on everybody needs one; the request sent again does not tell it again.
    assert_eq!(served.ask("GET /api/v1/tokens", &[], "").status, 401);
    let again = served.ask("POST /api/v1/tokens", &anna, &wanted);
    assert_eq!(again.status, 409, "{:?}", again.json());
    let listed = served.ask("GET /api/v1/tokens", &anna, "");
    assert_eq!(listed.json()[0]["name"], "anna");
    assert!(
        !String::from_utf8(listed.body)
            .unwrap()
            .contains(&secret[9..])
    );
    for wrong in [
        json!({"name": "x", "role": "guest"}),
        json!({"name": " ", "role": "viewer"}),
        json!({"name": "x".repeat(200), "role": "viewer"}),
        json!({"name": "x", "role": "viewer", "secret": "mine"}),
    ] {
        let answer = served.ask("POST /api/v1/tokens", &anna[..1], &wrong.to_string());
        assert_eq!(answer.status, 400, "{wrong}");
    }
    let revoke = format!("DELETE /api/v1/tokens/{id}");
    assert_eq!(served.ask(&revoke, &anna, "").status, 200);
    assert_eq!(served.ask("GET /api/v1/tokens", &anna, "").status, 401);
}

#[test]
fn what_commands_change_without_a_server_is_on_record_in_one_chain_with_what_servers_do() {
    let served = served();
    let pause = "POST /api/v1/runs/flow/pause";
    assert_eq!(ask(&served, pause, &Value::Null).status, 200);
    // While it runs ...
    let set = served
        .place
        .finish(["connections", "set", "other", "127.0.0.1:2"]);
    assert_eq!(set.code(), 0, "{}", set.stderr);
    assert_eq!(ask(&served, pause, &Value::Null).status, 200);
    let place = served.end();
    // ... and at rest, also what was refused, and not what only looks.
    assert_eq!(place.finish(["resume", "flow"]).code(), 0);
    assert_eq!(place.finish(["trigger", "flow"]).code(), 1);
    assert_eq!(place.finish(["show", "flow"]).code(), 0);
    let some = place.finish([
        "audit",
        "--json",
        "--refused",
        "--what",
        "trigger",
        "--since",
        "1h",
    ]);
    assert_eq!(some.json().len(), 1, "{}", some.stdout);
    let told = place.finish(["audit", "--json"]);
    assert_eq!(told.code(), 0, "one chain: {}", told.stderr);
    let lines: Vec<Value> = told.json();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let field = |name: &str| line[name].as_str().unwrap().to_owned();
            (
                field("from"),
                field("method"),
                field("target"),
                line["status"].as_u64().unwrap(),
            )
        })
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(from, method, target, status)| (&**from, &**method, &**target, *status))
        .collect();
    assert_eq!(
        told,
        [
            ("127.0.0.1", "POST", "/api/v1/runs/flow/pause", 200),
            ("command", "PUT", "/api/v1/connections/other", 200),
            ("127.0.0.1", "POST", "/api/v1/runs/flow/pause", 200),
            ("command", "POST", "/api/v1/runs/flow/resume", 200),
            ("command", "POST", "/api/v1/runs/flow/trigger", 409),
        ]
    );
    assert!(lines[3]["who"].as_str().unwrap().starts_with("uid "));
}

#[test]
fn the_record_is_filtered_and_its_pages_stay_where_they_are_while_it_grows() {
    let served = served();
    for order in ["pause", "resume", "pause", "trigger"] {
        let line = format!("POST /api/v1/runs/flow/{order}");
        ask(&served, &line, &Value::Null);
    }
    let targets = |page: &Value| -> Vec<String> {
        let entries = page["entries"].as_array().unwrap().iter();
        let target = |entry: &Value| entry["target"].as_str().unwrap().to_owned();
        let last = |target: String| target.rsplit('/').next().unwrap().to_owned();
        entries.map(target).map(last).collect()
    };
    let first = served.get("/api/v1/audit?limit=2");
    assert_eq!(targets(&first), ["trigger", "pause"]);
    ask(&served, "POST /api/v1/runs/flow/resume", &Value::Null);
    let next = first["next"].as_u64().unwrap();
    let second = served.get(&format!("/api/v1/audit?limit=2&cursor={next}"));
    assert_eq!(targets(&second), ["resume", "pause"]);
    assert_eq!(second["next"], Value::Null);
    let refused = served.get("/api/v1/audit?refused=true");
    assert_eq!(targets(&refused), ["trigger"]);
    let pauses = served.get("/api/v1/audit?what=pause&who=local");
    assert_eq!(targets(&pauses), ["pause", "pause"]);
    assert_eq!(targets(&served.get("/api/v1/audit?who=anna")).len(), 0);
    let wrong = ask(&served, "GET /api/v1/audit?cursor=x", &Value::Null);
    assert_eq!(wrong.status, 400);
}
