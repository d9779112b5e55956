//! Edges: what is remembered, an answer, and what comes of the two.
//!
//! | remembered | answer | event | remembered then |
//! |---|---|---|---|
//! | nothing | true | one, unless `fire_on_start=False` | true |
//! | false | true | one | true |
//! | true | true | one if what is selected has changed | true |
//! | anything | false | none | false |
//! | anything | unknown | none | the same |

use bytes::Bytes;
use evermill_contract::source::Arrival;
use evermill_http::Response;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::config::hex;
use super::judge::Verdict;
use crate::memory::Memory;

/// What an answer comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Observed {
    /// It says nothing: why.
    Unknown(String),
    /// Events, and what to remember with them.
    Known {
        events: Vec<Arrival>,
        memory: Memory,
        /// There may be more of it at once.
        more: bool,
    },
}

/// How edges are found.
pub(super) struct Edge<'a> {
    /// A JSON pointer.
    pub(super) select: Option<&'a str>,
    pub(super) fire_on_start: bool,
}

impl Edge<'_> {
    /// Compares an answer of `now_ms` and what it means with what is remembered.
    pub(super) fn observe(
        &self,
        before: &Memory,
        response: &Response,
        verdict: Verdict,
        now_ms: i64,
    ) -> Observed {
        let found = match verdict {
            Verdict::Unknown(why) => return Observed::Unknown(why),
            Verdict::True(found) => found,
            Verdict::False => return known(before, Some(false), None, None),
        };
        if self.select.is_none() && found.chosen.is_none() {
            let body = Bytes::copy_from_slice(&response.body);
            let event = || arrival(body, response.header("content-type"), now_ms);
            let fires = before.fires(None, self.fire_on_start);
            return known(before, Some(true), None, fires.then(event));
        }
        let pointed = |document: &Value| document.pointer(self.select?).cloned();
        let selected = found.chosen.or_else(|| pointed(&found.document?));
        let Some(selected) = selected else {
            // Nothing is there: that is an answer, too.
            return known(before, Some(false), None, None);
        };
        let text = selected.to_string();
        let mark = hex(&Sha256::digest(&text));
        let event = || arrival(Bytes::from(text), Some("application/json"), now_ms);
        let fires = before.fires(Some(&mark), self.fire_on_start);
        known(before, Some(true), Some(mark), fires.then(event))
    }
}

fn known(
    before: &Memory,
    holds: Option<bool>,
    selected: Option<String>,
    event: Option<Arrival>,
) -> Observed {
    let memory = Memory {
        holds,
        selected,
        ..before.clone()
    };
    Observed::Known {
        events: event.into_iter().collect(),
        memory,
        more: false,
    }
}

/// An event with this content.
pub(super) fn arrival(value: Bytes, sort: Option<&str>, now_ms: i64) -> Arrival {
    let sort = sort.map(|sort| {
        let value = Bytes::copy_from_slice(sort.as_bytes());
        (Bytes::from_static(b"content-type"), value)
    });
    Arrival {
        timestamp_ms: Some(now_ms),
        headers: sort.into_iter().collect(),
        value: Some(value),
        ..Arrival::default()
    }
}

/// A document's text as a value of an event.
pub(super) fn json_arrival(value: &Value, now_ms: i64) -> Arrival {
    arrival(
        Bytes::from(value.to_string()),
        Some("application/json"),
        now_ms,
    )
}

#[cfg(test)]
mod tests {

    use evermill_contract::manifest::HttpCheck;
    use serde_json::json;

    use super::*;
    use crate::http::answer;
    use crate::http::judge::{Found, judge};

    /// The values of the events that answers cause, `-` for an answer without one, `?` for unknown.
    fn run(edge: &Edge<'_>, answers: &[(u16, &str)]) -> Vec<String> {
        let mut memory = Memory::new("q");
        let mut said = Vec::new();
        for (status, body) in answers {
            // Whatever is remembered survives a restart.
            memory = Memory::read(Some(&memory.write()), "q").unwrap();
            let answer = answer(*status, body);
            let verdict = judge(&HttpCheck::default(), &answer, edge.select.is_some());
            match edge.observe(&memory, &answer, verdict, 5) {
                Observed::Unknown(_) => said.push("?".to_owned()),
                Observed::Known {
                    events,
                    memory: after,
                    ..
                } => {
                    let value = events.first().and_then(|event| event.value.clone());
                    let text = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
                    said.push(text.unwrap_or_else(|| "-".to_owned()));
                    memory = after;
                }
            }
        }
        said
    }

    #[test]
    fn what_becomes_true_fires_once_and_unknown_changes_nothing() {
        let edge = Edge {
            select: None,
            fire_on_start: true,
        };
        let answers = [
            (404, ""),
            (503, ""),
            (200, "a"),
            (200, "b"),
            (503, ""),
            (200, "c"),
            (404, ""),
            (503, ""),
            (200, "d"),
            (200, "e"),
        ];
        let said = run(&edge, &answers);
        assert_eq!(said, ["-", "?", "a", "-", "?", "-", "-", "?", "d", "-"]);
    }

    /// F12: what was otherwise between two looks leaves no trace, unless something counts it.
    #[test]
    fn f12_what_changes_and_changes_back_between_two_looks_is_no_event() {
        let answers = [
            (200, r#"{"state": "a", "changes": 1}"#),
            // It was "b" in between.
            (200, r#"{"state": "a", "changes": 3}"#),
        ];
        for (select, expected) in [("/state", ["\"a\"", "-"]), ("/changes", ["1", "3"])] {
            let edge = Edge {
                select: Some(select),
                fire_on_start: true,
            };
            assert_eq!(run(&edge, &answers), expected, "{select}");
        }
    }

    #[test]
    fn a_first_observation_that_is_true_fires_unless_told_not_to() {
        let mut edge = Edge {
            select: None,
            fire_on_start: true,
        };
        assert_eq!(run(&edge, &[(503, ""), (200, "a")]), ["?", "a"]);
        edge.fire_on_start = false;
        let answers = [(200, "a"), (200, "b"), (404, ""), (200, "c")];
        assert_eq!(run(&edge, &answers), ["-", "-", "-", "c"]);
    }

    /// F10: what changes beside it is none.
    #[test]
    fn a_change_of_what_is_selected_is_an_edge() {
        let edge = Edge {
            select: Some("/version"),
            fire_on_start: true,
        };
        let answers = [
            (200, r#"{"version": 1, "at": 1}"#),
            (200, r#"{"version": 1, "at": 2}"#),
            (200, r#"{"version": 2, "at": 3}"#),
            (200, "<html>"),
            (200, r#"{"version": 2, "at": 4}"#),
            (200, r#"{"at": 5}"#),
            (200, r#"{"version": 2, "at": 6}"#),
        ];
        let said = run(&edge, &answers);
        assert_eq!(said, ["1", "-", "2", "?", "-", "-", "2"]);
    }

    #[test]
    fn an_event_has_the_answer_its_kind_and_its_time() {
        let edge = Edge {
            select: None,
            fire_on_start: true,
        };
        let mut answer = answer(200, "x");
        answer
            .headers
            .insert("content-type", "text/plain".parse().unwrap());
        let verdict = Verdict::True(Found::default());
        let observed = edge.observe(&Memory::new("q"), &answer, verdict, 7);
        let Observed::Known { events, .. } = observed else {
            panic!("it is known")
        };
        let sort = (Bytes::from("content-type"), Bytes::from("text/plain"));
        assert_eq!(events[0].headers, [sort]);
        assert_eq!(events[0].timestamp_ms, Some(7));
    }

    #[test]
    fn what_a_function_makes_of_an_answer_is_the_event_and_its_change_an_edge() {
        let edge = Edge {
            select: None,
            fire_on_start: true,
        };
        let mut memory = Memory::new("q");
        let mut said = Vec::new();
        for chosen in [json!(1), json!(1), json!([2]), json!(null)] {
            let verdict = Verdict::True(Found {
                chosen: Some(chosen),
                document: None,
            });
            let observed = edge.observe(&memory, &answer(200, "body"), verdict, 5);
            let Observed::Known {
                events,
                memory: after,
                ..
            } = observed
            else {
                panic!("it is known")
            };
            let values = events.into_iter().filter_map(|event| event.value);
            said.push(values.map(|value| value.to_vec()).collect::<Vec<_>>());
            memory = after;
        }
        assert_eq!(
            said,
            [
                vec![b"1".to_vec()],
                vec![],
                vec![b"[2]".to_vec()],
                vec![b"null".to_vec()]
            ]
        );
    }
}
