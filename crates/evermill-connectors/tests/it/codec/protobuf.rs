//! Protobuf against its official package, and in a registry's format.

use super::*;

/// Types as descriptors, the same as text, and messages with the JSON that they are.
struct Corpus {
    descriptors: Value,
    proto: Value,
    messages: Vec<(Vec<u8>, Value)>,
}

fn corpus(seed: u64, count: usize) -> Corpus {
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/codec/protobuf_corpus.py"
    );
    let mut command = Command::new(&python);
    let arguments = [seed.to_string(), count.to_string()];
    let done = command.arg(script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{} needs protobuf (xtask/python/test.txt): {said}",
        python.display()
    );
    let text = String::from_utf8(done.stdout).unwrap();
    let mut lines = text.lines();
    let descriptors = lines.next().unwrap();
    let proto: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    let message = |line: &str| {
        let (hex, json) = line.split_once('\t').unwrap();
        (bytes(hex), serde_json::from_str(json).unwrap())
    };
    Corpus {
        descriptors: json!({"descriptors": descriptors, "message": "shop.Order"}),
        proto: json!({"proto": "order.proto", "files": {"order.proto": proto}}),
        messages: lines.map(message).collect(),
    }
}

fn protobuf(schema: Value) -> Arc<dyn Gate> {
    gate(json!({"codec": "protobuf", "schema": schema}))
}

/// Whether two documents are the same; a number may be written with the digits of a float or of a double.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let inner =
                |(name, value): (&String, &Value)| b.get(name).is_some_and(|b| same(value, b));
            a.len() == b.len() && a.iter().all(inner)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || a as f32 == b as f32
        }
        _ => a == b,
    }
}

#[test]
fn what_the_official_package_writes_becomes_the_json_that_it_makes_of_it() {
    for seed in 1..4 {
        let corpus = corpus(seed, 300);
        let gates = [protobuf(corpus.descriptors), protobuf(corpus.proto)];
        for (message, json) in &corpus.messages {
            for gate in &gates {
                let found = sent(&**gate, message).unwrap();
                codec::check_json(found.as_bytes()).unwrap();
                let value: Value = serde_json::from_str(&found).unwrap();
                assert!(same(&value, json), "seed {seed}: {found} is not {json}");
            }
        }
    }
}

/// Row C13.
#[test]
fn c13_what_is_cut_off_or_damaged_is_rejected_or_another_message_and_never_more() {
    let corpus = corpus(9, 60);
    let gate = protobuf(corpus.descriptors);
    let judge = |value: &[u8]| match sent(&*gate, value) {
        Ok(json) => codec::check_json(json.as_bytes()).unwrap(),
        Err(why) => assert!(why.starts_with("protobuf: "), "{why}"),
    };
    for (message, _) in &corpus.messages {
        for end in 0..message.len() {
            judge(&message[..end]);
            for with in [0, 0x7f, 0xff] {
                let mut odd = message.clone();
                odd[end] = with;
                judge(&odd);
            }
        }
    }
}

const ORDER: &str = r#"
syntax = "proto3";
package shop;
message Item { string sku = 1; double price = 2; message Part { int32 n = 1; } Part part = 3; }
message Order { int64 id = 1; repeated Item items = 2; Order before = 3; repeated Order many = 4; Part other_part = 5; }
message Part { string text = 1; bool a = 2; }
"#;

fn order(message: Option<&str>) -> Value {
    let mut schema = json!({"proto": "order.proto", "files": {"order.proto": ORDER}});
    if let Some(message) = message {
        schema["message"] = message.into();
    }
    schema
}

#[test]
fn a_fault_knows_its_place_in_the_message() {
    let gate = protobuf(order(Some("shop.Order")));
    for (value, said) in [
        // The second item's text is no text.
        (
            &b"\x12\x03\x0a\x01a\x12\x04\x0a\x02a\xff"[..],
            "a text that is not UTF-8 (byte 1) at /items/1/sku",
        ),
        (
            b"\x12\x05\x11\x00\x00\x00\x00",
            "it ends after 4 of 8 bytes at /items/0/price",
        ),
        (b"\x12\x09\x0a", "it ends after 1 of 9 bytes at /items/0"),
        (
            b"\x0a\x00",
            "found a length and bytes, expected a varint for int64 at /id",
        ),
        (b"\x08\x80", "a number is cut off at /id"),
        (
            b"\x2a\x02\x0a\x05",
            "it ends after 0 of 5 bytes at /otherPart/text",
        ),
        (b"\x00", "there is no field 0 at /"),
        (
            b"\x37",
            "field 6 is written as a way of writing that does not exist at /",
        ),
    ] {
        let why = sent(&*gate, value).unwrap_err();
        assert_eq!(why, format!("protobuf: {said}"));
    }
    // A field that nobody knows is passed over.
    assert_eq!(
        sent(&*gate, b"\xa2\x06\x01x").unwrap(),
        r#"{"id":"0","items":[],"many":[]}"#
    );
}

#[test]
fn hostile_messages_end_at_a_bound() {
    let gate = protobuf(order(Some("shop.Order")));
    let mut deep = Vec::new();
    for _ in 0..150 {
        let mut outer = vec![0x1a];
        let mut length = deep.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(deep);
        deep = outer;
    }
    let said = sent(&*gate, &deep).unwrap_err();
    assert!(
        said.contains("more than 100 messages inside each other"),
        "{said}"
    );
    // Two bytes become thirty.
    let many = [0x22, 0].repeat(200_000);
    let said = sent(&*gate, &many).unwrap_err();
    assert!(said.contains("more than 4194304 bytes of JSON"), "{said}");
}

#[test]
fn a_schema_that_is_none_or_leaves_the_message_open_is_refused_with_the_cure() {
    let refused = |schema: Value| {
        let wrong = codec::check(&source(json!({"codec": "protobuf", "schema": schema})));
        let wrong = wrong.unwrap_err();
        assert!(wrong.cure.contains(".proto"), "{}", wrong.cure);
        wrong.what
    };
    let open = refused(order(None));
    assert_eq!(
        open,
        "schema: say which message it is of shop.Item, shop.Order, shop.Part"
    );
    let other = refused(order(Some("shop.Bill")));
    assert!(
        other.contains("no message \"shop.Bill\"; there is shop.Item"),
        "{other}"
    );
    let broken = json!({"proto": "a.proto", "files": {"a.proto": "syntax = \"proto3\";\nmessage A { strin b = 1; }"}});
    let said = refused(broken);
    assert!(said.contains("a.proto") && said.contains("strin"), "{said}");
    let said = refused(json!({"descriptors": "AAAA", "message": "a"}));
    assert!(said.starts_with("schema: descriptors: "), "{said}");
    let said = refused(json!({"type": "object"}));
    assert!(said.contains("unknown field `type`"), "{said}");
    let none = codec::check(&source(json!({"codec": "protobuf"})));
    assert_eq!(
        none.unwrap_err().what,
        "codec=\"protobuf\" without a schema"
    );
}

#[test]
fn who_edits_a_message_writes_json_or_protobuf() {
    let gate = protobuf(order(Some("shop.Part")));
    let edited = |value: &[u8]| {
        let mut out = Vec::new();
        let verdict = gate.judge(value, Form::Edited, &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    };
    assert_eq!(
        edited(br#" {"text": "a"}"#),
        (Verdict::Passes, String::new())
    );
    // It begins with a byte that JSON may begin with.
    let sent = (Verdict::Becomes, r#"{"text":"hi","a":false}"#.to_owned());
    assert_eq!(edited(b"\x0a\x02hi"), sent);
    assert!(matches!(edited(b"{"), (Verdict::Rejected(why), _) if why.starts_with("json: ")));
}

/// A registry that knows a schema which imports another, which imports a third; and the third by itself.
fn registry() -> Server {
    Server::start(move |seen| {
        let schema = |text: &str, references: Value| {
            let answer =
                json!({"schema": text, "schemaType": "PROTOBUF", "references": references});
            Reply::new(200, answer.to_string())
        };
        let refers =
            |name: &str, subject: &str| json!([{"name": name, "subject": subject, "version": 1}]);
        match &seen.path[..] {
            "/schemas/ids/7" => schema(ORDER, json!([])),
            "/schemas/ids/8" => schema(
                "syntax = \"proto3\"; import \"shop/money.proto\"; message Bill { shop.Money sum = 1; }",
                refers("shop/money.proto", "money"),
            ),
            "/subjects/money/versions/1" => schema(
                "syntax = \"proto3\"; package shop; import \"unit.proto\"; message Money { Unit unit = 1; int64 n = 2; }",
                refers("unit.proto", "unit"),
            ),
            "/subjects/unit/versions/1" => schema(
                "syntax = \"proto3\"; package shop; enum Unit { NONE = 0; EURO = 1; }",
                json!([]),
            ),
            "/schemas/ids/9" => Reply::new(200, json!({"schema": "\"string\""}).to_string()),
            _ => Reply::new(404, "{}"),
        }
    })
}

/// Row C13: Confluent's format: a zero, the id, which message of the file, the message.
#[test]
fn c13_a_registry_knows_the_file_and_each_message_which_of_its_types_it_is() {
    let server = registry();
    let more = json!({"codec": "protobuf", "schema_registry": "r"});
    let gate = gate_at(more, &server.url());
    let said = |id: u32, rest: &[u8]| sent(&*gate, &framed(id, rest));
    // A zero alone is the first message; else a count and the numbers, as zigzag.
    let first = r#"{"sku":"a","price":0.0}"#;
    assert_eq!(said(7, b"\x00\x0a\x01a").unwrap(), first);
    assert_eq!(said(7, b"\x02\x00\x0a\x01a").unwrap(), first);
    let order = r#"{"id":"5","items":[],"many":[]}"#;
    assert_eq!(said(7, b"\x02\x02\x08\x05").unwrap(), order);
    assert_eq!(said(7, b"\x04\x00\x00\x08\x05").unwrap(), r#"{"n":5}"#);
    assert_eq!(
        said(8, b"\x00\x0a\x04\x08\x01\x10\x02").unwrap(),
        r#"{"sum":{"unit":"EURO","n":"2"}}"#
    );
    for (id, rest, why) in [
        (7, &b"\x02\x08"[..], "its schema has no message at [4]"),
        (7, b"\x04\x00\x02", "its schema has no message at [0, 1]"),
        (7, b"\x01", "no list of the indexes"),
        (7, b"", "no list of the indexes"),
        (
            7,
            b"\x00\x0a\x05",
            "it ends after 0 of 5 bytes at /sku (schema 7)",
        ),
        (9, b"\x00", "schema 9 is of type AVRO, not PROTOBUF"),
        (404, b"\x00", "has no schema 404"),
    ] {
        let found = said(id, rest).unwrap_err();
        assert!(found.contains(why), "{found}");
    }
    let asked = server
        .seen()
        .iter()
        .filter(|seen| seen.path == "/schemas/ids/8")
        .count();
    assert_eq!(asked, 1, "once");
}
