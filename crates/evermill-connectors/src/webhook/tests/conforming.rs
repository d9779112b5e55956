//! The checks that every source passes whose events are brought to it.

use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::source::PushSource;
use evermill_contract::source::conformance::pushing::{Hook, Sent, check_all};
use serde_json::{Value, json};

use super::{NOW_MS, signed, source};

/// How requests carry their events.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Signed,
    Binary,
    Structured,
    Batched,
}

struct World(Kind, Arc<dyn PushSource>);

impl World {
    fn new(kind: Kind) -> Self {
        let config = match kind {
            Kind::Signed => json!({"secrets": ["geheim", "older"]}),
            _ => json!({}),
        };
        Self(kind, Arc::new(source(config)))
    }

    fn cloud(n: u64, part: u64) -> Value {
        json!({"specversion": "1.0", "id": format!("{n}/{part}"), "source": "/s", "type": "t", "data": {"n": n}})
    }
}

fn sent<N: AsRef<str>, V: AsRef<str>>(headers: &[(N, V)], body: &str) -> Sent {
    let headers = headers.iter().map(|(name, value)| {
        let value = Bytes::copy_from_slice(value.as_ref().as_bytes());
        (name.as_ref().to_owned(), value)
    });
    Sent {
        method: "POST".to_owned(),
        headers: headers.collect(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

impl Hook for World {
    fn source(&self) -> Arc<dyn PushSource> {
        Arc::clone(&self.1)
    }

    fn now_ms(&self) -> u64 {
        NOW_MS
    }

    fn good(&self, n: u64) -> Sent {
        let body = format!(" {{\"n\": {n}}}");
        let structured = [(
            "content-type",
            "application/cloudevents+json; charset=utf-8",
        )];
        let batched = [("content-type", "application/cloudevents-batch+json")];
        match self.0 {
            Kind::Plain => sent(&[("idempotency-key", n.to_string())], &body),
            Kind::Signed => {
                let signature = signed(b"geheim", &n.to_string(), NOW_MS / 1000, &body);
                sent(&signature, &body)
            }
            Kind::Binary => {
                let id = n.to_string();
                let headers = [
                    ("ce-specversion", "1.0"),
                    ("ce-id", &id),
                    ("ce-source", "/s"),
                    ("ce-type", "t"),
                    ("content-type", "application/json"),
                ];
                sent(&headers, &body)
            }
            Kind::Structured => sent(&structured, &Self::cloud(n, 0).to_string()),
            Kind::Batched => {
                let events = json!([Self::cloud(n, 0), Self::cloud(n, 1)]);
                sent(&batched, &events.to_string())
            }
        }
    }

    fn values(&self, n: u64) -> Vec<Vec<u8>> {
        let data = json!({"n": n}).to_string().into_bytes();
        match self.0 {
            Kind::Plain | Kind::Signed | Kind::Binary => {
                vec![format!(" {{\"n\": {n}}}").into_bytes()]
            }
            Kind::Structured => vec![data],
            Kind::Batched => vec![data.clone(), data],
        }
    }

    fn bad(&self) -> Vec<(Sent, u16)> {
        let good = self.good(1);
        let method = Sent {
            method: "GET".to_owned(),
            ..good.clone()
        };
        let without = |body: &'static str| Sent {
            body: Bytes::from_static(body.as_bytes()),
            ..good.clone()
        };
        let mut bad = vec![(method, 405)];
        match self.0 {
            Kind::Plain => bad.push((without("{"), 400)),
            Kind::Signed => {
                let unsigned = sent::<&str, &str>(&[], "{}");
                let old = signed(b"geheim", "1", NOW_MS / 1000 - 301, "{}");
                let other = signed(b"other", "1", NOW_MS / 1000, "{}");
                bad.push((without("{}"), 401));
                bad.extend([unsigned, sent(&old, "{}"), sent(&other, "{}")].map(|one| (one, 401)));
            }
            Kind::Binary => {
                let mut later = good.clone();
                later.headers[0].1 = Bytes::from_static(b"2.0");
                bad.push((later, 400));
            }
            Kind::Structured => bad.extend(
                [without("{}"), without("[]"), without("{\"id\":1,\"id\":1}")]
                    .map(|one| (one, 400)),
            ),
            Kind::Batched => bad.extend([without("{}"), without("[1]")].map(|one| (one, 400))),
        }
        bad
    }

    fn secrets(&self) -> Vec<String> {
        vec!["geheim".to_owned(), "older".to_owned()]
    }
}

#[test]
fn webhooks_and_cloud_events_pass_the_checks_of_sources_that_take_requests() {
    for kind in [
        Kind::Plain,
        Kind::Signed,
        Kind::Binary,
        Kind::Structured,
        Kind::Batched,
    ] {
        check_all(&World::new(kind));
    }
}
