//! `evermill secrets set|ls|rm|rotate`: values that tasks and connections name, sealed in the data directory.
//!
//! A value comes from standard input or is typed without being shown; never from the command line,
//! which everybody on the machine can read.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use evermill_secrets::{Kind, MASKED_BYTES_MIN, Rotated, SECRET_BYTES_MAX, Zeroizing, is_name};
use serde_json::json;

use crate::config::Config;
use crate::failure::Failure;
use crate::near::nearest;
use crate::on_record;
use crate::table::{print, table};
use crate::vault::{self, Made};

use super::parked;

/// What can be typed behind `secrets`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Keep a value under a name; it is read from standard input, or asked for
    Set(Set),
    /// List the names; values are never shown
    Ls(Ls),
    /// Forget a value
    Rm(Rm),
    /// Seal everything, addresses of connections too, with a new key
    Rotate(Rotate),
}

#[derive(clap::Args)]
pub(super) struct Set {
    /// The name that tasks and connections use
    name: String,
}

#[derive(clap::Args)]
pub(super) struct Ls {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct Rm {
    /// The name
    name: String,
}

#[derive(clap::Args)]
pub(super) struct Rotate {
    /// A new file for the new key; without it, it takes the old one's place
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Does what was typed.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let data_dir = Config::read(data_dir, &[])?.data_dir;
    match args {
        Args::Set(args) => set(&args.name, &data_dir),
        Args::Ls(args) => ls(args.json, &data_dir),
        Args::Rm(args) => {
            rm(Kind::Secret, "secret", &args.name, &data_dir)?;
            on_record::add(&data_dir, "RUN", &format!("secrets rm {}", args.name));
            Ok(())
        }
        Args::Rotate(args) => rotate(args.to.as_deref(), &data_dir),
    }
}

fn rotate(to: Option<&Path>, data_dir: &Path) -> Result<(), Failure> {
    let Rotated {
        values,
        from,
        to: new,
    } = vault::change_key(data_dir, to)?;
    on_record::add(data_dir, "RUN", "secrets rotate");
    let s = if values == 1 { " is" } else { "s are" };
    eprintln!(
        "{values} value{s} sealed with the new key {new}; the old key {from} opens none of them any more"
    );
    match to {
        None => eprintln!(
            "whoever runs goes on with it. What was copied before still wants the old key: keep that with it, or throw both away"
        ),
        Some(file) => eprintln!(
            "set {}=file:{} now, also for an engine that runs: until it is started with that, it has no secrets",
            vault::KEY_VARIABLE,
            // Whoever reads the variable may be somewhere else.
            std::path::absolute(file)
                .unwrap_or_else(|_| file.to_owned())
                .display()
        ),
    }
    Ok(())
}

fn set(name: &str, data_dir: &Path) -> Result<(), Failure> {
    check_name("secret", name)?;
    let value = ask(&format!("value of the secret '{name}'"))?;
    let made = vault::set(data_dir, Kind::Secret, name, &value)?;
    on_record::add(data_dir, "RUN", &format!("secrets set {name}"));
    say_kept(&format!("secret '{name}'"), &made);
    if value.trim().len() < MASKED_BYTES_MIN {
        eprintln!(
            "warning: it has fewer than {MASKED_BYTES_MIN} bytes, so it is not masked where tasks print it"
        );
    }
    Ok(())
}

/// # Errors
/// When it cannot be the name of anything.
pub(super) fn check_name(sort: &str, name: &str) -> Result<(), Failure> {
    if is_name(name) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{name:?} cannot be the name of a {sort}: write letters, digits, '_', '-' and '.'"
    )))
}

/// Says what was kept, and where a new key is.
pub(super) fn say_kept(what: &str, made: &Made) {
    eprintln!("{what} is kept; it counts from the next time that somebody needs it");
    if let Some(file) = &made.key {
        eprintln!(
            "a new key is in {}: without it nothing that is kept can be read, and whoever has both has \
             everything. Keep a copy of it elsewhere, or move it there and set {}=file:/PATH",
            file.display(),
            vault::KEY_VARIABLE
        );
    }
}

fn ls(as_json: bool, data_dir: &Path) -> Result<(), Failure> {
    let names = vault::names(data_dir, Kind::Secret)?;
    if as_json {
        let line = |(name, set_ms): &(String, u64)| {
            let line = json!({"name": name, "set_ms": set_ms});
            format!("{line}\n")
        };
        return print(&names.iter().map(line).collect::<String>());
    }
    if names.is_empty() {
        eprintln!("no secret is kept; `evermill secrets set NAME` keeps one");
        return Ok(());
    }
    let row = |(name, set_ms): (String, u64)| [name, parked::time(set_ms)];
    print(&table(
        ["NAME", "SET"],
        names.into_iter().map(row).collect(),
        2,
    ))
}

/// Forgets a value.
///
/// # Errors
/// When there is none of this name.
pub(super) fn rm(kind: Kind, sort: &str, name: &str, data_dir: &Path) -> Result<(), Failure> {
    if vault::remove(data_dir, kind, name)? {
        eprintln!("{sort} '{name}' is forgotten");
        return Ok(());
    }
    let names = vault::names(data_dir, kind)?;
    let meant = nearest(name, names.iter().map(|(name, _)| name.as_str()));
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"));
    Err(Failure::usage(format!(
        "no {sort} '{name}' is kept in {}{meant}",
        data_dir.display()
    )))
}

/// A value from standard input, without the newline at its end; from a terminal it is typed unseen.
///
/// # Errors
/// When there is none, or it is too long or no UTF-8.
pub(super) fn ask(what: &str) -> Result<Zeroizing<String>, Failure> {
    let refused = |cause: io::Error| Failure::usage(format!("{what}: {cause}"));
    let stdin = io::stdin();
    let mut text = Zeroizing::new(String::new());
    if stdin.is_terminal() {
        let typed = unseen(what, &mut text);
        typed.map_err(refused)?;
    } else {
        let bound = SECRET_BYTES_MAX as u64 + 2;
        let read = stdin.lock().take(bound).read_to_string(&mut text);
        read.map_err(refused)?;
    }
    let kept = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(kept);
    if text.is_empty() {
        return Err(Failure::usage(format!(
            "{what}: nothing was given; type it, or send it to standard input"
        )));
    }
    Ok(text)
}

/// Reads a line while the terminal does not show what is typed.
fn unseen(what: &str, text: &mut String) -> io::Result<()> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    let mut err = io::stderr();
    write!(err, "{what}: ")?;
    err.flush()?;
    tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
    let read = stdin.read_line(text);
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    writeln!(err)?;
    read.map(drop)
}
