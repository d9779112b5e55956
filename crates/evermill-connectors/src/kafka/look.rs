//! Whether a cluster answers, for whoever has just written down where it is.

use std::time::Duration;

use evermill_contract::source::SourceError;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::config::Connection;

/// Asks for the cluster's metadata; what it said, in a sentence.
///
/// # Errors
/// [`SourceError::Refused`] for settings that cannot be, or when nobody answers in time.
pub fn look(id: &str, address: &str, patience: Duration) -> Result<String, SourceError> {
    let refused = SourceError::Refused;
    let config = Connection::parse(id, address)?.producer();
    let client: BaseProducer = config
        .create()
        .map_err(|error| refused(error.to_string()))?;
    let found = client.client().fetch_metadata(None, patience);
    let found = found.map_err(|error| {
        refused(format!(
            "no broker has answered within {} s: {error}",
            patience.as_secs()
        ))
    })?;
    let (brokers, topics) = (found.brokers().len(), found.topics().len());
    Ok(format!("Kafka answers: {brokers} brokers, {topics} topics"))
}
