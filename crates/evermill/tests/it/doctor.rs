//! `evermill doctor` from the built binary: what is bad ends it with 1, what is risky is said.

use serde_json::Value;

use crate::process::Place;

#[test]
fn what_is_bad_and_what_is_risky_is_said_with_its_cure() {
    let place = Place::new();
    let well = place.finish(["doctor", "--format", "json"]);
    assert_eq!(well.code(), 0, "{}", well.stdout);
    let file = place.file(
        "flow.yaml",
        "dag: flow\nsources: { tick: { every: 100ms } }\ntasks:\n  often: { after: [tick], run: \"true\", retries: 1000 }\n",
    );
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = format!("kafka=127.0.0.1:{}", gone.local_addr().unwrap().port());
    drop(gone);
    let arguments = [
        "doctor",
        file.to_str().unwrap(),
        "--format",
        "json",
        "--connection",
        &connection,
    ];
    let ended = place.finish(arguments);
    assert_eq!(ended.code(), 1, "{}", ended.stdout);
    let found: Vec<Value> = ended.json();
    let about = |what: &str| {
        let one = found.iter().find(|one| one["what"] == what);
        let one = one.unwrap_or_else(|| panic!("nothing is said of {what}: {found:?}"));
        (
            one["level"].as_str().unwrap(),
            one["text"].as_str().unwrap(),
        )
    };
    assert_eq!(about("connection kafka_default").0, "bad");
    assert_eq!(about("flow.tick").0, "risk");
    assert!(about("flow.often").1.contains("1000"));
    assert_eq!(about("clock").0, "ok");
}
