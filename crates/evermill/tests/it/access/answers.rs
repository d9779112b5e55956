//! What every answer says and never says, and what every change leaves on record.

use serde_json::Value;

use super::{as_bearer, ask_as, golden, token};
use crate::process::{Place, eventually};
use crate::served::{Answer, Served};

/// What nobody should hear of: where things are, what is inside, what broke.
fn is_telling(answer: &Answer, place: &Place) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let place = place.folder().display().to_string();
    let insides = [
        place.as_str(),
        "/etc/",
        "/var/",
        "/usr/",
        "/proc/",
        "src/",
        ".rs:",
        ".sqlite",
        "SELECT ",
        "INSERT ",
        "panicked",
        "unwrap()",
        "RUST_BACKTRACE",
        "thread '",
        "Traceback",
    ];
    let found = insides.iter().find(|inside| text.contains(**inside));
    found.map(|inside| format!("{inside:?} in {text}"))
}

/// What browsers are told with every answer.
fn is_dressed(answer: &Answer) -> Result<(), String> {
    let policy = answer.header("content-security-policy").unwrap_or_default();
    for rule in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        if !policy.contains(rule) {
            return Err(format!("no {rule} in {policy:?}"));
        }
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
    ] {
        if answer.header(name) != Some(value) {
            return Err(format!("{name}: {:?}", answer.header(name)));
        }
    }
    let told = answer.headers.iter().find(|(name, _)| {
        // Nobody else's page reads us, and nobody needs to know what we are made of.
        name.starts_with("access-control-") || name == "server" || name == "x-powered-by"
    });
    match told {
        Some((name, value)) => Err(format!("{name}: {value}")),
        None => Ok(()),
    }
}

/// What stands in the place of names and in bodies for those who hope that somebody takes it for more than text.
const HOSTILE: [&str; 12] = [
    "'",
    "'; DROP TABLE run; --",
    "\" OR 1=1",
    "../../evil/passwd",
    "..\\..\\x",
    "/evil/passwd",
    "{{7*7}}${7*7}",
    "a\0b",
    "\u{202e}\u{feff}",
    "%s%n%x",
    "<script>alert(1)</script>",
    "-1e999",
];

fn quoted(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// S06, S21, K12: whatever is asked, by an admin as well, each answer forbids browsers everything, none breaks,
/// and none tells of the inside.
#[test]
fn no_answer_tells_of_the_inside_and_each_says_what_browsers_may() {
    let place = Place::new();
    let admin = token(&place, "admin", &["--role", "admin"]);
    let served = Served::with(place, &[]);
    let document = ask_as(&served, &admin, "GET /api/v1/openapi.json", "").json();
    for name in golden().keys() {
        let (method, path) = name.split_once(' ').unwrap();
        // What goes on, takes long, or would end the session or the run.
        let spared = ["/stream", "/tail", "/verify", "/backup", "/session"];
        if spared.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        let described = &document["paths"][path][method.to_lowercase()]["parameters"];
        let parameters = described.as_array().into_iter().flatten();
        let parameters: Vec<&str> = parameters
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        for (number, hostile) in HOSTILE.into_iter().enumerate() {
            let hidden = quoted(hostile);
            let mut line = format!("{method} /api/v1");
            for part in path.split('/').skip(1) {
                let part = if part.starts_with('{') { &hidden } else { part };
                line += &format!("/{part}");
            }
            // Each parameter in its turn, and all of them together.
            let chosen = parameters.get(number % (parameters.len() + 1));
            let chosen = chosen.map_or(parameters.as_slice(), std::slice::from_ref);
            let chosen: Vec<_> = chosen
                .iter()
                .map(|name| format!("{name}={hidden}"))
                .collect();
            line += &format!("?{}", chosen.join("&"));
            let json = Value::from(hostile).to_string();
            let bodies = [
                format!("{{\"token\": {json}, \"name\": {json}, \"address\": {json}}}"),
                format!("{{\"name\": \"{number}\", \"role\": {json}}}"),
                hostile.to_owned(),
            ];
            let answer = ask_as(&served, &admin, &line, &bodies[number % bodies.len()]);
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(answer.status < 500, "{line}: {text}");
            assert_eq!(is_telling(&answer, &served.place), None, "{line}");
            assert_eq!(is_dressed(&answer), Ok(()), "{line}");
            let media = answer.header("content-type").unwrap();
            assert!(media.starts_with("application/"), "{line}: {media}");
        }
    }
    for (line, token, expected) in [
        ("GET /healthz", "", 200),
        ("GET /readyz", "", 200),
        ("GET /metrics", &*admin, 200),
        ("GET /metrics", "", 401),
        ("GET /api/v1/session", "", 200),
        ("GET /api/v1/runs", "evermill_guess", 401),
        ("GET /../../evil/passwd", "", 404),
        ("GET /assets/%2e%2e/%2e%2e/evil/passwd", "", 404),
        ("POST /hooks/nobody/nothing", "", 404),
        ("OPTIONS /api/v1/runs", &admin, 405),
        ("GET / HTTP/1.0\r\nx:", "", 200),
    ] {
        let answer = ask_as(&served, token, line, "");
        assert_eq!(answer.status, expected, "{line}");
        assert_eq!(is_telling(&answer, &served.place), None, "{line}");
        let is_page = line.starts_with("GET / ");
        if !is_page {
            assert_eq!(is_dressed(&answer), Ok(()), "{line}");
        }
    }
}

/// S05: a browser that asks first whether another page may, hears no.
#[test]
fn k05_no_other_page_is_told_that_it_may_ask() {
    let place = Place::new();
    let admin = token(&place, "admin", &["--role", "admin"]);
    let served = Served::with(place, &[]);
    let bearer = as_bearer(&admin);
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "file://",
    ] {
        for method in ["OPTIONS", "POST", "GET"] {
            let headers = [
                ("origin", origin),
                ("authorization", bearer.as_str()),
                ("access-control-request-method", "POST"),
                ("content-type", "text/plain"),
            ];
            let answer = served.ask(&format!("{method} /api/v1/runs/flow/pause"), &headers, "");
            assert_eq!(answer.status, 403, "{method} from {origin}");
            assert_eq!(is_dressed(&answer), Ok(()), "{method} from {origin}");
        }
    }
    assert_eq!(served.place.ps()[0]["state"], "running");
}

/// S17: one row for each, also for what was refused; nothing that was sent is in it.
#[test]
fn each_resource_that_changes_something_leaves_one_row_on_record() {
    let place = Place::new();
    let admin = token(&place, "admin", &["--role", "admin"]);
    let viewer = token(&place, "viewer", &[]);
    let served = Served::with(place, &[]);
    let record = || {
        let ended = served.place.finish(["audit", "--json", "--limit", "10000"]);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended.json()
    };
    let before = record().len();
    let mut expected: Vec<(String, String, u64)> = Vec::new();
    for (name, (role, _)) in golden() {
        let (method, path) = name.split_once(' ').unwrap();
        if method == "GET" || role == "guest" {
            continue;
        }
        // Of a run that is not there, so that nothing ends; a copy and a check are of the engine.
        let path = format!("/api/v1{path}");
        let path = path.replace("{run}", "none").replace("{dag}", "none");
        let path = path.replace("{name}", "none").replace("{id}", "none");
        let path = path.replace("{number}", "1");
        for (who, token) in [("admin", &admin), ("viewer", &viewer)] {
            let line = format!("{method} {path}");
            let answer = ask_as(&served, token, &line, "{\"secret\": \"canary-9d1e\"}");
            expected.push((who.to_owned(), line, answer.status.into()));
        }
    }
    let rows = record();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    let told = rows[before..].iter().map(|row| {
        let line = format!("{} {}", text(row, "method"), text(row, "target"));
        assert_eq!(row["from"], "127.0.0.1");
        (text(row, "who"), line, row["status"].as_u64().unwrap())
    });
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert!(expected.len() > 40, "{}", expected.len());
    let kept = std::fs::read_to_string(served.place.data_dir().join("audit.log")).unwrap();
    assert!(!kept.contains("canary-9d1e"));
}

/// S17: a session begins and ends on record.
#[test]
fn who_logs_in_and_out_is_on_record() {
    let place = Place::new();
    let secret = token(&place, "anna", &["--role", "operator"]);
    let served = Served::with(place, &[]);
    let own = format!("http://{}", served.address);
    let body = serde_json::json!({"token": secret}).to_string();
    let begun = served.ask("POST /api/v1/session", &[("origin", &own)], &body);
    let cookie = begun.header("set-cookie").unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let headers = [("cookie", cookie), ("origin", own.as_str())];
    assert_eq!(
        served.ask("DELETE /api/v1/session", &headers, "").status,
        200
    );
    let rows = served
        .place
        .finish(["audit", "--who", "anna", "--json"])
        .json();
    let methods: Vec<&str> = rows
        .iter()
        .map(|row| row["method"].as_str().unwrap())
        .collect();
    assert_eq!(methods, ["POST", "DELETE"]);
    // Who is nobody ends nothing, and is no row.
    assert_eq!(served.ask("DELETE /api/v1/session", &[], "").status, 200);
    assert_eq!(
        served
            .place
            .finish(["audit", "--who", "nobody", "--json"])
            .stdout,
        ""
    );
}

/// S22: a payload, a result and a line of a log that are a page come as JSON, and no browser takes them for a page.
#[test]
fn a_payload_that_is_a_page_is_served_as_data() {
    let served = Served::new();
    const PAGE: &str = "<!doctype html><script>document.title = 'evil'</script> bad";
    served.send(PAGE);
    served.wait_for("/api/v1/runs/flow", |run| run["parked"] == 1);
    let parked = served.get("/api/v1/runs/flow/parked");
    let id = parked["entries"][0]["id"].as_str().unwrap();
    let payload = format!("GET /api/v1/runs/flow/parked/payload?id={id}");
    let past = "GET /api/v1/runs/flow/activations?payload=true";
    for line in [&payload, past] {
        let answer = eventually("it holds the page", || {
            let answer = served.ask(line, &[], "");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            text.contains("doctype").then_some(answer)
        });
        assert_eq!(is_dressed(&answer), Ok(()), "{line}");
        let media = answer.header("content-type").unwrap();
        assert!(
            matches!(
                media,
                "application/json" | "application/octet-stream" | "text/plain; charset=utf-8"
            ),
            "{line}: {media}"
        );
    }
}
