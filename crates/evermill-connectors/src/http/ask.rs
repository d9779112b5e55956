//! What the author's function gets of an answer, and what its word means.
//!
//! A function that has the last word runs in a worker ([`Inquiry`](evermill_contract::source::Inquiry)). It gets
//! the answer as an event: the body as value, the headers as headers, and before them two that no
//! server can send, `:status` and `:url`. It says `[false]`, `[true]`, or `[true, value]` with what it made
//! of the answer.

use bytes::Bytes;
use evermill_contract::source::{Arrival, Reply};
use evermill_http::Response;

use super::judge::{Found, Verdict};
use crate::word::Word;

/// The option the function is given as.
pub(super) const RESPONSE_CHECK: &str = "response_check";

/// The answer, for the function.
pub(super) fn about(response: &Response) -> Arrival {
    let named = |name: &'static str, value: String| (Bytes::from(name), Bytes::from(value));
    let own = [
        named(":status", response.status.to_string()),
        named(":url", response.place.clone()),
    ];
    let theirs = response.headers.iter().map(|(name, value)| {
        let name = Bytes::copy_from_slice(name.as_str().as_bytes());
        (name, Bytes::copy_from_slice(value.as_bytes()))
    });
    Arrival {
        headers: own.into_iter().chain(theirs).collect(),
        value: Some(Bytes::copy_from_slice(&response.body)),
        ..Arrival::default()
    }
}

/// What its word comes to: whatever is no clear answer is unknown.
pub(super) fn verdict(said: Reply, found: Found, place: &str) -> Verdict {
    match Word::of(said) {
        Word::False => Verdict::False,
        Word::True(None) => Verdict::True(found),
        Word::True(chosen) => Verdict::True(Found { chosen, ..found }),
        Word::Nothing(why) => Verdict::Unknown(format!("{place}: response_check {why}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::answer;

    #[test]
    fn only_a_clear_word_is_true_or_false() {
        let said = |text: &'static str| {
            let reply = Reply::Returned(Some(Bytes::from(text)));
            verdict(reply, Found::default(), "http://h/x")
        };
        assert_eq!(said("[false]"), Verdict::False);
        assert_eq!(said("[true]"), Verdict::True(Found::default()));
        let Verdict::True(found) = said(r#"[true, {"v": 1}]"#) else {
            panic!("it is true")
        };
        assert_eq!(found.chosen, Some(json!({"v": 1})));
        for text in ["[]", "[1]", "true", "", "[true, 1, 2]"] {
            assert!(matches!(said(text), Verdict::Unknown(_)), "{text}");
        }
        let failed = Reply::Failed("ValueError: no".to_owned());
        let Verdict::Unknown(why) = verdict(failed, Found::default(), "http://h/x") else {
            panic!("it is unknown")
        };
        assert_eq!(why, "http://h/x: response_check failed: ValueError: no");
    }

    #[test]
    fn the_function_sees_status_place_headers_and_body() {
        let mut answer = answer(201, "body");
        answer.headers.insert("x-y", "z".parse().unwrap());
        let about = about(&answer);
        let headers = about.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        let expected: [(&[u8], &[u8]); 3] = [
            (b":status", b"201"),
            (b":url", b"http://h/x"),
            (b"x-y", b"z"),
        ];
        assert_eq!(headers, expected);
        assert_eq!(about.value.as_deref(), Some(&b"body"[..]));
    }
}
