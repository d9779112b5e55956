//! Sources, made from what a DAG declares and what is configured.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use evermill_connectors::Environment;
use evermill_contract::manifest::{SourceConfig, SourceManifest};
use evermill_contract::settings::Settings;
use evermill_engine::SourceFactory;
use evermill_secrets::Reference;

use crate::vault;

/// Makes sources with the connections and secrets of this installation.
pub(crate) fn factory(settings: Arc<dyn Settings>) -> SourceFactory {
    Arc::new(move |request| {
        let source = SourceManifest {
            config: with_secrets(&request.source.config, &*settings)?,
            ..request.source.clone()
        };
        with_addresses(&*settings, |address| {
            let environment = Environment {
                connection: address,
                start_date: request.start_date,
                budget: request.budget,
                diagnostics: request.diagnostics,
            };
            evermill_connectors::open_source(&source, &environment)
        })
    })
}

/// Opens what asks for addresses; one that cannot be had says more than that it is missing.
pub(crate) fn with_addresses<T, E: fmt::Display>(
    settings: &dyn Settings,
    open: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Result<T, E>,
) -> Result<T, String> {
    let refused = RefCell::new(None);
    let address = |id: &str| match settings.connection(id) {
        Ok(found) => found,
        Err(why) => {
            *refused.borrow_mut() = Some(why);
            None
        }
    };
    let opened = open(&address).map_err(|error| error.to_string());
    refused.into_inner().map_or(opened, Err)
}

/// A source's settings with its secrets in place: a connector sees no vault.
fn with_secrets(config: &SourceConfig, settings: &dyn Settings) -> Result<SourceConfig, String> {
    let mut config = config.clone();
    if let SourceConfig::Webhook(webhook) = &mut config {
        for secret in &mut webhook.secrets {
            if let Some(Reference::Secret(name)) = Reference::of(secret) {
                let found = settings.secret(name)?;
                let how = vault::how_to_set(name);
                *secret = found.ok_or_else(|| format!("there is no secret '{name}'; {how}"))?;
            }
        }
    }
    Ok(config)
}
