//! What is remembered of a DAG from run to run: which versions it had, since when, from which
//! positions on and why, and what it was started with. A row of the table of versions, under `dag/ID`.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Where the keys of these rows begin; a version's key is its hash.
const PREFIX: &str = "dag/";

/// Why a DAG went over to a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was started with it.
    #[default]
    Start,
    /// Its file had changed while it ran.
    Swap,
    /// Somebody went back to it.
    Rollback,
}

/// A version that a DAG went over to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) version: String,
    pub(crate) at_ms: u64,
    pub(crate) why: Why,
    /// The run it happened to.
    pub(crate) run: String,
    /// By lane, the first position whose activation has this version; not of all lanes when there are
    /// many.
    #[serde(default)]
    pub(crate) from: BTreeMap<String, u64>,
    /// Of a rollback: the version that is not to come back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instead_of: Option<String>,
    /// Who asked for it, where somebody did and it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

/// What is remembered of one DAG.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Oldest first.
    pub(crate) changes: Vec<Change>,
}

impl Record {
    /// The id of a DAG's row.
    pub(crate) fn row_id(dag: &str) -> Bytes {
        Bytes::from(format!("{PREFIX}{dag}"))
    }

    /// The DAG of a row, unless the row is a version.
    pub(crate) fn dag_of(row_id: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(row_id).ok()?;
        text.strip_prefix(PREFIX).map(str::to_owned)
    }

    pub(crate) fn encode(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("it has string keys only"))
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// Adds a change; the oldest goes.
    pub(crate) fn add(&mut self, mut change: Change) {
        let many = change.from.len().saturating_sub(limits::LANES_RECORDED);
        for _ in 0..many {
            change.from.pop_last();
        }
        self.changes.push(change);
        let over = self.changes.len().saturating_sub(limits::CHANGES_KEPT);
        self.changes.drain(..over);
    }

    /// Versions that can be gone back to: the latest ones, the newest first.
    pub(crate) fn kept(&self) -> Vec<&str> {
        let mut kept: Vec<&str> = Vec::new();
        for change in self.changes.iter().rev() {
            if !kept.contains(&change.version.as_str()) && kept.len() < limits::VERSIONS_KEPT {
                kept.push(&change.version);
            }
        }
        kept
    }

    /// The version that a rollback put away, until another one takes over.
    pub(crate) fn put_away(&self) -> Option<&str> {
        self.changes.last()?.instead_of.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: &str) -> Change {
        Change {
            version: version.to_owned(),
            at_ms: 1,
            why: Why::Swap,
            run: "d-1".to_owned(),
            from: BTreeMap::new(),
            instead_of: None,
            by: None,
        }
    }

    #[test]
    fn a_record_is_bounded_and_comes_back_as_it_was() {
        let mut record = Record::default();
        for number in 0..3 * limits::CHANGES_KEPT {
            let lanes =
                (0..2 * limits::LANES_RECORDED as u64).map(|lane| (format!("{lane:05}"), lane));
            record.add(Change {
                from: lanes.collect(),
                ..change(&number.to_string())
            });
        }
        assert_eq!(record.changes.len(), limits::CHANGES_KEPT);
        assert_eq!(record.changes[0].from.len(), limits::LANES_RECORDED);
        assert_eq!(record.kept().len(), limits::VERSIONS_KEPT);
        assert_eq!(record.kept()[0], (3 * limits::CHANGES_KEPT - 1).to_string());
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        assert_eq!(Record::dag_of(&Record::row_id("a/b")).unwrap(), "a/b");
        assert_eq!(Record::dag_of(b"0f3a"), None);
    }

    #[test]
    fn what_a_rollback_put_away_comes_back_once_another_version_has_taken_over() {
        let mut record = Record::default();
        record.add(change("a"));
        record.add(change("b"));
        assert_eq!(record.put_away(), None);
        record.add(Change {
            instead_of: Some("b".to_owned()),
            ..change("a")
        });
        assert_eq!(record.put_away(), Some("b"));
        assert_eq!(record.kept(), ["a", "b"]);
        record.add(change("c"));
        assert_eq!(record.put_away(), None);
    }
}
