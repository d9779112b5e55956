//! `evermill doctor`: what would go wrong later, said now. It looks and changes nothing.

mod risks;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use evermill_api::Tokens;
use rustix::fs::statvfs;
use serde_json::json;

use super::check::{Loading, said, sorted};
use crate::config::{Explained, Flags};
use crate::connections;
use crate::failure::Failure;
use crate::table::print;
use crate::{control, folder, sdk};

/// Free bytes of the disk below which it is bad, and below which it is worth a word.
const FREE_BYTES: [u64; 2] = [256 << 20, 2 << 30];
/// No clock of a machine that works says less, seconds since the Unix epoch: the year 2025.
const CLOCK_MIN_S: u64 = 1_735_689_600;
/// A file of ours that was changed so far in the future was not.
const CLOCK_STEP: Duration = Duration::from_secs(120);
/// How long loading one file may take.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// What can be typed behind `doctor`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// DAG files, or folders with them, to look for risky settings in
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Where a connection leads, such as kafka=127.0.0.1:9092; also EVERMILL_CONNECTION_<ID>
    #[arg(long = "connection", value_name = "ID=URL|HOST:PORT,...")]
    connections: Vec<String>,
    /// What to print on standard output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// A JSON object a line
    Json,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Well,
    Risk,
    Bad,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    /// What was looked at: `disk`, `clock`, a DAG's task.
    what: String,
    /// With the cure, when it is not well.
    text: String,
}

impl Finding {
    fn new(level: Level, what: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            level,
            what: what.into(),
            text: text.into(),
        }
    }

    const fn word(&self) -> &'static str {
        match self.level {
            Level::Well => "ok",
            Level::Risk => "risk",
            Level::Bad => "bad",
        }
    }
}

/// Looks at everything; fails when something is bad.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    // A setting that cannot be read ends it here, with the file and the line.
    let explained = Explained::read(Flags {
        data_dir,
        connections: &args.connections,
        ..Flags::default()
    })?;
    let known: Vec<String> = connections::known(&explained.connections, &explained.data_dir.value)?
        .into_iter()
        .map(|one| one.id)
        .collect();
    let reached = reached(&known, &explained);
    let config = explained.settled();
    let mut found = vec![Finding::new(
        Level::Well,
        "configuration",
        format!("{} connections, {} pools", known.len(), config.pools.len()),
    )];
    found.push(data_directory(&config.data_dir));
    found.push(disk(&config.data_dir));
    found.push(clock(&config.data_dir));
    found.push(access(&config.data_dir));
    found.extend(reached);
    found.extend(dags(args, &known)?);
    match args.format {
        Format::Json => {
            let lines = found.iter().map(|one| {
                let line = json!({"level": one.word(), "what": one.what, "text": one.text});
                format!("{line}\n")
            });
            print(&lines.collect::<String>())?;
        }
        Format::Text => {
            let width = found
                .iter()
                .map(|one| one.what.chars().count())
                .max()
                .unwrap_or(0);
            let lines = found
                .iter()
                .map(|one| format!("{:<4}  {:<width$}  {}\n", one.word(), one.what, one.text));
            print(&lines.collect::<String>())?;
        }
    }
    let bad = found.iter().filter(|one| one.level == Level::Bad).count();
    match bad {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("{bad} of {} are bad", found.len()))),
    }
}

/// Whether what each connection leads to answers.
fn reached(known: &[String], found: &Explained) -> Vec<Finding> {
    let look = |id: &String| {
        let what = format!("connection {id}");
        match connections::look(id, &found.connections, &found.data_dir.value) {
            Ok(Ok(said)) => Finding::new(Level::Well, what, said),
            Ok(Err(why)) => {
                let text = format!(
                    "{why}; is it running, and is the address right? Sources wait for it and go on by themselves"
                );
                Finding::new(Level::Bad, what, text)
            }
            Err(refused) => Finding::new(Level::Bad, what, refused.to_string()),
        }
    };
    // Each may take as long as it waits; together they take as long as the slowest.
    std::thread::scope(|scope| {
        let started: Vec<_> = known
            .iter()
            .map(|id| scope.spawn(move || look(id)))
            .collect();
        let ended = started.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.flatten().collect()
    })
}

fn data_directory(path: &Path) -> Finding {
    let shown = path.display();
    let what = "data directory";
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = format!("{shown}: not there yet; `evermill run` and `serve` make it");
            return Finding::new(Level::Well, what, text);
        }
        Err(error) => return Finding::new(Level::Bad, what, format!("{shown}: {error}")),
    };
    if !found.is_dir() {
        let text = format!("{shown}: it is no folder; name another, --data-dir DIR");
        return Finding::new(Level::Bad, what, text);
    }
    if found.mode() & 0o077 != 0 {
        let text = format!("{shown}: others of this machine can look into it: chmod 700 {shown}");
        return Finding::new(Level::Risk, what, text);
    }
    let live = if control::is_answered(path) {
        "an engine runs on it"
    } else {
        "no engine runs on it"
    };
    Finding::new(Level::Well, what, format!("{shown}: {live}"))
}

/// The folder, or the nearest one above that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(path).ok()?;
    whole
        .ancestors()
        .find(|folder| folder.exists())
        .map(Path::to_owned)
}

fn disk(path: &Path) -> Finding {
    let found = nearest(path).map(|folder| statvfs(&folder));
    let Some(Ok(found)) = found else {
        let text = format!(
            "{}: the disk does not say how much room it has",
            path.display()
        );
        return Finding::new(Level::Risk, "disk", text);
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    judge_disk(free)
}

fn judge_disk(free: u64) -> Finding {
    let mib = free >> 20;
    let [bad, risk] = FREE_BYTES;
    if free < bad {
        let text = format!(
            "{mib} MiB are free: an engine takes nothing more in when it is full; make room"
        );
        return Finding::new(Level::Bad, "disk", text);
    }
    if free < risk {
        let text = format!("{mib} MiB are free; make room, or keep less history with --retain");
        return Finding::new(Level::Risk, "disk", text);
    }
    Finding::new(Level::Well, "disk", format!("{mib} MiB are free"))
}

fn clock(path: &Path) -> Finding {
    let now = SystemTime::now();
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    let changed = files.filter_map(|file| file.metadata().ok()?.modified().ok());
    judge_clock(now, changed.max())
}

fn judge_clock(now: SystemTime, changed: Option<SystemTime>) -> Finding {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if since.as_secs() < CLOCK_MIN_S {
        let text =
            "the clock of this machine is years behind: clocks and deadlines will be wrong; set it";
        return Finding::new(Level::Bad, "clock", text);
    }
    let ahead = changed.and_then(|changed| changed.duration_since(now).ok());
    match ahead.filter(|ahead| *ahead > CLOCK_STEP) {
        Some(ahead) => Finding::new(
            Level::Risk,
            "clock",
            format!(
                "the store was written {} s in the future: the clock went back. Clocks of DAGs wait until it is there again",
                ahead.as_secs()
            ),
        ),
        None => Finding::new(Level::Well, "clock", "it has not gone back"),
    }
}

fn access(path: &Path) -> Finding {
    let tokens = Tokens::at(path);
    match tokens.list() {
        Err(fault) => Finding::new(Level::Bad, "tokens", fault.to_string()),
        Ok(_) if !tokens.are_used() => Finding::new(
            Level::Well,
            "tokens",
            "none: a server answers this machine alone",
        ),
        Ok(all) => {
            let good = all.iter().filter(|token| !token.is_over()).count();
            let text = format!("{good} good, {} expired", all.len() - good);
            if good == 0 {
                let text = format!("{text}: nobody gets in over TCP; `evermill token create NAME`");
                return Finding::new(Level::Risk, "tokens", text);
            }
            Finding::new(Level::Well, "tokens", text)
        }
    }
}

fn dags(args: &Args, known: &[String]) -> Result<Vec<Finding>, Failure> {
    let mut found = Vec::new();
    if args.paths.is_empty() {
        return Ok(found);
    }
    let scratch = tempfile::tempdir()
        .map_err(|cause| Failure::failed(format!("no temporary folder: {cause}")))?;
    let mut loading = Loading::new(sdk::folder(scratch.path())?);
    loading.leave_no_trace(LOAD_LIMIT);
    for path in &args.paths {
        let files: Vec<(PathBuf, Option<&Path>)> = if path.is_dir() {
            let tree = folder::walk(path, &mut |_| {})
                .map_err(|cause| Failure::usage(format!("{}: {cause}", path.display())))?;
            let files = tree
                .files
                .into_keys()
                .filter(|path| folder::may_declare(path));
            files.map(|file| (file, Some(path.as_path()))).collect()
        } else {
            vec![(path.clone(), None)]
        };
        for (file, within) in files {
            let shown = file.display().to_string();
            match loading.load(&file, within) {
                Err(faults) => {
                    let text = said(&sorted(faults));
                    let first = text.lines().next().unwrap_or_default();
                    let text = format!("{first}; `evermill check {shown}` says all of it");
                    found.push(Finding::new(Level::Bad, shown, text));
                }
                Ok(loaded) => {
                    for dag in &loaded.manifest.dags {
                        found.extend(risks::of(dag, known));
                    }
                }
            }
        }
    }
    if found.is_empty() {
        found.push(Finding::new(Level::Well, "DAGs", "no risky settings"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_bad_before_it_is_full() {
        assert_eq!(judge_disk(100 << 20).level, Level::Bad);
        assert_eq!(judge_disk(1 << 30).level, Level::Risk);
        assert_eq!(judge_disk(10 << 30).level, Level::Well);
    }

    #[test]
    fn a_clock_that_went_back_is_noticed_by_what_was_written() {
        let now = UNIX_EPOCH + Duration::from_secs(CLOCK_MIN_S + 1_000);
        let ahead = |seconds| judge_clock(now, Some(now + Duration::from_secs(seconds))).level;
        assert_eq!(ahead(60), Level::Well);
        assert_eq!(ahead(3_600), Level::Risk);
        assert_eq!(judge_clock(now, None).level, Level::Well);
        assert_eq!(judge_clock(UNIX_EPOCH, None).level, Level::Bad);
    }
}
