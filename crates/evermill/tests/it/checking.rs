//! `evermill check`: what it draws, what it reports, and that the faults of one file hide nothing of another.

use serde_json::Value;

use crate::process::Place;

const GOOD: &str = r#"import evermill

@evermill.task(retries=2, retry_delay="1s")
def load(event):
    return 1

@evermill.task
def left(load):
    pass

@evermill.task
def right(load):
    pass

@evermill.task(trigger_rule="all_done")
def close():
    pass

@evermill.dag(order="key")
def good():
    loaded = load(evermill.kafka("orders"))
    [left(loaded), right(loaded)] >> close()
"#;

const BROKEN: &str = r#"import evermill

@evermill.task(retires=3)
def load(event):
    pass

@evermill.dag(order="keys")
def broken():
    load(evermill.kafka("orders", group="x"))
"#;

#[test]
fn a_dag_is_drawn_with_its_edges_and_the_options_that_matter() {
    let place = Place::new();
    place.file("good.py", GOOD);
    let ended = place.finish(["check", "good.py", "--connection", "kafka=127.0.0.1:9"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let expected = "\
good  good.py:19
  order key · after failure park

  ◉           kafka  kafka topic orders · from latest · connection kafka_default
  │
  ●           load   retries 2 after 1s
  ├─▶●──╮     left
  ╰─▶●──┤     right
        ●     close  rule all_done";
    let drawn: Vec<&str> = ended.stdout.lines().map(str::trim_end).collect();
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        squeezed(&drawn.join("\n")),
        squeezed(expected),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stderr.trim(), "1 file, 1 DAG: nothing is wrong");
    assert!(!place.data_dir().exists());
}

#[test]
fn every_fault_of_a_folder_comes_at_once_and_good_files_are_drawn() {
    let place = Place::new();
    std::fs::create_dir_all(place.folder().join("dags/lib")).unwrap();
    place.file("dags/good.py", GOOD);
    place.file("dags/broken.py", BROKEN);
    place.file("dags/same.py", GOOD);
    place.file("dags/lib/shared.py", "import evermill\nLIMIT = 3\n");
    let ended = place.finish(["check", "dags", "--format", "json"]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    let files = report["files"].as_array().expect("a list");
    let named: Vec<_> = files
        .iter()
        .map(|file| file["file"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["dags/broken.py", "dags/good.py", "dags/same.py"]);
    let found = |file: usize| -> Vec<_> {
        let faults = files[file]["faults"].as_array().unwrap().iter();
        let of = |fault: &Value| {
            (
                fault["code"].as_str().unwrap().to_owned(),
                fault["line"].as_u64().unwrap(),
            )
        };
        faults.map(of).collect()
    };
    let expected = [
        ("unknown_option", 3),
        ("bad_value", 7),
        ("unknown_option", 9),
    ];
    assert_eq!(
        found(0),
        expected.map(|(code, line)| (code.to_owned(), line))
    );
    assert!(
        found(2).contains(&("duplicate_id".to_owned(), 19)),
        "{report}"
    );
    assert_eq!(
        (&report["errors"], &report["format"]),
        (&4.into(), &1.into())
    );
    let dag = &files[1]["dags"][0];
    assert_eq!(
        dag["layers"],
        serde_json::json!([["kafka"], ["load"], ["left", "right"], ["close"]])
    );
    assert!(
        !place.folder().join("dags/__pycache__").exists(),
        "check left something behind"
    );
}

#[test]
fn warnings_fail_only_under_strict() {
    let place = Place::new();
    place.file("good.py", GOOD);
    let ended = place.finish(["check", "good.py"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("warning: ") && ended.stderr.contains("[unknown_connection]"),
        "{}",
        ended.stderr
    );
    assert_eq!(place.finish(["check", "good.py", "--strict"]).code(), 3);
}

#[test]
fn pictures_are_whole_and_name_every_node() {
    let place = Place::new();
    place.file("good.py", GOOD);
    for (format, begins, ends) in [
        ("svg", "<svg xmlns", "</svg>"),
        ("dot", "digraph evermill {", "}"),
    ] {
        let drawn = place
            .finish(["check", "good.py", "--format", format])
            .stdout;
        assert!(
            drawn.starts_with(begins) && drawn.trim_end().ends_with(ends),
            "{drawn}"
        );
        for id in ["kafka", "load", "left", "right", "close"] {
            assert!(drawn.contains(id), "no {id} in {drawn}");
        }
    }
}
