//! What an answer means: true, false, or unknown.

use evermill_contract::manifest::{HttpCheck, HttpOp, HttpTest};
use evermill_http::Response;
use serde_json::Value;

/// What an answer means.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// What is asked for holds.
    True(Found),
    /// It does not.
    False,
    /// The answer says neither; why.
    Unknown(String),
}

/// What there is in an answer that is true.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// The answer as JSON, where it was looked into.
    pub(super) document: Option<Value>,
    /// What the author's function made of it.
    pub(super) chosen: Option<Value>,
}

/// Judges an answer, as far as that takes no function. `is_read` says that somebody looks into it as JSON later on.
pub(super) fn judge(check: &HttpCheck, response: &Response, is_read: bool) -> Verdict {
    let status = response.status;
    let is_named = check.status.contains(&status);
    let is_success = (200..300).contains(&status);
    if !is_named && !is_success {
        return match status {
            404 => Verdict::False,
            status => Verdict::Unknown(format!("{} answered {status}", response.place)),
        };
    }
    if !is_named && !check.status.is_empty() {
        return Verdict::False;
    }
    let needs_json = is_read || check.tests.iter().any(|test| !test.if_present);
    let wants_json = needs_json || !check.tests.is_empty();
    let document = match wants_json.then(|| serde_json::from_slice::<Value>(&response.body)) {
        Some(Ok(document)) => Some(document),
        Some(Err(_)) if needs_json => {
            let why = format!("{} answered {status} with what is no JSON", response.place);
            return Verdict::Unknown(why);
        }
        Some(Err(_)) | None => None,
    };
    if check
        .tests
        .iter()
        .all(|test| holds(test, document.as_ref()))
    {
        Verdict::True(Found {
            document,
            chosen: None,
        })
    } else {
        Verdict::False
    }
}

fn holds(test: &HttpTest, document: Option<&Value>) -> bool {
    let found = document.and_then(|document| document.pointer(&test.pointer));
    let wanted = &test.value;
    if test.op == HttpOp::Exists {
        return Value::Bool(found.is_some()) == *wanted;
    }
    let Some(found) = found else {
        return test.if_present;
    };
    match test.op {
        HttpOp::Equals => is_same(found, wanted),
        HttpOp::NotEquals => !is_same(found, wanted),
        HttpOp::OneOf => wanted
            .as_array()
            .is_some_and(|list| list.iter().any(|one| is_same(found, one))),
        HttpOp::Above => numbers(found, wanted).is_some_and(|(found, wanted)| found > wanted),
        HttpOp::Below => numbers(found, wanted).is_some_and(|(found, wanted)| found < wanted),
        HttpOp::Contains => match (found, wanted) {
            (Value::String(found), Value::String(wanted)) => found.contains(wanted.as_str()),
            (Value::Array(found), wanted) => found.iter().any(|one| is_same(one, wanted)),
            _ => false,
        },
        HttpOp::SameText => plain(found) == plain(wanted),
        HttpOp::Exists => false,
    }
}

/// Equal as JSON; `1` and `1.0` are one number.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other || numbers(one, other).is_some_and(|(one, other)| one == other)
}

fn numbers(one: &Value, other: &Value) -> Option<(f64, f64)> {
    one.as_f64().zip(other.as_f64())
}

/// A text without its quotes, anything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::answer;

    fn check(status: &[u16], tests: Value) -> HttpCheck {
        serde_json::from_value(json!({"status": status, "tests": tests})).unwrap()
    }

    /// `Some(true)`, `Some(false)`, or unknown.
    fn verdict(check: &HttpCheck, status: u16, body: &str) -> Option<bool> {
        match judge(check, &answer(status, body), false) {
            Verdict::True(_) => Some(true),
            Verdict::False => Some(false),
            Verdict::Unknown(_) => None,
        }
    }

    #[test]
    fn without_a_check_success_is_true_404_is_false_and_the_rest_unknown() {
        let none = HttpCheck::default();
        for (status, expected) in [
            (200, Some(true)),
            (204, Some(true)),
            (299, Some(true)),
            (404, Some(false)),
            (304, None),
            (401, None),
            (410, None),
            (429, None),
            (500, None),
            (503, None),
        ] {
            assert_eq!(verdict(&none, status, ""), expected, "{status}");
        }
    }

    #[test]
    fn named_statuses_alone_are_true() {
        let named = check(&[202, 404], json!([]));
        for (status, expected) in [
            (202, Some(true)),
            (404, Some(true)),
            (200, Some(false)),
            (500, None),
        ] {
            assert_eq!(verdict(&named, status, ""), expected, "{status}");
        }
    }

    #[test]
    fn comparisons_are_made_at_a_json_pointer() {
        let body = r#"{"s": "deployed", "n": 3, "l": ["a", 1], "z": null, "d": {"e": true}}"#;
        for (pointer, op, value, expected) in [
            ("/s", "equals", json!("deployed"), true),
            ("/s", "equals", json!("pending"), false),
            ("/s", "not_equals", json!("pending"), true),
            ("/s", "one_of", json!(["x", "deployed"]), true),
            ("/s", "contains", json!("ploy"), true),
            ("/n", "equals", json!(3.0), true),
            ("/n", "above", json!(2.5), true),
            ("/n", "above", json!(3), false),
            ("/n", "below", json!(4), true),
            ("/s", "above", json!(1), false),
            ("/n", "same_text", json!("3"), true),
            ("/d/e", "same_text", json!("true"), true),
            ("/l", "contains", json!(1), true),
            ("/l/0", "equals", json!("a"), true),
            ("/z", "exists", json!(true), true),
            ("/none", "exists", json!(false), true),
            ("/none", "equals", json!("x"), false),
            ("/none", "not_equals", json!("x"), false),
        ] {
            let check = check(&[], json!([{"pointer": pointer, "op": op, "value": value}]));
            assert_eq!(
                verdict(&check, 200, body),
                Some(expected),
                "{pointer} {op} {value}"
            );
        }
    }

    #[test]
    fn what_should_be_json_and_is_not_is_unknown() {
        let test = json!([{"pointer": "/s", "op": "equals", "value": "x"}]);
        assert_eq!(verdict(&check(&[], test), 200, "<html>"), None);
        let lenient =
            json!([{"pointer": "/s", "op": "same_text", "value": "x", "if_present": true}]);
        let lenient = check(&[], lenient);
        assert_eq!(verdict(&lenient, 200, "<html>"), Some(true));
        assert_eq!(verdict(&lenient, 200, "{}"), Some(true));
        assert_eq!(verdict(&lenient, 200, r#"{"s": "y"}"#), Some(false));
    }
}
