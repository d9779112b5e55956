//! Where connections lead, by whomever that was said: for `evermill connections` and for the API.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evermill_api::{ConnectionFault, ConnectionView, Tested};
use evermill_contract::settings::Settings as _;
use evermill_secrets::{Kind, SECRET_BYTES_MAX, is_name, resolve, shown};

use crate::config::{self, Setting};
use crate::failure::Failure;
use crate::vault::{self, Vault};

/// How long a place has to answer [`look`].
const PATIENCE: Duration = Duration::from_secs(10);

/// What flags, environment and file say, by id.
pub(crate) type Given = BTreeMap<String, Setting<String>>;

/// Every connection, for faces.
pub(crate) fn known(given: &Given, data_dir: &Path) -> Result<Vec<ConnectionView>, Failure> {
    let mut found: BTreeMap<String, ConnectionView> = BTreeMap::new();
    let sealed = vault::names(data_dir, Kind::Connection)?;
    if !sealed.is_empty() {
        let vault = Vault::with(BTreeMap::new(), data_dir)?;
        for (id, set_ms) in sealed {
            let address = vault.written(&id).map_err(Failure::usage)?;
            let view = ConnectionView {
                id: id.clone(),
                address: address.map_or_else(String::new, |address| shown(&address)),
                from: "connections set".to_owned(),
                set_ms: Some(set_ms),
            };
            found.insert(id, view);
        }
    }
    for (id, set) in given {
        let set_ms = found.get(id).and_then(|kept| kept.set_ms);
        let view = ConnectionView {
            id: id.clone(),
            address: shown(&set.value),
            from: set.origin.to_string(),
            set_ms,
        };
        found.insert(id.clone(), view);
    }
    Ok(found.into_values().collect())
}

/// The connections of a running server.
pub(crate) struct Installed {
    given: Given,
    data_dir: PathBuf,
}

impl Installed {
    pub(crate) fn of(given: Given, data_dir: &Path) -> Arc<dyn evermill_api::Connections> {
        Arc::new(Self {
            given,
            data_dir: data_dir.to_owned(),
        })
    }
}

impl evermill_api::Connections for Installed {
    fn list(&self) -> Result<Vec<ConnectionView>, ConnectionFault> {
        known(&self.given, &self.data_dir).map_err(refused)
    }

    fn set(&self, id: &str, address: &str) -> Result<(), ConnectionFault> {
        let refuse = |text: String| Err(ConnectionFault::Refused(text));
        if !is_name(id) {
            return refuse(format!(
                "{id:?} cannot be the id of a connection: write letters, digits, '_', '-' and '.'"
            ));
        }
        let address = address.trim();
        if address.is_empty() || address.len() > SECRET_BYTES_MAX {
            return refuse(format!(
                "address: want one of 1 to {SECRET_BYTES_MAX} bytes"
            ));
        }
        // Whoever asks from elsewhere could have a secret, a variable or a file of ours sent to a place of
        // his own.
        let no_reference = |_: evermill_secrets::Reference<'_>| {
            Err("over the API an address has no references: write the password into it (it is sealed and \
                 never shown), or use `evermill connections set` on this machine"
                .to_owned())
        };
        if let Err(why) = resolve(address, &no_reference) {
            return refuse(format!("address: {why}"));
        }
        let id = config::full_id(id);
        let made = vault::set(&self.data_dir, Kind::Connection, &id, address);
        made.map(drop).map_err(refused)
    }

    fn forget(&self, id: &str) -> Result<bool, ConnectionFault> {
        let id = config::full_id(id);
        vault::remove(&self.data_dir, Kind::Connection, &id).map_err(refused)
    }

    fn test(&self, id: &str) -> Result<Tested, ConnectionFault> {
        let id = config::full_id(id);
        let found = look(&id, &self.given, &self.data_dir);
        let found = found.map_err(|failure| ConnectionFault::Unknown(failure.to_string()))?;
        Ok(match found {
            Ok(said) => Tested { well: true, said },
            Err(said) => Tested { well: false, said },
        })
    }
}

fn refused(failure: Failure) -> ConnectionFault {
    ConnectionFault::Refused(failure.to_string())
}

/// What the place of a connection says for itself, or why it says nothing; without secrets.
///
/// # Errors
/// There is no such place.
pub(crate) fn look(
    id: &str,
    given: &Given,
    data_dir: &Path,
) -> Result<Result<String, String>, Failure> {
    let given = given.iter();
    let given = given.map(|(id, set)| (id.clone(), set.value.clone()));
    let vault = Vault::with(given.collect(), data_dir)?;
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
