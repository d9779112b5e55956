//! Versions of a DAG, and what is different between two of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::Why;

/// A version of a DAG, as one of its runs went over to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionView {
    /// 64 lower-case hexadecimal digits.
    pub version: String,
    /// Since when, milliseconds since the Unix epoch, where that is remembered.
    pub since_ms: Option<u64>,
    /// Why.
    pub why: Why,
    /// Who asked for it, as the audit names him; `None` where nobody did, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The run that did.
    pub run: String,
    /// By lane, the first position whose activation has this version; at most
    /// [`crate::limits::LANES_RECORDED`] lanes.
    pub from: BTreeMap<String, u64>,
    /// Of a rollback: the version that does not come back before its file changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Where the version stands now, however often the DAG went over to it.
    #[serde(default)]
    pub state: VersionState,
    /// It is this time that it has new activations since.
    pub current: bool,
    /// It can be gone back to.
    pub stored: bool,
    /// Events that are under way with it.
    pub in_flight: u64,
}

/// Where a version stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// New activations have it.
    Current,
    /// Somebody went back from it: it does not come back before its file changes.
    PutAway,
    /// Events that began with it are still under way.
    Ending,
    /// It can be gone back to.
    #[default]
    Kept,
    /// Its definition and its files are gone.
    Forgotten,
}

/// What is different between two versions of a DAG.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionDiff {
    /// DAG id.
    pub dag: String,
    /// The version that is compared, whole ...
    pub from: String,
    /// ... with this one.
    pub to: String,
    /// Options of the DAG itself, by name.
    pub options: Vec<OptionChange>,
    /// Sources, by id.
    pub sources: Vec<NodeChange>,
    /// Tasks, by id.
    pub tasks: Vec<NodeChange>,
    /// What comes after what, by ids.
    pub edges: Vec<EdgeChange>,
    /// Files, by path.
    pub files: Vec<FileChange>,
    /// Options that are different and not told: more than [`crate::limits::DIFF_OPTIONS`].
    pub left_out: u64,
}

/// How something is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Only the second version has it.
    Added,
    /// Only the first version has it.
    Removed,
    /// Both have it, differently.
    Changed,
}

/// An option with another value. One that is left out of a version has its default there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OptionChange {
    /// Its name in the manifest; what stands inside of another has dots in it.
    pub option: String,
    /// How.
    pub change: Change,
    /// Its value in the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Its value in the second version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// Values are not told: people write passwords there. Whoever may see the files sees them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// A source or a task that is different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeChange {
    /// Its id.
    pub id: String,
    /// How.
    pub change: Change,
    /// Its options that are different; all that it has when only one version has it.
    pub options: Vec<OptionChange>,
}

/// An edge that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeChange {
    /// Id of a source or a task ...
    pub from: String,
    /// ... and of the task after it.
    pub to: String,
    /// How: changed is one whose result is read now, or is not read any more.
    pub change: Change,
    /// Whether the task reads what the first one gives, in the later version that has the edge.
    pub reads_result: bool,
}

/// A file that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChange {
    /// Relative to the DAG folder.
    pub path: String,
    /// How.
    pub change: Change,
    /// Lines that came in, where the file is a text.
    pub lines_added: Option<u64>,
    /// Lines that are gone, likewise.
    pub lines_removed: Option<u64>,
    /// What is different, as a unified diff without its head, for those who may see files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Why there is no text, or not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
