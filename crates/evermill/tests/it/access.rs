//! Who may do what over TCP, from the built binary: every resource with every kind of caller, against a table
//! that is kept by hand (`tests/access.txt`).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Place, eventually};
use crate::served::{Answer, Served};

mod answers;
mod canary;
mod inside;
mod paths;
mod slow;

/// Makes a token; what it is.
fn token(place: &Place, name: &str, more: &[&str]) -> String {
    let arguments = ["token", "create", name];
    let ended = place.finish(arguments.iter().chain(more));
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    ended.stdout.trim().to_owned()
}

fn as_bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Asks as somebody; nobody when the token is empty.
fn ask_as(served: &Served, token: &str, line: &str, body: &str) -> Answer {
    let bearer = as_bearer(token);
    let headers: &[(&str, &str)] = match token {
        "" => &[],
        _ => &[("authorization", &bearer)],
    };
    served.ask(line, headers, body)
}

/// `METHOD path` to the role and what it belongs to, as the table has it.
fn golden() -> BTreeMap<String, (String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/access.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let [method, path, role, of] = words[..] else {
            panic!("four words: {row}");
        };
        (format!("{method} {path}"), (role.to_owned(), of.to_owned()))
    })
    .collect()
}

/// S02, S04, K04.
#[test]
fn every_resource_lets_in_whom_the_table_says_and_nobody_else() {
    let place = Place::new();
    let admin = token(&place, "admin", &["--role", "admin"]);
    let operator = token(&place, "operator", &["--role", "operator"]);
    let viewer = token(&place, "viewer", &[]);
    let other = token(&place, "other", &["--role", "operator", "--dag", "other"]);
    let expired = token(&place, "expired", &["--role", "admin", "--expires", "1ms"]);
    let revoked = token(&place, "revoked", &["--role", "admin"]);
    assert_eq!(place.finish(["token", "revoke", "revoked"]).code(), 0);
    let served = Served::with(place, &[]);
    let golden = golden();
    let document = ask_as(&served, &viewer, "GET /api/v1/openapi.json", "").json();
    let mut seen = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let name = format!("{} {path}", method.to_uppercase());
            let (role, of) = golden
                .get(&name)
                .unwrap_or_else(|| panic!("{name} has no row in tests/access.txt: who may do it?"));
            // A run and a pool that are not there: whoever is let in does no harm. What ends a session, and
            // what takes long or stays open, is not asked for.
            let path = path.replace("{run}", "flow").replace("{dag}", "flow");
            let path = path
                .replace("{id}", "nothing")
                .replace("{source}", "nothing");
            let path = path.replace("{name}", "nothing").replace("{number}", "99");
            let harmless = ["/stop", "/drain", "/stream", "/tail", "/verify"];
            let is_harmless = !harmless.iter().any(|end| path.ends_with(end));
            let line = format!("{} /api/v1{path}", method.to_uppercase());
            let callers = [
                (&String::new(), 0),
                (&viewer, 1),
                (&operator, 2),
                (&admin, 3),
            ];
            let needed = match role.as_str() {
                "guest" => 0,
                "viewer" => 1,
                "operator" => 2,
                "admin" => 3,
                other => panic!("{other} is no role"),
            };
            for (token, rank) in callers {
                if rank >= needed && !is_harmless {
                    continue;
                }
                // Strangers are heard so often and no more, and there are more resources than that.
                let answer = eventually("it is heard", || {
                    let answer = ask_as(&served, token, &line, "{}");
                    (answer.status != 429).then_some(answer)
                });
                let expected = match rank {
                    _ if rank >= needed => None,
                    0 => Some(401),
                    _ => Some(403),
                };
                let shut_out = matches!(answer.status, 401 | 403).then_some(answer.status);
                if name != "POST /session" {
                    assert_eq!(shut_out, expected, "{line} as rank {rank}");
                }
            }
            // A stream lets him in, tells him of his own DAGs, and does not end.
            if needed > 0 && !path.ends_with("/stream") {
                let answer = ask_as(&served, &other, &line, "{}");
                let status = answer.status;
                match of.as_str() {
                    "dag" if needed <= 2 => assert_eq!(status, 404, "{line} of another DAG"),
                    "engine" => assert_eq!(status, 403, "{line} with some DAGs only"),
                    _ => {}
                }
            }
            seen.push(name);
        }
    }
    let missing: Vec<&String> = golden.keys().filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no such resource: {missing:?}");
    for bad in [&expired, &revoked, &"evermill_guess".to_owned()] {
        assert_eq!(ask_as(&served, bad, "GET /api/v1/runs", "").status, 401);
    }
    // Nothing of that has changed the run.
    let run = ask_as(&served, &viewer, "GET /api/v1/runs/flow", "").json();
    assert_eq!(run["dag"], "flow");
}

/// S04.
#[test]
fn who_may_see_some_dags_sees_no_others_however_they_are_called() {
    let place = Place::new();
    std::fs::create_dir_all(place.folder().join("dags")).unwrap();
    // Beginnings of each other, other letters that look the same, and one that is called as a run of another.
    let dags = ["a", "aa", "a_", "a-1", "A", "\u{430}", "\u{e1}"];
    for (number, dag) in dags.into_iter().enumerate() {
        let flow = crate::served::FLOW.replace("dag: flow", &format!("dag: {dag:?}"));
        std::fs::write(place.folder().join(format!("dags/{number}.yaml")), flow).unwrap();
    }
    let admin = token(&place, "admin", &["--role", "admin"]);
    let narrow: Vec<(&str, String)> = ["a", "a-1", "\u{430}"]
        .into_iter()
        .map(|dag| {
            (
                dag,
                token(&place, dag, &["--role", "operator", "--dag", dag]),
            )
        })
        .collect();
    let served = Served::with(place, &[]);
    eventually("every DAG runs", || {
        (served.place.ps().len() == dags.len() + 1).then_some(())
    });
    let runs_of = |token: &str| -> Vec<(String, String)> {
        let told = ask_as(&served, token, "GET /api/v1/runs", "").json();
        let runs = told["runs"].as_array().unwrap().iter();
        let text = |run: &Value, field: &str| run[field].as_str().unwrap().to_owned();
        runs.map(|run| (text(run, "dag"), text(run, "run")))
            .collect()
    };
    let runs = runs_of(&admin);
    for (mine, token) in &narrow {
        assert!(runs_of(token).iter().all(|(dag, _)| dag == mine), "{mine}");
        // The run of DAG `a` is called `a-1`, as another DAG is: the engine takes the name for the run.
        let is_mine = |name: &str| {
            let meant = runs.iter().find(|(_, run)| run == name);
            let meant = meant.or_else(|| runs.iter().find(|(dag, _)| dag == name));
            meant.unwrap().0 == *mine
        };
        for name in runs.iter().flat_map(|(dag, run)| [dag, run]) {
            let path: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
            for line in [
                format!("GET /api/v1/runs/{path}"),
                format!("POST /api/v1/runs/{path}/pause"),
                format!("GET /api/v1/runs/{path}/logs"),
            ] {
                let status = ask_as(&served, token, &line, "").status;
                let expected = if is_mine(name) { 200 } else { 404 };
                assert_eq!(status, expected, "{name} for {mine}: {line}");
            }
        }
    }
}

/// S03.
#[test]
fn a_token_that_is_revoked_is_worth_nothing_with_the_next_request() {
    let place = Place::new();
    let secret = token(&place, "ci", &["--role", "operator"]);
    let served = Served::with(place, &[]);
    let bearer = as_bearer(&secret);
    let headers = [("authorization", bearer.as_str())];
    let used = || served.place.finish(["token", "ls", "--json"]).json()[0]["last_used_ms"].clone();
    assert_eq!(used(), Value::Null);
    assert_eq!(served.ask("GET /api/v1/runs", &headers, "").status, 200);
    assert!(used().is_u64(), "{}", used());
    assert_eq!(served.ask("GET /metrics", &[], "").status, 401);
    let metrics = served.ask("GET /metrics", &headers, "");
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(
        text.contains("evermill_run_state{dag=\"flow\",state=\"running\"} 1"),
        "{text}"
    );
    for public in ["GET /healthz", "GET /readyz"] {
        let answer = served.ask(public, &[], "");
        assert_eq!(answer.status, 200, "{public}");
        assert_eq!(answer.json().as_object().unwrap().len(), 1, "no details");
    }
    assert_eq!(served.place.finish(["token", "revoke", "ci"]).code(), 0);
    assert_eq!(served.ask("GET /api/v1/runs", &headers, "").status, 401);
    // The commands of this machine's owner need none.
    assert_eq!(served.place.ps().len(), 1);
    let found = Command::new("grep")
        .args(["-r", "-l", secret.strip_prefix("evermill_").unwrap()])
        .arg(served.place.folder())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(found.stdout).unwrap(),
        "",
        "the token is nowhere"
    );
}

/// S05, K05.
#[test]
fn a_browser_has_a_session_and_only_our_own_page_may_use_it() {
    let place = Place::new();
    let secret = token(&place, "me", &["--role", "operator"]);
    let served = Served::with(place, &[]);
    let own = format!("http://{}", served.address);
    let guest = served.ask("GET /api/v1/session", &[], "").json();
    assert_eq!(
        guest,
        json!({"name": "nobody", "role": "guest", "dags": null, "required": true})
    );
    let body = json!({"token": secret}).to_string();
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(
        served.ask("POST /api/v1/session", &foreign, &body).status,
        403
    );
    let wrong = served.ask("POST /api/v1/session", &[], "{\"token\": \"guess\"}");
    assert_eq!(wrong.status, 401);
    let begun = served.ask("POST /api/v1/session", &[("origin", &own)], &body);
    assert_eq!(begun.json()["role"], "operator");
    let cookie = begun.header("set-cookie").unwrap();
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap();
    assert!(!cookie.contains(&secret[9..]));
    let with = |line: &str, more: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie)], more].concat();
        served.ask(line, &headers, "").status
    };
    assert_eq!(with("GET /api/v1/runs", &[]), 200);
    let pause = "POST /api/v1/runs/flow/pause";
    assert_eq!(
        with(pause, &[]),
        403,
        "a form of another page says no Origin"
    );
    assert_eq!(with(pause, &[("origin", "null")]), 403);
    assert_eq!(with(pause, &[("origin", "http://127.0.0.1:1")]), 403);
    assert_eq!(with(pause, &[("origin", &own)]), 200);
    assert_eq!(with("DELETE /api/v1/session", &[("origin", &own)]), 200);
    assert_eq!(with("GET /api/v1/runs", &[]), 401);
}

/// S03, K11: what is open ends with the token, and with the session that it was opened by.
#[test]
fn a_stream_ends_with_the_token_or_session_that_opened_it() {
    let place = Place::new();
    let secret = token(&place, "anna", &[]);
    let other = token(&place, "otto", &[]);
    let served = Served::with(place, &[]);
    let bearer = |token: &str| format!("authorization: {}", as_bearer(token));
    let (anna, otto) = (bearer(&secret), bearer(&other));
    let own = format!("http://{}", served.address);
    let body = json!({"token": other}).to_string();
    let begun = served.ask("POST /api/v1/session", &[("origin", &own)], &body);
    let cookie = begun
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let cookie = format!("cookie: {cookie}");
    let listen = |header: &str| {
        let header = header.split_once(": ").unwrap();
        let tail = served.listen_with("/api/v1/runs/flow/logs/tail", &[header]);
        (served.listen_with("/api/v1/stream", &[header]), tail)
    };
    let (of_anna, of_otto, of_page) = (listen(&anna), listen(&otto), listen(&cookie));
    let headers = [cookie.split_once(": ").unwrap(), ("origin", own.as_str())];
    assert_eq!(
        served.ask("DELETE /api/v1/session", &headers, "").status,
        200
    );
    of_page.0.end();
    of_page.1.end();
    assert_eq!(served.place.finish(["token", "revoke", "anna"]).code(), 0);
    of_anna.0.end();
    of_anna.1.end();
    // Who is still known hears on.
    let (mut stream, _tail) = of_otto;
    stream.until(|event| event.name == "told");
    assert_eq!(served.place.finish(["pause", "flow"]).code(), 0);
    stream.until(|event| event.name == "run" && event.data["state"] == "paused");
}

/// S17.
#[test]
fn what_was_changed_is_on_record_with_who_and_what_a_key_has_done_is_not_done_again() {
    let place = Place::new();
    let secret = token(&place, "anna", &["--role", "operator"]);
    let served = Served::with(place, &[]);
    let bearer = as_bearer(&secret);
    let headers = [
        ("authorization", bearer.as_str()),
        ("idempotency-key", "k1"),
    ];
    let pause = "POST /api/v1/runs/flow/pause";
    let first = served.ask(pause, &headers, "");
    assert_eq!(first.status, 200);
    assert_eq!(served.place.finish(["resume", "flow"]).code(), 0);
    // Sent again, it is answered as before and pauses nothing.
    assert_eq!(served.ask(pause, &headers, "").body, first.body);
    assert_eq!(served.place.ps()[0]["state"], "running");
    assert_eq!(
        served.ask(pause, &headers, "{}").status,
        422,
        "another request, the same key"
    );
    let refused = served.ask("POST /api/v1/verify", &headers[..1], "");
    assert_eq!(refused.status, 403);
    let ended = served.place.finish(["audit", "--json"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let lines: Vec<Value> = ended.json();
    let told = |line: &Value| {
        let field = |name: &str| line[name].as_str().unwrap().to_owned();
        (
            field("who"),
            field("target"),
            line["status"].as_u64().unwrap(),
        )
    };
    let told: Vec<_> = lines.iter().map(told).collect();
    let made = &told[0];
    assert!(
        made.0.starts_with("uid ") && made.1.starts_with("/api/v1/tokens"),
        "{told:?}"
    );
    assert_eq!(
        told[1],
        ("anna".to_owned(), "/api/v1/runs/flow/pause".to_owned(), 200)
    );
    assert!(
        told[2].0.starts_with("uid ") && told[2].1.ends_with("/resume"),
        "{told:?}"
    );
    let record = std::fs::read_to_string(served.place.data_dir().join("audit.log")).unwrap();
    let forged = record.replace("anna", "otto");
    std::fs::write(served.place.data_dir().join("audit.log"), forged).unwrap();
    let ended = served.place.finish(["audit"]);
    assert_eq!(ended.code(), 1, "{}", ended.stdout);
    assert!(ended.stderr.contains("line 3"), "{}", ended.stderr);
}

/// S13: whoever guesses is told to wait; who has a token is let in from the same address, which may be that of a
/// proxy and so everybody's.
#[test]
fn guessing_tokens_ends_soon_and_shuts_out_nobody_who_has_one() {
    let place = Place::new();
    let secret = token(&place, "me", &[]);
    let served = Served::with(place, &[]);
    let guess = || ask_as(&served, "evermill_guess", "GET /api/v1/runs", "");
    let statuses: Vec<u16> = (0..11).map(|_| guess().status).collect();
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10], 429);
    assert_eq!(guess().header("retry-after"), Some("1"));
    let good = ask_as(&served, &secret, "GET /api/v1/runs", "");
    assert_eq!(good.status, 200);
    let log_in = |token: &str| {
        let body = json!({"token": token}).to_string();
        served.ask("POST /api/v1/session", &[], &body).status
    };
    assert_eq!((log_in("evermill_guess"), log_in(&secret)), (429, 200));
    let elsewhere = std::net::Ipv4Addr::new(127, 0, 0, 2);
    let bearer = as_bearer("evermill_guess");
    let headers = [("authorization", bearer.as_str())];
    let answer = served.ask_from(elsewhere, "GET /api/v1/runs", &headers, "");
    assert_eq!(answer.status, 401, "each address is counted by itself");
}

/// S01.
#[test]
fn what_can_be_reached_from_elsewhere_needs_a_token_first() {
    let place = Place::new();
    std::fs::create_dir(place.folder().join("dags")).unwrap();
    for more in [
        ["--listen", "0.0.0.0:0"],
        ["--public-url", "https://jobs.example"],
    ] {
        let ended = place.finish(["serve"].iter().chain(&more));
        assert_eq!(ended.code(), 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("token create"), "{}", ended.stderr);
        assert!(ended.stderr.contains(more[0]), "{}", ended.stderr);
    }
    let secret = token(&place, "me", &[]);
    let served = Served::with(place, &["--public-url", "https://jobs.example/mill"]);
    let bearer = as_bearer(&secret);
    let headers = [("authorization", bearer.as_str()), ("host", "jobs.example")];
    assert_eq!(
        served.ask("GET /mill/api/v1/runs", &headers, "").status,
        200
    );
    assert_eq!(served.ask("GET /api/v1/runs", &headers, "").status, 404);
    // Who leaves out the slash is sent on, as the page's own files are named without their folder.
    for (line, place) in [
        ("GET /mill", Some("/mill/")),
        ("HEAD /mill?x=%0a", Some("/mill/?x=%0a")),
        ("POST /mill", None),
        ("GET /mill/", None),
    ] {
        let answer = served.ask(line, &[("host", "jobs.example")], "");
        let moved = (answer.status == 308).then(|| answer.header("location").unwrap());
        assert_eq!(moved, place, "{line}: {}", answer.status);
    }
    assert_eq!(
        served.ask("GET /millet/api/v1/runs", &headers, "").status,
        404
    );
    assert_eq!(served.ask("GET /healthz", &[], "").status, 200);
    let body = json!({"token": secret}).to_string();
    let own = [("host", "inside:4700"), ("origin", "https://jobs.example")];
    let begun = served.ask("POST /mill/api/v1/session", &own, &body);
    let cookie = begun.header("set-cookie").unwrap();
    assert!(
        cookie.contains("; Path=/mill/;") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
}

/// S18.
#[test]
fn with_a_certificate_it_speaks_tls_and_nothing_else() {
    let golden = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../evermill-http/golden");
        path.join(name).display().to_string()
    };
    let (certificate, key) = (golden("localhost.pem"), golden("localhost.key.pem"));
    let place = Place::new();
    std::fs::create_dir(place.folder().join("dags")).unwrap();
    let swapped = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        &key,
        "--tls-key",
        &key,
    ];
    let ended = place.finish(swapped);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("localhost.key.pem"),
        "{}",
        ended.stderr
    );
    let served = Served::with(place, &["--tls-cert", &certificate, "--tls-key", &key]);
    let port = served.address.rsplit_once(':').unwrap().1;
    let address = format!("https://localhost:{port}?ca={certificate}");
    let connection = evermill_http::Connection::parse("http_default", &address).unwrap();
    let target = evermill_http::Target::Below("/api/v1/runs".to_owned());
    let request = evermill_http::Request::new(evermill_http::Method::GET, target);
    let answer = evermill_http::Client::new(connection)
        .unwrap()
        .send(&request)
        .unwrap();
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["runs"][0]["dag"], "flow");
    // Who speaks in the clear gets nothing.
    let mut clear = served.open("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut clear, &mut said).ok();
    assert!(!said.starts_with(b"HTTP/"), "{said:?}");
}
