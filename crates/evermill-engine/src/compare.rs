//! What is different between two versions of a DAG. The shard finds them; they are compared on the thread of
//! whoever asks, from what the store keeps of them: the manifest (W17) and the files of the bundle (W16).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::manifest::{BundleFile, DagManifest, Manifest};
use evermill_core::RunView;
use evermill_core::row::{Key, Table};
use evermill_store::Reader;

use crate::books::Books;
use crate::handle::EngineError;
use crate::limits;
use crate::masking::masked;
use crate::open::Settings;
use crate::record::Record;
use crate::view::{Change, EdgeChange, FileChange, NodeChange, VersionDiff};

mod options;
mod texts;

use options::Telling;

/// Two versions of a DAG.
pub(crate) struct Pair {
    dag: String,
    from: Side,
    to: Side,
}

struct Side {
    version: String,
    /// With this one DAG.
    manifest: Arc<Manifest>,
}

/// What is in a file of a bundle.
pub(crate) enum Content {
    Bytes(Bytes),
    /// More than is compared.
    TooLong,
    /// The version was forgotten while somebody asked.
    Gone,
}

/// By hash.
pub(crate) type Contents = BTreeMap<String, Content>;

impl Books<'_> {
    /// The versions that are meant, by the beginnings of their hashes. Only versions that this DAG had, or
    /// that something of the run is pinned to, can be named.
    pub(crate) fn pair(
        &self,
        record: Option<&Record>,
        run: &RunView,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Pair, EngineError> {
        let changes = record.into_iter().flat_map(|record| &record.changes);
        let had: Vec<&str> = changes.rev().map(|change| &*change.version).collect();
        let pinned = self.machine.run_versions(run.run).iter();
        let pinned = pinned.rev().map(String::as_str);
        let mut known: Vec<&str> = vec![&run.version];
        for version in had.iter().copied().chain(pinned) {
            // One that nothing names any more has left its place empty.
            if !version.is_empty() && !known.contains(&version) {
                known.push(version);
            }
        }
        let to = match to {
            None => &run.version,
            Some(wanted) => self.named(&run.dag, &known, wanted)?,
        };
        let from = match from {
            Some(wanted) => self.named(&run.dag, &known, wanted)?,
            None => self.before(&run.dag, &had, &known, to)?,
        };
        let side = |version: &str| {
            let stored = self.versions.get(version);
            let stored = stored.ok_or_else(|| self.forgotten(&run.dag, &known, version))?;
            Ok::<_, EngineError>(Side {
                version: version.to_owned(),
                manifest: Arc::clone(&stored.manifest),
            })
        };
        Ok(Pair {
            dag: run.dag.clone(),
            from: side(from)?,
            to: side(to)?,
        })
    }

    fn named<'k>(
        &self,
        dag: &str,
        known: &[&'k str],
        wanted: &str,
    ) -> Result<&'k str, EngineError> {
        let fits = known.iter().filter(|version| version.starts_with(wanted));
        let fits: Vec<&str> = fits.copied().collect();
        let kept = self.kept(known);
        match fits[..] {
            [one] => Ok(one),
            [] => Err(EngineError::UnknownVersion(format!(
                "no version of DAG '{dag}' begins with '{wanted}'; kept are {kept}"
            ))),
            _ => Err(EngineError::UnknownVersion(format!(
                "several versions of DAG '{dag}' begin with '{wanted}'; kept are {kept}"
            ))),
        }
    }

    /// The version that the DAG had before this one.
    fn before<'k>(
        &self,
        dag: &str,
        had: &[&'k str],
        known: &[&'k str],
        version: &str,
    ) -> Result<&'k str, EngineError> {
        let earlier = had.iter().skip_while(|one| **one != version);
        let mut others = earlier
            .chain(known)
            .filter(|one| **one != version && self.versions.contains_key(**one));
        others.next().copied().ok_or_else(|| {
            EngineError::UnknownVersion(format!(
                "DAG '{dag}' has had no other version that is kept"
            ))
        })
    }

    fn forgotten(&self, dag: &str, known: &[&str], version: &str) -> EngineError {
        let kept = self.kept(known);
        EngineError::UnknownVersion(format!(
            "version {} of DAG '{dag}' is forgotten: its definition and files are not kept any more; kept are {kept}",
            short(version)
        ))
    }

    fn kept(&self, known: &[&str]) -> String {
        let kept = known
            .iter()
            .filter(|version| self.versions.contains_key(**version));
        let kept: Vec<&str> = kept.map(|version| short(version)).collect();
        kept.join(", ")
    }
}

fn short(version: &str) -> &str {
    &version[..version.len().min(12)]
}

impl Side {
    fn dag(&self) -> Option<&DagManifest> {
        self.manifest.dags.first()
    }

    fn files(&self) -> BTreeMap<&str, &BundleFile> {
        let files = self.manifest.files.iter();
        files.map(|file| (file.path.as_str(), file)).collect()
    }

    /// Whether the second node of an edge reads what the first one gives.
    fn edges(&self) -> BTreeMap<(&str, &str), bool> {
        let tasks = self.dag().into_iter().flat_map(|dag| &dag.tasks);
        let edges = tasks.flat_map(|task| {
            let upstream = task.upstream.iter();
            upstream.map(|edge| ((edge.node.as_str(), task.id.as_str()), edge.reads_result))
        });
        edges.collect()
    }
}

impl Pair {
    /// What is in the files that are different.
    pub(crate) fn contents(&self, reader: &mut dyn Reader) -> Result<Contents, EngineError> {
        let (from, to) = (self.from.files(), self.to.files());
        let mut contents = Contents::new();
        let mut room = limits::DIFF_READ_BYTES;
        for (_, before, after) in different_files(&from, &to) {
            for file in [before, after].into_iter().flatten() {
                if contents.contains_key(&file.sha256) {
                    continue;
                }
                let key = Key {
                    run: 0,
                    lane: 0,
                    id: Bytes::copy_from_slice(file.sha256.as_bytes()),
                };
                let found = match room {
                    0 => Content::TooLong,
                    _ => match reader
                        .row(Table::Bundle, &key)
                        .map_err(EngineError::store)?
                    {
                        None => Content::Gone,
                        Some(bytes) if bytes.len() > limits::DIFF_FILE_BYTES => Content::TooLong,
                        Some(bytes) => {
                            room = room.saturating_sub(bytes.len());
                            Content::Bytes(bytes)
                        }
                    },
                };
                contents.insert(file.sha256.clone(), found);
            }
        }
        Ok(contents)
    }

    /// What is different, without what is secret.
    pub(crate) fn difference(&self, contents: &Contents, settings: &dyn Settings) -> VersionDiff {
        let mask = |text: &str| masked(settings, text).into_owned();
        let mut told = Telling::new(&mask);
        let (Some(before), Some(after)) = (self.from.dag(), self.to.dag()) else {
            return VersionDiff::default();
        };
        let options = told.options(&options::of_dag(before), &options::of_dag(after));
        let sources = nodes(
            &mut told,
            before.sources.iter().map(options::of_source).collect(),
            after.sources.iter().map(options::of_source).collect(),
        );
        let tasks = nodes(
            &mut told,
            before.tasks.iter().map(options::of_task).collect(),
            after.tasks.iter().map(options::of_task).collect(),
        );
        VersionDiff {
            dag: self.dag.clone(),
            from: self.from.version.clone(),
            to: self.to.version.clone(),
            options,
            sources,
            tasks,
            edges: self.edges(),
            files: self.files(contents, &mask),
            left_out: told.left_out,
        }
    }

    fn edges(&self) -> Vec<EdgeChange> {
        let (before, after) = (self.from.edges(), self.to.edges());
        let different = beside(&before, &after).filter(|(_, before, after)| before != after);
        let edges = different.map(|((from, to), before, after)| EdgeChange {
            from: (*from).to_owned(),
            to: (*to).to_owned(),
            change: how(before.is_some(), after.is_some()),
            reads_result: *after.or(before).unwrap_or(&false),
        });
        edges.collect()
    }

    fn files(&self, contents: &Contents, mask: &dyn Fn(&str) -> String) -> Vec<FileChange> {
        let (before, after) = (self.from.files(), self.to.files());
        let mut room = limits::DIFF_TEXT_BYTES;
        let files = different_files(&before, &after).map(|(path, before, after)| {
            let content = |file: Option<&&BundleFile>| file.map(|file| contents.get(&file.sha256));
            let text = texts::compare(content(before), content(after), mask, &mut room);
            FileChange {
                path: (*path).to_owned(),
                change: how(before.is_some(), after.is_some()),
                lines_added: text.lines.map(|lines| lines.0),
                lines_removed: text.lines.map(|lines| lines.1),
                text: text.text,
                note: text.note,
            }
        });
        files.collect()
    }
}

fn nodes(
    told: &mut Telling<'_>,
    before: BTreeMap<String, options::Options>,
    after: BTreeMap<String, options::Options>,
) -> Vec<NodeChange> {
    let none = options::Options::default();
    let mut changes = Vec::new();
    for (id, before, after) in beside(&before, &after) {
        if before == after {
            continue;
        }
        changes.push(NodeChange {
            id: id.clone(),
            change: how(before.is_some(), after.is_some()),
            options: told.options(before.unwrap_or(&none), after.unwrap_or(&none)),
        });
    }
    changes
}

fn how(before: bool, after: bool) -> Change {
    match (before, after) {
        (false, _) => Change::Added,
        (true, false) => Change::Removed,
        (true, true) => Change::Changed,
    }
}

/// Files by path, where what is in them is not the same.
fn different_files<'m, 'f>(
    before: &'m BTreeMap<&'f str, &'f BundleFile>,
    after: &'m BTreeMap<&'f str, &'f BundleFile>,
) -> impl Iterator<Item = Beside<'m, &'f str, &'f BundleFile>> {
    let hash = |file: Option<&&'f BundleFile>| file.map(|file| file.sha256.as_str());
    beside(before, after).filter(move |(_, before, after)| hash(*before) != hash(*after))
}

/// A key, and what each of two maps has under it.
type Beside<'m, K, V> = (&'m K, Option<&'m V>, Option<&'m V>);

/// What two maps have under the same key.
fn beside<'m, K: Ord, V>(
    before: &'m BTreeMap<K, V>,
    after: &'m BTreeMap<K, V>,
) -> impl Iterator<Item = Beside<'m, K, V>> {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .map(|key| (key, before.get(key), after.get(key)))
}
