//! `evermill test`: one activation in the foreground. That of a DAG in Python runs in one Python process
//! that has the terminal, so that a debugger can be used; that of a DAG in YAML in an engine that
//! forgets it. Nothing is kept: there is no broker and no data directory.

pub(super) mod commands;
mod events;
pub(super) mod once;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use evermill_contract::manifest::{DagManifest, SourceConfig, SourceManifest, TaskManifest};
use evermill_contract::settings::{Settings as _, is_for_the_engine};
use evermill_contract::yaml::is_yaml;
use serde::Serialize;
use serde_json::Value;

use self::events::Given;
use super::check::{Loaded, Loading, said, sorted};
use super::judge::Judge;
use super::run::files;
use crate::config::Config;
use crate::failure::Failure;
use crate::near::nearest;
use crate::vault::Vault;
use crate::{python, sdk};

/// What can be typed behind `test`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The DAG file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which of its DAGs, if there are several
    #[arg(long, value_name = "ID")]
    dag: Option<String>,
    /// The event: @FILE, - for standard input, or the payload itself. What `evermill parked export`
    /// wrote is taken with key, headers and position; anything else is the payload. A source's
    /// codec takes it as tasks read it, or as it is sent
    #[arg(long, value_name = "@FILE|-|TEXT")]
    event: Option<String>,
    /// Which source it comes from, if there are several
    #[arg(long, value_name = "ID", requires = "event")]
    source: Option<String>,
    /// Where a connection leads; also EVERMILL_CONNECTION_<ID>
    #[arg(long = "connection", value_name = "ID=URL")]
    connections: Vec<String>,
    /// What a run by hand brings along, as a JSON object
    #[arg(long, value_name = "JSON")]
    conf: Option<String>,
    /// The logical date of Airflow's context, such as 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "DATE")]
    logical_date: Option<String>,
    /// Give values to the places outside that tasks send to; else they are only shown. Of DAGs in YAML
    #[arg(long)]
    send: bool,
    /// Open the debugger where a task failed
    #[arg(long)]
    pdb: bool,
    /// Print the result as a JSON object
    #[arg(long)]
    json: bool,
}

/// What the Python side is told; `evermill._test_once` has the other end.
#[derive(Serialize)]
struct Spec<'a> {
    file: &'a Path,
    dag: &'a str,
    events: Option<&'a [Value]>,
    source: Option<&'a str>,
    conf: Option<Value>,
    logical_date: Option<String>,
    pdb: bool,
    /// Addresses, for tasks that ask for them and sensors that ask a place. The file lies in a folder that
    /// its owner alone can read.
    connections: BTreeMap<&'a str, String>,
    /// Secrets, for tasks that ask for them.
    secrets: BTreeMap<&'a str, String>,
    result: &'a Path,
}

/// Runs it, and says how each task ended.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let vault = Arc::new(Vault::open(&Config::read(data_dir, &args.connections)?)?);
    let place = tempfile::tempdir();
    let place = place.map_err(|cause| Failure::failed(format!("no temporary folder: {cause}")))?;
    let sdk = sdk::folder(place.path())?;
    if is_yaml(&args.file.to_string_lossy()) {
        return run_commands(args, vault, place.path(), &sdk);
    }
    if args.send {
        return Err(Failure::usage(format!(
            "{}: --send is for DAGs in YAML; a test of a DAG in Python sends nothing, and what would be sent is the result",
            args.file.display()
        )));
    }
    let loaded = load(&args.file, &sdk)?;
    let dag = choose(args, &loaded.manifest.dags.iter().collect::<Vec<_>>())?;
    let mut given = args.event.as_deref().map(Given::read).transpose()?;
    judge(args, dag, given.as_mut(), &vault)?;
    let secrets = dag.tasks.iter().flat_map(|task| &task.secrets);
    let secrets = secrets.map(String::as_str);
    let spec = Spec {
        file: &args.file,
        dag: &dag.id,
        events: given.as_ref().map(|given| &given.events[..]),
        source: source(args, dag, given.as_ref())?,
        conf: args.conf.as_deref().map(conf).transpose()?,
        logical_date: args.logical_date.as_deref().map(date).transpose()?,
        pdb: args.pdb,
        connections: found(asked_for(dag), |id| vault.connection(id))?,
        secrets: found(secrets, |name| vault.secret(name))?,
        result: &place.path().join("result.json"),
    };
    let status = start(&spec, dag, &sdk, place.path())?;
    let text = std::fs::read(spec.result);
    let Ok(text) = text else {
        return Err(ended_early(status));
    };
    let result = serde_json::from_slice(&text);
    let result = result.map_err(|error| Failure::failed(format!("the result: {error}")))?;
    report::print(&dag.id, &result, args.json)
}

/// Connections that tasks declare, or whose places they ask.
fn asked_for(dag: &DagManifest) -> impl Iterator<Item = &str> {
    fn of_task(task: &TaskManifest) -> impl Iterator<Item = &str> {
        let declared = task.connections.iter().map(String::as_str);
        declared.chain(task.asks())
    }
    dag.tasks.iter().flat_map(of_task)
}

/// What there is of what tasks declare; what is missing is said when a task asks for it.
fn found<'a>(
    declared: impl Iterator<Item = &'a str>,
    find: impl Fn(&str) -> Result<Option<String>, String>,
) -> Result<BTreeMap<&'a str, String>, Failure> {
    let mut found = BTreeMap::new();
    for name in declared {
        if let Some(value) = find(name).map_err(Failure::usage)? {
            found.insert(name, value);
        }
    }
    Ok(found)
}

fn run_commands(args: &Args, vault: Arc<Vault>, place: &Path, sdk: &Path) -> Result<(), Failure> {
    if args.pdb {
        return Err(Failure::usage(format!(
            "{}: --pdb is for DAGs in Python; commands have no debugger",
            args.file.display()
        )));
    }
    let files = files::load(std::slice::from_ref(&args.file), sdk)?;
    let dag = choose(args, &files.dags().collect::<Vec<_>>())?;
    let mut given = args.event.as_deref().map(Given::read).transpose()?;
    judge(args, dag, given.as_mut(), &vault)?;
    let source = source(args, dag, given.as_ref())?.map(str::to_owned);
    let events = given.map_or_else(|| Ok(Vec::new()), |given| once::read(&given.events));
    let date = args.logical_date.as_deref().map(date).transpose()?;
    let found = commands::run(
        commands::Given {
            files: &files,
            dag,
            events: events.map_err(Failure::usage)?,
            source,
            conf: args.conf.as_deref().map(conf).transpose()?,
            date: date.unwrap_or_else(|| written(jiff::Timestamp::now())),
            settings: vault,
            send: args.send,
        },
        place,
        sdk,
    )?;
    report::print(&dag.id, &found, args.json)
}

fn load(file: &Path, sdk: &Path) -> Result<Loaded, Failure> {
    let loaded = Loading::new(sdk.to_owned()).load(file, None);
    loaded.map_err(|faults| {
        let text = said(&sorted(faults));
        Failure::dag_file(format!("nothing was run\n{}", text.trim_end()))
    })
}

fn choose<'a>(args: &Args, dags: &[&'a DagManifest]) -> Result<&'a DagManifest, Failure> {
    let names = || dags.iter().map(|dag| dag.id.as_str());
    let list = || names().collect::<Vec<_>>().join(", ");
    let file = args.file.display();
    match (&args.dag, dags) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::usage(format!(
            "{file} has several DAGs; choose one by --dag: {}",
            list()
        ))),
        (Some(id), _) => dags
            .iter()
            .copied()
            .find(|dag| dag.id == *id)
            .ok_or_else(|| {
                let meant = nearest(id, names()).map_or_else(
                    || format!("its DAGs are {}", list()),
                    |name| format!("did you mean '{name}'?"),
                );
                Failure::usage(format!("{file} has no DAG '{id}'; {meant}"))
            }),
    }
}

/// The source the events come from, where that is not plain.
fn source<'a>(
    args: &'a Args,
    dag: &'a DagManifest,
    given: Option<&'a Given>,
) -> Result<Option<&'a str>, Failure> {
    let id = &dag.id;
    let sources: Vec<&str> = dag.sources.iter().map(|source| &source.id[..]).collect();
    let Some(given) = given else {
        let in_yaml = is_yaml(&args.file.to_string_lossy());
        if dag.sources.iter().all(|one| !in_yaml && is_by_hand(one)) {
            return Ok(None);
        }
        return Err(Failure::usage(format!(
            "DAG '{id}' waits for events; give one by --event @FILE, --event - or --event TEXT"
        )));
    };
    if sources.is_empty() {
        return Err(Failure::usage(format!(
            "DAG '{id}' has no source, so it takes no event; --conf is what a run by hand brings along"
        )));
    }
    let named = args.source.as_deref().or(given.source.as_deref());
    match named {
        Some(name) if sources.contains(&name) => Ok(Some(name)),
        Some(name) => Err(Failure::usage(format!(
            "DAG '{id}' has no source '{name}'; its sources are {}",
            sources.join(", ")
        ))),
        None if sources.len() == 1 => Ok(Some(sources[0])),
        None => Err(Failure::usage(format!(
            "DAG '{id}' has several sources; choose one by --source: {}",
            sources.join(", ")
        ))),
    }
}

/// Whether an activation by hand needs no event of it: it carries nothing but a time, or it is a sensor that
/// can be asked in its stead.
const fn is_by_hand(source: &SourceManifest) -> bool {
    match &source.config {
        SourceConfig::Cron(_) | SourceConfig::Every(_) | SourceConfig::Loop(_) => true,
        SourceConfig::Kafka(_) => false,
        _ => source.promoted_from_task.is_some(),
    }
}

/// The events as tasks read them.
fn judge(
    args: &Args,
    dag: &DagManifest,
    given: Option<&mut Given>,
    vault: &Vault,
) -> Result<(), Failure> {
    let Some(given) = given else {
        return Ok(());
    };
    let id = source(args, dag, Some(given))?.map(str::to_owned);
    let mut sources = dag.sources.iter();
    match sources.find(|source| Some(&source.id) == id.as_ref()) {
        Some(source) => Judge::open(source, vault)?.replace(&mut given.events),
        None => Ok(()),
    }
}

fn conf(text: &str) -> Result<Value, Failure> {
    match serde_json::from_str(text) {
        Ok(conf @ Value::Object(_)) => Ok(conf),
        Ok(_) => Err(Failure::usage(format!("--conf {text}: want a JSON object"))),
        Err(error) => Err(Failure::usage(format!("--conf {text}: {error}"))),
    }
}

/// With an offset, as Python reads it; UTC where none is given.
fn date(text: &str) -> Result<String, Failure> {
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    });
    let time = time.ok_or_else(|| {
        Failure::usage(format!(
            "--logical-date {text}: want a date such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ))
    })?;
    Ok(written(time))
}

fn written(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.f+00:00").to_string()
}

/// Starts Python on this terminal and waits for its end. Ctrl-C is for Python alone.
fn start(
    spec: &Spec<'_>,
    dag: &DagManifest,
    sdk: &Path,
    place: &Path,
) -> Result<ExitStatus, Failure> {
    let failed = |what: &str, cause: std::io::Error| Failure::failed(format!("{what}: {cause}"));
    let path = place.join("spec.json");
    let bytes = serde_json::to_vec(spec).map_err(|error| Failure::failed(error.to_string()))?;
    std::fs::write(&path, bytes).map_err(|cause| failed("the temporary folder", cause))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let caught = signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted);
    caught.map_err(|cause| failed("cannot catch SIGINT", cause))?;
    let interpreter = python::interpreter(dag.python.as_deref());
    let mut paths = vec![sdk.to_owned()];
    if let Some(known) = std::env::var_os("PYTHONPATH") {
        paths.extend(std::env::split_paths(&known));
    }
    let paths = std::env::join_paths(paths).map_err(|cause| Failure::usage(cause.to_string()))?;
    let mut command = Command::new(&interpreter);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_for_the_engine) {
            command.env_remove(name);
        }
    }
    command
        .args(["-m", "evermill._test_once"])
        .arg(&path)
        .env("PYTHONPATH", paths)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()
        .map_err(|cause| failed(&interpreter.display().to_string(), cause))
}

/// Python has said why, if it could.
fn ended_early(status: ExitStatus) -> Failure {
    match status.code() {
        Some(2) => Failure::usage(""),
        Some(code) => Failure::failed(format!(
            "it ended before it was done, with exit code {code}"
        )),
        None => Failure::failed(format!("it ended before it was done: {status}")),
    }
}
