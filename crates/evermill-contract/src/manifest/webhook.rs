//! Events that others bring to us over HTTP.

use serde::{Deserialize, Serialize};

/// Requests to `/hooks/{dag}/{source}`: plain ones, and CloudEvents in all three modes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSource {
    /// What requests are signed with, two at most, so that one can take over from the other:
    /// `secret:NAME`, `env:NAME` or `file:PATH`, where the secret stands, or the secret itself. Without any,
    /// whoever reaches us is believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}
