//! What the values of a source have to be ([`Codec`]), and how they become what tasks read. The one place
//! for sources of every kind; `docs/guide/data.md` has the rules.

mod avro;
mod excerpt;
mod gate;
mod json;
mod registry;
mod schema;

use std::sync::Arc;

use evermill_contract::manifest::{Codec, SourceConfig, SourceManifest};
use evermill_contract::source::{Gate, SourceError};
use evermill_http::{Client, Connection};

use crate::Environment;
use avro::Schemas;
use gate::{AvroGate, JsonGate, TextGate};
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
    if let (Some(_), false) = (registry, codec == Some(Codec::Avro)) {
        let cure = "write codec=\"avro\", or leave schema_registry out";
        return wrong("schema_registry belongs to codec=\"avro\"", cure);
    }
    Ok(match (codec, schema) {
        (None | Some(Codec::Bytes), None) => Asked::Nothing,
        (Some(Codec::Text), None) => Asked::Text,
        (None | Some(Codec::Bytes | Codec::Text), Some(_)) => {
            let cure = "leave codec out, and values have to be JSON, or leave schema out";
            return wrong("only JSON and Avro have a schema", cure);
        }
        (Some(Codec::Json), schema) => {
            let schema = schema.map(schema::Schema::compile).transpose();
            let cure = "write a JSON Schema, with everything it refers to in it";
            Asked::Json(schema.map_err(|what| Wrong { what, cure })?)
        }
        (Some(Codec::Avro), schema) => match (schema, registry) {
            (Some(schema), None) => {
                let schema = avro::Schema::parse(schema, &[]);
                let cure = "write an Avro schema, with everything it refers to in it";
                let say = |why| Wrong {
                    what: format!("schema: {why}"),
                    cure,
                };
                Asked::Avro(schema.map_err(say)?)
            }
            (None, Some(id)) => Asked::AvroOf(id.clone()),
            (Some(_), Some(_)) => {
                let cure =
                    "leave one of them out: a registry has the schema that each message names";
                return wrong("schema and schema_registry exclude each other", cure);
            }
            (None, None) => {
                let cure = "name the connection of a registry by schema_registry, or give a schema";
                return wrong("codec=\"avro\" without a schema", cure);
            }
        },
    })
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
        Asked::Avro(schema) => Arc::new(AvroGate::new(Schemas::Fixed(Arc::new(schema)))),
        Asked::AvroOf(id) => {
            let registry = registry(&id, environment).map_err(SourceError::Refused)?;
            Arc::new(AvroGate::new(Schemas::Named(Box::new(registry))))
        }
    };
    Ok(Some(gate))
}

fn registry(id: &str, environment: &Environment<'_>) -> Result<Registry, String> {
    let address = (environment.connection)(id).ok_or_else(|| {
        format!(
            "the connection '{id}' of its schema registry is not set; pass --connection {id}=URL"
        )
    })?;
    let connection = Connection::parse(id, &address).map_err(|error| error.to_string())?;
    let client = Client::new(connection).map_err(|error| error.to_string())?;
    Ok(Registry::new(client))
}
