//! A schema in a file of its own, as a DAG file in YAML names it; `evermill._content` reads it for Python.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What `protoc --include_imports --descriptor_set_out` writes is commonly called.
const DESCRIPTORS: [&str; 4] = ["binpb", "pb", "desc", "protoset"];

/// A longer schema is no schema but a mistake.
const BYTES_MAX: usize = 1 << 20;

/// Reads `order.avsc`, `order.schema.json`, `order.proto#shop.Order`, seen from `folder`.
///
/// # Errors
/// What is wrong, in a sentence.
pub(super) fn read(written: &str, folder: &Path) -> Result<Value, String> {
    let (path, message) = match written.split_once('#') {
        Some((path, message)) => (path, Some(message)),
        None => (written, None),
    };
    let file = folder.join(path);
    let ending = file.extension().and_then(|ending| ending.to_str());
    let mut schema = match ending {
        Some("proto") => {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            json!({"proto": name, "files": protos(&file, &name, folder)?})
        }
        Some(ending) if DESCRIPTORS.contains(&ending) => {
            json!({"descriptors": STANDARD.encode(bytes(&file)?)})
        }
        _ => {
            let text = bytes(&folder.join(written))?;
            return serde_json::from_slice(&text).map_err(|cause| cause.to_string());
        }
    };
    if let Some(message) = message {
        schema["message"] = message.into();
    }
    Ok(schema)
}

fn bytes(file: &Path) -> Result<Vec<u8>, String> {
    let text = std::fs::read(file).map_err(|cause| format!("{}: {cause}", file.display()))?;
    if text.len() > BYTES_MAX {
        let file = file.display();
        return Err(format!("{file} has more than {BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// A `.proto` file and what it imports, by the names that imports use: beside it, or from a folder above, up to
/// that of the DAG file.
fn protos(file: &Path, main: &str, folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let beside = file.parent().unwrap_or(folder);
    let roots: Vec<&Path> = beside
        .ancestors()
        .take_while(|root| *root == beside || root.starts_with(folder))
        .collect();
    let mut files = BTreeMap::new();
    let mut wanted = vec![main.to_owned()];
    while let Some(name) = wanted.pop() {
        let mut places = roots.iter().map(|root| root.join(&name));
        let found = places.find(|place| place.is_file());
        if files.contains_key(&name) || found.is_none() && name.starts_with("google/protobuf/") {
            continue;
        }
        if found.is_none() && !files.is_empty() {
            return Err(format!(
                "it imports '{name}', which lies neither beside it nor in a folder above"
            ));
        }
        let place = found.unwrap_or_else(|| file.to_owned());
        let text = String::from_utf8(bytes(&place)?);
        let text = text.map_err(|_| format!("{} is not UTF-8", place.display()))?;
        wanted.extend(text.lines().filter_map(import));
        files.insert(name, text);
    }
    Ok(files)
}

/// What a line imports.
fn import(line: &str) -> Option<String> {
    let rest = line.trim_start().strip_prefix("import")?.trim_start();
    let rest = rest.strip_prefix("public").unwrap_or(rest);
    let rest = rest.strip_prefix("weak").unwrap_or(rest).trim_start();
    let (name, rest) = rest.strip_prefix('"')?.split_once('"')?;
    rest.trim_start().starts_with(';').then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proto_file_brings_what_it_imports_from_beside_it_and_above() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let main = "syntax = \"proto3\";\nimport \"near.proto\";\n  import public \"shop/far.proto\" ;\nimport \"google/protobuf/any.proto\";\n";
        write("protos/shop/order.proto", main);
        write("protos/shop/near.proto", "");
        write("protos/shop/far.proto", "");
        let read = |written: &str| read(written, folder.path());
        let schema = read("protos/shop/order.proto#shop.Order").unwrap();
        assert_eq!(schema["message"], "shop.Order");
        let files: Vec<&String> = schema["files"].as_object().unwrap().keys().collect();
        assert_eq!(files, ["near.proto", "order.proto", "shop/far.proto"]);
        write("protos/shop/order.proto", "import \"nowhere.proto\";");
        let why = read("protos/shop/order.proto").unwrap_err();
        assert!(why.contains("'nowhere.proto'"), "{why}");
        write("order.binpb", "xyz");
        assert_eq!(read("order.binpb").unwrap(), json!({"descriptors": "eHl6"}));
        write("order#1.json", "{}");
        assert_eq!(read("order#1.json").unwrap(), json!({}));
        assert!(read("gone.json").unwrap_err().contains("gone.json"));
    }
}
