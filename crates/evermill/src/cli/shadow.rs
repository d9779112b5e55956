//! `evermill shadow RUN FILE`: another version of a DAG on the same events, without effects of ours.
//!
//! The events are those that the run has settled and its history remembers whole. They go through an
//! engine of their own that reads no source, acknowledges nothing and sends nothing; what comes of each is
//! compared with what came of it in the run, by lane and position.

mod player;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermill_contract::manifest::{DagManifest, History, Manifest};
use evermill_engine::view::{Blob, PastActivation, PastTask, PastView};
use evermill_engine::{StartRequest, limits};
use serde::Serialize;
use serde_json::Value;

use self::player::{Outside, Player};
use super::run::files;
use super::test::once::Event;
use crate::config::Config;
use crate::failure::Failure;
use crate::reach::{Reach, get, part};
use crate::table::{first_line, print, table};
use crate::{sdk, signals};

/// What can be typed behind `shadow`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    run: String,
    /// The file with the other version; it holds a DAG of the same id
    file: PathBuf,
    /// How many of the latest settled activations
    #[arg(long, value_name = "N", default_value_t = 200)]
    last: usize,
    /// Go on with what the run settles from now on, until Ctrl-C, and show differences as they come
    #[arg(long)]
    follow: bool,
    /// Differences that are shown
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: usize,
    /// How many workers [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// How often the run is asked what it has settled.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Characters of a value that are shown.
const VALUE_WIDTH: usize = 40;

/// What the comparison comes to.
#[derive(Debug, Default, Serialize)]
struct Report {
    run: String,
    /// Of the run, and of the file.
    versions: [String; 2],
    equal: u64,
    different: u64,
    /// Settled in the run and not in the shadow, and the other way round.
    only_live: u64,
    only_shadow: u64,
    /// Not compared: a child activation, or one whose event is not remembered whole.
    left_out: u64,
    /// What tasks gave to places outside, and was not sent.
    not_sent: u64,
    /// Requests of tasks in YAML that were not made: each got what the run was answered.
    not_asked: u64,
    /// The first of them.
    requests: Vec<Request>,
    examples: Vec<Difference>,
}

/// Where they part.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    lane: String,
    position: u64,
    /// Empty where it is the activation's own end.
    task: String,
    live: String,
    shadow: String,
}

/// A request that was not made.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Request {
    lane: String,
    position: u64,
    task: String,
    /// Method and place.
    request: String,
}

/// Compares; fails when there is a difference.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let signalled = signals::catch()?;
    let reach = Reach::open(data_dir.clone())?;
    let detail = reach.run(&args.run)?;
    let live = past(&reach, &detail.run.run, args.last)?;
    if args.follow && !reach.is_live() {
        reach.close()?;
        return Err(Failure::usage(
            "no engine runs on this data directory, so there is nothing to follow; leave --follow out".to_owned(),
        ));
    }
    let reach = if args.follow {
        Some(reach)
    } else {
        reach.close()?;
        None
    };
    if live.activations.is_empty() && !args.follow {
        return Err(Failure::failed(format!(
            "run '{}' remembers no settled activation whole: there is nothing to compare with. history=\"full\" \
             of a DAG remembers each",
            detail.run.run
        )));
    }
    let place = tempfile::tempdir();
    let place = place.map_err(|cause| Failure::failed(format!("no temporary folder: {cause}")))?;
    let sdk = sdk::folder(place.path())?;
    let files = files::load(std::slice::from_ref(&args.file), &sdk)?;
    let dag = files.dags().find(|dag| dag.id == detail.run.dag);
    let dag = dag.ok_or_else(|| {
        Failure::usage(format!(
            "{} has no DAG '{}'",
            args.file.display(),
            detail.run.dag
        ))
    })?;
    check(dag)?;
    let config = Config::read(data_dir, &[])?;
    let outside = Outside::new(args.examples);
    let player = Player::open(
        &files,
        dag,
        args.workers,
        config,
        (place.path(), &sdk),
        &outside,
    )?;
    let mut report = Report {
        run: detail.run.run.clone(),
        versions: [detail.run.version.clone(), player.version.clone()],
        ..Report::default()
    };
    let played = play(
        args,
        reach.as_ref(),
        live,
        &player,
        &outside,
        &signalled,
        &mut report,
    );
    player.close();
    played?;
    outside.tell(&mut report);
    if args.json {
        print(&super::replay::line(&report))?;
    } else {
        print(&text(&report))?;
    }
    let apart = report.different + report.only_live + report.only_shadow;
    match apart {
        0 => Ok(()),
        _ => Err(Failure::failed(format!(
            "{apart} of {} activations came to something else",
            apart + report.equal
        ))),
    }
}

/// One round, or, following, one for whatever the run has settled since the one before.
fn play(
    args: &Args,
    reach: Option<&Reach>,
    mut live: Live,
    player: &Player,
    outside: &Outside,
    signalled: &crossbeam_channel::Receiver<()>,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut fed = Fed::default();
    loop {
        let round = fed.next(live, report);
        if !round.activations.is_empty() {
            outside.answers(&round.activations);
            let before = report.examples.len();
            if !player.play(&round, signalled)? {
                return if reach.is_some() {
                    Ok(())
                } else {
                    Err(Failure::failed("interrupted"))
                };
            }
            let shadow = player.settled(&round.activations)?;
            let room = if reach.is_some() {
                usize::MAX
            } else {
                args.examples
            };
            compare(&round.activations, &shadow, room, report);
            if reach.is_some() {
                tell(&report.examples[before..], args.json)?;
                report.examples.clear();
            }
        }
        let Some(reach) = reach else {
            return Ok(());
        };
        if signalled.recv_timeout(LOOK_AGAIN).is_ok() {
            return Ok(());
        }
        live = match past(reach, &report.run, limits::PAST_LISTED) {
            Ok(live) => live,
            Err(_) => {
                eprintln!("the engine has ended");
                return Ok(());
            }
        };
    }
}

/// The latest that the run has settled.
fn past(reach: &Reach, run: &str, last: usize) -> Result<Live, Failure> {
    let last = last.min(limits::PAST_LISTED);
    let path = format!("runs/{}/activations?payload=true&limit={last}", part(run));
    Ok(Live::of(reach.ask(&get(&path))?, run))
}

/// A shadow knows one event of an activation.
fn check(dag: &DagManifest) -> Result<(), Failure> {
    if dag.sources.iter().any(|source| source.join.is_some()) {
        return Err(Failure::usage(format!(
            "DAG '{}' joins events of several sources; which ones met is not known here",
            dag.id
        )));
    }
    Ok(())
}

type Place = (String, u64);

/// What the run has settled.
#[derive(Default)]
struct Live {
    /// Source id and event.
    events: BTreeMap<Place, (String, Event)>,
    activations: BTreeMap<Place, PastActivation>,
    /// What cannot be compared.
    left_out: BTreeSet<Place>,
}

impl Live {
    fn of(past: PastView, run: &str) -> Self {
        let mut live = Self::default();
        for activation in past.activations {
            let place = (activation.lane.clone(), activation.position);
            // `run/source/lane/position`: whoever has more is a child.
            let end = format!("/{}/{}", activation.lane, activation.position);
            let source = activation.id.strip_prefix(&format!("{run}/"));
            let source = source.and_then(|rest| rest.strip_suffix(&end));
            let apart = ["replay-", "before-reset-"];
            let is_apart = apart.iter().any(|word| activation.lane.starts_with(word));
            let (Some(source), [event], false) = (source, &activation.payload[..], is_apart) else {
                live.left_out.insert(place);
                continue;
            };
            // A clock's event has neither value nor key, and is whole.
            if event.value.is_none() && event.key.is_none() && event.timestamp_ms.is_none() {
                live.left_out.insert(place);
                continue;
            }
            let event = Event {
                position: event.position,
                timestamp_ms: event.timestamp_ms,
                key: event.key.clone(),
                headers: event.headers.clone(),
                value: event.value.clone(),
                lane: activation.lane.clone(),
            };
            live.events
                .insert(place.clone(), (source.to_owned(), event));
            live.activations.insert(place, activation);
        }
        live
    }
}

/// How far the shadow was fed.
#[derive(Default)]
struct Fed {
    /// The last position by lane.
    last: BTreeMap<String, u64>,
    /// What the answer before held, fed or not.
    seen: BTreeSet<Place>,
}

impl Fed {
    /// What is new in an answer. A shadow reads a lane in order: what has settled behind something
    /// later is left out.
    fn next(&mut self, live: Live, report: &mut Report) -> Live {
        let mut round = Live::default();
        let mut seen = BTreeSet::new();
        report.left_out += live.left_out.difference(&self.seen).count() as u64;
        for (place, activation) in live.activations {
            seen.insert(place.clone());
            if self.seen.contains(&place) {
                continue;
            }
            if self.last.get(&place.0).is_some_and(|last| place.1 <= *last) {
                report.left_out += 1;
                continue;
            }
            if let Some(event) = live.events.get(&place) {
                round.events.insert(place.clone(), event.clone());
            }
            round.activations.insert(place, activation);
        }
        for (lane, position) in round.activations.keys() {
            self.last.insert(lane.clone(), *position);
        }
        seen.extend(live.left_out);
        self.seen = seen;
        round
    }
}

/// Each activation of it is remembered, however fast they come.
fn remembering(request: StartRequest) -> StartRequest {
    let mut manifest = Manifest::clone(&request.manifest);
    for dag in &mut manifest.dags {
        dag.history = History::Full;
        for task in &mut dag.tasks {
            task.history = None;
        }
    }
    StartRequest {
        manifest: Arc::new(manifest),
        ..request
    }
}

/// Differences as they come.
fn tell(found: &[Difference], as_json: bool) -> Result<(), Failure> {
    for it in found {
        print(&if as_json {
            super::replay::line(it)
        } else {
            let task = if it.task.is_empty() { "-" } else { &it.task };
            let (live, shadow) = (
                first_line(&it.live, VALUE_WIDTH),
                first_line(&it.shadow, VALUE_WIDTH),
            );
            format!("{}@{} {task}: {live} | {shadow}\n", it.lane, it.position)
        })?;
    }
    Ok(())
}

fn compare(
    live: &BTreeMap<Place, PastActivation>,
    shadow: &BTreeMap<Place, PastActivation>,
    examples: usize,
    report: &mut Report,
) {
    let places: BTreeSet<&Place> = live.keys().chain(shadow.keys()).collect();
    for place in places {
        let (live, shadow) = (live.get(place), shadow.get(place));
        let found = match (live, shadow) {
            (Some(live), Some(shadow)) => differences(live, shadow),
            (one, other) => {
                let ended = |it: Option<&PastActivation>| {
                    it.map_or_else(|| "not settled".to_owned(), |it| it.ended.clone())
                };
                let (count, whole) = match one {
                    Some(_) => (&mut report.only_live, (ended(one), ended(other))),
                    None => (&mut report.only_shadow, (ended(one), ended(other))),
                };
                *count += 1;
                let told = difference(place, "", whole);
                if report.examples.len() < examples {
                    report.examples.push(told);
                }
                continue;
            }
        };
        if found.is_empty() {
            report.equal += 1;
            continue;
        }
        report.different += 1;
        let room = examples.saturating_sub(report.examples.len());
        report.examples.extend(found.into_iter().take(room));
    }
}

/// How two activations of one event differ: in what a task returned or how it ended, else as a whole.
fn differences(live: &PastActivation, shadow: &PastActivation) -> Vec<Difference> {
    let place = (live.lane.clone(), live.position);
    let by_id = |tasks: &[PastTask]| -> BTreeMap<String, PastTask> {
        tasks
            .iter()
            .map(|task| (task.task.clone(), task.clone()))
            .collect()
    };
    let (ours, theirs) = (by_id(&live.tasks), by_id(&shadow.tasks));
    let ids: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let mut found = Vec::new();
    for id in ids {
        let (one, other) = (ours.get(id), theirs.get(id));
        let state = |task: Option<&PastTask>| task.map(|task| task.state.clone());
        let value = |task: Option<&PastTask>| task.and_then(|task| json(task.result.as_ref()));
        if state(one) == state(other) && value(one) == value(other) {
            continue;
        }
        let told = |task: Option<&PastTask>| match task {
            None => "no such task".to_owned(),
            Some(task) => json(task.result.as_ref()).map_or_else(
                || task.state.clone(),
                |value| format!("{} {value}", task.state),
            ),
        };
        found.push(difference(&place, id, (told(one), told(other))));
    }
    if found.is_empty() && live.ended != shadow.ended {
        let ended = (live.ended.clone(), shadow.ended.clone());
        found.push(difference(&place, "", ended));
    }
    found
}

fn difference(
    (lane, position): &Place,
    task: &str,
    (live, shadow): (String, String),
) -> Difference {
    Difference {
        lane: lane.clone(),
        position: *position,
        task: task.to_owned(),
        live,
        shadow,
    }
}

/// A result, so that the order of names in an object is no difference.
fn json(result: Option<&Blob>) -> Option<Value> {
    let bytes = result?.bytes()?;
    serde_json::from_slice(&bytes).ok()
}

fn text(report: &Report) -> String {
    let short = |version: &str| version[..version.len().min(12)].to_owned();
    let [live, shadow] = &report.versions;
    let mut text = format!(
        "{} equal, {} different, {} only in run {}, {} only in the shadow; version {} beside {}\n",
        report.equal,
        report.different,
        report.only_live,
        report.run,
        report.only_shadow,
        short(live),
        short(shadow)
    );
    if report.left_out > 0 {
        text.push_str(&format!(
            "{} were not compared: not remembered whole\n",
            report.left_out
        ));
    }
    if report.not_sent > 0 {
        text.push_str(&format!(
            "{} records for places outside were not sent\n",
            report.not_sent
        ));
    }
    if report.not_asked > 0 {
        text.push_str(&format!(
            "{} requests were not made; tasks got what the run was answered\n",
            report.not_asked
        ));
        for it in &report.requests {
            let place = format!("{}@{}", it.lane, it.position);
            text.push_str(&format!("  {place} {}: {}\n", it.task, it.request));
        }
    }
    let row = |it: &Difference| {
        let task = if it.task.is_empty() { "-" } else { &it.task };
        [
            format!("{}@{}", it.lane, it.position),
            task.to_owned(),
            first_line(&it.live, VALUE_WIDTH),
            first_line(&it.shadow, VALUE_WIDTH),
        ]
    };
    if !report.examples.is_empty() {
        let rows = report.examples.iter().map(row).collect();
        text.push_str(&table(["EVENT", "TASK", "LIVE", "SHADOW"], rows, 4));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activation(position: u64, state: &str, result: &str) -> PastActivation {
        PastActivation {
            id: format!("r/s/l/{position}"),
            lane: "l".into(),
            position,
            ended: "done".into(),
            round: 0,
            version: None,
            arrived_ms: 0,
            settled_ms: 0,
            tasks: vec![PastTask {
                task: "t".into(),
                state: state.into(),
                tries: 1,
                instances: None,
                took_ms: None,
                started_ms: None,
                result: Some(Blob::Text(result.into())),
                error: None,
            }],
            payload: Vec::new(),
        }
    }

    fn by_place(all: Vec<PastActivation>) -> BTreeMap<Place, PastActivation> {
        let place = |it: PastActivation| ((it.lane.clone(), it.position), it);
        all.into_iter().map(place).collect()
    }

    #[test]
    fn what_came_of_an_event_is_compared_by_task_state_and_value() {
        let live = by_place(vec![
            activation(1, "success", r#"{"a":1,"b":2}"#),
            activation(2, "success", "5"),
            activation(3, "success", "5"),
            activation(4, "success", "5"),
        ]);
        let shadow = by_place(vec![
            activation(1, "success", r#"{"b":2,"a":1}"#),
            activation(2, "success", "6"),
            activation(3, "failed", "5"),
            activation(9, "success", "5"),
        ]);
        let mut report = Report::default();
        compare(&live, &shadow, 3, &mut report);
        assert_eq!((report.equal, report.different), (1, 2));
        assert_eq!((report.only_live, report.only_shadow), (1, 1));
        assert_eq!(report.examples.len(), 3, "no more than asked for");
        let first = &report.examples[0];
        assert_eq!((first.position, &*first.task), (2, "t"));
        assert_eq!((&*first.live, &*first.shadow), ("success 5", "success 6"));
    }
}
