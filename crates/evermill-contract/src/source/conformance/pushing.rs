//! Checks that every source passes whose events are brought to it.
//!
//! A connector's tests implement [`Hook`] and call [`check_all`]. Such a source keeps nothing: all it does is
//! judge a request and take events out of it, so every check is a call.

use std::sync::Arc;

use bytes::Bytes;

use crate::source::{Arrival, ID_BYTES_MAX, PushRequest, PushSource, Reject};

/// A request, owned.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Upper case.
    pub method: String,
    /// Names in lower case.
    pub headers: Vec<(String, Bytes)>,
    /// Whole.
    pub body: Bytes,
}

/// A source that takes requests, and requests for it.
pub trait Hook {
    /// The source.
    fn source(&self) -> Arc<dyn PushSource>;
    /// The `n`-th of many different requests that it takes; the same each time it is asked for.
    fn good(&self, n: u64) -> Sent;
    /// The values that the events of that request have, to the byte.
    fn values(&self, n: u64) -> Vec<Vec<u8>>;
    /// Requests that it does not take: each with the status it answers.
    fn bad(&self) -> Vec<(Sent, u16)>;
    /// When the requests arrive, milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// What no answer may say.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Runs every check.
pub fn check_all(hook: &impl Hook) {
    a_request_becomes_its_events(hook);
    a_request_that_is_sent_again_has_the_same_ids(hook);
    different_requests_have_different_ids(hook);
    what_is_wrong_is_refused_without_a_secret(hook);
    no_body_is_fatal_however_it_is_cut_or_changed(hook);
    many_at_once_are_judged_as_one_by_one(hook);
}

fn accept(hook: &impl Hook, sent: &Sent) -> Result<Vec<Arrival>, Reject> {
    let request = PushRequest {
        method: &sent.method,
        query: "",
        headers: &sent.headers,
        body: &sent.body,
    };
    hook.source().accept(&request, hook.now_ms())
}

fn taken(hook: &impl Hook, n: u64) -> Vec<Arrival> {
    let sent = hook.good(n);
    accept(hook, &sent).unwrap_or_else(|reject| panic!("request {n} is refused: {reject:?}"))
}

fn a_request_becomes_its_events(hook: &impl Hook) {
    assert!(hook.source().body_bytes_max() > 0);
    for n in 0..5 {
        let values: Vec<Vec<u8>> = taken(hook, n)
            .into_iter()
            .map(|event| {
                assert!(event.timestamp_ms.is_some(), "when it happened, or came");
                event.value.map(|value| value.to_vec()).unwrap_or_default()
            })
            .collect();
        assert_eq!(values, hook.values(n), "the events of request {n}");
    }
}

/// E02.
fn a_request_that_is_sent_again_has_the_same_ids(hook: &impl Hook) {
    for n in 0..5 {
        let (first, again) = (taken(hook, n), taken(hook, n));
        assert_eq!(first, again, "request {n}");
        for event in first {
            let id = event.id.expect("what may be sent again has an id");
            assert!(!id.is_empty() && id.len() <= ID_BYTES_MAX, "{id:?}");
        }
    }
}

fn different_requests_have_different_ids(hook: &impl Hook) {
    let mut ids: Vec<_> = (0..50)
        .flat_map(|n| taken(hook, n))
        .map(|event| event.id)
        .collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

/// E06, E07.
fn what_is_wrong_is_refused_without_a_secret(hook: &impl Hook) {
    for (sent, status) in hook.bad() {
        let Err(reject) = accept(hook, &sent) else {
            panic!("taken: {sent:?}");
        };
        assert_eq!(reject.status, status, "{}: {sent:?}", reject.detail);
        check_reject(hook, &reject);
    }
}

fn check_reject(hook: &impl Hook, reject: &Reject) {
    assert!((400..500).contains(&reject.status), "{reject:?}");
    assert!(!reject.detail.is_empty(), "{reject:?}");
    for secret in hook.secrets() {
        assert!(!reject.detail.contains(&secret), "it says a secret");
    }
}

/// E08, E10: whatever comes is taken or refused; nothing ends the thread that has it.
fn no_body_is_fatal_however_it_is_cut_or_changed(hook: &impl Hook) {
    let whole = hook.good(0);
    for end in 0..whole.body.len() {
        let body = whole.body.slice(..end);
        judged(
            hook,
            &Sent {
                body,
                ..whole.clone()
            },
        );
    }
    for at in 0..whole.body.len() {
        for with in [0, b'"', b'{', b'\\', 0xff] {
            let mut body = whole.body.to_vec();
            body[at] = with;
            let body = Bytes::from(body);
            judged(
                hook,
                &Sent {
                    body,
                    ..whole.clone()
                },
            );
        }
    }
    for header in 0..whole.headers.len() {
        let mut less = whole.clone();
        less.headers.remove(header);
        judged(hook, &less);
        let mut odd = whole.clone();
        odd.headers[header].1 = Bytes::from_static(b"\xff\x00");
        judged(hook, &odd);
    }
}

fn judged(hook: &impl Hook, sent: &Sent) {
    if let Err(reject) = accept(hook, sent) {
        check_reject(hook, &reject);
    }
}

fn many_at_once_are_judged_as_one_by_one(hook: &impl Hook) {
    let source = hook.source();
    let (sent, now_ms) = (hook.good(7), hook.now_ms());
    let wanted = taken(hook, 7);
    let judge = || {
        let request = PushRequest {
            method: &sent.method,
            query: "",
            headers: &sent.headers,
            body: &sent.body,
        };
        source.accept(&request, now_ms)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(judge)).collect();
        for thread in threads {
            let found = thread.join().expect("it does not panic");
            assert_eq!(found.as_ref(), Ok(&wanted));
        }
    });
}
