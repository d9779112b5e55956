//! What is known of each file of the DAG folder: the last version of it that loaded without fault, and what
//! is wrong with it now. Nothing here reads a file or asks the engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evermill_contract::manifest::{Code, Fault};

use crate::cli::run::files::File;
use crate::folder::{Stamp, Tree};

/// Every DAG file.
#[derive(Default)]
pub(super) struct Catalogue {
    entries: BTreeMap<PathBuf, Entry>,
    /// Files that declare nothing, as far as can be told without running them.
    plain: BTreeMap<PathBuf, Stamp>,
    /// What the folder held when it was last looked at.
    seen: BTreeMap<PathBuf, Stamp>,
}

#[derive(Default)]
struct Entry {
    /// What it was when it was last loaded.
    stamp: Option<Stamp>,
    /// The same of the other files of its bundle.
    needs: BTreeMap<PathBuf, Option<Stamp>>,
    good: Option<Arc<File>>,
    trouble: Option<Trouble>,
}

/// Why a file is not served as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Since when, milliseconds since the Unix epoch.
    pub(super) since_ms: u64,
    pub(super) faults: Vec<Fault>,
}

/// What has changed in the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// To be loaded.
    pub(super) load: Vec<PathBuf>,
    /// DAG files that are there no more.
    pub(super) gone: Vec<PathBuf>,
}

/// The DAGs of the folder: of each its file.
pub(super) type Owners = BTreeMap<String, (PathBuf, Arc<File>)>;

impl Catalogue {
    /// Compares with what lies there now. `may_declare` looks into a file.
    pub(super) fn compare(&mut self, tree: &Tree, may_declare: impl Fn(&Path) -> bool) -> Changes {
        let mut changes = Changes::default();
        let same = self.seen == tree.files;
        if same {
            return changes;
        }
        for (path, stamp) in &tree.files {
            let known = self.entries.get(path);
            if known.is_some_and(|entry| entry.is_as(*stamp, tree)) {
                continue;
            }
            if self.plain.get(path) == Some(stamp) {
                continue;
            }
            if may_declare(path) {
                changes.load.push(path.clone());
                continue;
            }
            self.plain.insert(path.clone(), *stamp);
            if known.is_some() {
                changes.gone.push(path.clone());
            }
        }
        let gone = self.entries.keys();
        changes
            .gone
            .extend(gone.filter(|path| !tree.files.contains_key(*path)).cloned());
        self.plain.retain(|path, _| tree.files.contains_key(path));
        for path in &changes.gone {
            self.entries.remove(path);
        }
        self.seen.clone_from(&tree.files);
        changes
    }

    /// It is to be loaded again at the next look: it changed while it was loaded.
    pub(super) fn unsettled(&mut self, path: &Path) {
        self.seen.remove(path);
        if let Some(entry) = self.entries.get_mut(path) {
            entry.stamp = None;
        }
    }

    /// A file was loaded. One with a fault leaves the good version before it in place. True when there
    /// is something new to say.
    pub(super) fn loaded(
        &mut self,
        path: &Path,
        tree: &Tree,
        found: Result<Arc<File>, Vec<Fault>>,
        now_ms: u64,
    ) -> bool {
        let entry = self.entries.entry(path.to_owned()).or_default();
        entry.stamp = tree.files.get(path).copied();
        match found {
            Ok(file) => {
                let others = file.bundle().filter(|other| *other != path);
                entry.needs = others
                    .map(|other| {
                        let stamp = tree.files.get(&other).copied();
                        (other.clone(), stamp.or_else(|| Stamp::at(&other)))
                    })
                    .collect();
                entry.good = Some(file);
                entry.trouble.take().is_some()
            }
            Err(faults) if declares_nothing(&faults) && entry.good.is_none() => {
                self.entries.remove(path);
                if let Some(stamp) = tree.files.get(path) {
                    self.plain.insert(path.to_owned(), *stamp);
                }
                false
            }
            Err(faults) => {
                let before = entry.trouble.as_ref();
                let news = before.is_none_or(|before| before.faults != faults);
                let since_ms = before.map_or(now_ms, |before| before.since_ms);
                entry.trouble = Some(Trouble { since_ms, faults });
                news
            }
        }
    }

    /// Whose each DAG is, and what is to be said of files that declare one that is another's: the first by
    /// path has it.
    pub(super) fn owners(&self) -> (Owners, BTreeMap<PathBuf, Vec<Fault>>) {
        let mut owners = Owners::new();
        let mut refused: BTreeMap<PathBuf, Vec<Fault>> = BTreeMap::new();
        for (path, entry) in &self.entries {
            let Some(file) = &entry.good else { continue };
            for dag in file.dags() {
                match owners.get(&dag.id) {
                    None => {
                        owners.insert(dag.id.clone(), (path.clone(), Arc::clone(file)));
                    }
                    Some((other, _)) => refused.entry(path.clone()).or_default().push(Fault {
                        file: path.display().to_string(),
                        line: dag.line,
                        column: None,
                        code: Code::DuplicateId,
                        message: format!(
                            "{} declares the DAG '{}' as well, and comes first",
                            other.display(),
                            dag.id
                        ),
                        cure: "give one of them another id, or take one of the files away"
                            .to_owned(),
                    }),
                }
            }
        }
        (owners, refused)
    }

    /// Files that are broken now.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&Path, &Trouble, Option<&Arc<File>>)> {
        self.entries.iter().filter_map(|(path, entry)| {
            let trouble = entry.trouble.as_ref()?;
            Some((path.as_path(), trouble, entry.good.as_ref()))
        })
    }
}

impl Entry {
    fn is_as(&self, stamp: Stamp, tree: &Tree) -> bool {
        // What a broken file lacks may be there now.
        self.trouble.is_none()
            && self.stamp == Some(stamp)
            && self.needs.iter().all(|(path, known)| {
                let now = tree.files.get(path).copied();
                now.or_else(|| Stamp::at(path)) == *known
            })
    }
}

/// What others import needs no DAG of its own.
fn declares_nothing(faults: &[Fault]) -> bool {
    matches!(faults, [fault] if fault.code == Code::NoDag && fault.line == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder;

    const DAG: &str = "dag: orders\ntasks:\n  a: { run: \"true\" }\n";

    struct Scene {
        root: tempfile::TempDir,
        catalogue: Catalogue,
        now_ms: u64,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
                catalogue: Catalogue::default(),
                now_ms: 1,
            }
        }

        fn write(&self, name: &str, text: &str) {
            let half = self.root.path().join(".half");
            std::fs::write(&half, text).unwrap();
            std::fs::rename(half, self.root.path().join(name)).unwrap();
        }

        /// Looks, and loads what is to be loaded; names of what was.
        fn look(&mut self) -> (Vec<String>, Vec<String>) {
            self.now_ms += 1;
            let tree = folder::walk(self.root.path(), &mut |_| {}).unwrap();
            let changes = self.catalogue.compare(&tree, folder::may_declare);
            for path in &changes.load {
                let loading = crate::cli::check::Loading::new(PathBuf::new());
                let found = loading.load(path, Some(self.root.path()));
                let found =
                    found.and_then(|loaded| File::read(loaded).map_err(|fault| vec![fault]));
                let found = found.map(Arc::new);
                self.catalogue.loaded(path, &tree, found, self.now_ms);
            }
            let names = |paths: Vec<PathBuf>| {
                let names = paths.iter().map(|path| path.file_name().unwrap());
                names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect()
            };
            (names(changes.load), names(changes.gone))
        }

        fn version(&self, dag: &str) -> Option<String> {
            let (owners, _) = self.catalogue.owners();
            let (_, file) = owners.get(dag)?;
            file.version(dag)
        }
    }

    #[test]
    fn j01_a_broken_file_keeps_the_good_version_and_since_when_it_is_broken() {
        let mut scene = Scene::new();
        scene.write("a.yaml", DAG);
        assert_eq!(scene.look(), (vec!["a.yaml".to_owned()], vec![]));
        let good = scene.version("orders").unwrap();
        scene.write("a.yaml", "dag: orders\ntasks: 7\n");
        scene.look();
        assert_eq!(scene.version("orders").unwrap(), good);
        let since = scene.catalogue.troubles().next().unwrap().1.since_ms;
        scene.write("a.yaml", "dag: orders\ntasks: 8\n");
        scene.look();
        let (_, trouble, kept) = scene.catalogue.troubles().next().unwrap();
        assert_eq!(trouble.since_ms, since);
        assert!(kept.is_some());
        scene.write("a.yaml", &DAG.replace("true", "false"));
        scene.look();
        assert!(scene.catalogue.troubles().next().is_none());
        assert_ne!(scene.version("orders").unwrap(), good);
    }

    #[test]
    fn j03_a_dag_of_two_files_is_the_first_ones_by_path_and_both_are_named() {
        let mut scene = Scene::new();
        scene.write("b.yaml", DAG);
        scene.look();
        scene.write("a.yaml", DAG);
        scene.look();
        let (owners, refused) = scene.catalogue.owners();
        assert!(owners["orders"].0.ends_with("a.yaml"));
        let (path, faults) = refused.iter().next().unwrap();
        assert!(path.ends_with("b.yaml"));
        assert!(
            faults[0].message.contains("a.yaml"),
            "{}",
            faults[0].message
        );
    }

    #[test]
    fn j07_a_file_that_is_gone_takes_its_dags_along() {
        let mut scene = Scene::new();
        scene.write("a.yaml", DAG);
        scene.look();
        std::fs::remove_file(scene.root.path().join("a.yaml")).unwrap();
        assert_eq!(scene.look(), (vec![], vec!["a.yaml".to_owned()]));
        assert_eq!(scene.version("orders"), None);
    }

    #[test]
    fn j08_what_has_not_changed_is_not_loaded_again() {
        let mut scene = Scene::new();
        for number in 0..50 {
            let text = DAG.replace("orders", &format!("d{number}"));
            scene.write(&format!("{number:02}.yaml"), &text);
        }
        scene.write("notes.yaml", "no: dag\n");
        assert_eq!(scene.look().0.len(), 50);
        assert_eq!(scene.look().0.len(), 0);
        scene.write("07.yaml", &DAG.replace("orders", "d7x"));
        assert_eq!(scene.look().0, ["07.yaml"]);
    }

    #[test]
    fn a_file_is_loaded_again_when_another_of_its_bundle_has_changed() {
        let mut scene = Scene::new();
        scene.write("make.sh", "true");
        scene.write(
            "a.yaml",
            "dag: orders\nfiles: [make.sh]\ntasks:\n  a: { run: \"sh make.sh\" }\n",
        );
        scene.write("b.yaml", &DAG.replace("orders", "other"));
        scene.look();
        let before = scene.version("orders").unwrap();
        scene.write("make.sh", "false");
        assert_eq!(scene.look().0, ["a.yaml"]);
        assert_ne!(scene.version("orders").unwrap(), before);
    }
}
