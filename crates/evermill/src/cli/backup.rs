//! `evermill backup`, `restore`, `verify`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_api::Method;
use evermill_engine::{Checked, Engine, workshop};
use evermill_store::{DirLock, LockError, SqliteStore};
use serde_json::json;

use crate::config::Config;
use crate::failure::Failure;
use crate::reach::{Reach, request};
use crate::screen::Screen;
use crate::table::print;

/// How often the size of a copy is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// On no terminal it is said that seldom.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What can be typed behind `backup`.
#[derive(clap::Args)]
pub(super) struct Backup {
    /// The file to make, or a folder for one that is named by the time
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
}

/// What can be typed behind `restore`.
#[derive(clap::Args)]
pub(super) struct Restore {
    /// A file that `evermill backup` made
    file: PathBuf,
    /// Put a store that is there already aside, in a folder of the data directory
    #[arg(long)]
    replace: bool,
}

/// What can be typed behind `verify`.
#[derive(clap::Args)]
pub(super) struct Verify {
    /// A file that `evermill backup` made; the data directory's store when absent
    file: Option<PathBuf>,
}

/// Copies the store to a file, whether an engine runs or not.
pub(super) fn backup(args: &Backup, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let to = target(&args.to)?;
    let reach = Reach::open(data_dir)?;
    if !reach.is_live() && !reach.data_dir().join(SqliteStore::FILE).exists() {
        return Err(Failure::usage(format!(
            "{}: there is no store to copy",
            reach.data_dir().display()
        )));
    }
    let from = reach.data_dir().join(SqliteStore::FILE);
    let copy = workshop(&to).join(SqliteStore::FILE);
    let body = Bytes::from(json!({ "to": to }).to_string());
    let done = with_progress("copied", &from, &copy, || {
        reach.ask_long::<Checked>(&request(Method::Post, "backup", body))
    });
    let closed = reach.close();
    let checked = done?;
    closed?;
    print(&format!(
        "{}: {}, checked\n",
        to.display(),
        size(checked.bytes)
    ))
}

/// Absolute, since the engine has a working directory of its own.
fn target(to: &Path) -> Result<PathBuf, Failure> {
    let refused = |cause: std::io::Error| Failure::usage(format!("{}: {cause}", to.display()));
    let to = std::path::absolute(to).map_err(refused)?;
    if to.is_dir() {
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        return Ok(to.join(format!("evermill-{now}.db")));
    }
    if to.exists() {
        return Err(Failure::usage(format!(
            "{}: is there already; name another file, or a folder",
            to.display()
        )));
    }
    match to.parent() {
        Some(folder) if !folder.is_dir() => Err(Failure::usage(format!(
            "{}: there is no such folder",
            folder.display()
        ))),
        _ => Ok(to),
    }
}

/// Puts a backup in the place of the store. No engine may run.
pub(super) fn restore(args: &Restore, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    is_backup(&args.file)?;
    let data_dir = Config::read(data_dir, &[])?.data_dir;
    let lock = DirLock::take(&data_dir).map_err(|error| match error {
        LockError::Held { .. } => Failure::locked(format!("{error}; end it first")),
        LockError::Io { .. } => Failure::failed(error.to_string()),
    })?;
    let place = data_dir.join(SqliteStore::FILE);
    if place.exists() && !args.replace {
        return Err(Failure::usage(format!(
            "{} holds a store already; --replace puts it aside",
            data_dir.display()
        )));
    }
    let copy = workshop(&place).join(SqliteStore::FILE);
    let restored = with_progress("copied", &args.file, &copy, || {
        Engine::restore(&lock, &args.file)
            .map_err(|error| Failure::failed(format!("{}: {error}", args.file.display())))
    });
    let (checked, aside) = restored?;
    if let Some(aside) = aside {
        print(&format!(
            "the store that was there is now in {}\n",
            aside.display()
        ))?;
    }
    print(&format!(
        "{}: {}, checked; the next `evermill run` goes on from there, and reads what came after the \
         backup once more\n",
        place.display(),
        size(checked.bytes)
    ))
}

/// Checks the store, or a backup.
pub(super) fn verify(args: &Verify, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let (what, checked) = match &args.file {
        Some(file) => (file.display().to_string(), verify_file(file)?),
        None => verify_store(data_dir)?,
    };
    print(&format!(
        "{what}: sound; {} rows and {} rows of history checked\n",
        checked.rows, checked.history_rows
    ))
}

fn verify_file(file: &Path) -> Result<Checked, Failure> {
    is_backup(file)?;
    let failed =
        |error: &dyn std::fmt::Display| Failure::failed(format!("{}: {error}", file.display()));
    let scratch = tempfile::tempdir().map_err(|error| failed(&error))?;
    let copy = workshop(&scratch.path().join("verify")).join(SqliteStore::FILE);
    with_progress("copied", file, &copy, || {
        Engine::verify_backup(file, scratch.path()).map_err(|error| failed(&error))
    })
}

fn verify_store(data_dir: Option<PathBuf>) -> Result<(String, Checked), Failure> {
    let reach = Reach::open(data_dir)?;
    let place = reach.data_dir().join(SqliteStore::FILE);
    let copy = workshop(&reach.data_dir().join("verify")).join(SqliteStore::FILE);
    let checked = with_progress("copied", &place, &copy, || {
        reach.ask_long(&request(Method::Post, "verify", Bytes::new()))
    });
    let closed = reach.close();
    let checked = checked?;
    closed?;
    Ok((place.display().to_string(), checked))
}

fn is_backup(file: &Path) -> Result<(), Failure> {
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{}: is no file", file.display()))),
        Err(cause) => Err(Failure::usage(format!("{}: {cause}", file.display()))),
    }
}

/// Says how large `copy` has become of `from`, until `work` is done.
fn with_progress<T>(word: &str, from: &Path, copy: &Path, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let screen = Screen::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut said = Instant::now();
            while !done.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK_EVERY);
                let length = |path: &Path| path.metadata().map_or(0, |found| found.len());
                let (now, whole) = (length(copy), length(from));
                if now > 0 && (screen.is_terminal() || said.elapsed() > SAY_EVERY) {
                    said = Instant::now();
                    let text = match now < whole {
                        true => format!("{} of {} {word}", size(now), size(whole)),
                        false => "checking".to_owned(),
                    };
                    screen.status(&text);
                }
            }
            screen.status("");
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, unit)| format!("{:.1} {name}", bytes as f64 / *unit as f64),
    )
}
