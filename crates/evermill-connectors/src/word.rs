//! What a function of the author's said: `[false]`, `[true]`, or `[true, value]` with what it found.

use evermill_contract::source::Reply;
use serde_json::Value;

/// Whatever is no clear word says nothing.
#[derive(Debug, PartialEq)]
pub(crate) enum Word {
    /// It is there; with what was found, if it said so.
    True(Option<Value>),
    /// It is not.
    False,
    /// It said neither: why.
    Nothing(String),
}

impl Word {
    pub(crate) fn of(said: Reply) -> Self {
        let said = match said {
            Reply::Failed(why) => return Self::Nothing(format!("failed: {why}")),
            Reply::Returned(None) => return Self::Nothing("said nothing".to_owned()),
            Reply::Returned(Some(said)) => said,
        };
        match serde_json::from_slice::<Vec<Value>>(&said).as_deref() {
            Ok([Value::Bool(false), ..]) => Self::False,
            Ok([Value::Bool(true)]) => Self::True(None),
            Ok([Value::Bool(true), value]) => Self::True(Some(value.clone())),
            _ => Self::Nothing("said what is no answer".to_owned()),
        }
    }
}
