//! Traces over OTLP: HTTP with JSON, as every collector of OpenTelemetry takes it.

mod export;
mod otlp;

pub use export::{Config, Exporter};
