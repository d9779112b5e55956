//! `/api/v1` as an OpenAPI 3.1 document, made of [`crate::table`] and of the types that are sent.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::table::{Content, Kind, Of, Parameter, ROUTES, Role, Route};

/// Where shapes are kept.
const SHAPES: &str = "/components/schemas";

/// What is read and what is written have shapes of their own: a field with a default may be left out of
/// the one and is always in the other.
struct Shapes {
    sent: SchemaGenerator,
    taken: SchemaGenerator,
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = SHAPES.into();
            settings.meta_schema = None;
        })
    };
    let mut shapes = Shapes {
        sent: settings().for_serialize().into_generator(),
        taken: settings().for_deserialize().into_generator(),
    };
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let name = route.method.name().to_ascii_lowercase();
        let told = operation(route, &mut shapes);
        paths.entry(route.path).or_default().insert(name, told);
    }
    let mut events = Vec::new();
    for route in ROUTES {
        if let Content::Events(name, told) = route.answer {
            events.push((name.to_owned(), told(&mut shapes.sent)));
        }
    }
    shapes.sent.subschema_for::<Problem>();
    let mut all = shapes.sent.take_definitions(true);
    all.extend(shapes.taken.take_definitions(true));
    all.extend(events);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "evermill",
            "version": "1",
            "summary": "What runs, where it is stuck, and what to do about it",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{}, {"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": all,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "evermill_session"},
            },
            "responses": {
                "Problem": {
                    "description": "Why it was not done (RFC 9457)",
                    "content": {
                        Problem::MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}},
                    },
                },
            },
        },
    });
    plain_text(&mut document);
    document
}

fn operation(route: &Route, shapes: &mut Shapes) -> Value {
    let role = match route.role {
        Role::Guest => "guest",
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    };
    let named = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": match name {
                "run" => "a run id, or a DAG id for its latest run",
                "dag" => "a DAG id",
                "number" => "the number of a replay",
                _ => "its name",
            },
            "schema": match name {
                "number" => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
                _ => json!({"type": "string", "minLength": 1}),
            },
        }))
    });
    let mut parameters: Vec<Value> = named.collect();
    parameters.extend(route.query.iter().map(|one| parameter(route, one)));
    let name = route.method.name();
    if name == "POST" {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 200},
            "description": "the same request with the same key is done once within an hour",
        }));
    }
    if name == "PUT" {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "schema": {"type": "string"},
            "description": "the ETag that was seen; done only if it is still that",
        }));
    }
    let mut answer = json!({"description": "done"});
    if let Some(content) = content(route.answer, &mut shapes.sent) {
        answer["content"] = content;
    }
    let mut told = json!({
        "operationId": route.id,
        "summary": route.about,
        "x-role": role,
        "tags": [match route.of {
            Of::Dag => "one DAG",
            Of::Engine => "the engine",
            Of::Listed => "what there is",
        }],
        "parameters": parameters,
        "responses": {
            "200": answer,
            "default": {"$ref": "#/components/responses/Problem"},
        },
    });
    if let Some(content) = content(route.body, &mut shapes.taken) {
        let required = !matches!(route.body, Content::JsonOrNothing(_));
        told["requestBody"] = json!({"required": required, "content": content});
    }
    told
}

fn parameter(route: &Route, parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Number(max) => json!({"type": "integer", "minimum": 0, "maximum": max}),
        Kind::Milliseconds => json!({
            "type": "integer", "minimum": 0, "maximum": i64::MAX, "format": "int64",
        }),
        Kind::Flag => json!({"type": "boolean"}),
    };
    let required = route.path.ends_with("/payload") && parameter.name == "id";
    json!({
        "name": parameter.name,
        "in": "query",
        "required": required,
        "description": parameter.about,
        "schema": schema,
    })
}

fn content(content: Content, shapes: &mut SchemaGenerator) -> Option<Value> {
    Some(match content {
        Content::Nothing => return None,
        Content::Json(shape) | Content::JsonOrNothing(shape) => {
            json!({"application/json": {"schema": shape(shapes)}})
        }
        Content::Bytes => json!({"application/octet-stream": {}}),
        Content::Events(name, _) => json!({
            "text/event-stream": {
                "schema": {"type": "string"},
                "x-events": {"$ref": format!("#{SHAPES}/{name}")},
            },
        }),
    })
}

/// Comments in the code link to other places in it; readers of the document cannot follow.
fn plain_text(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`");
                    }
                    other => plain_text(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain_text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_described_once_and_every_shape_is_there() {
        let document = document();
        let mut ids: Vec<&str> = ROUTES.iter().map(|route| route.id).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "two operations have one name");
        let paths = document["paths"].as_object().unwrap();
        let told: usize = paths
            .values()
            .map(|path| path.as_object().unwrap().len())
            .sum();
        assert_eq!(told, count);
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let place = part.split('"').next().unwrap();
            assert!(document.pointer(place).is_some(), "{place} is nowhere");
        }
    }

    #[test]
    fn what_is_read_and_what_is_written_do_not_share_a_name() {
        let settings = || SchemaSettings::draft2020_12();
        let mut sent = settings().for_serialize().into_generator();
        let mut taken = settings().for_deserialize().into_generator();
        for route in ROUTES {
            content(route.answer, &mut sent);
            content(route.body, &mut taken);
        }
        for name in taken.definitions().keys() {
            let other = sent.definitions().get(name);
            assert!(other.is_none(), "{name} is in both");
        }
    }
}
