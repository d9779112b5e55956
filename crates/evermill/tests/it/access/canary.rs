//! A secret that a task spills in every way it can, looked for in everything that a server tells and keeps.

use super::golden;
use crate::process::{Place, eventually};
use crate::secrets::{feed, leaks};
use crate::served::Served;

/// What is looked for, in the forms that [`leaks`] knows.
use crate::secrets::CANARY;

const SPILL: &str = r#"
import base64
import logging
import os
import sys
import traceback
import urllib.parse

import evermill


@evermill.task(secrets=["api_key"], connections=["shop"])
def spill(event, ctx):
    key = ctx.secret("api_key")
    print("printed", key)
    print("two pieces", key[:5], end="", flush=True)
    print(key[5:])
    sys.stderr.write(f"standard error {key}\n")
    logging.warning("logged %s", key)
    ctx.progress({"progress": key, key: 1})
    print("header", base64.b64encode(f"ada:{key}".encode()).decode())
    print("connection", ctx.connection("shop").url)
    os.environ["STOLEN"] = key
    print(dict(os.environ))
    sys.excepthook(ValueError, ValueError(key), None)
    try:
        raise KeyError(key)
    except KeyError:
        traceback.print_exc()
        raise RuntimeError("https://h/?q=" + urllib.parse.quote(key, safe=""))


@evermill.dag
def spilling():
    spill(evermill.signal("go"))
"#;

/// S10, K08: nothing that is told over HTTP, to those who listen as well, and nothing that is kept or copied, has it.
#[test]
fn k08_a_secret_is_in_no_answer_no_stream_no_metric_no_copy_and_no_record() {
    let place = Place::new();
    for (arguments, value) in [
        (&["secrets", "set", "api_key"], CANARY),
        (
            &["connections", "set", "shop"],
            "https://ada:secret:api_key@h.example/?header.X-Key=secret:api_key",
        ),
    ] {
        let (code, stderr) = feed(&place, arguments, &format!("{value}\n"));
        assert_eq!(code, 0, "{stderr}");
    }
    std::fs::create_dir(place.folder().join("dags")).unwrap();
    place.file("dags/spilling.py", SPILL);
    let served = Served::with(place, &[]);
    eventually("both DAGs run", || {
        (served.place.ps().len() == 2).then_some(())
    });
    let mut stream = served.listen("?run=spilling", None);
    let mut tail = served.listen_to("/api/v1/runs/spilling/logs/tail?cursor=0.0", None);
    served.send_to("spilling", "go");
    served.wait_for("/api/v1/runs/spilling", |run| run["parked"] == 1);
    let mut texts = Vec::new();
    loop {
        let event = stream.next();
        let is_last = event.name == "detail" && event.data["parked"] == 1;
        texts.push(("the stream".to_owned(), event.data.to_string()));
        if is_last {
            break;
        }
    }
    let mut tailed = String::new();
    while !tailed.contains("KeyError") {
        tailed += &tail.next().data.to_string();
    }
    // It came through, with stars in place of the secret.
    for said in [
        "printed ***",
        "standard error ***",
        "logged ***",
        "ada:***@h.example",
        "'STOLEN': '***'",
    ] {
        assert!(tailed.contains(said), "{said} in {tailed}");
    }
    texts.push(("the tail".to_owned(), tailed));
    let parked = served.get("/api/v1/runs/spilling/parked");
    let id = parked["entries"][0]["id"].as_str().unwrap();
    for (name, _) in golden() {
        let Some(path) = name.strip_prefix("GET ") else {
            continue;
        };
        if path.ends_with("/stream") || path.ends_with("/tail") {
            continue;
        }
        let path = path.replace("{run}", "spilling").replace("{id}", "shop");
        let path = path.replace("{name}", "nothing");
        let more = match path.rsplit('/').next() {
            Some("payload") => format!("?id={id}"),
            Some("activations" | "waits") => "?payload=true".to_owned(),
            Some("logs") => "?limit=1000".to_owned(),
            _ => String::new(),
        };
        let line = format!("GET /api/v1{path}{more}");
        let answer = served.ask(&line, &[], "");
        texts.push((line, String::from_utf8_lossy(&answer.body).into_owned()));
    }
    let metrics = served.ask("GET /metrics", &[], "");
    texts.push((
        "metrics".to_owned(),
        String::from_utf8_lossy(&metrics.body).into_owned(),
    ));
    // What is refused is said without what was sent.
    let wrong = format!("{{\"address\": \"secret:{CANARY}\"}}");
    let refused = served.ask("PUT /api/v1/connections/shop", &[], &wrong);
    assert_eq!(refused.status, 409);
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    texts.push(("what was refused".to_owned(), said));
    texts.push(("trying".to_owned(), {
        let tried = served.ask("POST /api/v1/connections/shop/test", &[], "");
        String::from_utf8_lossy(&tried.body).into_owned()
    }));
    texts.push(("the engine".to_owned(), served.said().join("\n")));
    for (what, text) in &texts {
        let has = text.contains("canary-7") || text.contains("canary%2D7");
        assert!(!has, "{what}: {text}");
    }
    let copy = served.place.folder().join("copy.db");
    let ended = served.place.finish(["backup", copy.to_str().unwrap()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let ended = served.place.finish(["audit"]);
    assert!(
        ended.stdout.contains("/connections/shop"),
        "{}",
        ended.stdout
    );
    let place = served.end();
    assert_eq!(leaks(place.folder()), Vec::<String>::new());
}
