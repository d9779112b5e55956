//! The options of a DAG, a source or a task, by name, and which of them have another value.

use std::collections::BTreeMap;

use evermill_contract::manifest::{DagManifest, SourceManifest, TaskManifest};
use serde::Serialize;
use serde_json::Value;

use super::{beside, how};
use crate::limits;
use crate::outcome::cut;
use crate::view::OptionChange;

/// By name; what stands inside of another has dots in its name. An option with its default is not there.
pub(super) type Options = BTreeMap<String, Held>;

/// What an option holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    value: Value,
    is_hidden: bool,
}

/// Where people write passwords, whatever the guide says: named alone, without values.
const NOT_TOLD: [&str; 6] = [
    "body",
    "command",
    "env",
    "headers",
    "query",
    "request_params",
];
/// Addresses: what stands behind `?` is a query, too.
const ADDRESSES: [&str; 3] = ["endpoint", "path", "url"];
/// What requests to a source are signed with may be the secret itself; of a task it is names.
const SIGNED_WITH: &str = "config.secrets";

/// A whole of its own, whatever it holds.
const WHOLE: &str = "schema";

pub(super) fn of_dag(dag: &DagManifest) -> Options {
    flat(dag, &["id", "line", "sources", "tasks"])
}

pub(super) fn of_source(source: &SourceManifest) -> (String, Options) {
    let options = flat(source, &["id", "line"]);
    let options = options.into_iter().map(|(name, held)| {
        let inside = name.strip_prefix("config.").map(str::to_owned);
        (inside.unwrap_or(name), held)
    });
    (source.id.clone(), options.collect())
}

pub(super) fn of_task(task: &TaskManifest) -> (String, Options) {
    (task.id.clone(), flat(task, &["id", "line", "upstream"]))
}

fn flat<T: Serialize>(of: &T, without: &[&str]) -> Options {
    let mut options = Options::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(of) {
        let fields = fields.into_iter();
        for (name, value) in fields.filter(|(name, _)| !without.contains(&name.as_str())) {
            add(name, value, &mut options);
        }
    }
    options
}

fn add(name: String, value: Value, options: &mut Options) {
    match value {
        Value::Object(fields) if !fields.is_empty() && name != WHOLE => {
            for (inside, value) in fields {
                add(format!("{name}.{inside}"), value, options);
            }
        }
        value => {
            let is_hidden = is_hidden(&name, &value);
            options.insert(name, Held { value, is_hidden });
        }
    }
}

fn is_hidden(name: &str, value: &Value) -> bool {
    let mut parts = name.split('.');
    if name == SIGNED_WITH || parts.any(|part| NOT_TOLD.contains(&part)) {
        return true;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let text = value.as_str();
    ADDRESSES.contains(&last) && text.is_some_and(|text| text.contains('?'))
}

/// Tells options, up to a limit.
pub(super) struct Telling<'m> {
    mask: &'m dyn Fn(&str) -> String,
    told: usize,
    pub(super) left_out: u64,
}

impl<'m> Telling<'m> {
    pub(super) fn new(mask: &'m dyn Fn(&str) -> String) -> Self {
        Self {
            mask,
            told: 0,
            left_out: 0,
        }
    }

    /// Those that are different.
    pub(super) fn options(&mut self, before: &Options, after: &Options) -> Vec<OptionChange> {
        let mut changes = Vec::new();
        for (name, before, after) in beside(before, after) {
            if before == after {
                continue;
            }
            if self.told >= limits::DIFF_OPTIONS {
                self.left_out += 1;
                continue;
            }
            self.told += 1;
            let hidden = before.into_iter().chain(after).any(|held| held.is_hidden);
            let value = |held: Option<&Held>| {
                let held = held.filter(|_| !hidden);
                held.map(|held| self.value(&held.value))
            };
            changes.push(OptionChange {
                option: name.clone(),
                change: how(before.is_some(), after.is_some()),
                before: value(before),
                after: value(after),
                hidden,
            });
        }
        changes
    }

    /// A value without secrets; a long one ends in `…`.
    fn value(&self, value: &Value) -> Value {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Array(_) | Value::Object(_) => value.to_string(),
            plain => return plain.clone(),
        };
        let masked = (self.mask)(&text);
        match value {
            _ if masked.len() > limits::DIFF_VALUE_BYTES => {
                Value::String(format!("{}…", cut(&masked, limits::DIFF_VALUE_BYTES)))
            }
            _ if masked == text => value.clone(),
            _ => Value::String(masked),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::Change;

    fn options(of: Value) -> Options {
        flat(&of, &[])
    }

    #[test]
    fn options_are_told_one_by_one_with_what_they_were_and_are() {
        let mask = |text: &str| text.replace("tulips", "***");
        let mut telling = Telling::new(&mask);
        let before =
            json!({"retries": 1, "poke": {"interval_ms": 5, "soft_fail": true}, "gone": "x"});
        let after = json!({"retries": 3, "poke": {"interval_ms": 5}, "tags": ["tulips"]});
        let told = telling.options(&options(before), &options(after));
        let told: Vec<String> = told
            .iter()
            .map(|one| {
                let value = |value: &Option<Value>| value.clone().unwrap_or_default();
                format!(
                    "{} {} {}",
                    one.option,
                    value(&one.before),
                    value(&one.after)
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "gone \"x\" null",
                "poke.soft_fail true null",
                "retries 1 3",
                "tags null \"[\\\"***\\\"]\"",
            ]
        );
    }

    /// S10, K08: what is secret, or may be, is in no comparison.
    #[test]
    fn k08_values_of_options_where_passwords_are_written_are_not_told() {
        let mask = str::to_owned;
        let mut telling = Telling::new(&mask);
        let before = json!({
            "env": {"TOKEN": "a"}, "http": {"headers": {"authorization": "a"}, "body": {"text": "a"}},
            "run": {"command": "curl -u a"}, "endpoint": "/x", "config": {"secrets": ["a"]},
        });
        let after = json!({
            "env": {"TOKEN": "tulips"}, "http": {"headers": {"authorization": "tulips"}, "body": {"text": "tulips"}},
            "run": {"command": "curl -u tulips"}, "endpoint": "/x?key=tulips", "config": {"secrets": ["tulips"]},
        });
        let told = telling.options(&options(before), &options(after));
        assert_eq!(told.len(), 6);
        for one in told {
            let nothing = one.before.is_none() && one.after.is_none();
            assert!(
                one.hidden && nothing && one.change == Change::Changed,
                "{one:?}"
            );
        }
    }

    #[test]
    fn a_long_value_is_cut_and_too_many_options_are_counted() {
        let mask = str::to_owned;
        let mut telling = Telling::new(&mask);
        let long = "ö".repeat(limits::DIFF_VALUE_BYTES);
        let told = telling.options(&Options::new(), &options(json!({ "a": long })));
        let text = told[0].after.as_ref().and_then(Value::as_str).unwrap();
        assert!(text.ends_with('…') && text.len() <= limits::DIFF_VALUE_BYTES + 3);
        let many = (0..limits::DIFF_OPTIONS + 2).map(|n| (format!("o{n:05}"), json!(n)));
        let many = options(Value::Object(many.collect()));
        let told = telling.options(&Options::new(), &many);
        assert_eq!(told.len(), limits::DIFF_OPTIONS - 1);
        assert_eq!(telling.left_out, 3);
    }
}
