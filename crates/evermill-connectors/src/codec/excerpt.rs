//! How a value that is wrong is shown: enough to find it, not enough to read it.
//!
//! Payloads are other people's, and a list of what is parked is read by many. A text shows its first
//! letters and its length, a number its first digits; where the name says that it is a secret, nothing.

use serde_json::Value;

/// Characters that are shown of a text, and digits of a number.
const SHOWN: usize = 3;

/// Parts of names of members whose values are not shown at all.
const SECRET: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "api_key",
    "apikey",
    "private",
];

/// A value in a few words. `pointer` is where it stands.
pub(super) fn of(value: &Value, pointer: &str) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) if is_secret(pointer) => {
            format!("a number of {} digits", number.to_string().len())
        }
        Value::Number(number) => masked(&number.to_string()),
        Value::String(text) if is_secret(pointer) => {
            format!("a text of {} characters", text.chars().count())
        }
        Value::String(text) => format!("\"{}\"", text_of(text)),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(members) => format!("an object of {}", members.len()),
    }
}

/// A text's first characters.
pub(super) fn text_of(text: &str) -> String {
    let length = text.chars().count();
    let shown: String = text.chars().take(SHOWN).collect();
    match length {
        0..=SHOWN => shown,
        _ => format!("{}... ({length} characters)", shown.escape_debug()),
    }
}

/// Bytes around a place, as hexadecimal digits.
pub(super) fn bytes(value: &[u8], at: usize) -> String {
    let some = value.iter().skip(at).take(4);
    some.map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn masked(number: &str) -> String {
    let mut shown = 0;
    let mask = |c: char| {
        shown += usize::from(c.is_ascii_digit());
        if c.is_ascii_digit() && shown > SHOWN {
            '*'
        } else {
            c
        }
    };
    number.chars().take(40).map(mask).collect()
}

fn is_secret(pointer: &str) -> bool {
    let name = pointer.rsplit('/').next().unwrap_or_default();
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_shows_what_it_is_and_not_what_it_says() {
        assert_eq!(
            of(&json!("4111111111111111"), "/card"),
            "\"411... (16 characters)\""
        );
        assert_eq!(of(&json!(4_111_111_111_u64), "/card"), "411*******");
        assert_eq!(of(&json!(-12.5), ""), "-12.5");
        assert_eq!(of(&json!("x"), "/name"), "\"x\"");
        assert_eq!(
            of(&json!("hunter2"), "/user/Password"),
            "a text of 7 characters"
        );
        assert_eq!(of(&json!([1, 2]), ""), "a list of 2");
        assert_eq!(of(&json!(null), "/token"), "null");
    }
}
