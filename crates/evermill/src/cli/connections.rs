//! `evermill connections ls|set|rm|test`: where connections lead, by whomever that was said.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use evermill_contract::settings::Settings as _;
use evermill_secrets::{Kind, password_in, shown};
use serde_json::json;

use super::secrets::{ask, check_name, rm, say_kept};
use crate::config::{self, Explained, Flags};
use crate::failure::Failure;
use crate::table::{print, table};
use crate::vault::{self, Vault};

/// How long a place has to answer `test`.
const PATIENCE: Duration = Duration::from_secs(10);

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
            rm(Kind::Connection, "connection", &id, &found.data_dir.value)
        }
        Args::Test(args) => test(&args.id, &found),
    }
}

/// Every connection: id, address as it may be shown, and who says so.
pub(super) fn known(found: &Explained) -> Result<Vec<[String; 3]>, Failure> {
    let data_dir = &found.data_dir.value;
    let mut rows: BTreeMap<String, [String; 3]> = BTreeMap::new();
    let sealed = vault::names(data_dir, Kind::Connection)?;
    if !sealed.is_empty() {
        let vault = Vault::with(BTreeMap::new(), data_dir)?;
        for (id, _) in sealed {
            let address = vault.written(&id).map_err(Failure::usage)?;
            let address = address.map_or_else(String::new, |address| shown(&address));
            rows.insert(id.clone(), [id, address, "connections set".to_owned()]);
        }
    }
    for (id, set) in &found.connections {
        let row = [id.clone(), shown(&set.value), set.origin.to_string()];
        rows.insert(id.clone(), row);
    }
    Ok(rows.into_values().collect())
}

fn ls(found: &Explained, as_json: bool) -> Result<(), Failure> {
    let rows = known(found)?;
    if as_json {
        let lines = rows.iter().map(|[id, address, from]| {
            let line = json!({"id": id, "address": address, "from": from});
            format!("{line}\n")
        });
        return print(&lines.collect::<String>());
    }
    if rows.is_empty() {
        eprintln!("no connection has an address; `evermill connections set ID` keeps one");
        return Ok(());
    }
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
    match look(&id, found)? {
        Ok(said) => print(&format!("{id}: {said}\n")),
        Err(why) => Err(Failure::unreachable(format!("{id}: {why}"))),
    }
}

/// What the place of a connection says for itself, or why it says nothing; without secrets.
///
/// # Errors
/// There is no such place.
pub(super) fn look(id: &str, found: &Explained) -> Result<Result<String, String>, Failure> {
    let given = found.connections.iter();
    let given = given.map(|(id, set)| (id.clone(), set.value.clone()));
    let vault = Vault::with(given.collect(), &found.data_dir.value)?;
    let address = vault.connection(id).map_err(Failure::usage)?;
    let address = address.ok_or_else(|| {
        Failure::usage(format!(
            "the connection '{id}' has no address; {}",
            config::how_to_give(id)
        ))
    })?;
    let scheme = address.split_once("://").map(|(scheme, _)| scheme);
    let is_http = matches!(scheme, Some("http" | "https")) || id.contains("http");
    let is_kafka = matches!(scheme, Some("kafka")) || (scheme.is_none() && id.contains("kafka"));
    let said = if is_http {
        http(id, &address)
    } else if is_kafka {
        evermill_connectors::kafka::look(id, &address, PATIENCE).map_err(|why| why.to_string())
    } else {
        tcp(&address)
    };
    let hidden = |text: &str| {
        let masked = vault.mask(text.as_bytes());
        masked.map_or_else(
            || text.to_owned(),
            |text| String::from_utf8_lossy(&text).into_owned(),
        )
    };
    Ok(match said {
        Ok(said) => Ok(hidden(&said)),
        Err(why) => Err(hidden(&why)),
    })
}

fn http(id: &str, address: &str) -> Result<String, String> {
    use evermill_http::{Client, Connection, Method, Request, Target};
    let connection = Connection::parse(id, address).map_err(|error| error.to_string())?;
    let client = Client::new(connection).map_err(|error| error.to_string())?;
    let mut request = Request::new(Method::GET, Target::Below(String::new()));
    request.timeout = Some(PATIENCE);
    let answer = client.send(&request).map_err(|error| error.to_string())?;
    Ok(match answer.status {
        401 | 403 => {
            return Err(format!(
                "{} answers {}: it does not let us in",
                answer.place, answer.status
            ));
        }
        status => format!("{} answers {status}", answer.place),
    })
}

/// Somebody takes connections; what they speak is not known here.
fn tcp(address: &str) -> Result<String, String> {
    let place = address.split_once("://").map_or(address, |(_, rest)| rest);
    let place = place.split(['/', '?']).next().unwrap_or_default();
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let default = match address.split_once("://") {
        Some(("postgresql" | "postgres", _)) => Some(5432),
        Some(("mysql", _)) => Some(3306),
        Some(("redis", _)) => Some(6379),
        Some(("amqp", _)) => Some(5672),
        _ => None,
    };
    let mut last = format!("{place}: no HOST:PORT");
    for one in place.split(',') {
        let one = match default {
            Some(port) if !one.contains(':') => format!("{one}:{port}"),
            _ => one.to_owned(),
        };
        let found = match one.to_socket_addrs() {
            Ok(found) => found,
            Err(cause) => {
                last = format!("{one}: {cause}");
                continue;
            }
        };
        for at in found {
            match TcpStream::connect_timeout(&at, PATIENCE) {
                Ok(_) => {
                    return Ok(format!(
                        "{one} takes connections; nothing more was looked at"
                    ));
                }
                Err(cause) => last = format!("{one}: {cause}"),
            }
        }
    }
    Err(last)
}
