//! What one DAG hears of another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{DagManifest, SourceConfig, is_default};

/// Ends of another DAG's activations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterSource {
    /// The other DAG's id.
    pub dag: String,
    /// Which ends; without any, those that went well.
    #[serde(default, skip_serializing_if = "is_default")]
    pub states: BTreeSet<End>,
}

impl AfterSource {
    /// The ends it is about.
    #[must_use]
    pub fn ends(&self) -> BTreeSet<End> {
        if self.states.is_empty() {
            BTreeSet::from([End::Done])
        } else {
            self.states.clone()
        }
    }
}

/// How an activation ended, for those who listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// No leaf failed, and not all were skipped.
    Done,
    /// It was parked, or counted as dropped.
    Failed,
    /// All leaves were skipped.
    Skipped,
}

impl End {
    /// The word authors write.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What tasks of any DAG emit to a topic of this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSource {
    /// The topic's name.
    pub name: String,
}

/// Sorts DAGs so that those who listen to others are started before these: nothing is said that they
/// would have heard a moment later.
pub fn listeners_first<T>(all: &mut [T], dag: impl Fn(&T) -> &DagManifest) {
    let heard = |dag: &DagManifest| -> Vec<String> {
        let sources = dag.sources.iter();
        let after = sources.filter_map(|source| match &source.config {
            SourceConfig::After(after) => Some(after.dag.clone()),
            _ => None,
        });
        after.collect()
    };
    let on_topic = |dag: &DagManifest| {
        let mut sources = dag.sources.iter();
        sources.any(|source| matches!(source.config, SourceConfig::Topic(_)))
    };
    let mut ranks: BTreeMap<String, usize> = all
        .iter()
        .map(|one| (dag(one).id.clone(), usize::from(on_topic(dag(one)))))
        .collect();
    // A chain has no more links than there are DAGs; a circle ends here, too.
    for _ in 0..all.len() {
        for one in all.iter() {
            let above = heard(dag(one));
            let rank = above.iter().filter_map(|id| ranks.get(id)).max();
            let rank = rank.map_or(usize::from(!above.is_empty()), |rank| rank + 1);
            let own = ranks.entry(dag(one).id.clone()).or_default();
            *own = (*own).max(rank.min(all.len()));
        }
    }
    all.sort_by_key(|one| std::cmp::Reverse(ranks.get(&dag(one).id).copied()));
}

/// A circle in which DAGs hear each other's ends, so that they never come to rest.
#[derive(Debug, PartialEq, Eq)]
pub struct Circle<'a> {
    /// The DAGs, each hearing of the next one, and the last one of the first.
    pub dags: Vec<&'a str>,
    /// The source by which the first one does.
    pub source: &'a str,
}

/// The circles among these DAGs, each once, with its first DAG in order of name.
pub fn circles<'a>(dags: impl Iterator<Item = &'a DagManifest>) -> Vec<Circle<'a>> {
    let mut hears: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for dag in dags {
        for source in &dag.sources {
            if let SourceConfig::After(after) = &source.config {
                let edges = hears.entry(dag.id.as_str()).or_default();
                edges.push((after.dag.as_str(), source.id.as_str()));
            }
        }
    }
    let mut found = Vec::new();
    for (&first, edges) in &hears {
        for &(next, source) in edges {
            // The shortest way back, over later names only: each circle belongs to its first name.
            let mut ways = VecDeque::from([vec![first, next]]);
            let mut seen = BTreeSet::new();
            while let Some(way) = ways.pop_front() {
                let at = way[way.len() - 1];
                if at == first {
                    let dags = way[..way.len() - 1].to_vec();
                    found.push(Circle { dags, source });
                    break;
                }
                if at < first || !seen.insert(at) {
                    continue;
                }
                for &(next, _) in hears.get(at).into_iter().flatten() {
                    let mut longer = way.clone();
                    longer.push(next);
                    ways.push_back(longer);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dag(id: &str, sources: serde_json::Value) -> DagManifest {
        let all = json!({"id": id, "file": "f.py", "line": 1, "sources": sources, "tasks": []});
        serde_json::from_value(all).unwrap()
    }

    fn after(dag: &str) -> serde_json::Value {
        json!([{"id": "after", "line": 1, "config": {"kind": "after", "dag": dag}}])
    }

    #[test]
    fn who_listens_is_started_before_whom_it_listens_to() {
        let topic = json!([{"id": "t", "line": 1, "config": {"kind": "topic", "name": "t"}}]);
        let mut all = vec![
            dag("a", json!([])),
            dag("b", after("a")),
            dag("c", after("b")),
            dag("t", topic),
            dag("far", after("elsewhere")),
        ];
        listeners_first(&mut all, |dag| dag);
        let ids: Vec<_> = all.iter().map(|dag| dag.id.as_str()).collect();
        assert_eq!(ids, ["c", "b", "t", "far", "a"]);
        // A circle is refused later; it must not hang here.
        let mut circle = vec![dag("a", after("b")), dag("b", after("a"))];
        listeners_first(&mut circle, |dag| dag);
    }

    #[test]
    fn each_circle_is_found_once_and_a_chain_is_none() {
        let after =
            |dag: &str| json!([{"id": "s", "line": 1, "config": {"kind": "after", "dag": dag}}]);
        let chain = [
            dag("a", after("b")),
            dag("b", after("c")),
            dag("c", json!([])),
        ];
        assert_eq!(circles(chain.iter()), []);
        let ring = [
            dag("b", after("c")),
            dag("c", after("a")),
            dag("a", after("b")),
            dag("d", after("a")),
            dag("e", after("e")),
        ];
        let found = circles(ring.iter());
        let dags: Vec<_> = found.iter().map(|circle| circle.dags.join(" ")).collect();
        assert_eq!(dags, ["a b c", "e"]);
    }
}
