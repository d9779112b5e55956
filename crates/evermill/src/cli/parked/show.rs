//! `evermill parked show ID`: one of them, whole.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use evermill_engine::view::{Blob, EventView, ParkedFilter, ParkedView};

use super::{Chosen, Show, lines, page, run_of};
use crate::failure::Failure;
use crate::reach::Reach;
use crate::table::print;

/// Prints one.
pub(super) fn run(reach: &Reach, args: &Show) -> Result<(), Failure> {
    let entry = one(reach, &args.id)?;
    if args.json {
        return print(&lines(&[entry])?);
    }
    print(&text(&entry, args.hex))
}

/// Finds one with its payload.
pub(super) fn one(reach: &Reach, id: &str) -> Result<ParkedView, Failure> {
    let chosen = Chosen {
        run: run_of(id)?.to_owned(),
        which: ParkedFilter {
            ids: vec![id.to_owned()],
            ..ParkedFilter::default()
        },
    };
    let mut found = page(reach, &chosen, 0, 1, true)?;
    found
        .entries
        .pop()
        .ok_or_else(|| Failure::failed(format!("'{id}' was taken by somebody else meanwhile")))
}

fn text(entry: &ParkedView, hex: bool) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(out, "{name:<9} {value}").expect("a String takes everything");
    };
    line("id", &entry.id);
    line("reason", &entry.reason);
    line("task", entry.task.as_deref().unwrap_or("-"));
    line(
        "arrived",
        &format!("{} ({})", time(entry.arrived_ms), age(entry.arrived_ms)),
    );
    line("version", &entry.version[..entry.version.len().min(12)]);
    if entry.round > 0 {
        line("retried", &format!("{} times by hand", entry.round));
    }
    let error = entry.error.lines().collect::<Vec<_>>().join("\n          ");
    line("error", &error);
    let many = entry.payload.len() > 1;
    for (index, event) in entry.payload.iter().enumerate() {
        out.push('\n');
        if many {
            let position = event.position;
            writeln!(out, "event {index} at {position}").expect("a String takes everything");
        }
        out.push_str(&event_text(event, hex));
    }
    out
}

/// Key, headers and payload.
pub(in crate::cli) fn event_text(event: &EventView, hex: bool) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(out, "{name:<9} {value}").expect("a String takes everything");
    };
    if let Some(key) = &event.key {
        line("key", &short(key));
    }
    for (name, value) in &event.headers {
        let value = value.as_ref().map_or_else(|| "(none)".to_owned(), short);
        line("header", &format!("{name}: {value}"));
    }
    match &event.value {
        None => line("payload", "none"),
        Some(value) => {
            let bytes = value.bytes().unwrap_or_default();
            let (kind, shown) = readable(value, &bytes, hex);
            line("payload", &format!("{} bytes, {kind}", bytes.len()));
            out.push_str(&shown);
            if !shown.ends_with('\n') {
                out.push('\n');
            }
        }
    }
    out
}

fn short(blob: &Blob) -> String {
    match blob {
        Blob::Text(text) => text.clone(),
        Blob::Base64 { base64 } => format!("base64 {base64}"),
    }
}

/// JSON indented, text as it is, anything else as hexadecimal digits.
fn readable(blob: &Blob, bytes: &[u8], hex: bool) -> (&'static str, String) {
    if let (Blob::Text(text), false) = (blob, hex) {
        let json = serde_json::from_str::<serde_json::Value>(text);
        let pretty = json.ok().filter(|json| json.is_object() || json.is_array());
        return match pretty.map(|json| serde_json::to_string_pretty(&json)) {
            Some(Ok(pretty)) => ("JSON", pretty),
            _ => ("text", text.clone()),
        };
    }
    ("hexadecimal", dump(bytes))
}

/// Offset, 16 bytes, and what of them can be printed.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let digits: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let printed = |&byte: &u8| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        };
        let printed: String = chunk.iter().map(printed).collect();
        writeln!(out, "{:08x}  {:<47}  {printed}", row * 16, digits.join(" "))
            .expect("a String takes everything");
    }
    out
}

/// A time for people.
pub(in crate::cli) fn time(ms: u64) -> String {
    let time = i64::try_from(ms)
        .ok()
        .map(jiff::Timestamp::from_millisecond);
    match time {
        Some(Ok(time)) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        _ => format!("{ms} ms"),
    }
}

/// How long ago that was.
pub(in crate::cli) fn age(ms: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = (now.as_millis() as u64).saturating_sub(ms) / 1_000;
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..172_800 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_text_stays_and_bytes_are_dumped() {
        let of = |bytes: &[u8], hex| readable(&Blob::of(bytes), bytes, hex);
        assert_eq!(of(b"{\"a\":1}", false).1, "{\n  \"a\": 1\n}");
        assert_eq!(of(b"17", false), ("text", "17".to_owned()));
        let row = "00000000  ff 41                                            .A\n";
        assert_eq!(of(&[0xff, b'A'], false), ("hexadecimal", row.to_owned()));
        assert_eq!(of(b"A", true).0, "hexadecimal");
    }
}
