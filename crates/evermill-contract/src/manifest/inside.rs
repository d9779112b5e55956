//! What one DAG hears of another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{DagManifest, SourceConfig, TaskManifest, is_default};

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
    /// What is heard here may lead back to this topic: its author sees to it that it ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub circle: bool,
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
    let mut hears: Leads<&str, (&str, &str)> = BTreeMap::new();
    for dag in dags {
        for source in &dag.sources {
            if let SourceConfig::After(after) = &source.config {
                let edges = hears.entry(dag.id.as_str()).or_default();
                edges.push((after.dag.as_str(), (dag.id.as_str(), source.id.as_str())));
            }
        }
    }
    let mut found = Vec::new();
    for (&first, edges) in &hears {
        for &edge in edges {
            let (_, (_, source)) = edge;
            let way = way_back(&hears, first, [edge]);
            let dags = way.map(|way| way.into_iter().map(|(dag, _)| dag).collect());
            found.extend(dags.map(|dags| Circle { dags, source }));
        }
    }
    found
}

/// From each node, the next ones, and what stands on the edge to each.
type Leads<N, E> = BTreeMap<N, Vec<(N, E)>>;

/// The shortest way back to a node, by one of these edges and then over later nodes only, so that each way round belongs
/// to its first node: what stands on its edges, in order.
fn way_back<N: Ord + Copy, E: Copy>(
    leads: &Leads<N, E>,
    first: N,
    edges: impl IntoIterator<Item = (N, E)>,
) -> Option<Vec<E>> {
    let begin = edges.into_iter().map(|(next, edge)| (next, vec![edge]));
    let (mut ways, mut seen) = (VecDeque::from_iter(begin), BTreeSet::new());
    while let Some((at, way)) = ways.pop_front() {
        if at == first {
            return Some(way);
        }
        if at < first || !seen.insert(at) {
            continue;
        }
        for &(next, edge) in leads.get(&at).into_iter().flatten() {
            let mut longer = way.clone();
            longer.push(edge);
            ways.push_back((next, longer));
        }
    }
    None
}

/// A way round over topics, as far as it can be seen without running anything: what is heard makes a task
/// say what is heard, and so on.
#[derive(Debug, PartialEq, Eq)]
pub struct Rounds<'a> {
    /// Each leads to the next one, and the last one to the first.
    pub hops: Vec<Hop<'a>>,
}

/// A source that hears of something, and what its events lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop<'a> {
    /// The DAG.
    pub dag: &'a str,
    /// Its source.
    pub source: &'a str,
    /// The task behind it that says something to this topic; without it, the next one hears of the DAG's
    /// ends.
    pub emits: Option<(&'a str, &'a str)>,
}

/// The ways round over topics among these DAGs: each once, with the first of its sources in order of name.
/// Those over ends alone are [`circles`].
pub fn rounds<'a>(dags: impl Iterator<Item = &'a DagManifest>) -> Vec<Rounds<'a>> {
    type At<'a> = (&'a str, &'a str);
    let (mut topics, mut after) = (BTreeMap::new(), BTreeMap::new());
    let dags: Vec<&DagManifest> = dags.collect();
    for dag in &dags {
        for source in &dag.sources {
            let at: At<'_> = (&dag.id, &source.id);
            match &source.config {
                SourceConfig::Topic(topic) if !topic.circle => {
                    topics
                        .entry(topic.name.as_str())
                        .or_insert_with(Vec::new)
                        .push(at);
                }
                SourceConfig::After(heard) => {
                    after
                        .entry(heard.dag.as_str())
                        .or_insert_with(Vec::new)
                        .push(at);
                }
                _ => {}
            }
        }
    }
    let mut leads: Leads<At<'_>, Hop<'a>> = BTreeMap::new();
    for dag in &dags {
        for source in &dag.sources {
            let (at, mut to): (At<'_>, Vec<_>) = ((&dag.id, &source.id), Vec::new());
            let hop = |emits| Hop {
                dag: at.0,
                source: at.1,
                emits,
            };
            for task in below(dag, &source.id) {
                for topic in task.topics() {
                    let heard = topics.get(topic).into_iter().flatten();
                    to.extend(heard.map(|next| (*next, hop(Some((&*task.id, topic))))));
                }
            }
            let heard = after.get(dag.id.as_str()).into_iter().flatten();
            to.extend(heard.map(|next| (*next, hop(None))));
            leads.insert(at, to);
        }
    }
    let ways = leads.iter().filter_map(|(&first, edges)| {
        let hops = way_back(&leads, first, edges.iter().copied())?;
        Some(Rounds { hops })
    });
    let mut found: Vec<Rounds<'_>> = ways.collect();
    found.retain(|round| round.hops.iter().any(|hop| hop.emits.is_some()));
    found
}

/// The tasks that the events of a source reach.
fn below<'a>(dag: &'a DagManifest, source: &str) -> Vec<&'a TaskManifest> {
    let mut reached = BTreeSet::from([source]);
    let mut found: Vec<&TaskManifest> = Vec::new();
    loop {
        let fresh: Vec<&TaskManifest> = dag
            .tasks
            .iter()
            .filter(|task| !reached.contains(task.id.as_str()))
            .filter(|task| {
                task.upstream
                    .iter()
                    .any(|edge| reached.contains(edge.node.as_str()))
            })
            .collect();
        if fresh.is_empty() {
            return found;
        }
        reached.extend(fresh.iter().map(|task| task.id.as_str()));
        found.extend(fresh);
    }
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

    /// A DAG with one source, and tasks one after the other that emit to these topics.
    fn saying(id: &str, source: serde_json::Value, emits: &[&[&str]]) -> DagManifest {
        let source = json!([{"id": "in", "line": 1, "config": source}]);
        let mut made = dag(id, source);
        let mut before = ("in".to_owned(), "source");
        for (at, emits) in emits.iter().enumerate() {
            let name = format!("t{at}");
            let task = json!({"id": name, "kind": "call", "line": 1, "emits": emits,
                "upstream": [{"node": before.0, "kind": before.1}]});
            made.tasks.push(serde_json::from_value(task).unwrap());
            before = (name, "task");
        }
        made
    }

    fn topic(name: &str) -> serde_json::Value {
        json!({"kind": "topic", "name": name})
    }

    fn told(dags: &[DagManifest]) -> Vec<String> {
        let told = |hop: &Hop<'_>| match hop.emits {
            Some((task, topic)) => format!("{}.{task}!{topic}", hop.dag),
            None => hop.dag.to_owned(),
        };
        let rounds = rounds(dags.iter());
        let told = rounds
            .iter()
            .map(|round| round.hops.iter().map(told).collect::<Vec<_>>());
        told.map(|hops| hops.join(" ")).collect()
    }

    #[test]
    fn a_way_round_over_topics_is_found_once_with_those_who_speak() {
        let ring = [
            saying("b", topic("t"), &[&[], &["u", "w"]]),
            saying("a", topic("u"), &[&["t"]]),
            saying("c", topic("w"), &[&["x"]]),
        ];
        assert_eq!(told(&ring), ["a.t0!t b.t1!u"]);
        let own = [saying("a", topic("t"), &[&["t"]])];
        assert_eq!(told(&own), ["a.t0!t"]);
        // Over an end: b hears of the ends of a.
        let mixed = [
            saying("a", topic("t"), &[&[]]),
            saying("b", json!({"kind": "after", "dag": "a"}), &[&["t"]]),
        ];
        assert_eq!(told(&mixed), ["a b.t0!t"]);
        let after = |dag: &str| json!({"kind": "after", "dag": dag});
        let ends = [
            saying("a", after("b"), &[&["t"]]),
            saying("b", after("a"), &[]),
        ];
        assert_eq!(told(&ends), Vec::<String>::new(), "those are circles");
    }

    #[test]
    fn what_is_meant_and_what_another_source_leads_to_is_no_way_round() {
        let meant = json!({"kind": "topic", "name": "t", "circle": true});
        assert_eq!(told(&[saying("a", meant, &[&["t"]])]), Vec::<String>::new());
        let mut two = saying("a", topic("t"), &[&[]]);
        let other = saying("a", json!({"kind": "signal", "name": "go"}), &[&["t"]]);
        two.sources
            .extend(other.sources.into_iter().map(|mut source| {
                source.id = "go".into();
                source
            }));
        two.tasks.extend(other.tasks.into_iter().map(|mut task| {
            task.id = "say".into();
            task.upstream[0].node = "go".into();
            task
        }));
        assert_eq!(
            told(&[two]),
            Vec::<String>::new(),
            "a signal leads to it, not the topic"
        );
    }
}
