//! What a hook is told by its user.

use std::time::Duration;

use evermill_contract::alert::{Alert, AlertKind};

/// Which alerts go where, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookConfig {
    /// What it is called in messages.
    pub name: String,
    /// Only these; empty for all.
    pub kinds: Vec<AlertKind>,
    /// Only about these DAGs; empty for all.
    pub dags: Vec<String>,
    /// The shortest time between two deliveries; what comes meanwhile goes together.
    pub every: Duration,
    /// Where they go.
    pub to: HookTo,
}

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookTo {
    /// A POST to this URL, written as a connection of HTTP is.
    Post(String),
    /// A mail.
    Mail(MailTo),
    /// A command for `sh -c`, with the same JSON on its standard input.
    Command(String),
}

/// A mail's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailTo {
    /// The server: `smtps://user:password@host`, or `smtp://` for one that is asked for TLS, or not
    /// (`?tls=required`, `?tls=opportunistic`, none).
    pub server: String,
    /// Who it is from.
    pub from: String,
    /// Who gets it, at least one.
    pub to: Vec<String>,
}

impl HookConfig {
    pub(super) fn wants(&self, alert: &Alert) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&alert.kind))
            && (self.dags.is_empty() || self.dags.contains(&alert.dag))
    }
}
