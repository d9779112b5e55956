//! `docs/reference/`: made from what the binary and the packages say of themselves, and compared here with
//! what is in the repository. `cargo xtask reference` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use evermill_contract::manifest::{Code, Severity};
use serde_json::Value;

use crate::process::{Place, Running};

const MADE: &str = "Made from the code by `cargo xtask reference`; a test compares the two.\n";

/// What options mean that only Python has; the others have a phrase in the schema of YAML.
const IN_PYTHON_ALONE: [(&str, &str, &str); 4] = [
    (
        "batch",
        "whole number from 1",
        "members handed to one call, which returns a result for each",
    ),
    (
        "concurrency",
        "whole number from 1",
        "members that run side by side in a worker",
    ),
    (
        "freshness",
        "seconds, or a text such as `\"500ms\"`, `\"2h\"`",
        "for its sources: without progress for so long they count as stalled",
    ),
    ("python", "text", "the interpreter that runs its tasks"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference")
}

/// Compares a page with what it should be, or writes it.
fn page(name: &str, text: &str) {
    let path = folder().join(name);
    if env::var_os("EVERMILL_WRITE_EXPECTED").is_some() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/reference/{name} is not what the code says; run `cargo xtask reference` and look at the difference"
    );
}

fn said(place: &Place, arguments: &[&str]) -> String {
    let mut command = place.evermill(arguments);
    // Help shows what is set.
    command.env_remove("EVERMILL_DATA_DIR");
    let ended = Running::start(&mut command).end();
    assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

/// The commands below one, as its help lists them.
fn below(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| line.starts_with(' '));
    // A line that goes on describing is indented further.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn command(place: &Place, path: &[String], out: &mut String) {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = said(place, &arguments);
    let inner = below(&help);
    let level = "#".repeat(path.len() + 2);
    let name = ["evermill"]
        .into_iter()
        .chain(path.iter().map(String::as_str));
    let name: Vec<&str> = name.collect();
    writeln!(
        out,
        "{level} {}\n\n```text\n{}\n```\n",
        name.join(" "),
        help.trim_end()
    )
    .unwrap();
    for one in inner {
        command(place, &[path, &[one]].concat(), out);
    }
}

#[test]
fn the_commands_are_those_that_the_binary_has() {
    let mut out = format!("# Commands\n\n{MADE}\n");
    command(&Place::new(), &[], &mut out);
    page("commands.md", &format!("{}\n", out.trim_end()));
}

#[test]
fn the_description_of_the_api_is_that_of_the_binary() {
    page(
        "../spec/openapi.json",
        &said(&Place::new(), &["api", "openapi"]),
    );
}

#[test]
fn the_metrics_are_those_that_the_binary_tells() {
    let mut out = format!(
        "# Metrics\n\n{MADE}\n`GET /metrics` of `evermill serve`, and of `run --listen`, in the text format of Prometheus. \
         Counters begin anew with a run and with a process.\n\n| metric | type | labels | |\n|---|---|---|---|\n"
    );
    for line in said(&Place::new(), &["api", "metrics", "--json"]).lines() {
        let metric: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| metric[name].as_str().unwrap().to_owned();
        let labels = metric["labels"].as_array().unwrap().iter();
        let labels: Vec<String> = labels
            .map(|label| format!("`{}`", label.as_str().unwrap()))
            .collect();
        let (name, kind, labels) = (text("name"), text("type"), labels.join(" "));
        writeln!(out, "| `{name}` | {kind} | {labels} | {} |", text("help")).unwrap();
    }
    page("metrics.md", &out);
}

#[test]
fn the_settings_are_those_that_the_binary_reads() {
    let place = Place::new();
    let mut out = format!(
        "# Settings\n\n{MADE}\nFrom the strongest to the weakest: the flag, the environment, `evermill.toml` in the working directory, the default. \
         `evermill config show` says what is set, and by whom.\n\n| in evermill.toml | variable | flag | default | |\n|---|---|---|---|---|\n"
    );
    for line in said(&place, &["config", "keys", "--json"]).lines() {
        let key: Value = serde_json::from_str(line).unwrap();
        let code = |name: &str| match key[name].as_str() {
            None => String::new(),
            // A bar would end the cell.
            Some(text) => format!("`{}`", text.replace('|', "\\|")),
        };
        let about = key["about"].as_str().unwrap();
        let [name, variable, flag, default] = ["key", "variable", "flag", "default"].map(code);
        writeln!(
            out,
            "| {name} | {variable} | {flag} | {default} | {about} |"
        )
        .unwrap();
    }
    page("settings.md", &out);
}

/// What a value may be, for people.
fn value_of(schema: &Value) -> String {
    let any = schema["anyOf"].as_array();
    if let Some([first, second, ..]) = any.map(Vec::as_slice) {
        let pattern = second["pattern"].as_str().unwrap_or_default();
        return if pattern.contains("ms|s|m") {
            "seconds, or a text such as `\"500ms\"`, `\"2h\"`".to_owned()
        } else if pattern.contains("KMG") {
            "bytes, or a text such as `\"512MiB\"`".to_owned()
        } else if second["type"] == "array" {
            format!("{}, or a list", value_of(first))
        } else if second["const"] == false {
            format!("{}, or false", value_of(first))
        } else {
            format!("{} or {}", value_of(first), value_of(second))
        };
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("`{}`", word.as_str().unwrap()))
            .collect();
        return words.join(", ");
    }
    let most = |most: i64| match most {
        most if most == i64::from(i32::MAX) => String::new(),
        most => format!(" to {most}"),
    };
    match schema["type"].as_str() {
        Some("integer") => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(least), Some(to)) if least >= 0 => {
                format!("whole number from {least}{}", most(to))
            }
            _ => "whole number".to_owned(),
        },
        Some("boolean") => "true or false".to_owned(),
        Some("array") => "list of texts".to_owned(),
        Some("object") => "names and values".to_owned(),
        Some("string") => "text".to_owned(),
        _ => "any value".to_owned(),
    }
}

/// A table of options; names that are tables of their own are left out.
fn table(
    out: &mut String,
    title: &str,
    schema: &Value,
    python: Option<&BTreeSet<String>>,
    without: &[&str],
) {
    let known = schema["properties"].as_object().unwrap();
    let described = |name: &str, schema: &Value| {
        let about = schema["description"].as_str().unwrap_or_default();
        [name.to_owned(), value_of(schema), about.to_owned()]
    };
    let mut rows: Vec<_> = known
        .iter()
        .filter(|(name, _)| !without.contains(&name.as_str()))
        .map(|(name, schema)| described(name, schema))
        .collect();
    for name in python
        .into_iter()
        .flatten()
        .filter(|name| !known.contains_key(*name))
    {
        let phrase = IN_PYTHON_ALONE.iter().find(|(known, ..)| known == name);
        let (name, value, about) =
            phrase.unwrap_or_else(|| panic!("'{name}' has no phrase in IN_PYTHON_ALONE"));
        rows.push([name, value, about].map(|text| (*text).to_owned()));
    }
    rows.sort();
    writeln!(
        out,
        "## {title}\n\n| option | value | in | |\n|---|---|---|---|"
    )
    .unwrap();
    for [name, value, about] in rows {
        let in_python = python.is_none_or(|names| names.contains(&name));
        let home = match (in_python, known.contains_key(&name)) {
            (true, true) => "Python, YAML",
            (true, false) => "Python",
            (false, _) => "YAML",
        };
        writeln!(out, "| `{name}` | {value} | {home} | {about} |").unwrap();
    }
    out.push('\n');
}

/// The options that the Python package takes, of a task and of a DAG.
fn python_options() -> (BTreeSet<String>, BTreeSet<String>) {
    let script = "import json; from evermill._option import DAG, INHERITED, TASK; \
                  print(json.dumps([sorted(TASK), sorted({*DAG, *INHERITED})]))";
    let python = env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let told = Command::new(python)
        .args(["-c", script])
        .env("PYTHONPATH", sdk)
        .output();
    let told = told.expect("Python starts");
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    serde_json::from_slice(&told.stdout).unwrap()
}

#[test]
fn the_options_are_those_that_the_front_ends_read() {
    let schema: Value = serde_json::from_str(&said(&Place::new(), &["check", "--schema"])).unwrap();
    let (task, dag) = python_options();
    let at = |pointer: &str| {
        schema
            .pointer(pointer)
            .unwrap_or_else(|| panic!("no {pointer}"))
    };
    let mut out = format!(
        "# Options\n\n{MADE}\nAn option has the same name and values in Python and in YAML; in Python a duration may also be a `timedelta`. \
         Closures in Rust have those that the [guide](../guide/authoring.md#in-rust) lists. Options of tasks that a DAG has, too, hold there for each task that does not set them.\n\n"
    );
    table(
        &mut out,
        "Of a DAG",
        &schema,
        Some(&dag),
        &["dag", "sources", "tasks"],
    );
    let of_task = at("/properties/tasks/additionalProperties");
    table(
        &mut out,
        "Of a task",
        of_task,
        Some(&task),
        &["http", "to_kafka", "to_sqs", "to_http", "to_file"],
    );
    for what in ["http", "to_kafka", "to_sqs", "to_http", "to_file"] {
        let (nobody, of_what) = (BTreeSet::new(), &of_task["properties"][what]);
        let title = format!("Of `{what}:` of a task");
        table(&mut out, &title, of_what, Some(&nobody), &[]);
    }
    let of_source = at("/properties/sources/additionalProperties");
    let kinds: Vec<&str> = of_source["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, schema)| schema["type"] == "object")
        .map(|(name, _)| name.as_str())
        .collect();
    table(&mut out, "Of every source", of_source, None, &kinds);
    for kind in &kinds {
        let schema = &of_source["properties"][kind];
        table(
            &mut out,
            &format!("Of `{kind}` of a source"),
            schema,
            None,
            &[],
        );
    }
    page("options.md", &format!("{}\n", out.trim_end()));
}

#[test]
fn the_codes_of_errors_are_those_that_the_binary_says() {
    let mut out = format!(
        "# Codes of errors\n\n{MADE}\nErrors keep a DAG from starting; warnings do not. Each has a page with an example and the cure.\n\n| code | | |\n|---|---|---|\n"
    );
    for code in Code::ALL {
        let file = folder().join(format!("../errors/{code}.md"));
        let text =
            fs::read_to_string(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        let title = text.lines().next().and_then(|line| line.split_once(": "));
        let title = title.map_or("", |(_, title)| title);
        let severity = match code.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(
            out,
            "| [`{code}`](../errors/{code}.md) | {severity} | {title} |"
        )
        .unwrap();
    }
    page("errors.md", &out);
}
