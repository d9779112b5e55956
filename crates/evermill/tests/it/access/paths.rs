//! Every resource under every spelling that a router, a proxy and a filesystem may read differently, asked by
//! everybody who may not have it.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::{as_bearer, ask_as, golden, token};
use crate::process::{Place, eventually};
use crate::served::Served;

/// What `path` is called by those who hope that somebody else reads it than who guards it.
fn spellings(path: &str) -> Vec<String> {
    let (before, last) = path.rsplit_once('/').unwrap();
    let first = last.bytes().next().unwrap();
    let mut all: Vec<String> = [
        "",
        "/",
        "//",
        "/.",
        ".",
        ";x",
        ";/healthz",
        ".json",
        ".js",
        "/healthz",
        "/readyz",
        "/configs",
        "%00",
        "%20",
        "%2f",
        "%3f",
        "%23",
        "?/healthz",
        "?x=.css",
        "/../healthz",
        "/..;/healthz",
        "/%2e%2e/%2e%2e/healthz",
    ]
    .iter()
    .map(|end| format!("{path}{end}"))
    .collect();
    all.extend(
        [
            "/",
            "/.",
            "/healthz/..",
            "/healthz/%2e%2e",
            "/assets/..",
            "/hooks/..",
            "/hooks/a/b/../../..",
            "/hooks/%2e%2e",
            "/healthz;",
            "/metrics/..",
        ]
        .iter()
        .map(|begin| format!("{begin}{path}")),
    );
    all.extend([
        path.to_uppercase(),
        path.replacen("/api/", "/API/", 1),
        path.replacen("/v1/", "//v1/", 1),
        path.replacen("/v1/", "/v1/./", 1),
        path.replacen("/v1/", "/v1/x/../", 1),
        path.replacen("/v1/", "/v1/x/%2e%2e/", 1),
        path.replacen("/v1/", "%2fv1/", 1),
        path.replacen("/v1/", "/%76%31/", 1),
        path.replace('/', "\\"),
        format!("{before}//{last}"),
        format!("{before}/./{last}"),
        format!("{before}%2f{last}"),
        format!("{before}%252f{last}"),
        format!("{before}/%{first:02x}{}", &last[1..]),
        format!("{before}/%25{first:02x}{}", &last[1..]),
        format!("http://127.0.0.1{path}"),
        format!("http://127.0.0.1/healthz/..{path}"),
        format!("{before}/{last}\u{feff}"),
    ]);
    all
}

/// A path with names in place of the braces.
fn named(path: &str) -> String {
    let path = path.replace("{run}", "flow").replace("{dag}", "flow");
    let path = path.replace("{name}", "nothing").replace("{id}", "nothing");
    format!("/api/v1{}", path.replace("{number}", "99"))
}

/// Somebody, and the first rank of those who may do what he may not.
struct Caller {
    name: &'static str,
    token: String,
    rank: usize,
}

const RANKS: [&str; 4] = ["guest", "viewer", "operator", "admin"];

/// S02, K03, K04: whoever may not ask for a resource does not get it under another spelling either. Each spelling
/// is refused or not found, and nothing of it breaks.
#[test]
fn k04_no_spelling_of_a_path_opens_what_its_role_does_not() {
    let place = Place::new();
    let caller = |name, rank, more: &[&str]| Caller {
        name,
        token: token(&place, name, more),
        rank,
    };
    let mut callers = vec![
        caller("viewer", 1, &["--role", "viewer"]),
        caller("operator", 2, &["--role", "operator"]),
        caller("expired", 0, &["--role", "admin", "--expires", "1ms"]),
        caller("revoked", 0, &["--role", "admin"]),
    ];
    callers.push(Caller {
        name: "nobody",
        token: String::new(),
        rank: 0,
    });
    assert_eq!(place.finish(["token", "revoke", "revoked"]).code(), 0);
    let admin = token(&place, "admin", &["--role", "admin"]);
    let served = Served::with(place, &[]);
    let mut asked = 0_u32;
    for (name, (role, _)) in golden() {
        let (method, path) = name.split_once(' ').unwrap();
        let needed = RANKS.iter().position(|known| *known == role).unwrap();
        for caller in callers.iter().filter(|caller| caller.rank < needed) {
            for path in spellings(&named(path)) {
                let bearer = as_bearer(&caller.token);
                let headers = [
                    ("authorization", bearer.as_str()),
                    // What proxies say of a request counts for nothing here.
                    ("x-http-method-override", "GET"),
                    ("x-original-url", "/healthz"),
                    ("x-forwarded-for", "127.0.0.1"),
                ];
                let headers = &headers[usize::from(caller.token.is_empty())..];
                // Everybody asks for himself: who is refused too often is not looked at any more. A token is
                // heard so often and no more.
                asked += 1;
                let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + asked);
                let answer = eventually("it is heard", || {
                    let answer = served.ask_from(from, &format!("{method} {path}"), headers, "{}");
                    (answer.status != 429).then_some(answer)
                });
                let is_refused = matches!(answer.status, 400 | 401 | 403 | 404 | 405);
                assert!(
                    is_refused,
                    "{method} {path} as {}: {} {}",
                    caller.name,
                    answer.status,
                    String::from_utf8_lossy(&answer.body)
                );
            }
        }
    }
    assert!(asked > 5_000, "{asked}");
    let ended = served.place.finish(["audit", "--json", "--limit", "10000"]);
    let done: Vec<Value> = ended.json();
    let done = done.iter().filter(|line| line["from"] != "command");
    let done: Vec<_> = done
        .filter(|line| line["status"].as_u64() < Some(300))
        .collect();
    assert_eq!(done, Vec::<&Value>::new());
    let run = ask_as(&served, &admin, "GET /api/v1/runs/flow", "").json();
    assert_eq!(run["state"], "running");
}

/// S02.
#[test]
fn a_method_is_what_the_first_line_says() {
    let place = Place::new();
    let viewer = token(&place, "viewer", &[]);
    let admin = token(&place, "admin", &["--role", "admin"]);
    let served = Served::with(place, &[]);
    let pause = "/api/v1/runs/flow/pause";
    for method in [
        "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "Post", "POSTS",
        "PROPFIND",
    ] {
        for token in [&viewer, &admin] {
            let bearer = as_bearer(token);
            let headers = [
                ("authorization", bearer.as_str()),
                ("x-http-method-override", "POST"),
                ("x-method-override", "POST"),
                ("x-http-method", "POST"),
            ];
            for path in [pause.to_owned(), format!("{pause}?_method=POST")] {
                let answer = served.ask(&format!("{method} {path}"), &headers, "_method=POST");
                assert_eq!(answer.status, 405, "{method} {path}");
            }
        }
    }
    let run = ask_as(&served, &viewer, "GET /api/v1/runs/flow", "").json();
    assert_eq!(run["state"], "running");
}
