//! What a codec costs per event, beside none: the time on the source's thread, one core.
//!
//! ```text
//! cargo run --release -p evermill-connectors --example codec_bench -- [EVENTS]
//! ```
//!
//! Each event is an order of some 300 bytes of JSON, or the same as Avro or Protobuf. `none` lays it out as every
//! event is laid out, which the others do as well; `parse` is `serde_json` building a tree of it, for comparison.
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use evermill_connectors::{Environment, codec};
use evermill_contract::source::{Form, Gate, SourceBudget, Verdict};
use serde_json::{Value, json};

fn main() {
    let events = std::env::args().nth(1);
    let events: u32 = events.map_or(1_000_000, |text| text.parse().expect("a whole number"));
    let (order, avro, protobuf) = (order(), avro_order(), protobuf_order());
    let schema = json!({
        "type": "object",
        "required": ["id", "customer", "items"],
        "properties": {
            "id": {"type": "integer"},
            "customer": {"type": "string", "minLength": 1},
            "items": {"type": "array", "items": {
                "type": "object",
                "required": ["sku", "price"],
                "properties": {"sku": {"type": "string"}, "price": {"type": "number", "minimum": 0}},
            }},
        },
    });
    let gates = [
        ("none", None, &order),
        ("text", gate(json!({"codec": "text"})), &order),
        ("json", gate(json!({"codec": "json"})), &order),
        ("json + schema", gate(json!({"schema": schema})), &order),
        (
            "avro to json",
            gate(json!({"codec": "avro", "schema": avro_schema()})),
            &avro,
        ),
        (
            "protobuf to json",
            gate(json!({"codec": "protobuf", "schema": protobuf_schema()})),
            &protobuf,
        ),
    ];
    println!(
        "{events} events, {} bytes of JSON, {} of Avro, {} of Protobuf",
        order.len(),
        avro.len(),
        protobuf.len()
    );
    for (name, gate, value) in gates {
        report(name, events, || judged(gate.as_deref(), value));
    }
    report("parse", events, || {
        let tree: Value = serde_json::from_slice(&order).expect("it is JSON");
        black_box(tree);
        order.len()
    });
}

/// Lays out what a gate makes of a value, and says how long it is.
fn judged(gate: Option<&dyn Gate>, value: &[u8]) -> usize {
    let mut new = Vec::new();
    let verdict = gate.map(|gate| gate.judge(value, Form::Sent, &mut new));
    let value = match verdict {
        None | Some(Ok(Verdict::Passes)) => value,
        Some(Ok(Verdict::Becomes)) => &new,
        other => panic!("{other:?}"),
    };
    black_box(value.to_vec()).len()
}

fn report(name: &str, events: u32, mut each: impl FnMut() -> usize) {
    let begun = Instant::now();
    let mut bytes = 0;
    for _ in 0..events {
        bytes += each();
    }
    let took = begun.elapsed();
    let ns = took.as_nanos() as f64 / f64::from(events);
    let rate = f64::from(events) / took.as_secs_f64();
    println!("{name:<16} {ns:>8.0} ns an event {rate:>12.0} events/s {bytes:>12} bytes");
}

fn gate(more: Value) -> Option<Arc<dyn Gate>> {
    let mut source = json!({"id": "in", "line": 1, "config": {"kind": "kafka", "topic": "t"}});
    let more = more.as_object().expect("options").clone();
    source.as_object_mut().expect("a source").extend(more);
    let source = serde_json::from_value(source).expect("a source");
    let environment = Environment {
        connection: &|_| None,
        start_date: None,
        budget: SourceBudget::default(),
        diagnostics: Arc::new(|_, _| {}),
    };
    codec::gate(&source, &environment).expect("a gate")
}

fn order() -> Vec<u8> {
    let item = |n: u64| json!({"sku": format!("SKU-{n:05}"), "price": n as f64 + 0.5, "count": n});
    let items: Vec<Value> = (1..=5).map(item).collect();
    json!({"id": 123_456, "customer": "Ada Lovelace", "items": items})
        .to_string()
        .into_bytes()
}

fn avro_schema() -> Value {
    let item = json!({"type": "record", "name": "Item", "fields": [
        {"name": "sku", "type": "string"}, {"name": "price", "type": "double"}, {"name": "count", "type": "long"},
    ]});
    json!({"type": "record", "name": "Order", "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {"name": "items", "type": {"type": "array", "items": item}},
    ]})
}

/// A number in as many bytes as it takes, seven bits each.
fn varint(mut bits: u64, bytes: &mut Vec<u8>) {
    while bits >= 0x80 {
        bytes.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    bytes.push(bits as u8);
}

fn protobuf_schema() -> Value {
    let text = "syntax = \"proto3\";
        message Item { string sku = 1; double price = 2; int64 count = 3; }
        message Order { int64 id = 1; string customer = 2; repeated Item items = 3; }";
    json!({"proto": "order.proto", "files": {"order.proto": text}, "message": "Order"})
}

fn protobuf_order() -> Vec<u8> {
    let framed = |key: u8, content: &[u8], bytes: &mut Vec<u8>| {
        bytes.push(key);
        varint(content.len() as u64, bytes);
        bytes.extend_from_slice(content);
    };
    let mut bytes = vec![0x08];
    varint(123_456, &mut bytes);
    framed(0x12, b"Ada Lovelace", &mut bytes);
    for n in 1..=5_u64 {
        let mut item = Vec::new();
        framed(0x0a, format!("SKU-{n:05}").as_bytes(), &mut item);
        item.push(0x11);
        item.extend_from_slice(&(n as f64 + 0.5).to_le_bytes());
        item.push(0x18);
        varint(n, &mut item);
        framed(0x1a, &item, &mut bytes);
    }
    bytes
}

fn avro_order() -> Vec<u8> {
    let mut bytes = Vec::new();
    let long = |number: u64, bytes: &mut Vec<u8>| varint(number << 1, bytes);
    let text = |text: &str, bytes: &mut Vec<u8>| {
        long(text.len() as u64, bytes);
        bytes.extend_from_slice(text.as_bytes());
    };
    long(123_456, &mut bytes);
    text("Ada Lovelace", &mut bytes);
    long(5, &mut bytes);
    for n in 1..=5_u64 {
        text(&format!("SKU-{n:05}"), &mut bytes);
        bytes.extend_from_slice(&(n as f64 + 0.5).to_le_bytes());
        long(n, &mut bytes);
    }
    long(0, &mut bytes);
    bytes
}
