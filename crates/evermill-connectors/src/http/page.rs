//! Lists: each item behind the last one that we have is an event.

use evermill_contract::manifest::HttpCursor;
use evermill_contract::source::{Arrival, ID_BYTES_MAX};
use evermill_http::Response;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::config::hex;
use super::judge::{Verdict, plain};
use super::observe::{Observed, json_arrival};
use crate::memory::Memory;

/// How a list is read.
pub(super) struct Page<'a> {
    pub(super) cursor: &'a HttpCursor,
    pub(super) fire_on_start: bool,
}

impl Page<'_> {
    /// Takes what is new from an answer of `now_ms`.
    pub(super) fn observe(
        &self,
        before: &Memory,
        response: &Response,
        verdict: Verdict,
        now_ms: i64,
    ) -> Observed {
        let document = match verdict {
            Verdict::Unknown(why) => return Observed::Unknown(why),
            Verdict::False => Value::Array(Vec::new()),
            Verdict::True(found) => found.document.unwrap_or_default(),
        };
        let items = document.pointer(&self.cursor.items);
        let Some(items) = items.and_then(Value::as_array) else {
            let (place, items) = (&response.place, &self.cursor.items);
            return Observed::Unknown(format!("{place} answered without a list at {items:?}"));
        };
        let ids = items.iter().map(|item| item.pointer(&self.cursor.id));
        let Some(ids) = ids.map(|id| id.map(plain)).collect::<Option<Vec<_>>>() else {
            let (place, id) = (&response.place, &self.cursor.id);
            return Observed::Unknown(format!("{place} has an item without an id at {id:?}"));
        };
        let mut listed: Vec<_> = ids.into_iter().zip(items).collect();
        if self.cursor.newest_first {
            listed.reverse();
        }
        // Servers differ in whether the item that is named comes again, and what before it.
        let last = before.last_item.as_ref();
        let known = listed.iter().rposition(|(id, _)| Some(id) == last);
        listed.drain(..known.map_or(0, |at| at + 1));
        let memory = Memory {
            holds: Some(true),
            last_item: listed.last().map(|(id, _)| id.clone()).or(last.cloned()),
            ..before.clone()
        };
        let is_first = before.holds.is_none();
        let more = !listed.is_empty();
        let fires = !is_first || self.fire_on_start;
        let events = listed.iter().filter(|_| fires);
        let events = events.map(|(id, item)| Arrival {
            id: Some(short(id).into()),
            ..json_arrival(item, now_ms)
        });
        Observed::Known {
            events: events.collect(),
            memory,
            more,
        }
    }
}

/// An id that an inbox takes.
fn short(id: &str) -> String {
    if id.len() <= ID_BYTES_MAX {
        return id.to_owned();
    }
    hex(&Sha256::digest(id))
}

#[cfg(test)]
mod tests {
    use evermill_contract::manifest::HttpCheck;
    use evermill_http::HeaderMap;
    use serde_json::json;

    use super::*;
    use crate::http::judge::judge;

    fn cursor(more: Value) -> HttpCursor {
        let mut cursor = json!({"param": "since"});
        cursor
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(cursor).unwrap()
    }

    /// The ids of the events that answers cause; `?` for unknown.
    fn run(cursor: &HttpCursor, fire_on_start: bool, answers: &[Value]) -> Vec<String> {
        let check = HttpCheck::default();
        let page = Page {
            cursor,
            fire_on_start,
        };
        let mut memory = Memory::new("q");
        let mut said = Vec::new();
        for body in answers {
            let response = Response {
                status: 200,
                headers: HeaderMap::new(),
                body: body.to_string().into_bytes(),
                place: "http://h/x".to_owned(),
            };
            let verdict = judge(&check, &response, true);
            match page.observe(&memory, &response, verdict, 0) {
                Observed::Unknown(_) => said.push("?".to_owned()),
                Observed::Known {
                    events,
                    memory: after,
                    more,
                } => {
                    let ids = events.iter().filter_map(|event| event.id.as_ref());
                    let ids: Vec<_> = ids.map(|id| String::from_utf8_lossy(id)).collect();
                    assert!(more || ids.is_empty());
                    said.push(ids.join(","));
                    memory = after;
                }
            }
        }
        said
    }

    fn list(ids: &[u32]) -> Value {
        ids.iter().map(|id| json!({"id": id})).collect()
    }

    #[test]
    fn every_item_behind_the_last_one_is_an_event_once() {
        let answers = [
            list(&[]),
            list(&[1, 2]),
            // Some servers send the named one again, some everything, some only what is new.
            list(&[2, 3]),
            list(&[1, 2, 3, 4]),
            list(&[5]),
            list(&[]),
            json!({"error": "x"}),
            json!([{"name": "no id"}]),
            list(&[5, 6]),
        ];
        let said = run(&cursor(json!({})), true, &answers);
        assert_eq!(said, ["", "1,2", "3", "4", "5", "", "?", "?", "6"]);
    }

    #[test]
    fn a_list_with_the_newest_first_is_read_from_its_end() {
        let answers = [list(&[2, 1]), list(&[4, 3, 2])];
        let newest_first = cursor(json!({"newest_first": true}));
        assert_eq!(run(&newest_first, true, &answers), ["1,2", "3,4"]);
    }

    #[test]
    fn what_the_list_holds_at_the_start_may_be_passed_over() {
        let answers = [list(&[1, 2]), list(&[2, 3])];
        assert_eq!(run(&cursor(json!({})), false, &answers), ["", "3"]);
        // An empty list was seen, too.
        let answers = [list(&[]), list(&[1])];
        assert_eq!(run(&cursor(json!({})), false, &answers), ["", "1"]);
    }

    #[test]
    fn list_and_id_may_lie_deeper() {
        let deep = cursor(json!({"items": "/data/rows", "id": "/key/0"}));
        let answer = json!({"data": {"rows": [{"key": ["a"]}, {"key": ["b"]}]}});
        assert_eq!(run(&deep, true, &[answer]), ["a,b"]);
    }
}
