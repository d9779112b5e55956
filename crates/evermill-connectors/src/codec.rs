//! What the values of a source have to be ([`Codec`]), and how they become what tasks read. The one place
//! for sources of every kind; `docs/guide/data.md` has the rules.

mod avro;
mod decoding;
mod excerpt;
mod gate;
mod json;
mod protobuf;
mod registry;
mod schema;

use std::sync::Arc;

use evermill_contract::manifest::{Codec, SourceConfig, SourceManifest};
use evermill_contract::source::{Gate, SourceError};
use evermill_http::{Client, Connection};

use crate::Environment;
use decoding::{Language, Schemas};
use gate::{DecodingGate, JsonGate, TextGate};
use registry::Registry;

pub use json::check as check_json;

/// What a source says of its values cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub cure: &'static str,
}

/// Whether what a source says of its values goes together, and its schema is one.
///
/// # Errors
/// What is wrong, whatever the outside world is like.
pub fn check(source: &SourceManifest) -> Result<(), Wrong> {
    asked(source).map(drop)
}

/// What is asked of values, without what has to be asked elsewhere.
enum Asked {
    Nothing,
    Text,
    Json(Option<schema::Schema>),
    Avro(avro::Schema),
    AvroOf(String),
    Protobuf(protobuf::Types),
    ProtobufOf(String),
}

fn asked(source: &SourceManifest) -> Result<Asked, Wrong> {
    let wrong = |what: &str, cure: &'static str| {
        let what = what.to_owned();
        Err(Wrong { what, cure })
    };
    let (schema, registry) = (source.schema.as_ref(), source.schema_registry.as_ref());
    let says_something = source.codec.is_some() || schema.is_some() || registry.is_some();
    if says_something {
        match &source.config {
            SourceConfig::Cron(_) | SourceConfig::Every(_) | SourceConfig::Loop(_) => {
                let cure = "leave codec, schema and schema_registry out";
                return wrong("a clock's events have no content", cure);
            }
            SourceConfig::Signal(_)
            | SourceConfig::Alerts(_)
            | SourceConfig::After(_)
            | SourceConfig::Topic(_) => {
                let cure = "leave codec and schema out; a validator may look at them";
                return wrong("its events are JSON already", cure);
            }
            _ => {}
        }
    }
    // A schema alone says that values are JSON.
    let codec = source.codec.or(schema.map(|_| Codec::Json));
    let decodes = matches!(codec, Some(Codec::Avro | Codec::Protobuf));
    if let (Some(_), false) = (registry, decodes) {
        let cure = "write codec=\"avro\" or \"protobuf\", or leave schema_registry out";
        return wrong(
            "schema_registry belongs to codec=\"avro\" and \"protobuf\"",
            cure,
        );
    }
    Ok(match (codec, schema) {
        (None | Some(Codec::Bytes), None) => Asked::Nothing,
        (Some(Codec::Text), None) => Asked::Text,
        (None | Some(Codec::Bytes | Codec::Text), Some(_)) => {
            let cure = "leave codec out, and values have to be JSON, or leave schema out";
            return wrong("only JSON, Avro and Protobuf have a schema", cure);
        }
        (Some(Codec::Json), schema) => {
            let schema = schema.map(schema::Schema::compile).transpose();
            let cure = "write a JSON Schema, with everything it refers to in it";
            Asked::Json(schema.map_err(|what| Wrong { what, cure })?)
        }
        (Some(codec @ (Codec::Avro | Codec::Protobuf)), schema) => {
            match (codec, schema, registry) {
                (_, Some(_), Some(_)) => {
                    let cure =
                        "leave one of them out: a registry has the schema that each message names";
                    return wrong("schema and schema_registry exclude each other", cure);
                }
                (Codec::Avro, Some(schema), None) => {
                    let cure = "write an Avro schema, with everything it refers to in it";
                    Asked::Avro(
                        avro::Schema::parse(schema, &[]).map_err(|why| of_schema(&why, cure))?,
                    )
                }
                (Codec::Avro, None, Some(id)) => Asked::AvroOf(id.clone()),
                (Codec::Avro, None, None) => {
                    let cure =
                        "name the connection of a registry by schema_registry, or give a schema";
                    return wrong("codec=\"avro\" without a schema", cure);
                }
                (_, Some(schema), None) => {
                    let cure = "write the path of a .proto file with what it imports beside it, or of a descriptor set, and behind a # the message, such as order.proto#shop.Order";
                    let types = protobuf::Types::parse(schema);
                    Asked::Protobuf(types.map_err(|why| of_schema(&why, cure))?)
                }
                (_, None, Some(id)) => Asked::ProtobufOf(id.clone()),
                (_, None, None) => {
                    let cure = "name the connection of a registry by schema_registry, or a .proto file by schema";
                    return wrong("codec=\"protobuf\" without a schema", cure);
                }
            }
        }
    })
}

fn of_schema(why: &str, cure: &'static str) -> Wrong {
    Wrong {
        what: format!("schema: {why}"),
        cure,
    }
}

/// The gate that a source declares, if it does.
///
/// # Errors
/// [`SourceError::Refused`] when [`check`] refuses, or a connection is missing.
pub fn gate(
    source: &SourceManifest,
    environment: &Environment<'_>,
) -> Result<Option<Arc<dyn Gate>>, SourceError> {
    let asked = asked(source).map_err(|wrong| {
        let Wrong { what, cure } = wrong;
        SourceError::Refused(format!("{what}; {cure}"))
    })?;
    let gate: Arc<dyn Gate> = match asked {
        Asked::Nothing => return Ok(None),
        Asked::Text => Arc::new(TextGate),
        Asked::Json(schema) => Arc::new(JsonGate::new(schema)),
        Asked::Avro(schema) => fixed(schema),
        Asked::AvroOf(id) => named::<avro::Schema>(&id, environment)?,
        Asked::Protobuf(types) => fixed(types),
        Asked::ProtobufOf(id) => named::<protobuf::Types>(&id, environment)?,
    };
    Ok(Some(gate))
}

fn fixed<L: Language + 'static>(schema: L) -> Arc<dyn Gate> {
    Arc::new(DecodingGate::new(Schemas::Fixed(Arc::new(schema))))
}

fn named<L: Language + 'static>(
    id: &str,
    environment: &Environment<'_>,
) -> Result<Arc<dyn Gate>, SourceError> {
    let registry = registry::<L>(id, environment).map_err(SourceError::Refused)?;
    Ok(Arc::new(DecodingGate::new(Schemas::Named(Box::new(
        registry,
    )))))
}

fn registry<L: Language>(id: &str, environment: &Environment<'_>) -> Result<Registry<L>, String> {
    let address = (environment.connection)(id).ok_or_else(|| {
        format!(
            "the connection '{id}' of its schema registry is not set; pass --connection {id}=URL"
        )
    })?;
    let connection = Connection::parse(id, &address).map_err(|error| error.to_string())?;
    let client = Client::new(connection).map_err(|error| error.to_string())?;
    Ok(Registry::new(client))
}
