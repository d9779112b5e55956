//! Whether a DAG file declares the same each time it is read (J09).

use std::path::Path;

use evermill_contract::manifest::{Code, Fault, Manifest};
use serde_json::Value;

/// Compares two manifests of one file, read one after the other.
///
/// # Errors
/// The first difference.
pub(super) fn compare(path: &Path, first: &Manifest, second: &Manifest) -> Result<(), Vec<Fault>> {
    // Instants, such as `days_ago(1)`, may differ; the version leaves them out.
    let version = |manifest: &Manifest| -> Vec<String> {
        let dags = manifest.dags.iter();
        dags.map(|dag| manifest.version(dag).to_string()).collect()
    };
    if version(first) == version(second) {
        return Ok(());
    }
    let json = |manifest: &Manifest| serde_json::to_value(manifest).unwrap_or_default();
    let place = difference(&json(first), &json(second), String::new());
    let (place, one, other) = place.unwrap_or_default();
    Err(vec![Fault {
        file: path.display().to_string(),
        line: 0,
        column: None,
        code: Code::NotStable,
        message: format!("read twice, it declares different DAGs: {place} is {one}, then {other}"),
        cure:
            "let ids and options depend on nothing that changes by itself, such as time or chance"
                .to_owned(),
    }])
}

/// Where two values differ first, and what is there.
fn difference(one: &Value, other: &Value, at: String) -> Option<(String, String, String)> {
    if one == other {
        return None;
    }
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<_> = a.keys().chain(b.keys()).collect();
            names.sort_unstable();
            names.dedup();
            let dot = if at.is_empty() { "" } else { "." };
            names.into_iter().find_map(|name| {
                let [a, b] = [a, b].map(|fields| fields.get(name).unwrap_or(&Value::Null));
                difference(a, b, format!("{at}{dot}{name}"))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(index, (a, b))| difference(a, b, format!("{at}[{index}]")))
        }
        _ => {
            let short = |value: &Value| {
                let text = value.to_string();
                text.chars().take(60).collect::<String>()
            };
            Some((at, short(one), short(other)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(task: &str, start: &str) -> Manifest {
        let json = format!(
            r#"{{"format":1,"entry":"d.py","files":[],"dags":[{{"id":"d","file":"d.py","line":1,"start_date":"{start}",
                "tasks":[{{"id":"{task}","kind":"call","line":2}}]}}]}}"#
        );
        Manifest::decode(json.as_bytes()).unwrap()
    }

    #[test]
    fn j09_two_readings_that_differ_are_refused_with_the_difference() {
        let [first, same, other] = [
            manifest("t_1", "2026-01-01T00:00:00Z"),
            manifest("t_1", "2026-01-02T00:00:00Z"),
            manifest("t_2", "2026-01-01T00:00:00Z"),
        ];
        let path = Path::new("d.py");
        assert!(compare(path, &first, &same).is_ok());
        let faults = compare(path, &first, &other).unwrap_err();
        let said = &faults[0].message;
        assert!(
            said.contains(r#"dags[0].tasks[0].id is "t_1", then "t_2""#),
            "{said}"
        );
    }
}
