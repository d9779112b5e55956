//! Reading again, and moving positions, as operators ask for it: what is refused, what it would mean,
//! what is told of it. The same for a running engine and for a store that no engine runs.

use std::sync::Arc;

use evermill_contract::manifest::{Catchup, DagManifest, Manifest, SourceConfig, SourceManifest};
use evermill_contract::source::Place;
use evermill_core::command::{Command, LaneId, ReplayMode, RunIx, RunState, Stretch};
use evermill_core::{LaneView, RunView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::books::Books;
use crate::handle::EngineError;
use crate::requests::is_over;
use crate::view::{ReplayLaneView, ReplayView, ResetView};

/// A stretch that somebody wants read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayAsk {
    /// Where to begin.
    pub from: Place,
    /// Where to end: the last position, or the time before which events are read. As far as the run
    /// has read, unless said.
    #[serde(default)]
    pub to: Option<Place>,
    /// Only this lane.
    #[serde(default)]
    pub lane: Option<String>,
    /// Which source, where a DAG has several.
    #[serde(default)]
    pub source: Option<String>,
    /// Say what it would be, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Effect keys of its own, so that sinks that know the first ones take it as new.
    #[serde(default)]
    pub new_effect_keys: bool,
    /// Let its tasks change state.
    #[serde(default)]
    pub with_state: bool,
}

/// Instants of a clock that somebody wants run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillAsk {
    /// The first instant, milliseconds since the Unix epoch.
    pub from_ms: i64,
    /// The last one, likewise.
    pub to_ms: i64,
    /// Which clock, where a DAG has several.
    #[serde(default)]
    pub source: Option<String>,
    /// Say what it would be, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Also those that ran before.
    #[serde(default)]
    pub reprocess: bool,
    /// What its tasks change of their state stays. Else they only read it, as in a replay.
    #[serde(default)]
    pub with_state: bool,
}

/// A position that somebody wants moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetAsk {
    /// Where to go on.
    pub to: Place,
    /// Only this lane.
    #[serde(default)]
    pub lane: Option<String>,
    /// Which source, where a DAG has several.
    #[serde(default)]
    pub source: Option<String>,
    /// Say what it would be, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Who wants it, for the record.
    pub by: String,
}

/// What is to be done with a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayOrder {
    /// Read no further until told; it lasts over restarts.
    Pause,
    /// Go on.
    Resume,
    /// End it: what was begun settles.
    Stop,
}

/// What becomes of a stretch, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayAnswer {
    /// Its number; `None` when nothing was begun.
    pub replay: Option<u32>,
    /// Run id.
    pub run: String,
    /// Source id.
    pub source: String,
    /// Its lanes.
    pub lanes: Vec<PlannedLane>,
    /// Events of all lanes; at most so many where they are counted by position.
    pub events: u64,
    /// Instants that ran before and are left out.
    pub skipped: u64,
    /// What is otherwise than it was asked for.
    pub notes: Vec<String>,
}

/// A lane of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedLane {
    /// The lane that is read again.
    pub name: String,
    /// First position.
    pub from: u64,
    /// The first position behind it.
    pub to: u64,
    /// Events, or positions where only they can be counted.
    pub events: u64,
    /// The first event that is there, when somebody looked.
    pub first: Option<Sample>,
    /// The last one, likewise.
    pub last: Option<Sample>,
    /// About so many bytes, from what the first events are like.
    pub bytes: Option<u64>,
}

/// An event that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Its position.
    pub position: u64,
    /// Its own time, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
}

/// What became of positions, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetAnswer {
    /// Run id.
    pub run: String,
    /// Source id.
    pub source: String,
    /// By lane: name, where it stands, where it is to go on.
    pub lanes: Vec<(String, u64, u64)>,
}

/// What is known of a source that is to be read again.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) run: RunView,
    pub(crate) index: u16,
    pub(crate) manifest: Arc<Manifest>,
    /// Live lanes.
    pub(crate) lanes: Vec<LaneView>,
}

impl Ground {
    pub(crate) fn declared(&self) -> &DagManifest {
        &self.manifest.dags[0]
    }

    pub(crate) fn source(&self) -> &SourceManifest {
        &self.declared().sources[usize::from(self.index)]
    }

    pub(crate) fn is_clock(&self) -> bool {
        matches!(
            self.source().config,
            SourceConfig::Cron(_) | SourceConfig::Every(_)
        )
    }
}

/// What is to be read again, as it was found to be there.
pub(crate) struct Again {
    pub(crate) run: RunIx,
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) mode: ReplayMode,
}

pub(crate) fn refuse<T>(why: String) -> Result<T, EngineError> {
    Err(EngineError::Refused(why))
}

/// The command that moves a position.
pub(crate) fn moved(lane: LaneId, to: u64, by: &str) -> Command {
    Command::Reset {
        lane,
        to,
        by: by.to_owned(),
    }
}

impl Books<'_> {
    /// The source of a run that somebody wants to read again, or whose positions he wants moved.
    pub(crate) fn ground(&self, run: &str, source: Option<&str>) -> Result<Ground, EngineError> {
        let run = self.find(run)?;
        let name = &run.name;
        if is_over(run.state) {
            let state = crate::publish::state_name(run.state);
            return refuse(format!(
                "run '{name}' is {state}; `evermill run` begins a new run of its DAG, which can be read again"
            ));
        }
        let Some(known) = self.versions.get(&run.version) else {
            return refuse(format!("the version of run '{name}' is not known here"));
        };
        let manifest = Arc::clone(&known.manifest);
        let declared = &manifest.dags[0];
        let ids = || {
            let ids: Vec<&str> = declared.sources.iter().map(|source| &*source.id).collect();
            ids.join(", ")
        };
        let index = match source {
            Some(id) => declared.sources.iter().position(|source| source.id == id),
            None if declared.sources.len() == 1 => Some(0),
            None if declared.sources.is_empty() => {
                return refuse(format!(
                    "DAG '{}' has no source: there is nothing to read again; `evermill trigger {}` gives it \
                     another activation",
                    run.dag, run.dag
                ));
            }
            None => {
                return refuse(format!(
                    "DAG '{}' has several sources; name one by --source: {}",
                    run.dag,
                    ids()
                ));
            }
        };
        let Some(index) = index else {
            return refuse(format!(
                "DAG '{}' has no source '{}'; it has {}",
                run.dag,
                source.unwrap_or_default(),
                ids()
            ));
        };
        can_be_read_again(&declared.sources[index], name)?;
        let lanes = self.machine.lanes(run.run);
        let own = |lane: &LaneView| lane.is_live() && !lane.retired;
        let lanes = lanes.filter(|lane| own(lane) && usize::from(lane.source) == index);
        Ok(Ground {
            index: index as u16,
            lanes: lanes.collect(),
            manifest,
            run,
        })
    }

    /// The command for it, and the number it will have; `None` when there is nothing to do.
    pub(crate) fn may_replay(&self, again: &Again) -> Result<(Command, Option<u32>), EngineError> {
        let run = self.machine.run(again.run);
        let Some(run) = run.filter(|run| !is_over(run.state)) else {
            return refuse("the run is over".to_owned());
        };
        let known = self.versions.get(&run.version);
        if known.is_some_and(|known| known.dag.plans.iter().any(|plan| plan.is_join)) {
            return refuse(format!(
                "DAG '{}' joins events of several sources: what is read again would join with what comes \
                 now. Redrive single activations by `evermill parked retry`",
                run.dag
            ));
        }
        let max = evermill_core::limits::REPLAYS_OPEN_MAX;
        if self.replays(&run, false).len() >= max {
            return refuse(format!(
                "run '{}' has {max} replays that have not ended, and no more are taken; wait for one, or \
                 end one by `evermill replay stop {} NUMBER`",
                run.name, run.name
            ));
        }
        let lanes = self.machine.lanes(again.run);
        let next = lanes.map(|lane| lane.generation).max().unwrap_or(0) + 1;
        let is_any = again.stretches.iter().any(|stretch| {
            !again.mode.claims || !self.machine.unread(again.run, *stretch).is_empty()
        });
        let command = Command::Replay {
            run: again.run,
            stretches: again.stretches.clone(),
            mode: again.mode,
        };
        Ok((command, is_any.then_some(next)))
    }

    /// The replays of a run, oldest first: all that are on record, or those that have not ended.
    pub(crate) fn replays(&self, run: &RunView, ended: bool) -> Vec<ReplayView> {
        let declared = self
            .versions
            .get(&run.version)
            .map(|known| &known.manifest.dags[0]);
        let mut found: Vec<ReplayView> = Vec::new();
        let lanes: Vec<LaneView> = self.machine.lanes(run.run).collect();
        let mut open = std::collections::BTreeSet::new();
        for lane in &lanes {
            let Some(replay) = lane.replay else { continue };
            let number = lane.generation;
            if !lane.closed && !is_over(run.state) {
                open.insert(number);
            }
            let mut sources = declared.iter().flat_map(|dag| &dag.sources);
            let source = sources.find(|source| source.id == lane.source_id);
            let at = found.iter().position(|view| view.replay == number);
            let at = at.unwrap_or_else(|| {
                let is_clock = source.is_some_and(|source| {
                    matches!(
                        source.config,
                        SourceConfig::Cron(_) | SourceConfig::Every(_)
                    )
                });
                found.push(ReplayView {
                    replay: number,
                    kind: if is_clock { "backfill" } else { "replay" }.to_owned(),
                    state: "done".to_owned(),
                    source: lane.source_id.clone(),
                    asked_ms: replay.asked_ms,
                    new_effect_keys: replay.fresh_keys,
                    with_state: replay.writes_state,
                    ..ReplayView::default()
                });
                found.len() - 1
            });
            let view = &mut found[at];
            view.done += lane.low.min(replay.asked).saturating_sub(replay.from);
            view.total += replay.asked - replay.from;
            if replay.until < replay.asked {
                "stopped".clone_into(&mut view.state);
            }
            if !lane.closed {
                let state = match replay.paused {
                    _ if is_over(run.state) => "ended",
                    _ if replay.until < replay.asked => "stopping",
                    true => "paused",
                    false => "running",
                };
                state.clone_into(&mut view.state);
            }
            view.lanes.push(ReplayLaneView {
                name: lane.name.clone(),
                from: replay.from,
                to: replay.asked,
                position: lane.low,
                in_flight: lane.in_flight as u64,
            });
        }
        found.retain(|view| ended || open.contains(&view.replay));
        found
    }

    /// The command for it; `None` when that is how it is already.
    pub(crate) fn may_steer(
        &self,
        run: &RunView,
        replay: u32,
        order: ReplayOrder,
    ) -> Result<Option<Command>, EngineError> {
        let all = self.replays(run, true);
        let Some(view) = all.iter().find(|view| view.replay == replay) else {
            return refuse(format!(
                "run '{}' has no replay {replay}; `evermill replay ls {}` lists them",
                run.name, run.name
            ));
        };
        let is_open = matches!(view.state.as_str(), "running" | "paused" | "stopping");
        let (run, paused) = (run.run, order == ReplayOrder::Pause);
        match order {
            ReplayOrder::Stop if !is_open => Ok(None),
            ReplayOrder::Stop => Ok(Some(Command::StopReplay { run, replay })),
            _ if !is_open => refuse(format!("replay {replay} is {} already", view.state)),
            _ if paused == (view.state == "paused") => Ok(None),
            _ => Ok(Some(Command::PauseReplay {
                run,
                replay,
                paused,
            })),
        }
    }

    /// Positions that were moved, oldest first.
    pub(crate) fn resets(&self, run: &RunView) -> Vec<ResetView> {
        let lanes = self.machine.lanes(run.run);
        let moved = lanes
            .filter(|lane| lane.replay.is_none())
            .filter_map(|lane| {
                let reset = lane.reset?;
                Some(ResetView {
                    source: lane.source_id,
                    lane: lane.name,
                    from: reset.from,
                    to: reset.to,
                    at_ms: reset.at_ms,
                    by: reset.by,
                })
            });
        moved.collect()
    }

    /// Whether these positions can be moved now.
    pub(crate) fn may_reset(
        &self,
        run: &RunView,
        moves: &[(LaneId, u64)],
    ) -> Result<(), EngineError> {
        let name = &run.name;
        if run.state == RunState::Running || run.state == RunState::Draining {
            return refuse(format!(
                "run '{name}' is {}, and a position is not moved under its feet: `evermill pause {name}` \
                 first, `evermill resume {name}` afterwards",
                crate::publish::state_name(run.state)
            ));
        }
        let lanes: Vec<LaneView> = self.machine.lanes(run.run).collect();
        for (id, _) in moves {
            let lane = lanes.iter().find(|lane| lane.lane == *id && lane.is_live());
            let Some(lane) = lane else {
                return refuse(format!("run '{name}' was changed meanwhile; ask again"));
            };
            if lane.in_waves > 0 {
                return refuse(format!(
                    "{} events of {} are under way; wait until they have settled (`evermill show {name}`), \
                     or let them with `evermill drain {name}`",
                    lane.in_waves, lane.name
                ));
            }
        }
        Ok(())
    }
}

/// Whether what a source brought can be read from it once more.
fn can_be_read_again(source: &SourceManifest, run: &str) -> Result<(), EngineError> {
    let id = &source.id;
    let what = match &source.config {
        SourceConfig::Kafka(_) | SourceConfig::Cron(_) | SourceConfig::Every(_) => return Ok(()),
        SourceConfig::Loop(_) => {
            return refuse(format!(
                "source '{id}' is a loop: each lap follows from the one before, and none is read again"
            ));
        }
        SourceConfig::Http(_) => "what a page said",
        SourceConfig::Webhook(_) => "a request",
        SourceConfig::Signal(_) => "a signal",
        SourceConfig::Poll(_) => "what a function found",
        _ => "an event",
    };
    refuse(format!(
        "source '{id}' cannot be read again: {what} is kept until its activation has settled, and then gone. \
         What failed is kept whole: `evermill parked ls {run}`. What is remembered of the rest shows \
         `evermill show {run} --at POSITION`"
    ))
}

/// What a replay of a clock, or of anything but a clock, is called.
pub(crate) fn check_kind(ground: &Ground, wants_clock: bool) -> Result<(), EngineError> {
    let (run, id) = (&ground.run.name, &ground.source().id);
    match (wants_clock, ground.is_clock()) {
        (true, false) => refuse(format!(
            "source '{id}' is no clock; `evermill replay {run} --from ...` reads it again"
        )),
        (false, true) => refuse(format!(
            "source '{id}' is a clock; `evermill backfill {run} --from ... --to ...` runs its instants, \
             with --reprocess those that ran before"
        )),
        _ => Ok(()),
    }
}

/// Why positions of a source cannot be moved there by hand, if so.
pub(crate) fn check_reset(ground: &Ground, back: bool) -> Result<(), EngineError> {
    let (id, run) = (&ground.source().id, &ground.run.name);
    let catchup = match &ground.source().config {
        SourceConfig::Kafka(kafka) if kafka.membership => {
            return refuse(format!(
                "source '{id}' shares its partitions with others (membership=True): where they all go on \
                 is what the group has committed. Stop all of them and move the group's offsets with \
                 Kafka's own tools"
            ));
        }
        SourceConfig::Cron(cron) => cron.catchup,
        SourceConfig::Every(every) => every.catchup,
        _ => return Ok(()),
    };
    if back && catchup != Catchup::All {
        return refuse(format!(
            "the clock '{id}' passes over what is past (catchup is not \"all\"), so moving it back runs \
             nothing; `evermill backfill {run} --from ... --to ...` does"
        ));
    }
    Ok(())
}
