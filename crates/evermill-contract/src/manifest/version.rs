//! The version of a DAG: the hash of everything that decides how it behaves (W17).

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{DagManifest, Manifest};

/// Fields that hold an instant. They may differ each time the same file is loaded.
const TIME_VALUED: [&str; 1] = ["start_date"];

/// Separates this hash from any other use of SHA-256; the number is the rule's own version.
const DOMAIN: &[u8] = b"evermill dag version 1\n";

/// Identifies one immutable version of a DAG: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(String);

impl Version {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Manifest {
    /// The version of one of this manifest's DAGs: SHA-256 over the bundle's files and the DAG
    /// without its time-valued fields, as `docs/spec/manifest.md` lays out byte by byte.
    pub fn version(&self, dag: &DagManifest) -> Version {
        let mut text = String::new();
        for file in &self.files {
            canonical(&Value::from(file.path.as_str()), &mut text);
            text.push(' ');
            text.push_str(&file.sha256);
            text.push('\n');
        }
        canonical(&without_instants(dag), &mut text);
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(text);
        let mut hex = String::with_capacity(64);
        for byte in hash.finalize() {
            write!(hex, "{byte:02x}").expect("a String takes everything");
        }
        Version(hex)
    }
}

fn without_instants(dag: &DagManifest) -> Value {
    let mut value = serde_json::to_value(dag).expect("a manifest has string keys only");
    if let Value::Object(fields) = &mut value {
        TIME_VALUED.iter().for_each(|name| {
            fields.remove(*name);
        });
    }
    value
}

/// JSON with sorted keys and no blanks. Keys are sorted here and not by `serde_json`, whose order
/// depends on a feature any crate of the build may switch on.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_str());
            sequence(out, ['{', '}'], sorted, |(name, value), out| {
                canonical(&Value::from(name.as_str()), out);
                out.push(':');
                canonical(value, out);
            });
        }
        Value::Array(items) => sequence(out, ['[', ']'], items, canonical),
        plain => out.push_str(&plain.to_string()),
    }
}

fn sequence<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(T, &mut String),
) {
    out.push(open);
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        each(item, out);
    }
    out.push(close);
}
