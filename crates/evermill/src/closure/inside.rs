//! What other DAGs of the same engine say.

use evermill_contract::manifest::End;
use serde_json::{Value, json};

use super::Source;

/// Ends of another DAG's activations.
#[derive(Debug, Clone)]
pub struct After {
    config: Value,
}

/// Every activation of another DAG that ended well.
#[must_use]
pub fn after(dag: &str) -> After {
    After {
        config: json!({"kind": "after", "dag": dag}),
    }
}

impl After {
    /// Those that ended in one of these ways, in place of those that went well.
    #[must_use]
    pub fn states(mut self, states: &[End]) -> Self {
        let mut states = states.to_vec();
        states.sort_unstable();
        self.config["states"] = json!(states);
        self
    }
}

impl From<After> for Source {
    fn from(after: After) -> Self {
        Self::of(after.config)
    }
}

/// Every message that a task of any DAG emits to this topic.
#[must_use]
pub fn topic(name: &str) -> Source {
    Source::of(json!({"kind": "topic", "name": name}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_other_dags_become_the_manifest() {
        let config = |source: Source| source.declared["config"].clone();
        let expected = json!({"kind": "after", "dag": "orders"});
        assert_eq!(config(after("orders").into()), expected);
        let states = after("orders").states(&[End::Skipped, End::Done]);
        let expected = json!({"kind": "after", "dag": "orders", "states": ["done", "skipped"]});
        assert_eq!(config(states.into()), expected);
        assert_eq!(
            config(topic("paid")),
            json!({"kind": "topic", "name": "paid"})
        );
    }
}
