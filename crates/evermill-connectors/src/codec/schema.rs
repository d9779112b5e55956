//! JSON Schema: compiled once, asked for every value.

use jsonschema::{Retrieve, Uri, ValidationOptions, Validator};
use serde_json::Value;

use super::excerpt;

/// A compiled schema.
pub(super) struct Schema(Validator);

/// Nothing is fetched: what a schema refers to stands in it.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri}: nothing is fetched for a schema; write it under $defs").into())
    }
}

impl Schema {
    /// # Errors
    /// What is wrong with the schema, and where.
    pub(super) fn compile(schema: &Value) -> Result<Self, String> {
        let options: ValidationOptions<'_> = jsonschema::options();
        let options = options
            .should_validate_formats(true)
            .with_retriever(Nowhere);
        let compiled = options.build(schema);
        compiled.map(Self).map_err(|error| {
            let place = error.instance_path().to_string();
            format!("schema at {}: {error}", named(&place))
        })
    }

    /// # Errors
    /// The first thing that does not fit: where, what is there, what was expected.
    pub(super) fn check(&self, value: &[u8]) -> Result<(), String> {
        let value: Value = serde_json::from_slice(value)
            .map_err(|cause| format!("a schema cannot be asked about it: {cause}"))?;
        if self.0.is_valid(&value) {
            return Ok(());
        }
        let mut errors = self.0.iter_errors(&value);
        let Some(first) = errors.next() else {
            return Ok(());
        };
        let place = first.instance_path().to_string();
        let found = excerpt::of(first.instance(), &place);
        let more = match errors.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let expected = first.masked_with("it").to_string();
        let rule = first.schema_path().to_string();
        Err(format!(
            "found {found} at {}, but {expected} (schema {rule}){more}",
            named(&place)
        ))
    }
}

fn named(place: &str) -> &str {
    if place.is_empty() { "the top" } else { place }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order() -> Schema {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["id", "items"],
            "properties": {
                "id": {"type": "integer"},
                "email": {"type": "string", "format": "email"},
                "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/item"}},
            },
            "$defs": {"item": {"type": "object", "properties": {"price": {"type": "number", "minimum": 0}}}},
        });
        Schema::compile(&schema).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_said_with_place_rule_and_a_masked_value() {
        let said = |value: Value| order().check(value.to_string().as_bytes()).unwrap_err();
        let price = said(json!({"id": 1, "items": [{"price": 1}, {"price": "4111111111111111"}]}));
        assert!(
            price.contains("\"411... (16 characters)\" at /items/1/price"),
            "{price}"
        );
        assert!(price.contains("\"number\""), "{price}");
        assert!(!price.contains("4111111111111111"), "{price}");
        let missing = said(json!({"items": []}));
        assert!(missing.contains("more)"), "{missing}");
        let email = said(json!({"id": 1, "items": [{}], "email": "somebody"}));
        assert!(
            email.contains("at /email") && !email.contains("somebody"),
            "{email}"
        );
        assert_eq!(
            order().check(br#"{"id": 1, "items": [{"price": 2}]}"#),
            Ok(())
        );
    }

    #[test]
    fn a_schema_that_is_none_is_refused_and_nothing_is_fetched() {
        assert!(Schema::compile(&json!({"type": "strang"})).is_err());
        let said = Schema::compile(&json!({"$ref": "https://example.com/s.json"}))
            .err()
            .unwrap();
        assert!(said.contains("nothing is fetched"), "{said}");
    }
}
