//! Keeps the engine to what the DAG folder says: DAGs that come are started, those that change are swapped
//! (W16), those that go are retired, and those whose run somebody ended are left alone.
//!
//! | a DAG's run | when its file comes, or the server starts | when its file changes | when its file goes |
//! |---|---|---|---|
//! | none yet | started, if it listens | | |
//! | open | goes on | goes over to the new version | drains: retired |
//! | drained | goes on | waits for `evermill start` | |
//! | stopped, finished, failed | waits for `evermill start` | waits for `evermill start` | |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evermill_contract::manifest::{Fault, listeners_first};
use evermill_engine::view::{NoteKind, NoteView, RunView};
use evermill_engine::{EngineError, Handle, Operations as _, Order, Started, SwitchOn};

use super::catalogue::{Catalogue, Owners};
use super::stable;
use super::watch::Watch;
use crate::cli::check::{self, Loading};
use crate::cli::parked::age;
use crate::cli::run::files::{self, File};
use crate::cli::run::say_way_in;
use crate::cli::start::short;
use crate::config::Level;
use crate::folder::{self, Stamp, Tree};
use crate::near;
use crate::screen::{Fields, Screen};
use crate::vault::Vault;

/// How long a run that was ended may take to let go of its sources before it is started again.
const LETTING_GO: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The folder, and what the engine was told of it.
pub(super) struct Keeper {
    pub(super) folder: PathBuf,
    pub(super) loading: Loading,
    pub(super) vault: Arc<Vault>,
    pub(super) engine: Handle,
    pub(super) screen: Arc<Screen>,
    /// Where requests are answered.
    pub(super) url: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    catalogue: Catalogue,
    owners: Owners,
    refused: BTreeMap<PathBuf, Vec<Fault>>,
    /// Ways round over topics that were told of.
    rounds: Vec<Fault>,
    dags: BTreeMap<String, Told>,
    /// Why the folder cannot be read.
    unreadable: Option<String>,
}

/// What the engine was told of a DAG, in this process.
#[derive(Default)]
struct Told {
    /// The version that was settled for its run, whatever came of it.
    version: Option<String>,
    /// Its file went away.
    retired: bool,
    /// Why the engine does not have the file's version. It may be mended without a change of the file, such as
    /// by a secret that somebody sets, so it is tried again at every look.
    trouble: Option<Trouble>,
}

#[derive(Clone)]
struct Trouble {
    why: String,
    /// Nothing was settled for the DAG before, in this process.
    is_first: bool,
}

impl Keeper {
    pub(super) fn new(
        folder: PathBuf,
        loading: Loading,
        vault: Arc<Vault>,
        engine: Handle,
        screen: Arc<Screen>,
        url: String,
    ) -> Self {
        Self {
            folder,
            loading,
            vault,
            engine,
            screen,
            url,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something of a file, or of a DAG and its run.
    fn say(&self, (file, dag, run): (Option<&Path>, Option<&str>, Option<&str>), text: &str) {
        let file = file.map(Path::to_string_lossy);
        let file = file.as_deref();
        let fields = Fields {
            dag,
            run,
            file,
            ..Fields::default()
        };
        self.screen.say(&fields, text);
    }

    // The folder.

    /// Looks at the folder, loads what has changed, and lets the engine follow. True when something is
    /// to be looked at again soon.
    pub(super) fn look(&self, watch: &mut Watch) -> bool {
        let tree = folder::walk(&self.folder, &mut |folder| watch.watch(folder));
        let tree = match tree {
            Ok(tree) => tree,
            Err(cause) => {
                self.cannot_read(&cause);
                return false;
            }
        };
        let changes = {
            let mut state = self.lock();
            state.unreadable = None;
            state.catalogue.compare(&tree, folder::may_declare)
        };
        let again = self.load(&changes.load, &tree);
        self.follow() || again
    }

    /// A folder that is away says nothing about the DAGs in it.
    fn cannot_read(&self, cause: &std::io::Error) {
        let why = format!(
            "{}: {cause}; what runs goes on as it is until the folder is back",
            self.folder.display()
        );
        let news = self.lock().unreadable.replace(why.clone()) != Some(why.clone());
        if news {
            self.screen.tell(Level::Error, &Fields::default(), &why);
        }
    }

    /// Loads files, several at a time. True when one changed meanwhile.
    fn load(&self, paths: &[PathBuf], tree: &Tree) -> bool {
        let next = Mutex::new(paths.iter());
        let again = std::sync::atomic::AtomicBool::new(false);
        let work = || loop {
            let path = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(path) = path else { return };
            let found = match tree.outside.get(path) {
                Some(target) => Err(vec![check::outside(path, target)]),
                None => self.load_one(path),
            };
            let mut state = self.lock();
            if Stamp::at(path) != tree.files.get(path).copied() {
                // Half of it may be from before and half from after.
                state.catalogue.unsettled(path);
                again.store(true, std::sync::atomic::Ordering::Relaxed);
                continue;
            }
            let news = state.catalogue.loaded(path, tree, found, now_ms());
            if news {
                self.tell_trouble(&state, path);
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 1..cores.min(paths.len()) {
                scope.spawn(work);
            }
            work();
        });
        again.into_inner()
    }

    fn load_one(&self, path: &Path) -> Result<Arc<File>, Vec<Fault>> {
        let load = || {
            let loaded = self.loading.load(path, Some(&self.folder))?;
            File::read(loaded).map_err(|fault| vec![fault])
        };
        let file = load()?;
        if self.would_swap(&file) {
            // What takes the place of a version that runs must be the same each time it is read.
            stable::compare(path, file.manifest(), load()?.manifest())?;
        }
        Ok(Arc::new(file))
    }

    fn would_swap(&self, file: &File) -> bool {
        let state = self.lock();
        file.dags().iter().any(|dag| {
            let told = state.dags.get(&dag.id);
            let known = told.and_then(|told| told.version.as_ref());
            known.is_some() && known.cloned() != file.version(&dag.id)
        })
    }

    fn tell_trouble(&self, state: &State, path: &Path) {
        let mut troubles = state.catalogue.troubles();
        match troubles.find(|(known, ..)| *known == path) {
            None => {
                let text = format!("{}: all is well again", path.display());
                self.say((Some(path), None, None), &text);
            }
            Some((_, trouble, good)) => {
                let goes_on = self.goes_on(good.map(|file| &**file));
                let text = format!("{} is in error{goes_on}\n", path.display());
                let faults = check::said(&trouble.faults);
                let text = format!("{text}{}", faults.trim_end());
                let file = path.to_string_lossy();
                self.screen
                    .lines(Level::Error, &Fields::of_file(&file), "", text.as_bytes());
            }
        }
    }

    // The engine.

    /// Lets the engine follow the folder. True when it has to be tried again.
    fn follow(&self) -> bool {
        let (owners, refused) = self.lock().catalogue.owners();
        self.tell_refused(&refused);
        self.tell_rounds(&owners);
        let mut again = false;
        // Who listens to others is there before these say anything.
        let declared = owners.iter().filter_map(|(dag, (path, file))| {
            let declared = file.dag(dag)?;
            Some((declared, path, file))
        });
        let mut declared: Vec<_> = declared.collect();
        listeners_first(&mut declared, |(declared, ..)| declared);
        for (declared, path, file) in declared {
            again |= self.follow_one(&declared.id, path, file);
        }
        let gone: Vec<String> = {
            let state = self.lock();
            let known = state.dags.iter();
            known
                .filter(|(dag, told)| !owners.contains_key(*dag) && !told.retired)
                .map(|(dag, _)| dag.clone())
                .collect()
        };
        gone.iter().for_each(|dag| self.retire(dag));
        let mut state = self.lock();
        state.owners = owners;
        state.refused = refused;
        again
    }

    fn tell_refused(&self, refused: &BTreeMap<PathBuf, Vec<Fault>>) {
        for (path, faults) in refused {
            let before = self.lock().refused.get(path).cloned().unwrap_or_default();
            let news = faults.iter().filter(|fault| !before.contains(fault));
            let news: Vec<Fault> = news.cloned().collect();
            if news.is_empty() {
                continue;
            }
            let (file, text) = (path.to_string_lossy(), check::said(&news));
            let text = text.trim_end().as_bytes();
            self.screen
                .lines(Level::Error, &Fields::of_file(&file), "", text);
        }
    }

    /// DAGs of different files may speak to each other without an end.
    fn tell_rounds(&self, owners: &Owners) {
        let dags = owners
            .iter()
            .filter_map(|(dag, (path, file))| Some((file.dag(dag)?, path.display().to_string())));
        let found = check::rounds(&dags.collect::<Vec<_>>());
        let before = std::mem::replace(&mut self.lock().rounds, found.clone());
        let news = found.into_iter().filter(|fault| !before.contains(fault));
        check::warn(&self.screen, &news.collect::<Vec<_>>());
    }

    fn follow_one(&self, dag: &str, path: &Path, file: &Arc<File>) -> bool {
        let (told, trouble) = {
            let state = self.lock();
            let told = state.dags.get(dag).filter(|told| !told.retired);
            told.map(|told| (told.version.clone(), told.trouble.clone()))
                .unwrap_or_default()
        };
        let Some(version) = file.version(dag) else {
            return false;
        };
        let is_same = told.as_ref() == Some(&version);
        if is_same && trouble.is_none() {
            return false;
        }
        let first = trouble
            .as_ref()
            .map_or(told.is_none(), |trouble| trouble.is_first);
        let run = self.engine.view().run(dag).cloned();
        let listens = file.dag(dag).is_some_and(|dag| !dag.sources.is_empty());
        let wanted = match run.as_ref().map(|run| run.state) {
            None => listens,
            Some("stopped" | "finished" | "failed") => false,
            Some("draining" | "drained") => first,
            Some(_) => true,
        };
        if !wanted {
            self.settle(dag, Some(version), None);
            if first {
                self.say_why_off(dag, path, run.as_ref(), listens);
            }
            return false;
        }
        match self.start(dag, file, false, None) {
            Ok(started) => {
                self.settle(dag, Some(version), None);
                self.say_started(dag, path, file, &started);
                false
            }
            Err(EngineError::Busy(_) | EngineError::Interrupted) => true,
            Err(refused) => {
                let why = refused.to_string();
                let why = why.strip_prefix(&format!("{dag}: ")).unwrap_or(&why);
                if is_same && trouble.is_some_and(|known| known.why == why) {
                    return false;
                }
                let name = run.as_ref().map(|run| run.run.clone());
                let kept = run.map(|run| format!("; version {} goes on", short(&run.version)));
                let text = format!(
                    "{}: {dag}: {why}{}",
                    path.display(),
                    kept.filter(|_| !first).unwrap_or_default()
                );
                let file = path.to_string_lossy();
                let fields = Fields {
                    dag: Some(dag),
                    run: name.as_deref(),
                    ..Fields::of_file(&file)
                };
                self.screen.tell(Level::Error, &fields, &text);
                let trouble = Trouble {
                    why: why.to_owned(),
                    is_first: first,
                };
                self.settle(dag, Some(version), Some(trouble));
                false
            }
        }
    }

    fn settle(&self, dag: &str, version: Option<String>, trouble: Option<Trouble>) {
        let told = Told {
            version,
            retired: false,
            trouble,
        };
        self.lock().dags.insert(dag.to_owned(), told);
    }

    /// Starts what a file says, or lets a run go over to it. A version that a rollback has put away stays
    /// away.
    fn start(
        &self,
        dag: &str,
        file: &File,
        fresh: bool,
        by: Option<&str>,
    ) -> Result<Started, EngineError> {
        if let Some(declared) = file.dag(dag) {
            files::check_settings(declared, &self.vault)
                .map_err(|failure| EngineError::Refused(failure.to_string()))?;
        }
        let is_put_away = self
            .put_away(dag)
            .is_some_and(|away| Some(away) == file.version(dag));
        let deadline = Instant::now() + LETTING_GO;
        loop {
            let started = if is_put_away {
                self.engine.start_again_for(dag, fresh, by)
            } else {
                self.engine.start_for(&file.request(dag, fresh, false), by)
            };
            match started {
                Err(EngineError::Busy(_)) if Instant::now() < deadline => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                other => return other,
            }
        }
    }

    /// The version that a rollback of the DAG has put away, if its last change was one.
    fn put_away(&self, dag: &str) -> Option<String> {
        let detail = self.engine.detail(dag).ok()?;
        detail.versions.into_iter().next()?.instead_of
    }

    fn say_started(&self, dag: &str, place: &Path, file: &File, started: &Started) {
        let (path, version) = (place.display(), short(&started.version));
        let text = match &started.before {
            Some(before) if *before == started.version => return,
            Some(before) => format!(
                "{path}: {dag} goes over to version {version} (was {}): what has begun ends as it began",
                short(before)
            ),
            None if started.resumed => format!(
                "{path}: {dag} goes on as {}, version {version}",
                started.run
            ),
            None => format!("{path}: {dag} is on as {}, version {version}", started.run),
        };
        self.say((Some(place), Some(dag), Some(&started.run)), &text);
        let declared = file.dag(dag).into_iter();
        for (dag, source) in declared.flat_map(files::ways_into) {
            say_way_in(&self.screen, &self.url, dag, source);
        }
    }

    fn say_why_off(&self, dag: &str, path: &Path, run: Option<&RunView>, listens: bool) {
        let why = match run {
            None => "has no source and no schedule: it waits for `evermill trigger` or `start`"
                .to_owned(),
            Some(_) if !listens => "waits for `evermill trigger` or `start`".to_owned(),
            Some(run) => format!("is {}; `evermill start {dag}` switches it on", run.state),
        };
        let text = format!("{}: {dag} {why}", path.display());
        let run = run.map(|run| run.run.as_str());
        self.say((Some(path), Some(dag), run), &text);
    }

    /// The DAG's file is gone: no new activations; what was read settles; history stays.
    fn retire(&self, dag: &str) {
        let run = self.engine.view().run(dag).cloned();
        let name = run.as_ref().map(|run| run.run.clone());
        let open = run.filter(|run| matches!(run.state, "starting" | "running" | "paused"));
        let text = match open {
            Some(run) => match self.engine.order(&run.run, Order::Drain) {
                Ok(()) => format!(
                    "{dag} is retired, its file is gone: nothing new is read, what was read settles, \
                     and it goes on when the file is back"
                ),
                Err(refused) => format!("{dag}: its file is gone, and {refused}"),
            },
            None => format!("{dag} is retired: its file is gone"),
        };
        self.say((None, Some(dag), name.as_deref()), &text);
        let told = Told {
            retired: true,
            ..Told::default()
        };
        self.lock().dags.insert(dag.to_owned(), told);
    }

    // What operators ask for.

    /// Switches a DAG of the folder on.
    pub(super) fn switch_on(&self, dag: &str, how: &SwitchOn) -> Result<Started, EngineError> {
        let file = self.file_of(dag)?;
        let listens = file.dag(dag).is_some_and(|dag| !dag.sources.is_empty());
        if how.conf.is_some() && listens {
            return Err(EngineError::Refused(format!(
                "DAG '{dag}' listens to its sources: --conf is for the one activation of a DAG without any"
            )));
        }
        let started = self.start(dag, &file, how.fresh, how.by.as_deref())?;
        self.settle(dag, file.version(dag), None);
        self.engine.give_once(&started.run, how)?;
        Ok(started)
    }

    /// Before something is triggered: a DAG without sources has a run that takes it.
    pub(super) fn make_ready(&self, dag: &str) -> Result<(), EngineError> {
        let run = self.engine.view().run(dag).cloned();
        let over = run.is_none_or(|run| matches!(run.state, "stopped" | "finished" | "failed"));
        let by_hand = |file: &File| file.dag(dag).is_some_and(|dag| dag.sources.is_empty());
        match self.file_of(dag) {
            Ok(file) if over && by_hand(&file) => {
                self.start(dag, &file, false, None)?;
                self.settle(dag, file.version(dag), None);
                Ok(())
            }
            // A run id, or a name that the engine knows better how to refuse.
            _ => Ok(()),
        }
    }

    fn file_of(&self, dag: &str) -> Result<Arc<File>, EngineError> {
        let state = self.lock();
        if let Some((_, file)) = state.owners.get(dag) {
            return Ok(Arc::clone(file));
        }
        if state.dags.get(dag).is_some_and(|told| told.retired) {
            return Err(EngineError::Refused(format!(
                "DAG '{dag}' is retired: its file is gone from {}; put it back",
                self.folder.display()
            )));
        }
        Err(EngineError::NoSuchDag {
            name: dag.to_owned(),
            place: self.folder.display().to_string(),
            nearest: near::nearest(dag, state.owners.keys().map(String::as_str)).map(str::to_owned),
        })
    }

    /// What there is to say of the folder: of all of it, or of one DAG.
    pub(super) fn notes(&self, dag: Option<&str>) -> Vec<NoteView> {
        let state = self.lock();
        let mut notes = Vec::new();
        let mut note = |kind, text| notes.push(NoteView { kind, text });
        if let Some(why) = &state.unreadable {
            note(NoteKind::FolderUnreadable, why.clone());
        }
        let is_meant = |id: &str| dag.is_none_or(|dag| dag == id);
        for (path, trouble, good) in state.catalogue.troubles() {
            let meant = good.map_or(dag.is_none(), |file| {
                file.dags().iter().any(|declared| is_meant(&declared.id))
            });
            if let (true, Some(fault)) = (meant, trouble.faults.first()) {
                let since = age(trouble.since_ms);
                let goes_on = self.goes_on(good.map(|file| &**file));
                let place = if fault.line > 0 {
                    format!("line {}: ", fault.line)
                } else {
                    String::new()
                };
                let text = format!(
                    "{}: in error ({since}): {place}{}{goes_on}",
                    path.display(),
                    fault.message
                );
                note(NoteKind::FileInError, text);
            }
        }
        for (path, faults) in &state.refused {
            let meant = dag.is_none();
            for fault in faults.iter().filter(|_| meant) {
                let text = format!("{}: line {}: {}", path.display(), fault.line, fault.message);
                note(NoteKind::NotServed, text);
            }
        }
        for (id, told) in state.dags.iter().filter(|(id, _)| is_meant(id)) {
            if told.retired {
                note(
                    NoteKind::Retired,
                    format!("{id}: retired: its file is gone"),
                );
            }
            if let Some(Trouble { why, .. }) = &told.trouble {
                let text = format!("{id}: the file's version is not served: {why}");
                note(NoteKind::NotServed, text);
            }
        }
        notes
    }

    /// What becomes of the DAGs of a file that is broken.
    fn goes_on(&self, good: Option<&File>) -> String {
        let Some(file) = good else {
            return "; nothing of it is served".to_owned();
        };
        let view = self.engine.view();
        let said = file.dags().iter().map(|dag| match view.run(&dag.id) {
            Some(run) if matches!(run.state, "starting" | "running" | "paused" | "draining") => {
                format!("{} goes on with version {}", dag.id, short(&run.version))
            }
            _ => format!("{} stays as it was", dag.id),
        });
        format!("; {}", said.collect::<Vec<_>>().join(", "))
    }

    /// Says how many DAGs there are, after the first look.
    pub(super) fn say_all(&self) {
        let (dags, broken) = {
            let state = self.lock();
            (state.owners.len(), state.catalogue.troubles().count())
        };
        let text = match dags {
            0 => format!(
                "no DAG yet: what is put into {} is served",
                self.folder.display()
            ),
            1 => "1 DAG".to_owned(),
            many => format!("{many} DAGs"),
        };
        let broken = match broken {
            0 => String::new(),
            1 => ", 1 file in error".to_owned(),
            many => format!(", {many} files in error"),
        };
        self.say((None, None, None), &format!("{text}{broken}"));
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
