//! `evermill.toml`, `config show`, completions.

use crate::process::Place;

#[test]
fn every_setting_is_shown_with_where_it_comes_from_and_without_secrets() {
    let place = Place::new();
    place.file(
        "evermill.toml",
        "retain = '7d'\n[connections]\nbilling = 'b:1'\n[connections.orders]\naddress = 'h:1'\n'sasl.password' = 'pw'\n",
    );
    let mut command = place.evermill(["config", "show", "--connection", "kafka=k:1"]);
    let ended =
        crate::process::Running::start(command.env("EVERMILL_CONNECTION_BILLING", "e:1")).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let rows: Vec<Vec<&str>> = ended
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let row = |name: &str| {
        rows.iter()
            .find(|row| row[0] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(row("data_dir")[2], "$EVERMILL_DATA_DIR");
    assert_eq!(row("retain").last(), Some(&"evermill.toml"));
    assert_eq!(
        row("connections.kafka_default")[1..],
        ["k:1", "--connection"]
    );
    assert_eq!(
        row("connections.billing")[1..],
        ["e:1", "$EVERMILL_CONNECTION_BILLING"]
    );
    assert_eq!(
        row("connections.orders")[1..],
        ["h:1?sasl.password=***", "evermill.toml"]
    );
}

#[test]
fn an_unknown_setting_is_refused_with_its_line_and_the_nearest_name() {
    let place = Place::new();
    place.file("evermill.toml", "\nretian = '7d'\n");
    let ended = place.finish(["config", "show"]);
    assert_eq!(ended.code(), 2);
    for part in ["evermill.toml", "line 2", "did you mean 'retain'?"] {
        assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
    }
}

#[test]
fn a_retention_that_is_none_is_refused_before_anything_starts() {
    let place = Place::new();
    for wrong in ["soon", "1MB"] {
        let ended = place.finish(["run", "x.py", "--retain", wrong]);
        assert_eq!(ended.code(), 2);
        assert!(ended.stderr.contains("--retain"), "{}", ended.stderr);
    }
}

#[test]
fn shells_get_their_completions() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let ended = place.finish(["completions", shell]);
        assert_eq!(ended.code(), 0);
        assert!(ended.stdout.contains("parked"), "{shell}");
    }
}
