//! Settings, from the strongest to the weakest: flag, environment, `evermill.toml`, default.
//!
//! ```toml
//! data_dir = "/var/lib/evermill"
//! retain = "7d, 10GB"
//!
//! [pools]
//! gpu = 2
//!
//! [connections]
//! kafka_default = "broker:9093?security.protocol=SSL"
//!
//! [connections.orders]
//! address = "broker-1:9093,broker-2:9093"
//! "security.protocol" = "SASL_SSL"
//! "sasl.password" = "secret:kafka_password"
//! ```
//! The file is looked for in the working directory. An unknown name in it is an error.

mod alerts;
mod logging;
mod retain;
mod traces;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use evermill_contract::settings::CONNECTION_PREFIX;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

pub(crate) use self::alerts::{Hook, hooks};
pub(crate) use self::logging::{Format, Level, Log, LogArgs};
pub(crate) use self::retain::{Retain, RetainLogs};
pub(crate) use self::traces::Traces;
use crate::failure::Failure;
use crate::near::nearest;

/// The file's name, in the working directory.
const FILE: &str = "evermill.toml";
const DATA_DIR: &str = ".evermill";
const DATA_DIR_VARIABLE: &str = "EVERMILL_DATA_DIR";
const RETAIN_VARIABLE: &str = "EVERMILL_RETAIN";
const RETAIN_LOGS_VARIABLE: &str = "EVERMILL_RETAIN_LOGS";
const LOG_FORMAT_VARIABLE: &str = "EVERMILL_LOG_FORMAT";
const LOG_LEVEL_VARIABLE: &str = "EVERMILL_LOG_LEVEL";
/// Settings of one value, and where data lies.
const VARIABLES: [&str; 5] = [
    DATA_DIR_VARIABLE,
    RETAIN_VARIABLE,
    RETAIN_LOGS_VARIABLE,
    LOG_FORMAT_VARIABLE,
    LOG_LEVEL_VARIABLE,
];
/// Short names, and Airflow's default ids that they stand for.
const SHORT: [(&str, &str); 3] = [
    ("aws", "aws_default"),
    ("http", "http_default"),
    ("kafka", "kafka_default"),
];
/// What the file may hold.
const NAMES: [&str; 9] = [
    "data_dir",
    "retain",
    "retain_logs",
    "log_format",
    "log_level",
    "pools",
    "connections",
    "alerts",
    "traces",
];

/// A setting that there is, for whoever wants to know.
#[derive(Debug, Serialize)]
pub(crate) struct Known {
    /// In the file, if it may stand there.
    pub(crate) key: Option<&'static str>,
    pub(crate) variable: Option<&'static str>,
    pub(crate) flag: Option<&'static str>,
    pub(crate) default: Option<&'static str>,
    pub(crate) about: &'static str,
}

/// Every setting.
pub(crate) const KNOWN: [Known; 11] = [
    Known {
        key: Some("data_dir"),
        variable: Some(DATA_DIR_VARIABLE),
        flag: Some("--data-dir DIR"),
        default: Some(DATA_DIR),
        about: "where the engine keeps everything it must not forget",
    },
    Known {
        key: Some("retain"),
        variable: Some(RETAIN_VARIABLE),
        flag: Some("--retain AGE|SIZE"),
        default: Some("1GiB"),
        about: "how much history is kept: an age, a size, or both",
    },
    Known {
        key: Some("retain_logs"),
        variable: Some(RETAIN_LOGS_VARIABLE),
        flag: Some("--retain-logs AGE|SIZE"),
        default: Some("30d, 1GiB"),
        about: "how much is kept of what tasks print: an age, a size for all runs together, or both; of each run at most 128 MiB",
    },
    Known {
        key: Some("log_format"),
        variable: Some(LOG_FORMAT_VARIABLE),
        flag: Some("--log-format text|json"),
        default: Some("text"),
        about: "what lines on standard error are: sentences, or one JSON object a line",
    },
    Known {
        key: Some("log_level"),
        variable: Some(LOG_LEVEL_VARIABLE),
        flag: Some("--log-level LEVEL"),
        default: Some("info"),
        about: "the least that is said there: debug, info, warning or error; what tasks print is info",
    },
    Known {
        key: Some("pools.NAME"),
        variable: None,
        flag: None,
        default: Some("128"),
        about: "how many executions of a pool there are at a time, over all DAGs; what `evermill pools set` says goes before it",
    },
    Known {
        key: Some("alerts"),
        variable: None,
        flag: None,
        default: None,
        about: "where alerts go, one `[[alerts]]` each: `post` (a URL, `env:NAME` or `file:PATH`) or `command`, and `kinds`, `dags`, `every`",
    },
    Known {
        key: Some("traces"),
        variable: Some(traces::ENDPOINT),
        flag: Some("--otlp-endpoint URL"),
        default: None,
        about: "the collector of traces, `[traces]` with `endpoint`, `service` and `headers`: OTLP over HTTP, as a rule port 4318. `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME` and `OTEL_SDK_DISABLED` count as well",
    },
    Known {
        key: Some("connections.ID"),
        variable: Some("EVERMILL_CONNECTION_<ID>"),
        flag: Some("--connection ID=ADDRESS"),
        default: None,
        about: "where a connection leads, with the client's own settings: an address, or a table with `address` and settings; of AWS a region, an endpoint's URL, or `region`, `endpoint_url`, `access_key_id`, `secret_access_key`, `session_token`, `profile`, `role_arn`, `external_id`. Each value, or all of it, can be `secret:NAME`, `env:NAME` or `file:/PATH`",
    },
    Known {
        key: None,
        variable: Some(crate::vault::KEY_VARIABLE),
        flag: None,
        default: Some("secret.key in the data directory"),
        about: "the key of what `secrets set` and `connections set` keep: 32 bytes in base64, or `file:/PATH`",
    },
    Known {
        key: None,
        variable: Some("EVERMILL_PYTHON"),
        flag: None,
        default: Some("python3"),
        about: "the interpreter of DAGs that name none by `python=`; before the default, that of `$VIRTUAL_ENV`",
    },
];

/// What was set, settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where the engine keeps everything.
    pub(crate) data_dir: PathBuf,
    /// How much history is kept.
    pub(crate) retain: Retain,
    /// How much of what tasks print.
    pub(crate) retain_logs: RetainLogs,
    /// How it says what it has to say.
    pub(crate) log: Log,
    /// Slots of pools, by name.
    pub(crate) pools: BTreeMap<String, u32>,
    /// Connection id to its address.
    pub(crate) connections: BTreeMap<String, String>,
    /// Where alerts go.
    pub(crate) alerts: Vec<Hook>,
    /// Where traces go.
    pub(crate) traces: Option<Traces>,
}

/// A setting with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An option of the command.
    Flag(&'static str),
    /// This variable of the environment.
    Variable(String),
    /// `evermill.toml`.
    File,
    /// Nobody.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "{name}"),
            Self::Variable(name) => write!(f, "${name}"),
            Self::File => write!(f, "{FILE}"),
            Self::Default => write!(f, "default"),
        }
    }
}

/// Every setting with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) data_dir: Setting<PathBuf>,
    pub(crate) retain: Setting<Retain>,
    pub(crate) retain_logs: Setting<RetainLogs>,
    pub(crate) log_format: Setting<Format>,
    pub(crate) log_level: Setting<Level>,
    /// The file alone says them.
    pub(crate) pools: BTreeMap<String, u32>,
    pub(crate) connections: BTreeMap<String, Setting<String>>,
    /// The file alone says them.
    pub(crate) alerts: Vec<Hook>,
    pub(crate) traces: Option<Setting<Traces>>,
}

/// What the flags say.
#[derive(Debug, Default)]
pub(crate) struct Flags<'a> {
    /// Also the environment's word: clap has looked there.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) retain: Option<&'a str>,
    pub(crate) retain_logs: Option<&'a str>,
    pub(crate) log: Option<&'a LogArgs>,
    pub(crate) connections: &'a [String],
    pub(crate) otlp_endpoint: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    retain: Option<String>,
    retain_logs: Option<String>,
    log_format: Option<String>,
    log_level: Option<String>,
    #[serde(default)]
    pools: BTreeMap<String, NonZero<u32>>,
    #[serde(default)]
    connections: BTreeMap<String, Address>,
    #[serde(default)]
    alerts: Vec<Hook>,
    #[serde(default)]
    traces: traces::InFile,
}

/// A connection in the file: as anywhere else, or with its settings one by one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Address {
    Whole(String),
    Parts(BTreeMap<String, toml::Value>),
}

impl Config {
    /// Reads file and environment; `data_dir` and `connections` are what the flags say.
    ///
    /// # Errors
    /// A file that cannot be read or understood, a flag that is not `ID=ADDRESS`.
    pub(crate) fn read(data_dir: Option<PathBuf>, connections: &[String]) -> Result<Self, Failure> {
        let flags = Flags {
            data_dir,
            connections,
            ..Flags::default()
        };
        Explained::read(flags).map(Explained::settled)
    }
}

impl Explained {
    /// Reads file and environment.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub(crate) fn read(flags: Flags<'_>) -> Result<Self, Failure> {
        let file = read_file(Path::new(FILE))?;
        settle(file, &variables(), flags)
    }

    /// How to say what there is to say.
    pub(crate) const fn log(&self) -> Log {
        Log {
            format: self.log_format.value,
            level: self.log_level.value,
        }
    }

    /// The settings alone.
    pub(crate) fn settled(self) -> Config {
        let log = self.log();
        let connections = self.connections.into_iter();
        Config {
            data_dir: self.data_dir.value,
            retain: self.retain.value,
            retain_logs: self.retain_logs.value,
            log,
            pools: self.pools,
            connections: connections.map(|(id, set)| (id, set.value)).collect(),
            alerts: self.alerts,
            traces: self.traces.map(|set| set.value),
        }
    }
}

/// How to say what there is to say, for those who read no file.
///
/// # Errors
/// A format or a level that is none.
pub(crate) fn log(flags: &LogArgs) -> Result<Log, Failure> {
    let (format, level) = settle_log(Some(flags), (None, None), &variables())?;
    Ok(Log {
        format: format.value,
        level: level.value,
    })
}

fn settle_log(
    flags: Option<&LogArgs>,
    (format, level): (Option<String>, Option<String>),
    variables: &BTreeMap<String, String>,
) -> Result<(Setting<Format>, Setting<Level>), Failure> {
    let said = |say: fn(&LogArgs) -> &Option<String>| flags.and_then(|log| say(log).as_deref());
    let format = one(
        "log_format",
        ("--log-format", said(|log| &log.log_format)),
        (LOG_FORMAT_VARIABLE, variables),
        format,
        Format::parse,
    )?;
    let level = one(
        "log_level",
        ("--log-level", said(|log| &log.log_level)),
        (LOG_LEVEL_VARIABLE, variables),
        level,
        Level::parse,
    )?;
    Ok((format, level))
}

/// What the environment says.
fn variables() -> BTreeMap<String, String> {
    let variables = env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let prefixes = [CONNECTION_PREFIX, traces::PREFIX];
        let ours = VARIABLES.contains(&name.as_str())
            || prefixes.iter().any(|prefix| name.starts_with(prefix));
        ours.then_some((name, value.into_string().ok()?))
    });
    variables.collect()
}

fn settle(
    file: File,
    variables: &BTreeMap<String, String>,
    flags: Flags<'_>,
) -> Result<Explained, Failure> {
    let of_environment = variables.iter().filter_map(|(name, value)| {
        let id = name.strip_prefix(CONNECTION_PREFIX)?.to_lowercase();
        Some((id, value.clone(), Origin::Variable(name.clone())))
    });
    let mut layers = Vec::new();
    for (id, address) in file.connections {
        layers.push((id.clone(), whole(&id, address)?, Origin::File));
    }
    layers.extend(of_environment);
    for flag in flags.connections {
        let (id, address) = parse_flag(flag)?;
        layers.push((id, address, Origin::Flag("--connection")));
    }
    let set =
        |(id, value, origin): (String, String, Origin)| (full_id(&id), Setting { value, origin });
    let in_file = (file.log_format, file.log_level);
    let (log_format, log_level) = settle_log(flags.log, in_file, variables)?;
    Ok(Explained {
        data_dir: data_dir(flags.data_dir, file.data_dir, variables),
        retain: one(
            "retain",
            ("--retain", flags.retain),
            (RETAIN_VARIABLE, variables),
            file.retain,
            Retain::parse,
        )?,
        retain_logs: one(
            "retain_logs",
            ("--retain-logs", flags.retain_logs),
            (RETAIN_LOGS_VARIABLE, variables),
            file.retain_logs,
            RetainLogs::parse,
        )?,
        log_format,
        log_level,
        pools: slots(file.pools),
        connections: layers.into_iter().map(set).collect(),
        alerts: file.alerts,
        traces: traces::settle(flags.otlp_endpoint, file.traces, variables)?,
    })
}

fn slots(pools: BTreeMap<String, NonZero<u32>>) -> BTreeMap<String, u32> {
    let pools = pools.into_iter();
    pools.map(|(name, slots)| (name, slots.get())).collect()
}

fn data_dir(
    flag: Option<PathBuf>,
    file: Option<PathBuf>,
    variables: &BTreeMap<String, String>,
) -> Setting<PathBuf> {
    let of_environment = variables.get(DATA_DIR_VARIABLE).map(OsStr::new);
    let origin = match &flag {
        Some(given) if Some(given.as_os_str()) == of_environment => {
            Origin::Variable(DATA_DIR_VARIABLE.to_owned())
        }
        Some(_) => Origin::Flag("--data-dir"),
        None if file.is_some() => Origin::File,
        None => Origin::Default,
    };
    let value = flag.or(file).unwrap_or_else(|| DATA_DIR.into());
    Setting { value, origin }
}

/// A setting of one value.
fn one<T: Default>(
    key: &str,
    (flag, given): (&'static str, Option<&str>),
    (variable, variables): (&str, &BTreeMap<String, String>),
    file: Option<String>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Setting<T>, Failure> {
    let of_variable = variables.get(variable).cloned();
    let layers = [
        (given.map(str::to_owned), Origin::Flag(flag)),
        (of_variable, Origin::Variable(variable.to_owned())),
        (file, Origin::File),
    ];
    let set = layers
        .into_iter()
        .find_map(|(text, origin)| Some((text?, origin)));
    let Some((text, origin)) = set else {
        return Ok(Setting {
            value: T::default(),
            origin: Origin::Default,
        });
    };
    let value =
        parse(&text).map_err(|why| Failure::usage(format!("{key} = {text} ({origin}): {why}")))?;
    Ok(Setting { value, origin })
}

/// A connection with one of these needs no address.
const AWS_SETTINGS: [&str; 6] = [
    "access_key_id",
    "endpoint_url",
    "profile",
    "region",
    "region_name",
    "role_arn",
];

/// What stays as it is in a URL's query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'/')
    .remove(b':')
    .remove(b',');

/// A connection's settings as the query behind its address.
fn whole(id: &str, address: Address) -> Result<String, Failure> {
    let mut parts = match address {
        Address::Whole(text) => return Ok(text),
        Address::Parts(parts) => parts,
    };
    let wrong = |what: String| Failure::usage(format!("{FILE}: [connections.{id}]: {what}"));
    let mut text = match parts.remove("address") {
        Some(toml::Value::String(text)) => text,
        // AWS is found by its settings alone.
        None if parts
            .keys()
            .any(|name| AWS_SETTINGS.contains(&name.as_str())) =>
        {
            String::new()
        }
        _ => return Err(wrong("address = \"HOST:PORT,...\" is missing".to_owned())),
    };
    for (name, value) in parts {
        let value = match value {
            toml::Value::String(value) => value,
            toml::Value::Integer(value) => value.to_string(),
            toml::Value::Boolean(value) => value.to_string(),
            other => {
                return Err(wrong(format!(
                    "{name} = {other}: want text, a whole number or a boolean"
                )));
            }
        };
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(&format!("{name}={}", utf8_percent_encode(&value, PLAIN)));
    }
    Ok(text)
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

pub(crate) fn full_id(id: &str) -> String {
    let long = SHORT
        .iter()
        .find(|(short, _)| *short == id)
        .map(|(_, long)| *long);
    long.unwrap_or(id).to_owned()
}

/// What to do about a connection without an address.
pub(crate) fn how_to_give(id: &str) -> String {
    let long = full_id(id);
    if long != id {
        // Whatever is given under the short name goes to the long one.
        return format!(
            "'{id}' is what --connection may call '{long}': write connection=\"{long}\" in the file, \
             or leave it out"
        );
    }
    let address = match id {
        id if id.contains("http") => "URL",
        id if id.contains("aws") => "REGION",
        _ => "HOST:PORT",
    };
    format!(
        "give one by --connection {id}={address} or {}={address}",
        variable(id)
    )
}

/// The environment's name for a connection, for messages.
fn variable(id: &str) -> String {
    format!("{CONNECTION_PREFIX}{}", id.to_uppercase())
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(Failure::usage(unreadable(path, &error))),
    };
    toml::from_str(&text).map_err(|error| Failure::usage(explain(path, &error)))
}

/// Where it was looked for depends on where the command was started, so the whole path is said.
fn unreadable(path: &Path, error: &io::Error) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; let the user that runs this read it, and pass through the folders above it"
        }
        _ => "",
    };
    format!("{}: {error}{cure}", whole.display())
}

/// toml's words name the line, the field and what was expected; the cure for a slip is ours.
fn explain(path: &Path, error: &toml::de::Error) -> String {
    let said = format!("{}: {error}", path.display());
    let unknown = error.message().strip_prefix("unknown field `");
    let meant = unknown
        .and_then(|rest| rest.split('`').next())
        .and_then(|typed| nearest(typed, NAMES.into_iter()));
    match meant {
        Some(name) => format!("{}\ndid you mean '{name}'?", said.trim_end()),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Config, Failure> {
        let name = |id: &str| format!("{CONNECTION_PREFIX}{}", id.to_uppercase());
        let environment = environment.iter();
        let environment = environment.map(|(id, to)| (name(id), (*to).to_owned()));
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let flags = Flags {
            connections: &flags,
            ..Flags::default()
        };
        let file = toml::from_str(file).unwrap();
        settle(file, &environment.collect(), flags).map(Explained::settled)
    }

    #[test]
    fn a_short_name_in_a_dag_file_is_not_told_to_be_given_an_address() {
        let short = how_to_give("kafka");
        assert!(short.contains("connection=\"kafka_default\""), "{short}");
        let long = how_to_give("kafka_default");
        assert!(
            long.contains("--connection kafka_default=HOST:PORT"),
            "{long}"
        );
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
                pools: BTreeMap::new(),
                retain: Retain::default(),
                retain_logs: RetainLogs::default(),
                log: Log::default(),
                connections: expected.into(),
                alerts: Vec::new(),
                traces: None
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

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_folder_it_is_in() {
        let here = std::env::current_dir().unwrap();
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let said = unreadable(Path::new(FILE), &denied);
        let whole = here.join(FILE).display().to_string();
        assert!(said.starts_with(&whole), "{said}");
        assert!(
            said.contains("let the user that runs this read it"),
            "{said}"
        );
    }

    #[test]
    fn a_slip_in_the_file_is_answered_with_the_nearest_name() {
        let error = toml::from_str::<File>("conections = 1").unwrap_err();
        let said = explain(Path::new("evermill.toml"), &error);
        assert!(
            said.contains("line 1") && said.ends_with("did you mean 'connections'?"),
            "{said}"
        );
    }

    #[test]
    fn settings_of_a_connection_become_its_query() {
        let file = "[connections.orders]\naddress = 'h:1'\n'sasl.password' = 'a&b c'\n'x.y' = 5";
        let config = settled(file, &[], &[]).unwrap();
        assert_eq!(
            config.connections["orders"],
            "h:1?sasl.password=a%26b%20c&x.y=5"
        );
        let error = settled("[connections.orders]\nx = 1", &[], &[]).unwrap_err();
        assert!(error.to_string().contains("address"), "{error}");
    }

    #[test]
    fn every_setting_says_where_it_comes_from() {
        let variables = [("EVERMILL_RETAIN", "1d"), ("EVERMILL_CONNECTION_A", "e:1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let file =
            toml::from_str("data_dir = 'd'\nretain = '2d'\nconnections = { a = 'f:1', b = 'f:2' }");
        let found = settle(file.unwrap(), &variables.into(), Flags::default()).unwrap();
        assert_eq!(found.data_dir.origin, Origin::File);
        assert_eq!(found.retain.origin.to_string(), "$EVERMILL_RETAIN");
        assert_eq!(found.log_level.origin, Origin::Default);
        assert_eq!(
            found.connections["a"].origin.to_string(),
            "$EVERMILL_CONNECTION_A"
        );
        assert_eq!(found.connections["b"].origin.to_string(), "evermill.toml");
    }

    #[test]
    fn a_format_or_a_level_that_is_none_is_answered_with_those_that_are() {
        let log = LogArgs {
            log_format: Some("json".to_owned()),
            log_level: None,
        };
        let with = |file: &str| {
            let flags = Flags {
                log: Some(&log),
                ..Flags::default()
            };
            settle(toml::from_str(file).unwrap(), &BTreeMap::new(), flags)
        };
        let found = with("log_format = 'text'\nlog_level = 'warning'").unwrap();
        assert_eq!(
            (found.log().format, found.log().level),
            (Format::Json, Level::Warning)
        );
        let error = with("log_level = 'loud'").unwrap_err().to_string();
        assert_eq!(
            error,
            "log_level = loud (evermill.toml): want debug, info, warning or error"
        );
    }
}
