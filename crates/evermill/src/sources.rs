//! Sources, made from what a DAG declares and what is configured.

use std::sync::Arc;

use evermill_connectors::Environment;
use evermill_engine::SourceFactory;

use crate::config::Config;

/// Makes sources with the connections of this configuration.
pub(crate) fn factory(config: Config) -> SourceFactory {
    Arc::new(move |request| {
        let environment = Environment {
            connection: &|id| config.connections.get(id).cloned(),
            start_date: request.start_date,
            budget: request.budget,
            diagnostics: request.diagnostics,
        };
        evermill_connectors::open_source(request.source, &environment)
            .map_err(|error| error.to_string())
    })
}
