//! The stable names of what can be wrong with a DAG file. Each has a page in `docs/errors/`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a finding keeps a DAG from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The DAG does not start.
    Error,
    /// The DAG starts, and probably does not do what its author meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One list, so that no code can be without its name, its severity and its place in [`Code::ALL`].
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $severity:ident;)*) => {
        /// The kind of a fault. Names are never given another meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// Every code there is, sorted by name.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it does to the DAG.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }
        }
    };
}

codes! {
    /// Arguments that do not fit the callable.
    BadCall = "bad_call", Error;
    /// An edge to what is no node, or into a source.
    BadEdge = "bad_edge", Error;
    /// A list to map over that is not possible (W9).
    BadMap = "bad_map", Error;
    /// A value that the option cannot have.
    BadValue = "bad_value", Error;
    /// A vectorised task whose order never lets several events wait for it (W4, W8).
    BatchUnderSerial = "batch_under_serial", Warning;
    /// `on_failure="block"` where nothing is in order (W10).
    BlockNeedsOrder = "block_needs_order", Error;
    /// Tasks wait for each other.
    Cycle = "cycle", Error;
    /// Two DAGs, or two nodes of a DAG, have one id.
    DuplicateId = "duplicate_id", Error;
    /// An import failed.
    ImportError = "import_error", Error;
    /// The interpreter cannot be started.
    Interpreter = "interpreter", Error;
    /// Executing the file ended the process.
    LoaderDied = "loader_died", Error;
    /// Executing the file took too long.
    LoaderTimeout = "loader_timeout", Error;
    /// The package and the program do not understand each other.
    Manifest = "manifest", Error;
    /// Sources of one DAG keep different orders (W4).
    MixedOrders = "mixed_orders", Error;
    /// A source that can never fire.
    NeverFires = "never_fires", Error;
    /// A task that nothing ever runs (W7).
    NeverRuns = "never_runs", Error;
    /// The file declares no DAG, or a node outside of one.
    NoDag = "no_dag", Error;
    /// A DAG, or a source, without any task.
    NoTask = "no_task", Error;
    /// Understood, and not possible yet.
    NotBuilt = "not_built", Error;
    /// No Python file.
    NotPython = "not_python", Error;
    /// Loaded twice, the file declares different things (W17).
    NotStable = "not_stable", Error;
    /// Executing the file raised.
    Raised = "raised", Error;
    /// A trigger rule that its upstreams can never meet.
    RuleNeverHolds = "rule_never_holds", Error;
    /// State is read where events are in no order (W5).
    StateNeedsOrder = "state_needs_order", Error;
    /// The file is no Python.
    SyntaxError = "syntax_error", Error;
    /// More than a DAG or a manifest can hold.
    TooLarge = "too_large", Error;
    /// What is said to a topic leads back to it.
    TopicCircle = "topic_circle", Warning;
    /// Nothing is bound to a parameter.
    UnboundParameter = "unbound_parameter", Error;
    /// A connection that nobody has given an address to.
    UnknownConnection = "unknown_connection", Warning;
    /// An option that does not exist.
    UnknownOption = "unknown_option", Error;
    /// A secret that nobody has set.
    UnknownSecret = "unknown_secret", Warning;
    /// An edge from what is not in this DAG.
    UnknownUpstream = "unknown_upstream", Error;
    /// A file that cannot be read.
    Unreadable = "unreadable", Error;
}

impl Code {
    /// The code of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_a_name_leads_back_to_its_code() {
        assert!(
            Code::ALL
                .windows(2)
                .all(|pair| pair[0].as_str() < pair[1].as_str())
        );
        for code in Code::ALL {
            assert_eq!(Code::of(code.as_str()), Some(*code));
            assert_eq!(
                serde_json::to_string(code).unwrap(),
                format!("\"{}\"", code.as_str())
            );
        }
        assert_eq!(Code::of("nothing_of_ours"), None);
    }
}
