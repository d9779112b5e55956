//! `evermill connections ls|set|rm|test`: where connections lead, by whomever that was said.

use std::path::PathBuf;

use evermill_api::ConnectionView;
use evermill_secrets::{Kind, password_in, shown};
use serde_json::json;

use super::secrets::{ask, check_name, rm, say_kept};
use crate::config::{self, Explained, Flags};
use crate::connections::{known, look};
use crate::failure::Failure;
use crate::on_record;
use crate::table::{print, table};
use crate::vault;

/// What can be typed behind `connections`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// List every connection that has an address, without passwords
    Ls(Ls),
    /// Keep an address, sealed, in the data directory
    Set(Set),
    /// Forget an address that was kept
    Rm(Rm),
    /// Look whether somebody answers there
    Test(Test),
}

#[derive(clap::Args)]
pub(super) struct Ls {
    /// As if it stood behind `run`
    #[arg(long = "connection", value_name = "ID=URL|HOST:PORT,...")]
    connections: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct Set {
    /// The id that tasks, sources and sinks use
    id: String,
    /// The address; one with a password is better left out and typed or sent to standard input
    address: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Rm {
    /// The id
    id: String,
}

#[derive(clap::Args)]
pub(super) struct Test {
    /// The id
    id: String,
    /// As if it stood behind `run`
    #[arg(long = "connection", value_name = "ID=URL|HOST:PORT,...")]
    connections: Vec<String>,
}

/// Does what was typed.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let given: &[String] = match args {
        Args::Ls(args) => &args.connections,
        Args::Test(args) => &args.connections,
        Args::Set(_) | Args::Rm(_) => &[],
    };
    let found = Explained::read(Flags {
        data_dir,
        connections: given,
        ..Flags::default()
    })?;
    match args {
        Args::Ls(args) => ls(&found, args.json),
        Args::Set(args) => set(args, &found),
        Args::Rm(args) => {
            let id = config::full_id(&args.id);
            rm(Kind::Connection, "connection", &id, &found.data_dir.value)?;
            let target = format!("/api/v1/connections/{id}");
            on_record::add(&found.data_dir.value, "DELETE", &target);
            Ok(())
        }
        Args::Test(args) => test(&args.id, &found),
    }
}

fn ls(found: &Explained, as_json: bool) -> Result<(), Failure> {
    let rows = known(&found.connections, &found.data_dir.value)?;
    if as_json {
        let lines = rows.iter().map(|one| {
            let line = json!({"id": one.id, "address": one.address, "from": one.from});
            format!("{line}\n")
        });
        return print(&lines.collect::<String>());
    }
    if rows.is_empty() {
        eprintln!("no connection has an address; `evermill connections set ID` keeps one");
        return Ok(());
    }
    let row = |one: ConnectionView| [one.id, one.address, one.from];
    let rows = rows.into_iter().map(row).collect();
    print(&table(["ID", "ADDRESS", "FROM"], rows, 3))
}

fn set(args: &Set, found: &Explained) -> Result<(), Failure> {
    check_name("connection", &args.id)?;
    let id = config::full_id(&args.id);
    let address = match &args.address {
        Some(address) if shows_a_password(address) => {
            return Err(Failure::usage(format!(
                "a password on the command line is seen by everybody on this machine. Leave the address out and \
                 type it, send it to standard input, or name a secret: `evermill connections set {id} {}`",
                example(address)
            )));
        }
        Some(address) => address.clone().into(),
        None => ask(&format!("address of the connection '{id}'"))?,
    };
    let data_dir = &found.data_dir.value;
    let made = vault::set(data_dir, Kind::Connection, &id, address.trim())?;
    on_record::add(data_dir, "PUT", &format!("/api/v1/connections/{id}"));
    say_kept(&format!("connection '{id}'"), &made);
    if let Some(set) = found.connections.get(&id) {
        eprintln!("warning: {} says otherwise, and goes first", set.origin);
    }
    Ok(())
}

fn shows_a_password(address: &str) -> bool {
    password_in(address).is_some() || shown(address) != address
}

/// The same address with names of secrets.
fn example(address: &str) -> String {
    shown(address).replace("***", "secret:NAME")
}

/// Asks the place for a sign of life.
fn test(id: &str, found: &Explained) -> Result<(), Failure> {
    let id = config::full_id(id);
    match look(&id, &found.connections, &found.data_dir.value)? {
        Ok(said) => print(&format!("{id}: {said}\n")),
        Err(why) => Err(Failure::unreachable(format!("{id}: {why}"))),
    }
}
