//! `evermill replay RUN --from ... [--to ...]`, and `replay ls|pause|resume|stop`.

use std::path::PathBuf;

use bytes::Bytes;
use evermill_api::Method;
use evermill_contract::source::Place;
use evermill_engine::view::ReplayView;
use evermill_engine::{PlannedLane, ReplayAnswer, ReplayAsk};
use serde::Serialize;

use super::parked::age;
use super::place::{self, shown};
use crate::failure::Failure;
use crate::reach::{self, Reach, part};
use crate::table::{print, table};

/// What can be typed behind `replay`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    order: Option<Order>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(clap::Args)]
struct Ask {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    #[arg(required = true)]
    run: Option<String>,
    /// Where to begin: a position, `earliest`, a time, or an age such as 2h
    #[arg(long, required = true, value_name = "POSITION|TIME", value_parser = place::parse)]
    from: Option<Place>,
    /// The last position, or the time before which events are read [default: as far as the run has
    /// read]
    #[arg(long, value_name = "POSITION|TIME", value_parser = place::parse)]
    to: Option<Place>,
    /// Only this lane, such as orders/3
    #[arg(long)]
    lane: Option<String>,
    /// Which source, where the DAG has several
    #[arg(long)]
    source: Option<String>,
    /// Say how much it would be, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Give calls other effect keys than the first time, so that sinks that know those take them
    #[arg(long)]
    new_effect_keys: bool,
    /// Let tasks change `ctx.state`, and other DAGs hear of it; else it is only read, and no news
    #[arg(long)]
    with_state: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Where no engine runs: the address of a connection, as for `evermill run`
    #[arg(long, value_name = "ID=ADDRESS")]
    connection: Vec<String>,
}

#[derive(clap::Subcommand)]
enum Order {
    /// Every replay and backfill of a run, oldest first
    Ls {
        /// A DAG id or a run id
        run: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Read no further, until `resume`
    Pause(One),
    /// Go on after `pause`
    Resume(One),
    /// End it: what was begun settles, the rest is not read
    Stop(One),
}

#[derive(clap::Args)]
struct One {
    /// A DAG id or a run id
    run: String,
    /// The replay's number, as `evermill replay ls` lists it
    number: u32,
}

/// Does it.
pub(super) fn run(args: Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    match args.order {
        None => begin(&args.ask, data_dir),
        Some(Order::Ls { run, json }) => list(&run, json, data_dir),
        Some(Order::Pause(one)) => steer(&one, "pause", data_dir),
        Some(Order::Resume(one)) => steer(&one, "resume", data_dir),
        Some(Order::Stop(one)) => steer(&one, "stop", data_dir),
    }
}

fn begin(ask: &Ask, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let (Some(run), Some(from)) = (&ask.run, ask.from) else {
        return Err(Failure::usage("want RUN and --from".to_owned()));
    };
    let order = ReplayAsk {
        from,
        to: ask.to,
        lane: ask.lane.clone(),
        source: ask.source.clone(),
        dry_run: ask.dry_run,
        new_effect_keys: ask.new_effect_keys,
        with_state: ask.with_state,
    };
    let reach = Reach::open_with(data_dir, &ask.connection)?;
    let answer: Result<ReplayAnswer, _> = post(&reach, run, "replays", &order);
    let live = reach.is_live();
    reach.close()?;
    let answer = answer?;
    if ask.json {
        return print(&line(&answer));
    }
    let mut text = planned(&answer, |position| position.to_string());
    text.push_str(&match answer.replay {
        None => format!(
            "at most {} events of source '{}' would be read again; nothing was begun\n",
            answer.events, answer.source
        ),
        Some(number) => format!(
            "replay {number} of run {}: at most {} events of source '{}' {}\n",
            answer.run,
            answer.events,
            answer.source,
            begun(live, "read", &answer.run)
        ),
    });
    print(&text)
}

/// How it goes on.
pub(super) fn begun(live: bool, done: &str, run: &str) -> String {
    if live {
        format!("are {done} beside the live ones; `evermill replay ls {run}` shows how far")
    } else {
        format!("are {done} once the next `evermill run` begins: no engine runs")
    }
}

/// Sends an order, and waits for as long as the outside world takes.
pub(super) fn post<A: Serialize, T: serde::de::DeserializeOwned>(
    reach: &Reach,
    run: &str,
    what: &str,
    order: &A,
) -> Result<T, Failure> {
    let body = serde_json::to_vec(order).expect("orders have string keys only");
    let path = format!("runs/{}/{what}", part(run));
    reach.ask_long(&reach::request(Method::Post, &path, Bytes::from(body)))
}

pub(super) fn line<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).expect("answers have string keys only");
    format!("{text}\n")
}

/// Prints what came of an order that loses something, and so wants a `--yes`. Without one, and without a
/// `--dry-run` either, `unasked` says what was not done.
pub(super) fn told<T: Serialize>(
    answer: &T,
    shown: String,
    (json, dry_run, yes): (bool, bool, bool),
    unasked: &str,
) -> Result<(), Failure> {
    print(&if json { line(answer) } else { shown })?;
    if dry_run || yes {
        return Ok(());
    }
    Err(Failure::usage(unasked.to_owned()))
}

/// A table of what was found, and what has to be said about it.
pub(super) fn planned(answer: &ReplayAnswer, place: impl Fn(u64) -> String) -> String {
    let sampled = answer.lanes.iter().any(|lane| lane.first.is_some());
    let row = |lane: &PlannedLane| {
        let time = |sample: Option<evermill_engine::Sample>| {
            let ms = sample.and_then(|sample| sample.timestamp_ms);
            ms.map_or_else(|| "-".to_owned(), shown)
        };
        [
            lane.name.clone(),
            time(lane.first),
            time(lane.last),
            place(lane.from),
            place(lane.to.saturating_sub(1)),
            lane.events.to_string(),
            lane.bytes.map_or_else(|| "-".to_owned(), bytes),
        ]
    };
    let rows: Vec<[String; 7]> = answer.lanes.iter().map(row).collect();
    let mut text = String::new();
    if sampled {
        let head = ["LANE", "FIRST", "LAST", "FROM", "TO", "EVENTS", "BYTES"];
        text.push_str(&table(head, rows, 3));
    } else if !rows.is_empty() {
        let rows = rows
            .into_iter()
            .map(|[name, _, _, from, to, events, _]| [name, from, to, events]);
        text.push_str(&table(["LANE", "FROM", "TO", "EVENTS"], rows.collect(), 1));
    }
    for note in &answer.notes {
        text.push_str(&format!("! {note}\n"));
    }
    text
}

/// About how much that is.
fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    let unit = UNITS.iter().find(|(_, size)| count >= *size);
    unit.map_or_else(
        || format!("~{count} B"),
        |(name, size)| format!("~{}.{} {name}", count / size, count % size * 10 / size),
    )
}

fn list(run: &str, json: bool, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let path = format!("runs/{}/replays", part(run));
    let replays: Result<Vec<ReplayView>, _> = reach.ask(&reach::get(&path));
    reach.close()?;
    let replays = replays?;
    if json {
        return print(&replays.iter().map(line).collect::<String>());
    }
    if replays.is_empty() {
        return print("nothing was read again\n");
    }
    print(&replays_table(&replays))
}

fn steer(one: &One, how: &str, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let path = format!("runs/{}/replays/{}/{how}", part(&one.run), one.number);
    let after = reach.ask(&reach::request(Method::Post, &path, Bytes::new()));
    reach.close()?;
    let after: Vec<ReplayView> = after?;
    let of_it = after.iter().filter(|replay| replay.replay == one.number);
    print(&replays_table(of_it))
}

/// One line for each.
pub(super) fn replays_table<'a>(replays: impl IntoIterator<Item = &'a ReplayView>) -> String {
    let row = |replay: &ReplayView| {
        [
            replay.replay.to_string(),
            replay.kind.clone(),
            replay.state.clone(),
            replay.source.clone(),
            age(replay.asked_ms),
            progress(replay),
        ]
    };
    let rows = replays.into_iter().map(row).collect();
    table(
        ["NUMBER", "KIND", "STATE", "SOURCE", "ASKED", "DONE"],
        rows,
        5,
    )
}

/// How far it is.
pub(super) fn progress(replay: &ReplayView) -> String {
    let percent = replay.done * 100 / replay.total.max(1);
    if replay.kind == "backfill" {
        // Its positions are instants; what lies between is no work.
        return format!("{percent} %");
    }
    format!("{} of {} ({percent} %)", replay.done, replay.total)
}
