//! What the tasks of the DAG under test left behind, and what was seen of the engine meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// One line of the effect file: one attempt that came that far.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Effect {
    /// Which start of the engine the attempt belongs to.
    pub(super) life: u32,
    pub(super) task: String,
    pub(super) lane: String,
    pub(super) position: u64,
    /// The effect key.
    pub(super) key: String,
    /// Sequence number of the message, said by `check`.
    pub(super) seq: Option<u64>,
    /// Made anew by every attempt of `check`, handed on as its result.
    pub(super) token: Option<String>,
    /// What `count` found in the state, plus one.
    pub(super) n: Option<u64>,
    /// All of a list, said by `list`.
    pub(super) positions: Option<Vec<u64>>,
}

/// Reads the whole file. A line without end is an attempt whose process was cut off in mid-write,
/// which a write of this size never is.
pub(super) fn read(folder: &Path) -> Vec<Effect> {
    let text = std::fs::read_to_string(folder.join("effects.jsonl")).unwrap_or_default();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{line}: {why}"));
    text.lines().map(parse).collect()
}

/// What the engine said of itself at one moment, after its last commit.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RunSeen {
    #[serde(default)]
    pub(super) dag: String,
    #[serde(rename = "in")]
    pub(super) taken_in: u64,
    pub(super) done: u64,
    pub(super) skipped: u64,
    pub(super) parked: u64,
    pub(super) dropped: u64,
    pub(super) in_flight: u64,
    #[serde(default)]
    pub(super) sources: Vec<SourceSeen>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct SourceSeen {
    pub(super) lanes: Vec<LaneSeen>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct LaneSeen {
    pub(super) name: String,
    pub(super) position: Option<u64>,
}

impl RunSeen {
    /// Next position to read, by lane.
    pub(super) fn positions(&self) -> BTreeMap<&str, u64> {
        let lanes = self.sources.iter().flat_map(|source| &source.lanes);
        lanes
            .filter_map(|lane| Some((lane.name.as_str(), lane.position?)))
            .collect()
    }
}

/// Something seen, in the order in which it was.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// The engine's view.
    Run {
        /// Which start of the engine said so.
        life: u32,
        /// What it said.
        run: RunSeen,
    },
    /// What the broker was told to be done with: the next offset to read, by lane.
    Hints(BTreeMap<String, u64>),
}
