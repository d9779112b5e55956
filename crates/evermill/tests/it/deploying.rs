//! `deploy/`: what is there fits this binary. What systemd and promtool say of it is in `cargo xtask test --only api`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Place, Running};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    let path = repository().join("deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics that the binary tells, with their labels.
fn told() -> BTreeMap<String, Vec<String>> {
    let said = Place::new().finish(["api", "metrics", "--json"]).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let labels = |metric: &Value| {
        metric["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect()
    };
    said.iter()
        .map(|metric| (text(&metric["name"]), labels(metric)))
        .collect()
}

/// Names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("evermill_") || word.starts_with("process_"))
        .collect()
}

/// Names of labels that a text shows: `{{ $labels.dag }}` of Prometheus, `{{dag}}` of Grafana.
fn labels_in(text: &str) -> impl Iterator<Item = &str> {
    let inner = text
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split("}}").next());
    inner.filter_map(|inside| match inside.trim().strip_prefix("$labels.") {
        Some(label) => Some(label),
        None => (!inside.contains('$')).then_some(inside.trim()),
    })
}

#[test]
fn rules_and_dashboard_ask_for_metrics_and_labels_that_the_binary_tells() {
    let told = told();
    // What Prometheus adds.
    let given = ["job", "instance"];
    let labels: BTreeSet<&str> = told.values().flatten().map(String::as_str).collect();
    for name in [
        "prometheus/evermill.rules.yml",
        "prometheus/evermill.test.yml",
        "grafana/evermill.json",
    ] {
        let text = read(name);
        let asked = metrics_in(&text);
        assert!(asked.len() > 9, "{name}: {asked:?}");
        for metric in asked {
            assert!(
                told.contains_key(metric),
                "{name}: there is no metric {metric}"
            );
        }
        for label in labels_in(&text) {
            let known = labels.contains(label) || given.contains(&label);
            assert!(known, "{name}: no metric has a label {label}");
        }
    }
}

#[test]
fn every_alert_has_an_example_of_when_it_is_told_and_when_not() {
    let rules = read("prometheus/evermill.rules.yml");
    let examples = read("prometheus/evermill.test.yml");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for alert in alerts {
        count += 1;
        let silent = examples.contains(&format!("{{ alertname: {alert}, eval_time:"));
        let told = examples.contains(&format!("- alertname: {alert}\n"));
        assert!(
            silent && told,
            "evermill.test.yml has no example of {alert}"
        );
    }
    assert!(count > 9, "only {count} alerts were found");
}

/// S24, S15: what the unit keeps from the engine and from what its tasks start.
#[test]
fn the_unit_leaves_no_dump_and_no_right_that_is_not_needed() {
    let unit = read("systemd/evermill.service");
    for line in [
        "LimitCORE=0",
        "UMask=0077",
        "StateDirectoryMode=0700",
        "User=evermill",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    let listens = unit.lines().find(|line| line.starts_with("ExecStart="));
    assert!(
        listens.unwrap().contains("--listen 127.0.0.1:"),
        "{listens:?}"
    );
}

#[test]
fn the_units_command_serves_and_drains_when_systemd_ends_it() {
    let unit = read("systemd/evermill.service");
    let setting = |name: &str| {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(name));
        lines.collect::<Vec<_>>()
    };
    let line = setting("ExecStart=")[0];
    let place = Place::new();
    let folder = place.folder().join("dags");
    std::fs::create_dir(&folder).unwrap();
    let arguments = line.split(' ').skip(1).map(|argument| match argument {
        "/etc/evermill/dags" => folder.display().to_string(),
        "127.0.0.1:4700" => "127.0.0.1:0".to_owned(),
        other => other.to_owned(),
    });
    let arguments: Vec<String> = arguments.collect();
    // A variable that does not exist would be passed over in silence.
    let settings =
        std::fs::read_to_string(repository().join("docs/reference/settings.md")).unwrap();
    for variable in setting("Environment=") {
        let (name, _) = variable.split_once('=').unwrap();
        assert!(settings.contains(&format!("`{name}`")), "{name}");
    }
    let running = Running::start(&mut place.evermill(&arguments));
    running.wait_for_lines("serving", 1);
    assert_eq!(setting("KillSignal="), ["SIGTERM"]);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
    // The drain has to fit into what systemd allows.
    let grace = arguments
        .iter()
        .skip_while(|word| *word != "--grace")
        .nth(1);
    let seconds = |text: &str| text.strip_suffix('s').unwrap().parse::<u32>().unwrap();
    assert!(seconds(setting("TimeoutStopSec=")[0]) >= seconds(grace.unwrap()) + 15);
}

#[test]
fn the_container_file_copies_what_is_there_and_runs_as_nobody_special() {
    let text = read("container/Containerfile").replace("\\\n", " ");
    let sent = read("../.dockerignore");
    let mut stages = BTreeSet::new();
    let mut user = "root";
    let mut instructions = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((instruction, rest)) = line.split_once(' ') else {
            continue;
        };
        instructions.insert(instruction);
        let words: Vec<&str> = rest.split_whitespace().collect();
        match instruction {
            "FROM" => {
                user = "root";
                // Podman has no registry of its own.
                assert!(words[0].starts_with("docker.io/"), "{}", words[0]);
                stages.extend(words.get(2).copied());
            }
            "USER" => user = words[0],
            "COPY" => match words[0].strip_prefix("--from=") {
                Some(stage) => assert!(stages.contains(stage), "no stage {stage}"),
                None => {
                    for source in &words[..words.len() - 1] {
                        let path = repository().join(source);
                        assert!(path.exists(), "{source} is not there");
                        let is_sent = |line: &str| {
                            line.strip_prefix('!')
                                .is_some_and(|sent| Path::new(source).starts_with(sent))
                        };
                        assert!(
                            sent.lines().any(is_sent),
                            "{source} is not sent to the builder"
                        );
                    }
                }
            },
            _ => {}
        }
    }
    assert_eq!(user, "evermill");
    for needed in ["HEALTHCHECK", "VOLUME", "STOPSIGNAL", "ENTRYPOINT"] {
        assert!(instructions.contains(needed), "{needed}");
    }
    // The oldest compiler that the workspace builds with is not newer than that of the image.
    let version =
        |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap()).collect() };
    let image = text
        .split_once("library/rust:")
        .unwrap()
        .1
        .split('-')
        .next()
        .unwrap();
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let oldest = manifest.split_once("rust-version = \"").unwrap().1;
    assert!(version(image) >= version(oldest.split('"').next().unwrap()));
}
