//! **Listens.** Sources of the outside world behind the traits of `contract::source`. A connector sees no run,
//! no store and no DAG: it finds lanes, delivers events from the positions it is given, and says
//! what goes wrong. Sinks stand beside them: they send records and say what became of each.
//!
//! Each connector is a folder with its settings, its source and a README; this file lists them all.

use std::sync::Arc;

use evermill_contract::manifest::{Catchup, HttpSource, SinkConfig, SourceConfig, SourceManifest};
use evermill_contract::sensor::Place;
use evermill_contract::sink::Sink;
use evermill_contract::source::{DiagnosticSink, Opened, SourceBudget, SourceError};

pub mod alerts;
mod aws;
pub mod clock;
pub mod codec;
mod errand;
pub mod files;
pub mod http;
mod jitter;
pub mod kafka;
pub mod limits;
mod memory;
mod near;
pub mod poll;
mod side_by_side;
pub mod sqs;
pub mod traces;
pub mod webhook;
mod word;

/// What a source is given beside its own settings.
pub struct Environment<'a> {
    /// Finds the address of a connection by its id, such as `kafka_default`.
    pub connection: &'a dyn Fn(&str) -> Option<String>,
    /// The DAG's first instant, RFC 3339.
    pub start_date: Option<&'a str>,
    /// How much the source may hold.
    pub budget: SourceBudget,
    /// Where diagnostics go.
    pub diagnostics: DiagnosticSink,
}

/// Opens a source with the gate that its values go through.
///
/// # Errors
/// [`SourceError::Refused`] when a setting, a schema or a connection is missing or wrong.
pub fn open_source(
    source: &SourceManifest,
    environment: &Environment<'_>,
) -> Result<Opened, SourceError> {
    let opened = match &source.config {
        SourceConfig::Webhook(config) => {
            let source = webhook::WebhookSource::open(config, source.codec)?;
            Opened::Pushed(Arc::new(source))
        }
        config => open(config, environment)?,
    };
    Ok(match codec::gate(source, environment)? {
        Some(gate) => Opened::Gated(Box::new(opened), gate),
        None => opened,
    })
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
        SourceConfig::Cron(config) => {
            let instants = clock::Instants::of_cron(config)?;
            open_clock(instants, config.catchup, environment)
        }
        SourceConfig::Every(config) => {
            let instants = clock::Instants::of_interval(config, start_ns(environment)?)?;
            open_clock(instants, config.catchup, environment)
        }
        SourceConfig::Loop(_) => Ok(Opened::Looped),
        // What is heard of other DAGs is brought by the engine itself.
        SourceConfig::Signal(_)
        | SourceConfig::Alerts(_)
        | SourceConfig::After(_)
        | SourceConfig::Topic(_) => Ok(Opened::Signalled),
        SourceConfig::Http(config) => {
            let source = http::HttpSource::open(config, environment)?;
            Ok(Opened::Received(Box::new(source)))
        }
        SourceConfig::Poll(config) => {
            let source = poll::PollSource::open(config)?;
            Ok(Opened::Received(Box::new(source)))
        }
        SourceConfig::Files(config) => {
            let source = files::FilesSource::open(config, environment)?;
            Ok(Opened::Received(Box::new(source)))
        }
        SourceConfig::Sqs(config) => {
            let source = sqs::SqsSource::open(config, environment)?;
            Ok(Opened::Received(Box::new(source)))
        }
        SourceConfig::Webhook(config) => {
            let source = webhook::WebhookSource::open(config, None)?;
            Ok(Opened::Pushed(Arc::new(source)))
        }
    }
}

fn open_clock(
    instants: clock::Instants,
    catchup: Catchup,
    environment: &Environment<'_>,
) -> Result<Opened, SourceError> {
    let start = start_ns(environment)?;
    let clock = clock::ClockSource::new(instants, catchup, start, environment.budget);
    Ok(Opened::Log(Box::new(clock)))
}

fn start_ns(environment: &Environment<'_>) -> Result<Option<u64>, SourceError> {
    let Some(text) = environment.start_date else {
        return Ok(None);
    };
    let wrong = |cause: &dyn std::fmt::Display| {
        SourceError::Refused(format!("start_date '{text}': {cause}"))
    };
    let at: jiff::Timestamp = text.parse().map_err(|cause: jiff::Error| wrong(&cause))?;
    let ns = u64::try_from(at.as_nanosecond()).map_err(|_| wrong(&"lies before 1970"))?;
    Ok(Some(ns))
}

/// Opens the place that a sensor asks. Does not wait for the outside world.
///
/// # Errors
/// [`SourceError::Refused`] when a setting or connection is missing or wrong.
pub fn open_place(
    config: &HttpSource,
    connection: &dyn Fn(&str) -> Option<String>,
) -> Result<Box<dyn Place>, SourceError> {
    let environment = Environment {
        connection,
        start_date: None,
        budget: SourceBudget::default(),
        diagnostics: Arc::new(|_, _| {}),
    };
    let place = http::HttpPlace::open(config, &environment)?;
    Ok(Box::new(place))
}

/// Opens the sink that a manifest describes. Does not wait for the outside world.
///
/// # Errors
/// [`SourceError::Refused`] when a setting or connection is missing or wrong.
pub fn open_sink(
    config: &SinkConfig,
    connection: &dyn Fn(&str) -> Option<String>,
    diagnostics: DiagnosticSink,
) -> Result<Box<dyn Sink>, SourceError> {
    Ok(match config {
        SinkConfig::Kafka(config) => {
            Box::new(kafka::KafkaSink::open(config, connection, diagnostics)?)
        }
        SinkConfig::Sqs(config) => Box::new(sqs::SqsSink::open(config, connection)?),
        SinkConfig::File(config) => Box::new(files::FileSink::open(config, connection)?),
        SinkConfig::Http(config) => {
            Box::new(http::HttpSink::open(config, connection, diagnostics)?)
        }
        SinkConfig::Topic(config) => {
            let what = format!("topic {:?} of other DAGs is no place outside", config.topic);
            return Err(SourceError::Refused(what));
        }
    })
}
