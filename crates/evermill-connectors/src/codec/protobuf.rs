//! Protobuf: a binary message and the type it was written with become JSON, by the mapping that Protobuf itself
//! defines (ProtoJSON). Fields that have no presence are always there, also at their default: a task need not
//! know which zero was sent.

mod place;

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions,
};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde::Deserialize;
use serde_json::Value;

use super::decoding::{Decoded, Language};
use super::json;
use super::registry::Referred;
use crate::limits;

/// How a registry's own file is called among those it refers to.
const OF_REGISTRY: &str = "evermill.registered.proto";

/// What messages may be.
pub(super) enum Types {
    /// One type, for all.
    One(MessageDescriptor),
    /// Those of a file; each message says which.
    File(FileDescriptor),
}

/// A schema as front ends write it into the manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The file of `files` that has the type.
    proto: Option<String>,
    /// Texts of `.proto` files, by the names under which they import each other.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// A `FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` writes it, in base64.
    descriptors: Option<String>,
    /// Full name of the type; may be left out when there is only one.
    message: Option<String>,
}

impl Types {
    /// Reads a schema of a manifest.
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        let written = Written::deserialize(value).map_err(|cause| cause.to_string())?;
        let (pool, main) = match (&written.proto, &written.descriptors) {
            (Some(main), None) => (compile(main, written.files)?, Some(main)),
            (None, Some(code)) if written.files.is_empty() => {
                let bytes = STANDARD.decode(code);
                let bytes = bytes.map_err(|_| "descriptors is no base64".to_owned())?;
                let pool = DescriptorPool::decode(&bytes[..]);
                (pool.map_err(|cause| format!("descriptors: {cause}"))?, None)
            }
            _ => {
                let what = "a Protobuf schema has either proto and files, or descriptors";
                return Err(what.to_owned());
            }
        };
        let known: Vec<MessageDescriptor> = match main {
            Some(main) => {
                let file = pool.get_file_by_name(main);
                file.map_or_else(Vec::new, |file| file.messages().collect())
            }
            None => pool.all_messages().collect(),
        };
        let known = known.into_iter().filter(|message| !message.is_map_entry());
        let own =
            |message: &MessageDescriptor| !message.full_name().starts_with("google.protobuf.");
        let known: Vec<MessageDescriptor> = known.filter(own).collect();
        let names = || {
            let names: Vec<&str> = known.iter().map(MessageDescriptor::full_name).collect();
            names.join(", ")
        };
        match (&written.message, &known[..]) {
            (Some(name), _) => {
                let found = pool.get_message_by_name(name);
                let found =
                    found.ok_or_else(|| format!("no message {name:?}; there is {}", names()));
                Ok(Self::One(found?))
            }
            (None, [one]) => Ok(Self::One(one.clone())),
            (None, []) => Err("it has no message".to_owned()),
            (None, _) => Err(format!("say which message it is of {}", names())),
        }
    }

    /// The type of a message, and the message itself.
    fn of<'v>(&self, value: &'v [u8]) -> Result<(MessageDescriptor, &'v [u8]), String> {
        match self {
            Self::One(message) => Ok((message.clone(), value)),
            Self::File(file) => {
                let (path, rest) = indexes(value)
                    .ok_or("behind the id there is no list of the indexes of its message")?;
                let message = at_path(file, &path).ok_or_else(|| {
                    let path: Vec<String> = path.iter().map(u32::to_string).collect();
                    format!("its schema has no message at [{}]", path.join(", "))
                })?;
                Ok((message, rest))
            }
        }
    }
}

impl Language for Types {
    const REGISTERED: &'static str = "PROTOBUF";
    const CODEC: &'static str = "protobuf";

    fn read(schema: &str, references: &[Referred]) -> Result<Self, String> {
        let files = references.iter();
        let mut files: BTreeMap<String, String> = files
            .map(|referred| (referred.name.clone(), referred.schema.clone()))
            .collect();
        files.insert(OF_REGISTRY.to_owned(), schema.to_owned());
        let pool = compile(OF_REGISTRY, files)?;
        let file = pool.get_file_by_name(OF_REGISTRY);
        file.map(Self::File).ok_or_else(|| "it is empty".to_owned())
    }

    fn decode(&self, value: &[u8], out: &mut Vec<u8>) -> Decoded {
        let (message, value) = self.of(value)?;
        let decoded = DynamicMessage::decode(message.clone(), value).map_err(|cause| {
            place::of_fault(&message, value).unwrap_or_else(|| cause.to_string())
        })?;
        let options = SerializeOptions::new().skip_default_fields(false);
        let left = limits::DECODED_BYTES_MAX;
        let mut writer = serde_json::Serializer::new(Bounded { out, left });
        decoded
            .serialize_with_options(&mut writer, &options)
            .map_err(|cause| {
                if cause.is_io() {
                    format!(
                        "it becomes more than {} bytes of JSON",
                        limits::DECODED_BYTES_MAX
                    )
                } else {
                    format!("there is no JSON for it: {cause}")
                }
            })
    }

    /// A bare message may begin with any byte, JSON among them; one that is JSON to its end is.
    fn is_edited(value: &[u8]) -> bool {
        let first = value.iter().find(|byte| !byte.is_ascii_whitespace());
        first == Some(&b'{') || json::check(value).is_ok()
    }
}

/// Compiles files that import each other and Protobuf's own, and nothing else.
fn compile(main: &str, files: BTreeMap<String, String>) -> Result<DescriptorPool, String> {
    struct Texts(BTreeMap<String, String>);
    impl FileResolver for Texts {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            match self.0.get(name) {
                Some(text) => File::from_source(name, text),
                None => Err(protox::Error::file_not_found(name)),
            }
        }

        fn resolve_path(&self, path: &std::path::Path) -> Option<String> {
            path.to_str().map(str::to_owned)
        }
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(files));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(main).map_err(|cause| {
        let file = cause.file().filter(|file| *file != OF_REGISTRY);
        let file = file.map_or_else(String::new, |file| format!("{file}: "));
        format!("{file}{cause}")
    })?;
    Ok(compiler.descriptor_pool())
}

/// Numbers of a message in its file, outermost first, and what follows them: a count, then the numbers; a zero alone is the first message.
fn indexes(value: &[u8]) -> Option<(Vec<u32>, &[u8])> {
    let (count, mut rest) = zigzag(value)?;
    if count == 0 {
        return Some((vec![0], rest));
    }
    if count as usize > limits::PROTOBUF_DEPTH_MAX {
        return None;
    }
    let mut path = Vec::new();
    for _ in 0..count {
        let (index, after) = zigzag(rest)?;
        path.push(index);
        rest = after;
    }
    Some((path, rest))
}

/// A number that is not negative, as Avro writes an int.
fn zigzag(value: &[u8]) -> Option<(u32, &[u8])> {
    let (bits, rest) = place::varint(value)?;
    let number = u32::try_from(bits >> 1).ok()?;
    (bits & 1 == 0).then_some((number, rest))
}

fn at_path(file: &FileDescriptor, path: &[u32]) -> Option<MessageDescriptor> {
    let (first, rest) = path.split_first()?;
    let mut message = file.messages().nth(*first as usize)?;
    for index in rest {
        let child = message.child_messages().nth(*index as usize);
        message = child?;
    }
    Some(message)
}

/// Takes so many bytes and no more.
struct Bounded<'o> {
    out: &'o mut Vec<u8>,
    left: usize,
}

impl io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
