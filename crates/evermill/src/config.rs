//! Settings, from the strongest to the weakest: flag, environment, `evermill.toml`, default.
//!
//! ```toml
//! data_dir = "/var/lib/evermill"
//!
//! [connections]
//! kafka_default = "kafka://broker:9093?security.protocol=SSL"
//! ```
//! The file is looked for in the working directory. An unknown name in it is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde::Deserialize;

use crate::failure::Failure;

/// The file's name, in the working directory.
const FILE: &str = "evermill.toml";
const DATA_DIR: &str = ".evermill";
/// What stands before a connection's id in the environment.
const VARIABLE: &str = "EVERMILL_CONNECTION_";
/// Short names, and Airflow's default ids that they stand for.
const SHORT: [(&str, &str); 1] = [("kafka", "kafka_default")];

/// What was set, settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where the engine keeps everything.
    pub(crate) data_dir: PathBuf,
    /// Connection id to its address.
    pub(crate) connections: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    #[serde(default)]
    connections: BTreeMap<String, String>,
}

impl Config {
    /// Reads file and environment; `data_dir` and `connections` are what the flags say (clap has
    /// looked at the environment for the former).
    ///
    /// # Errors
    /// A file that cannot be read or understood, a flag that is not `ID=ADDRESS`.
    pub(crate) fn read(data_dir: Option<PathBuf>, connections: &[String]) -> Result<Self, Failure> {
        let file = read_file(Path::new(FILE))?;
        let environment = env::vars_os().filter_map(|(name, value)| {
            let id = name.to_str()?.strip_prefix(VARIABLE)?.to_lowercase();
            Some((id, value.into_string().ok()?))
        });
        settle(file, environment, data_dir, connections)
    }
}

fn settle(
    file: File,
    environment: impl Iterator<Item = (String, String)>,
    data_dir: Option<PathBuf>,
    flags: &[String],
) -> Result<Config, Failure> {
    let flags = flags
        .iter()
        .map(|flag| parse_flag(flag))
        .collect::<Result<Vec<_>, _>>()?;
    let layers = file.connections.into_iter().chain(environment).chain(flags);
    Ok(Config {
        data_dir: data_dir
            .or(file.data_dir)
            .unwrap_or_else(|| DATA_DIR.into()),
        connections: layers
            .map(|(id, address)| (full_id(&id), address))
            .collect(),
    })
}

fn parse_flag(flag: &str) -> Result<(String, String), Failure> {
    match flag.split_once('=') {
        Some((id, address)) if !id.is_empty() && !address.is_empty() => {
            Ok((id.to_owned(), address.to_owned()))
        }
        _ => Err(Failure::usage(format!(
            "--connection {flag}: want ID=URL or ID=HOST:PORT,..., such as kafka=127.0.0.1:9092"
        ))),
    }
}

fn full_id(id: &str) -> String {
    let long = SHORT
        .iter()
        .find(|(short, _)| *short == id)
        .map(|(_, long)| *long);
    long.unwrap_or(id).to_owned()
}

/// What to do about a connection without an address.
pub(crate) fn how_to_give(id: &str) -> String {
    format!(
        "give one by --connection {id}=HOST:PORT or {}=HOST:PORT",
        variable(id)
    )
}

/// The environment's name for a connection, for messages.
fn variable(id: &str) -> String {
    format!("{VARIABLE}{}", id.to_uppercase())
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(Failure::usage(format!("{}: {error}", path.display()))),
    };
    // toml's words name the line, the field and what was expected.
    toml::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Config, Failure> {
        let environment = environment
            .iter()
            .map(|(id, to)| ((*id).to_owned(), (*to).to_owned()));
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        settle(toml::from_str(file).unwrap(), environment, None, &flags)
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file() {
        let file = "data_dir = 'd'\nconnections = { kafka = 'f:1', a = 'f:2', b = 'f:3' }";
        let config = settled(
            file,
            &[("kafka_default", "e:1"), ("a", "e:2")],
            &["kafka=g:1,h:1"],
        )
        .unwrap();
        let expected = [("a", "e:2"), ("b", "f:3"), ("kafka_default", "g:1,h:1")];
        let expected = expected.map(|(id, to)| (id.to_owned(), to.to_owned()));
        assert_eq!(
            config,
            Config {
                data_dir: "d".into(),
                connections: expected.into()
            }
        );
    }

    #[test]
    fn without_any_setting_the_data_lies_in_the_working_directory() {
        assert_eq!(
            settled("", &[], &[]).unwrap().data_dir,
            Path::new(".evermill")
        );
    }

    #[test]
    fn an_address_may_hold_an_equals_sign() {
        let config = settled("", &[], &["x=kafka://h:1?client.id=me"]).unwrap();
        assert_eq!(config.connections["x"], "kafka://h:1?client.id=me");
    }

    #[test]
    fn a_connection_without_id_or_address_is_refused() {
        for flag in ["kafka", "=h:1", "kafka="] {
            assert!(
                settled("", &[], &[flag])
                    .unwrap_err()
                    .to_string()
                    .contains(flag)
            );
        }
    }

    #[test]
    fn an_unknown_name_in_the_file_is_named_with_its_line() {
        let error = toml::from_str::<File>("\nconection = 1")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && error.contains("conection"),
            "{error}"
        );
    }
}
