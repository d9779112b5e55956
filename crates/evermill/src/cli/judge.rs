//! What a source's codec and schema make of values, where no engine is: in `evermill test`, and by
//! `evermill dev judge` in `evermill.testing`.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use evermill_connectors::{Environment, codec};
use evermill_contract::manifest::SourceManifest;
use evermill_contract::source::{Form, Gate, SourceBudget, Verdict};
use evermill_engine::view::Blob;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::failure::Failure;
use crate::sources::with_addresses;
use crate::vault::Vault;

/// What a value is to tasks.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Judged {
    /// What it is.
    Passes,
    /// Another value.
    Becomes(Blob),
    /// Nothing: why.
    Rejected(String),
}

/// Judges the values of one source.
pub(super) struct Judge<'a> {
    source: &'a SourceManifest,
    gate: Option<Arc<dyn Gate>>,
}

impl<'a> Judge<'a> {
    /// Opens what the source says of its values.
    ///
    /// # Errors
    /// When that cannot be, or a connection is missing.
    pub(super) fn open(source: &'a SourceManifest, vault: &Vault) -> Result<Self, Failure> {
        let gate = with_addresses(vault, |connection| {
            let environment = Environment {
                connection,
                start_date: None,
                budget: SourceBudget::default(),
                diagnostics: Arc::new(|_, _| {}),
            };
            codec::gate(source, &environment)
        });
        let gate = gate.map_err(|why| Failure::usage(format!("source '{}': {why}", source.id)))?;
        Ok(Self { source, gate })
    }

    /// Judges a value as tasks read it, or as it is sent. A tombstone passes.
    ///
    /// # Errors
    /// Whoever has to be asked does not answer.
    pub(super) fn judge(&self, value: Option<&[u8]>) -> Result<Judged, Failure> {
        let (Some(gate), Some(value)) = (&self.gate, value) else {
            return Ok(Judged::Passes);
        };
        let mut new = Vec::new();
        let verdict = gate.judge(value, Form::Edited, &mut new);
        let away = |why| Failure::unreachable(format!("source '{}': {why}", self.source.id));
        Ok(match verdict.map_err(away)? {
            Verdict::Passes => Judged::Passes,
            Verdict::Becomes => Judged::Becomes(Blob::of(&new)),
            Verdict::Rejected(why) => Judged::Rejected(why),
        })
    }

    /// Puts what tasks read in the place of each event's value.
    ///
    /// # Errors
    /// As [`Self::judge`], and where an event is not what it has to be.
    pub(super) fn replace(&self, events: &mut [Value]) -> Result<(), Failure> {
        for event in events {
            let value = event.get("value").cloned();
            let value: Option<Blob> = value.and_then(|value| serde_json::from_value(value).ok());
            let bytes = value.as_ref().and_then(Blob::bytes);
            match self.judge(bytes.as_deref())? {
                Judged::Passes => {}
                Judged::Becomes(new) => event["value"] = serde_json::json!(new),
                Judged::Rejected(why) => {
                    let id = &self.source.id;
                    return Err(Failure::failed(format!(
                        "the event is not what source '{id}' takes, and would be parked as `invalid`: {why}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// What is asked on standard input, as JSON.
#[derive(Deserialize)]
struct Asked {
    /// As in a manifest.
    source: SourceManifest,
    values: Vec<Option<Blob>>,
}

/// Answers a question on standard input by a list on standard output.
pub(super) fn run(data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let mut text = Vec::new();
    let read = std::io::stdin().read_to_end(&mut text);
    read.map_err(|cause| Failure::failed(format!("standard input: {cause}")))?;
    let Asked { source, values } = serde_json::from_slice(&text)
        .map_err(|cause| Failure::usage(format!("standard input: {cause}")))?;
    let vault = Vault::open(&Config::read(data_dir, &[])?)?;
    let judge = Judge::open(&source, &vault)?;
    let judged: Result<Vec<Judged>, Failure> = values
        .iter()
        .map(|value| judge.judge(value.as_ref().and_then(Blob::bytes).as_deref()))
        .collect();
    let text = serde_json::to_string(&judged?);
    let text = text.map_err(|error| Failure::failed(error.to_string()))?;
    writeln!(std::io::stdout().lock(), "{text}").ok();
    Ok(())
}
