//! The API over TCP from the built binary: what it says of runs, what it tells those who listen, what it
//! refuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Place, Running};

const FLOW: &str = "dag: flow\nsources: { go: { signal: go } }\ntasks:\n  first: { after: [go], run: \"grep -qv bad\" }\n  second: { after: [first], run: \"cat > /dev/null\" }\n";

/// How long the server may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one DAG, and where it answers.
struct Served {
    place: Place,
    _running: Running,
    address: String,
}

/// What came back: status, headers in lower case, body.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(found, value)| (found == name).then_some(value.as_str()))
    }
}

fn head(reader: &mut impl std::io::BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => return (status, headers),
        }
    }
}

impl Served {
    fn new() -> Self {
        let place = Place::new();
        std::fs::create_dir(place.folder().join("dags")).unwrap();
        std::fs::write(place.folder().join("dags/flow.yaml"), FLOW).unwrap();
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--workers", "1"];
        let running = Running::start(&mut place.evermill(arguments));
        const SAID: &str = "serving dags on http://";
        running.wait_for_lines(SAID, 1);
        let lines = running.said();
        let line = lines.iter().find_map(|line| line.split_once(SAID)).unwrap();
        let address = line.1.split(';').next().unwrap().to_owned();
        let served = Self {
            place,
            _running: running,
            address,
        };
        served.wait_for("/api/v1/runs/flow", |run| run["state"] == "running");
        served
    }

    fn open(&self, request: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        BufReader::new(stream)
    }

    fn ask(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut reader = self.open(&format!(
            "{text}content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let (status, headers) = head(&mut reader);
        let mut body = Vec::new();
        reader.read_to_end(&mut body).unwrap();
        Answer {
            status,
            headers,
            body,
        }
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask(&format!("GET {path}"), &[], "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        answer.json()
    }

    /// Asks until it is so.
    fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(&format!("GET {path}"), &[], "").json();
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path}: {answer}");
        }
    }

    fn send(&self, message: &str) {
        let body = format!("\"{message}\"");
        let answer = self.ask("POST /api/v1/runs/flow/signals/go", &[], &body);
        assert_eq!(answer.status, 200, "{}", answer.json());
    }

    fn listen(&self, query: &str, last: Option<&str>) -> Stream {
        let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let text = format!(
            "GET /api/v1/stream{query} HTTP/1.1\r\nhost: {}\r\n{last}\r\n",
            self.address
        );
        let mut reader = self.open(&text);
        let (status, headers) = head(&mut reader);
        assert_eq!(status, 200);
        let kind = headers.iter().find(|(name, _)| name == "content-type");
        assert_eq!(kind.unwrap().1, "text/event-stream");
        Stream { reader }
    }
}

/// Events as they come.
struct Stream {
    reader: BufReader<TcpStream>,
}

struct Event {
    id: Option<String>,
    name: String,
    data: Value,
}

impl Stream {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event; sizes of chunks stand between.
    fn next(&mut self) -> Event {
        let (mut id, mut name) = (None, String::new());
        loop {
            let line = self.line();
            if let Some(found) = line.strip_prefix("id: ") {
                id = Some(found.to_owned());
            } else if let Some(found) = line.strip_prefix("event: ") {
                found.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(data).unwrap();
                return Event { id, name, data };
            }
        }
    }

    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next();
            if wanted(&event) {
                return event;
            }
        }
    }
}

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

#[test]
fn what_is_wrong_with_a_request_is_said_as_a_problem() {
    let served = Served::new();
    let cases: [(&str, &[(&str, &str)], u16, &str); 9] = [
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
