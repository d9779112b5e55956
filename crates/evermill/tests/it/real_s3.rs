//! Objects of S3 from the built binary, against a program that speaks as it does (`cargo xtask aws`
//! starts one).

use evermill_http::{Client, Connection, Method, Request, Target};
use serde_json::json;

use crate::process::{Place, Running};

/// The program's URL.
fn real() -> String {
    std::env::var("EVERMILL_TEST_SQS").unwrap_or_else(|_| {
        panic!("EVERMILL_TEST_SQS is not set: `cargo xtask aws` starts moto and prints its address")
    })
}

/// Makes a bucket, or an object of it.
fn put(path: &str, body: &str) {
    let client = Client::new(Connection::parse("test", &real()).unwrap()).unwrap();
    let mut request = Request::new(Method::PUT, Target::Below(path.to_owned()));
    let scope = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    request
        .headers
        .push(("authorization".to_owned(), scope.to_owned()));
    request.body = Some(body.as_bytes().to_vec());
    let response = client.send(&request).unwrap();
    assert_eq!(response.status, 200, "{path}");
}

/// Runs the DAG until nothing is left; its run and what the tasks said.
fn run(place: &Place, file: &str, text: &str) -> (serde_json::Value, Vec<String>) {
    let file = place.file(file, text);
    let connection = format!(
        "--connection=aws={}?access_key_id=a&secret_access_key=geheim",
        real()
    );
    let arguments = [
        "run",
        file.to_str().unwrap(),
        "--json",
        &connection,
        "--until-idle",
        "500ms",
    ];
    let ended = Running::start(&mut place.evermill(arguments)).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("geheim"));
    let said = ended
        .stderr
        .lines()
        .filter_map(|line| line.split_once("got ").map(|(_, said)| said.to_owned()));
    let mut said: Vec<_> = said.collect();
    said.sort();
    (ended.only_run(), said)
}

#[test]
fn each_version_of_an_object_is_an_event_once_over_restarts() {
    let bucket = format!("files-{}", std::process::id());
    let place = Place::new();
    put(&format!("/{bucket}"), "");
    for key in ["in/a.csv", "in/deep/b.csv", "in/c.txt", "out/d.csv"] {
        put(&format!("/{bucket}/{key}"), "1");
    }
    let text = format!(
        "
import evermill

@evermill.task
def show(event):
    print('got', event.json()['key'], event.json()['size'], event.path)

@evermill.dag
def objects():
    show(evermill.files('s3://{bucket}/in', pattern='**/*.csv', poke_interval=0.2))
"
    );
    let (first, said) = run(&place, "flow.py", &text);
    assert_eq!(first["done"], 2);
    assert_eq!(
        said,
        [
            format!("in/a.csv 1 s3://{bucket}/in/a.csv"),
            format!("in/deep/b.csv 1 s3://{bucket}/in/deep/b.csv")
        ]
    );
    // One is new, one is another version, one is as it was.
    put(&format!("/{bucket}/in/e.csv"), "1");
    put(&format!("/{bucket}/in/a.csv"), "22");
    let (second, said) = run(&place, "flow.py", &text);
    assert_eq!(
        (&second["in"], &second["done"]),
        (&json!(4), &json!(4)),
        "{second}"
    );
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("in/a.csv 2 ") && said[1].starts_with("in/e.csv 1 "),
        "{said:?}"
    );
    let (third, said) = run(&place, "flow.py", &text);
    assert_eq!((&third["done"], said.len()), (&json!(4), 0), "{third}");
}

/// Written, read back by a source of files, and written again over the same keys: nothing is there twice.
#[test]
fn results_become_objects_and_a_source_reads_them() {
    let bucket = format!("made-{}", std::process::id());
    put(&format!("/{bucket}"), "");
    for n in 1..=3 {
        put(&format!("/{bucket}/in/{n}"), &n.to_string());
    }
    let text = format!(
        "
import evermill

@evermill.task
def describe(event):
    return {{'key': event.json()['key'].split('/')[1], 'size': event.json()['size']}}

@evermill.dag
def objects():
    described = describe(evermill.files('s3://{bucket}/in', poke_interval=0.2))
    evermill.to_file('s3://{bucket}/out/ä {{/key}}.json', described)
"
    );
    for _ in 0..2 {
        let (written, _) = run(&Place::new(), "flow.py", &text);
        assert_eq!(
            (&written["done"], &written["parked"]),
            (&json!(3), &json!(0)),
            "{written}"
        );
    }
    let text = format!(
        "
import evermill

@evermill.task
def show(event):
    print('got', event.json()['key'], event.json()['size'])

@evermill.dag
def reader():
    show(evermill.files('s3://{bucket}/out', poke_interval=0.2))
"
    );
    let (_, said) = run(&Place::new(), "reader.py", &text);
    assert_eq!(
        said,
        ["out/ä 1.json 20", "out/ä 2.json 20", "out/ä 3.json 20"]
    );
}

#[test]
fn more_objects_than_one_page_holds_are_all_events() {
    let bucket = format!("pages-{}", std::process::id());
    let place = Place::new();
    put(&format!("/{bucket}"), "");
    // moto gives a thousand in a page.
    for n in 0..1_050 {
        put(&format!("/{bucket}/{n:04}"), "");
    }
    let text = format!(
        "dag: many\nsources: {{ in: {{ files: {{ path: 's3://{bucket}' }} }} }}\ntasks: {{ count: {{ after: in, run: 'true' }} }}\n"
    );
    let (all, _) = run(&place, "flow.yaml", &text);
    assert_eq!(all["done"], 1_050, "{all}");
}
