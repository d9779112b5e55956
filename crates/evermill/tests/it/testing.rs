//! `evermill.testing.run` says of a DAG what the engine makes of it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::Place;

/// Of a run, what both of them know.
fn told(run: &Value) -> Value {
    let task = |task: &Value| {
        json!([
            task["id"],
            task["succeeded"],
            task["skipped"],
            task["failed"]
        ])
    };
    let tasks: Vec<_> = run["tasks"].as_array().unwrap().iter().map(task).collect();
    json!([
        run["dag"],
        run["done"],
        run["skipped"],
        run["parked"],
        run["dropped"],
        tasks
    ])
}

#[test]
fn dags_by_chance_end_in_pytest_as_they_end_in_the_engine() {
    let place = Place::new();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let flows = here.join("tests/it/testing/flows.py");
    let ended = place.finish(["run".as_ref(), flows.as_os_str(), "--json".as_ref()]);
    let of_engine: Vec<_> = ended.json().iter().map(told).collect();
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let walked = Command::new(python)
        .arg(&flows)
        .env("PYTHONPATH", here.join("../../python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    let errors = String::from_utf8_lossy(&walked.stderr);
    assert!(walked.status.success(), "{errors}");
    let lines = String::from_utf8(walked.stdout).unwrap();
    let of_walk: Vec<_> = lines
        .lines()
        .map(|line| told(&serde_json::from_str(line).unwrap()))
        .collect();
    assert_eq!(
        (of_engine.len(), of_walk.len()),
        (60, 60),
        "{}",
        ended.stderr
    );
    for (engine, walk) in of_engine.iter().zip(&of_walk) {
        assert_eq!(engine, walk);
    }
}
