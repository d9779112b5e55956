//! The gates themselves: one per codec.

use evermill_contract::source::{Form, Gate, REJECTION_BYTES_MAX, Unavailable, Verdict};

use super::decoding::{Decoded, Language, Schemas};
use super::json;
use super::schema::Schema;

/// UTF-8.
pub(super) struct TextGate;

impl Gate for TextGate {
    fn judge(&self, value: &[u8], _: Form, _: &mut Vec<u8>) -> Result<Verdict, Unavailable> {
        Ok(text(value))
    }

    fn judge_known(&self, value: &[u8], _: Form, _: &mut Vec<u8>) -> Option<Verdict> {
        Some(text(value))
    }
}

fn text(value: &[u8]) -> Verdict {
    match std::str::from_utf8(value) {
        Ok(_) => Verdict::Passes,
        Err(cause) => {
            let at = cause.valid_up_to();
            let found = super::excerpt::bytes(value, at);
            rejected(
                "text",
                &format!("it is not UTF-8: bytes {found} at byte {at}"),
            )
        }
    }
}

/// JSON, with a schema or without.
pub(super) struct JsonGate {
    schema: Option<Schema>,
}

impl JsonGate {
    pub(super) const fn new(schema: Option<Schema>) -> Self {
        Self { schema }
    }

    fn look(&self, value: &[u8]) -> Verdict {
        if let Err(why) = json::check(value) {
            return rejected("json", &why);
        }
        match self.schema.as_ref().map(|schema| schema.check(value)) {
            None | Some(Ok(())) => Verdict::Passes,
            Some(Err(why)) => rejected("schema", &why),
        }
    }
}

impl Gate for JsonGate {
    fn judge(&self, value: &[u8], _: Form, _: &mut Vec<u8>) -> Result<Verdict, Unavailable> {
        Ok(self.look(value))
    }

    fn judge_known(&self, value: &[u8], _: Form, _: &mut Vec<u8>) -> Option<Verdict> {
        Some(self.look(value))
    }
}

/// What becomes JSON by its schema: Avro, Protobuf.
pub(super) struct DecodingGate<L> {
    schemas: Schemas<L>,
}

impl<L> DecodingGate<L> {
    pub(super) const fn new(schemas: Schemas<L>) -> Self {
        Self { schemas }
    }
}

impl<L: Language> Gate for DecodingGate<L> {
    fn judge(&self, value: &[u8], form: Form, out: &mut Vec<u8>) -> Result<Verdict, Unavailable> {
        if let Some(verdict) = edited::<L>(value, form) {
            return Ok(verdict);
        }
        Ok(verdict::<L>(self.schemas.decode(value, out)?))
    }

    fn judge_known(&self, value: &[u8], form: Form, out: &mut Vec<u8>) -> Option<Verdict> {
        let edited = edited::<L>(value, form);
        edited.or_else(|| Some(verdict::<L>(self.schemas.decode_known(value, out)?)))
    }
}

/// Who edits a value writes what tasks read, or what would have been sent.
fn edited<L: Language>(value: &[u8], form: Form) -> Option<Verdict> {
    let is_json = form == Form::Edited && L::is_edited(value);
    is_json.then(|| match json::check(value) {
        Ok(()) => Verdict::Passes,
        Err(why) => rejected("json", &why),
    })
}

fn verdict<L: Language>(decoded: Decoded) -> Verdict {
    match decoded {
        Ok(()) => Verdict::Becomes,
        Err(why) => rejected(L::CODEC, &why),
    }
}

fn rejected(by: &str, why: &str) -> Verdict {
    let mut text = format!("{by}: {why}");
    let mut end = text.len().min(REJECTION_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    Verdict::Rejected(text)
}
