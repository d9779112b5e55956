//! **Listens.** Sources of the outside world behind the traits of `contract::source`. A connector sees no run,
//! no store and no DAG: it finds lanes, delivers events from the positions it is given, and says
//! what goes wrong.
//!
//! Each connector is a folder with its settings, its source and a README; this file lists them all.

use evermill_contract::manifest::SourceConfig;
use evermill_contract::source::{DiagnosticSink, Opened, SourceBudget, SourceError};

pub mod kafka;
pub mod limits;

/// What a source is given beside its own settings.
pub struct Environment<'a> {
    /// Finds the address of a connection by its id, such as `kafka_default`.
    pub connection: &'a dyn Fn(&str) -> Option<String>,
    /// How much the source may hold.
    pub budget: SourceBudget,
    /// Where diagnostics go.
    pub diagnostics: DiagnosticSink,
}

/// Opens the source that a manifest describes. Does not wait for the outside world: whether that
/// answers is said by the first polls.
///
/// # Errors
/// [`SourceError::Refused`] when a setting or connection is missing or wrong.
pub fn open(config: &SourceConfig, environment: &Environment<'_>) -> Result<Opened, SourceError> {
    match config {
        SourceConfig::Kafka(config) => {
            let source = kafka::KafkaSource::open(config, environment)?;
            Ok(Opened::Log(Box::new(source)))
        }
    }
}
