//! `evermill parked ls|show|edit|export|retry|drop`: what failed for good and was kept.

mod edit;
mod filter;
mod show;

use std::io::{self, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use evermill_api::Method;
use evermill_engine::view::{ParkedFilter, ParkedGroup, ParkedPage, ParkedView, RunView};
use serde::{Deserialize, Serialize};

use self::filter::Where;
pub(super) use self::show::{age, event_text, time};
use crate::failure::Failure;
use crate::reach::{self, Reach, get, part};
use crate::table::{first_line, print, table};

/// What can be typed behind `parked`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// List what is parked, grouped by reason and task
    Ls(Ls),
    /// Show one whole: error, payload, headers
    Show(Show),
    /// Give an event another payload; it stays parked until `retry`
    Edit(edit::Args),
    /// Write them out, one JSON object a line, as `evermill test --event` reads them
    Export(Export),
    /// Run the failed tasks and what is below them again
    Retry(Act),
    /// Give them up; they count as dropped
    Drop(Act),
}

#[derive(clap::Args)]
pub(super) struct Ls {
    /// Only this run: a DAG id or a run id
    run: Option<String>,
    #[command(flatten)]
    which: Where,
    /// Only how many of each reason and task there are
    #[arg(long)]
    group: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

#[derive(clap::Args)]
pub(super) struct Show {
    /// As `parked ls` lists it
    id: String,
    /// The payload as hexadecimal digits
    #[arg(long)]
    hex: bool,
    /// As a JSON object, as `export` writes it
    #[arg(long, conflicts_with = "hex")]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct Export {
    /// These, as `parked ls` lists them; all that match when absent
    ids: Vec<String>,
    #[command(flatten)]
    which: Where,
}

#[derive(clap::Args)]
pub(super) struct Act {
    /// These, as `parked ls` lists them
    ids: Vec<String>,
    #[command(flatten)]
    which: Where,
    /// Everything that is parked
    #[arg(long, conflicts_with_all = ["ids", "filter"])]
    all: bool,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
}

/// Does what was typed.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let done = match args {
        Args::Ls(args) => ls(&reach, args),
        Args::Show(args) => show::run(&reach, args),
        Args::Edit(args) => edit::run(&reach, args),
        Args::Export(args) => export(&reach, args),
        Args::Retry(args) => act(&reach, args, "retry"),
        Args::Drop(args) => act(&reach, args, "drop"),
    };
    let closed = reach.close();
    done.and(closed)
}

/// Some parked activations of one run.
struct Chosen {
    run: String,
    which: ParkedFilter,
}

/// The runs that a command is about, each with what is meant of it.
fn chosen(reach: &Reach, ids: &[String], which: &Where) -> Result<Vec<Chosen>, Failure> {
    let (which, filter) = which.clone().read()?;
    if ids.is_empty() {
        let runs = runs(reach, which.run.as_deref())?;
        let of_run = |run: RunView| Chosen {
            run: run.run,
            which: filter.clone(),
        };
        return Ok(runs.into_iter().map(of_run).collect());
    }
    let mut chosen: Vec<Chosen> = Vec::new();
    for id in ids {
        let run = run_of(id)?;
        match chosen.iter_mut().find(|chosen| chosen.run == run) {
            Some(chosen) => chosen.which.ids.push(id.clone()),
            None => chosen.push(Chosen {
                run: run.to_owned(),
                which: ParkedFilter {
                    ids: vec![id.clone()],
                    ..filter.clone()
                },
            }),
        }
    }
    Ok(chosen)
}

/// Runs with something parked, or the one that was named.
fn runs(reach: &Reach, named: Option<&str>) -> Result<Vec<RunView>, Failure> {
    #[derive(Deserialize)]
    struct Runs {
        runs: Vec<RunView>,
    }
    if let Some(name) = named {
        return Ok(vec![reach.run(name)?.run]);
    }
    let Runs { mut runs } = reach.ask(&get("runs"))?;
    runs.retain(|run| run.parked > 0);
    Ok(runs)
}

/// Ids begin with their run's.
fn run_of(id: &str) -> Result<&str, Failure> {
    let run = id.split_once('/').map(|(run, _)| run);
    run.ok_or_else(|| {
        Failure::usage(format!(
            "'{id}' is no id of something parked; they read RUN/SOURCE/LANE/POSITION, as \
             `evermill parked ls` lists them"
        ))
    })
}

/// One page; `payload` asks for the events themselves.
fn page(
    reach: &Reach,
    chosen: &Chosen,
    skip: u64,
    limit: usize,
    payload: bool,
) -> Result<ParkedPage, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let which = &chosen.which;
    query.extend_pairs(which.ids.iter().map(|id| ("id", id)));
    let texts = [
        ("reason", &which.reason),
        ("task", &which.task),
        ("key", &which.key),
    ];
    for (name, value) in texts {
        query.extend_pairs(value.iter().map(|value| (name, value)));
    }
    query.extend_pairs(which.since_ms.iter().map(|ms| ("since_ms", ms.to_string())));
    query.append_pair("cursor", &skip.to_string());
    query.append_pair("limit", &limit.to_string());
    query.append_pair("payload", &payload.to_string());
    let path = format!("runs/{}/parked?{}", part(&chosen.run), query.finish());
    reach.ask(&get(&path))
}

fn ls(reach: &Reach, args: &Ls) -> Result<(), Failure> {
    let named = args.run.as_ref().or(args.which.run.as_ref()).cloned();
    let which = Where {
        run: named,
        ..args.which.clone()
    };
    let mut matched = 0;
    let mut groups: Vec<(String, ParkedGroup)> = Vec::new();
    let mut entries: Vec<ParkedView> = Vec::new();
    for chosen in chosen(reach, &[], &which)? {
        let limit = if args.group { 0 } else { args.limit };
        let left = limit - entries.len();
        let found = page(reach, &chosen, 0, left, false)?;
        matched += found.matched;
        let of_run = |group| (chosen.run.clone(), group);
        groups.extend(found.groups.into_iter().map(of_run));
        entries.extend(found.entries);
    }
    if args.json {
        let groups = groups.iter().map(|(run, group)| Group { run, group });
        return print(&if args.group {
            lines(&groups.collect::<Vec<_>>())?
        } else {
            lines(&entries)?
        });
    }
    if matched == 0 {
        return print("nothing is parked\n");
    }
    print(&groups_table(&groups))?;
    if args.group {
        return Ok(());
    }
    print("\n")?;
    print(&entries_table(&entries))?;
    if (entries.len() as u64) < matched {
        let rest = matched - entries.len() as u64;
        print(&format!(
            "... and {rest} more; --limit N or --where shows others\n"
        ))?;
    }
    Ok(())
}

/// What one run has parked for one reason at one task.
#[derive(Serialize)]
struct Group<'a> {
    run: &'a str,
    #[serde(flatten)]
    group: &'a ParkedGroup,
}

fn lines(entries: &[impl Serialize]) -> Result<String, Failure> {
    let mut text = String::new();
    for entry in entries {
        let line = serde_json::to_string(entry);
        text.push_str(&line.map_err(|error| Failure::failed(error.to_string()))?);
        text.push('\n');
    }
    Ok(text)
}

fn groups_table(groups: &[(String, ParkedGroup)]) -> String {
    let row = |(run, group): &(String, ParkedGroup)| {
        let task = group.task.clone().unwrap_or_else(|| "-".to_owned());
        [
            run.clone(),
            group.reason.clone(),
            task,
            group.count.to_string(),
        ]
    };
    table(
        ["RUN", "REASON", "TASK", "PARKED"],
        groups.iter().map(row).collect(),
        3,
    )
}

/// Characters of an error that the list shows.
const ERROR_WIDTH: usize = 60;

fn entries_table(entries: &[ParkedView]) -> String {
    let row = |entry: &ParkedView| {
        let error = first_line(&entry.error, ERROR_WIDTH);
        [entry.id.clone(), show::age(entry.arrived_ms), error]
    };
    table(
        ["ID", "ARRIVED", "ERROR"],
        entries.iter().map(row).collect(),
        3,
    )
}

/// Entries asked for at a time.
const EXPORT_PAGE: usize = 500;

fn export(reach: &Reach, args: &Export) -> Result<(), Failure> {
    let mut written = 0;
    for chosen in chosen(reach, &args.ids, &args.which)? {
        let mut skip = Some(0);
        while let Some(from) = skip {
            let found = page(reach, &chosen, from, EXPORT_PAGE, true)?;
            written += found.entries.len();
            let text = lines(&found.entries)?;
            if io::stdout().lock().write_all(text.as_bytes()).is_err() {
                // Whoever read them has left, as `head` does.
                return Ok(());
            }
            skip = found.next;
        }
    }
    eprintln!("{written} exported");
    Ok(())
}

fn act(reach: &Reach, args: &Act, word: &str) -> Result<(), Failure> {
    if args.ids.is_empty() && args.which.is_empty() && !args.all {
        return Err(Failure::usage(format!(
            "say what to {word}: ids, as `evermill parked ls` lists them, or --where, or --all"
        )));
    }
    #[derive(Deserialize)]
    struct Count {
        count: u64,
    }
    let mut total = 0;
    for chosen in chosen(reach, &args.ids, &args.which)? {
        let body = serde_json::to_vec(&chosen.which)
            .map_err(|error| Failure::failed(error.to_string()))?;
        let path = format!(
            "runs/{}/parked/{word}?dry_run={}",
            part(&chosen.run),
            args.dry_run
        );
        let Count { count } = reach.ask(&reach::request(Method::Post, &path, Bytes::from(body)))?;
        total += count;
    }
    let what = match (word, reach.is_live()) {
        ("drop", _) if args.dry_run => "would be dropped",
        (_, _) if args.dry_run => "would run again",
        ("drop", _) => "dropped",
        (_, true) => "running again",
        (_, false) => "to run again with the next `evermill run`",
    };
    print(&format!("{total} {what}\n"))
}
