//! Requests as they come in, and the events or refusals that they lead to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evermill_contract::manifest::{Codec, WebhookSource as WebhookConfig};
use evermill_contract::source::{Arrival, PushRequest, PushSource as _, Reject};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::WebhookSource;

mod conforming;

const NOW_MS: u64 = 1_700_000_000_000;

fn source(config: Value) -> WebhookSource {
    let config: WebhookConfig = serde_json::from_value(config).unwrap();
    WebhookSource::open(&config, None).unwrap()
}

fn accept(
    source: &WebhookSource,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Result<Vec<Arrival>, Reject> {
    let headers = headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect();
    let request = PushRequest {
        method: "POST",
        query: "",
        headers: &headers,
        body: &body.into().into(),
    };
    source.accept(&request, NOW_MS)
}

fn header<'a>(event: &'a Arrival, name: &str) -> Option<&'a str> {
    let mut headers = event.headers.iter();
    let (_, value) = headers.find(|(found, _)| found == name)?;
    std::str::from_utf8(value).ok()
}

fn status(refused: Result<Vec<Arrival>, Reject>) -> u16 {
    refused.expect_err("it is refused").status
}

fn signed(secret: &[u8], id: &str, at_s: u64, body: &str) -> [(String, String); 3] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(format!("{id}.{at_s}.{body}").as_bytes());
    let code = STANDARD.encode(mac.finalize().into_bytes());
    [
        ("webhook-id".to_owned(), id.to_owned()),
        ("webhook-timestamp".to_owned(), at_s.to_string()),
        ("webhook-signature".to_owned(), format!("v1a,xx v1,{code}")),
    ]
}

fn send(
    source: &WebhookSource,
    headers: &[(String, String)],
    body: &str,
) -> Result<Vec<Arrival>, Reject> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    accept(source, &headers, body)
}

#[test]
fn a_plain_request_is_one_event_with_its_body_headers_and_id() {
    let source = source(json!({}));
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "k1"),
        ("authorization", "Bearer geheim"),
        ("x-kind", "push"),
    ];
    let [event] = &accept(&source, &headers, r#"{"a": 1}"#).unwrap()[..] else {
        panic!("one event")
    };
    assert_eq!(event.value.as_deref(), Some(&br#"{"a": 1}"#[..]));
    assert_eq!(event.id.as_deref(), Some(&b"k1"[..]));
    assert_eq!(event.timestamp_ms, Some(NOW_MS as i64));
    assert_eq!(header(event, "x-kind"), Some("push"));
    assert_eq!(header(event, "authorization"), None);
}

/// Row E10: what is no JSON to every reader is refused; what is, is kept to the byte.
#[test]
fn e10_a_body_is_json_unless_its_source_says_otherwise() {
    let plain = source(json!({}));
    let large = format!("{{\"a\": {}}}", "9".repeat(400));
    for (body, taken) in [
        (&b"{"[..], false),
        (b"", false),
        (b"{\"a\":1,\"a\":2}", false),
        (b"\"\\ud800\"", false),
        (b"1", true),
        (b" {\"a\": \"\\u0000\"} ", true),
        (large.as_bytes(), true),
    ] {
        match accept(&plain, &[], body) {
            Ok(events) => assert!(taken && events[0].value.as_deref() == Some(body)),
            Err(reject) => assert_eq!((taken, reject.status), (false, 400), "{body:?}"),
        }
    }
    let config = serde_json::from_value(json!({})).unwrap();
    let declared = WebhookSource::open(&config, Some(Codec::Bytes)).unwrap();
    assert!(
        accept(&declared, &[], &b"\xff"[..]).is_ok(),
        "a gate is asked elsewhere"
    );
}

/// Row E09: nothing is taken apart that is not JSON, and a form is no JSON.
#[test]
fn e09_a_form_in_parts_is_refused_whatever_is_in_it() {
    let kinds = ["multipart/form-data; boundary=x", "Multipart/Mixed"];
    for kind in kinds {
        let refused = accept(&source(json!({})), &[("content-type", kind)], "{}");
        assert_eq!(status(refused), 415);
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert!(
        accept(&source(json!({})), &form, "{}").is_ok(),
        "as curl says it"
    );
    let boundary =
        "--x\r\ncontent-disposition: form-data; name=f; filename=/etc/passwd\r\n\r\n1\r\n--x--";
    let json = [("content-type", "application/json")];
    assert_eq!(status(accept(&source(json!({})), &json, boundary)), 400);
}

/// Rows E06 and E07, S07: no signature, part of one, of another secret or body; five minutes and no more.
#[test]
fn e06_e07_a_signature_must_fit_body_id_and_time() {
    let source = source(json!({"secrets": ["geheim"]}));
    let now_s = NOW_MS / 1000;
    let good = signed(b"geheim", "m1", now_s, "{}");
    let [event] = &send(&source, &good, "{}").unwrap()[..] else {
        panic!("one event")
    };
    assert_eq!(event.id.as_deref(), Some(&b"m1"[..]));
    assert_eq!(header(event, "webhook-signature"), None);
    assert_eq!(status(send(&source, &good, "[]")), 401);
    assert_eq!(
        status(send(&source, &signed(b"other", "m1", now_s, "{}"), "{}")),
        401
    );
    assert_eq!(status(send(&source, &good[..2], "{}")), 401);
    assert_eq!(status(send(&source, &[], "{}")), 401);
    for (at_s, taken) in [
        (now_s - 300, true),
        (now_s + 300, true),
        (now_s - 301, false),
        (now_s + 301, false),
    ] {
        let found = send(&source, &signed(b"geheim", "m1", at_s, "{}"), "{}");
        assert_eq!(found.is_ok(), taken, "{at_s}");
    }
    let mut other = good;
    other[0].1 = "m2".to_owned();
    assert_eq!(status(send(&source, &other, "{}")), 401);
}

/// S07, E06: a signature is for these bytes and no others.
#[test]
fn each_bit_of_a_body_and_of_its_signature_counts() {
    let source = source(json!({"secrets": ["geheim"]}));
    let body = r#"{"amount": 12}"#;
    let good = signed(b"geheim", "m1", NOW_MS / 1000, body);
    assert!(send(&source, &good, body).is_ok());
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    let borrowed: Vec<_> = good
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    for bit in 0..body.len() * 8 {
        let other = flipped(body.as_bytes(), bit);
        assert_eq!(status(accept(&source, &borrowed, other)), 401, "bit {bit}");
    }
    let at = good
        .iter()
        .position(|(name, _)| name == "webhook-signature")
        .unwrap();
    let seal = STANDARD
        .decode(good[at].1.rsplit(',').next().unwrap())
        .unwrap();
    for bit in 0..seal.len() * 8 {
        let mut other = good.clone();
        other[at].1 = format!("v1,{}", STANDARD.encode(flipped(&seal, bit)));
        assert_eq!(status(send(&source, &other, body)), 401, "bit {bit}");
    }
    for cut in 0..seal.len() {
        let mut other = good.clone();
        other[at].1 = format!("v1,{}", STANDARD.encode(&seal[..cut]));
        assert_eq!(status(send(&source, &other, body)), 401, "{cut} bytes");
    }
}

/// The example that the specification's libraries share, signed by them and not by us.
#[test]
fn a_signature_of_the_specifications_own_is_accepted() {
    let source = source(json!({"secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}));
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        (
            "webhook-signature",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), Bytes::from(value)));
    let request = PushRequest {
        method: "POST",
        query: "",
        headers: &headers,
        body: &Bytes::from_static(br#"{"test": 2432232314}"#),
    };
    assert!(source.accept(&request, 1_614_265_330_000).is_ok());
}

/// Row E06, S07: a secret is changed while both are good.
#[test]
fn e06_two_secrets_are_active_and_no_more() {
    let two = source(json!({"secrets": ["old", "new"]}));
    for secret in [&b"old"[..], b"new"] {
        let headers = signed(secret, "m", NOW_MS / 1000, "{}");
        assert!(send(&two, &headers, "{}").is_ok());
    }
    let three: WebhookConfig = serde_json::from_value(json!({"secrets": ["a", "b", "c"]})).unwrap();
    assert!(WebhookSource::open(&three, None).is_err());
}

#[test]
fn a_secret_that_cannot_be_had_is_refused_without_a_word_of_it() {
    for written in [
        "",
        "whsec_%%%geheim",
        "env:EVERMILL_NO_SUCH_VARIABLE",
        "file:/no/such/file",
    ] {
        let config = serde_json::from_value(json!({"secrets": [written]})).unwrap();
        let refused = WebhookSource::open(&config, None)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            refused.starts_with("secret") && !refused.contains("geheim"),
            "{refused}"
        );
    }
    let file = std::env::temp_dir().join(format!("evermill-secret-{}", std::process::id()));
    std::fs::write(&file, "from a file\n").unwrap();
    let written = format!("file:{}", file.display());
    let found = source(json!({"secrets": [written]}));
    std::fs::remove_file(&file).unwrap();
    let headers = signed(b"from a file", "m", NOW_MS / 1000, "{}");
    assert!(send(&found, &headers, "{}").is_ok());
}

#[test]
fn a_cloud_event_in_binary_mode_has_its_attributes_in_headers() {
    let source = source(json!({}));
    let headers = [
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "A 1"),
        ("ce-source", "/shop"),
        ("ce-type", "order.made"),
        ("ce-time", "2023-11-14T22:13:20.5Z"),
        ("ce-partitionkey", "ann"),
        ("ce-note", "gr%C3%BC%C3%9Fe"),
    ];
    let [event] = &accept(&source, &headers, "no json").unwrap()[..] else {
        panic!("one event")
    };
    assert_eq!(event.value.as_deref(), Some(&b"no json"[..]));
    assert_eq!(event.key.as_deref(), Some(&b"ann"[..]));
    assert_eq!(event.timestamp_ms, Some(1_700_000_000_500));
    assert_eq!(header(event, "ce-type"), Some("order.made"));
    assert_eq!(header(event, "ce-note"), Some("grüße"));
    assert_eq!(header(event, "content-type"), Some("text/plain"));
}

fn event(more: Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"});
    let more = more.as_object().unwrap().clone();
    event.as_object_mut().unwrap().extend(more);
    event
}

const STRUCTURED: [(&str, &str); 1] = [(
    "content-type",
    "application/cloudevents+json; charset=utf-8",
)];
const BATCHED: [(&str, &str); 1] = [("content-type", "application/cloudevents-batch+json")];

#[test]
fn a_cloud_event_in_structured_mode_has_its_data_as_value() {
    let source = source(json!({}));
    for (more, value, sort) in [
        (
            json!({"data": {"n": 1}}),
            Some("{\"n\":1}"),
            Some("application/json"),
        ),
        (
            json!({"data": "x"}),
            Some("\"x\""),
            Some("application/json"),
        ),
        (
            json!({"data": "<x/>", "datacontenttype": "text/xml"}),
            Some("<x/>"),
            Some("text/xml"),
        ),
        (
            json!({"data": {"n": 1}, "datacontenttype": "application/x+json"}),
            Some("{\"n\":1}"),
            Some("application/x+json"),
        ),
        (
            json!({"data_base64": "aGk="}),
            Some("hi"),
            Some("application/json"),
        ),
        (json!({}), None, None),
        (json!({"flag": true, "number": 7, "none": null}), None, None),
    ] {
        let found = accept(&source, &STRUCTURED, event(more.clone()).to_string()).unwrap();
        let text = found[0]
            .value
            .as_ref()
            .map(|value| String::from_utf8(value.to_vec()).unwrap());
        assert_eq!(text.as_deref(), value, "{more}");
        assert_eq!(header(&found[0], "content-type"), sort, "{more}");
        assert_eq!(header(&found[0], "ce-source"), Some("/s"));
    }
}

#[test]
fn source_and_id_together_make_a_cloud_event_the_same() {
    let source = source(json!({}));
    let id = |more| {
        accept(&source, &STRUCTURED, event(more).to_string())
            .unwrap()
            .remove(0)
            .id
    };
    let same = id(json!({"data": 1}));
    assert_eq!(same, id(json!({"data": 2})));
    assert_ne!(same, id(json!({"id": "2"})));
    assert_ne!(
        id(json!({"source": "/s", "id": "11"})),
        id(json!({"source": "/s1", "id": "1"}))
    );
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let source = source(json!({}));
    let batch = json!([event(json!({"id": "1"})), event(json!({"id": "2"}))]);
    assert_eq!(
        accept(&source, &BATCHED, batch.to_string()).unwrap().len(),
        2
    );
    assert_eq!(accept(&source, &BATCHED, "[]").unwrap().len(), 0);
    let wrong = json!([event(json!({})), event(json!({"type": ""}))]);
    let refused = accept(&source, &BATCHED, wrong.to_string()).unwrap_err();
    assert!(
        refused.detail.contains("event 1") && refused.detail.contains("type"),
        "{}",
        refused.detail
    );
    let long: Value = (0..1001)
        .map(|id| event(json!({"id": id.to_string()})))
        .collect();
    assert_eq!(status(accept(&source, &BATCHED, long.to_string())), 413);
}

#[test]
fn what_is_no_cloud_event_is_refused_with_the_reason() {
    let source = source(json!({}));
    for (more, said) in [
        (json!({"specversion": "0.3"}), "0.3"),
        (json!({"id": ""}), "id"),
        (json!({"source": null}), "source"),
        (json!({"time": "today"}), "time"),
        (json!({"Upper": "x"}), "Upper"),
        (json!({"object": {}}), "object"),
        (json!({"data": 1, "data_base64": "aGk="}), "exclude"),
        (json!({"data_base64": "?"}), "base64"),
    ] {
        let refused = accept(&source, &STRUCTURED, event(more).to_string()).unwrap_err();
        assert_eq!(refused.status, 400);
        assert!(refused.detail.contains(said), "{}", refused.detail);
    }
    assert_eq!(status(accept(&source, &STRUCTURED, "{")), 400);
    assert_eq!(status(accept(&source, &STRUCTURED, "[]")), 400);
    let avro = [("content-type", "application/cloudevents+avro")];
    assert_eq!(status(accept(&source, &avro, "x")), 415);
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t")];
    assert_eq!(status(accept(&source, &binary, "x")), 400);
}
