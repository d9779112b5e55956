//! Looking at a source before it is read again: where times lie, how much there is. Done on the
//! thread of whoever asks, through a reader of its own, so that the live one is not held up.

use std::time::{Duration, Instant};

use evermill_contract::manifest::SourceManifest;
use evermill_contract::source::{
    LaneName, NO_TIMESTAMP, Opened, Place, Source, SourceError, SourceEvent,
};
use evermill_core::LaneView;
use evermill_core::command::{LaneId, ReplayMode, Stretch};

use crate::handle::EngineError;
use crate::limits;
use crate::notice::{NoticeSink, late_name};
use crate::open::SourceFactory;
use crate::prepare::request_for;
use crate::replay::{
    Again, BackfillAsk, Ground, PlannedLane, ReplayAnswer, ReplayAsk, ResetAnswer, ResetAsk,
    Sample, check_kind, check_reset, refuse,
};
use crate::replaying::read_apart;
use crate::sources::ungated;

/// A source that was opened to look at it.
pub(crate) struct Survey {
    id: String,
    source: Box<dyn Source>,
    found: Vec<LaneName>,
    trouble: Option<String>,
}

impl Drop for Survey {
    fn drop(&mut self) {
        self.source.close();
    }
}

impl Survey {
    /// Opens it, and waits until it has found the lanes.
    pub(crate) fn open(
        ground: &Ground,
        lanes: &[LaneView],
        sources: &SourceFactory,
        notices: &NoticeSink,
    ) -> Result<Self, EngineError> {
        let source: SourceManifest = read_apart(ground.source());
        let id = source.id.clone();
        let failed = |cause: String| EngineError::Source {
            dag: ground.declared().id.clone(),
            source_id: id.clone(),
            cause,
        };
        let run = late_name(Some(ground.run.name.as_str().into()));
        let request = request_for(ground.declared(), &source, notices, &run);
        let opened = sources(request).map_err(failed)?;
        let (Opened::Log(source), _) = ungated(opened) else {
            return Err(failed("it is not read from a log".to_owned()));
        };
        let mut survey = Self {
            id: id.clone(),
            source,
            found: Vec::new(),
            trouble: None,
        };
        let deadline = Instant::now() + limits::SURVEY_WAIT;
        let missing = |survey: &Self| {
            let is_found =
                |lane: &&LaneView| survey.found.iter().any(|it| it.as_str() == lane.name);
            lanes
                .iter()
                .find(|lane| !is_found(lane))
                .map(|lane| lane.name.clone())
        };
        while let Some(lane) = missing(&survey) {
            if Instant::now() >= deadline {
                let why = survey.trouble.clone().unwrap_or_else(|| {
                    format!(
                        "lane {lane} was not found within {} s",
                        limits::SURVEY_WAIT.as_secs()
                    )
                });
                return Err(failed(why));
            }
            survey
                .poll(limits::SURVEY_POLL, |_| {})
                .map_err(|error| failed(error.to_string()))?;
        }
        Ok(survey)
    }

    fn poll(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(&SourceEvent),
    ) -> Result<(), SourceError> {
        let mut events = Vec::new();
        self.source.poll(wait, &mut events)?;
        for event in events {
            match &event {
                SourceEvent::Lane(found) => self.found.push(found.name.clone()),
                SourceEvent::Degraded { reason } => self.trouble = Some(reason.clone()),
                SourceEvent::Recovered => self.trouble = None,
                _ => {}
            }
            each(&event);
        }
        Ok(())
    }

    /// Asks until there is an answer, for as long as somebody waits.
    fn ask<T>(
        &mut self,
        mut question: impl FnMut(&mut dyn Source) -> Result<T, SourceError>,
    ) -> Result<T, EngineError> {
        let deadline = Instant::now() + limits::SURVEY_WAIT;
        loop {
            match question(&mut *self.source) {
                Ok(answer) => return Ok(answer),
                Err(SourceError::Refused(why)) => return refuse(why),
                Err(SourceError::Unavailable(why)) if Instant::now() >= deadline => {
                    return refuse(format!("source '{}': {why}", self.id));
                }
                Err(SourceError::Unavailable(_)) => {
                    self.poll(limits::SURVEY_POLL, |_| {})
                        .map_err(|error| EngineError::Refused(error.to_string()))?;
                }
            }
        }
    }

    fn locate(&mut self, lane: &str, place: Place) -> Result<u64, EngineError> {
        let name = LaneName::from(lane);
        self.ask(|source| source.locate(&name, place))
    }

    fn count(&mut self, lane: &str, from: u64, to: u64) -> Result<u64, EngineError> {
        let name = LaneName::from(lane);
        self.ask(|source| source.count(&name, from, to))
    }

    /// The events that come first from a position on: position and time, and the bytes of one on
    /// average. Nothing when none comes in time.
    fn look(&mut self, lane: &LaneView, from: u64, below: u64) -> Option<(Vec<Sample>, u64)> {
        let name = LaneName::from(&*lane.name);
        let started = self.ask(|source| source.start_lane(&name, from, Some(&lane.incarnation)));
        started.ok()?;
        self.source.credit(&name, true);
        let deadline = Instant::now() + limits::SURVEY_LOOK;
        let mut seen = None;
        let mut at_end = false;
        while seen.is_none() && !at_end && Instant::now() < deadline {
            let looked = self.poll(limits::SURVEY_POLL, |event| match event {
                SourceEvent::Batch { lane, batch } if *lane == name && seen.is_none() => {
                    let count = batch.events.len().max(1) as u64;
                    let within = batch.events.iter().filter(|event| event.position < below);
                    let samples = within.map(|event| Sample {
                        position: event.position,
                        timestamp_ms: (event.timestamp_ms != NO_TIMESTAMP)
                            .then_some(event.timestamp_ms),
                    });
                    seen = Some((samples.collect(), batch.buffer.len() as u64 / count));
                }
                SourceEvent::CaughtUp { lane, .. } if *lane == name => at_end = true,
                _ => {}
            });
            looked.ok()?;
        }
        self.source.credit(&name, false);
        seen
    }

    /// Looks at both ends of a stretch.
    fn sample(&mut self, lane: &LaneView, planned: &mut PlannedLane) {
        let (from, to) = (planned.from, planned.to);
        if let Some((first, bytes)) = self.look(lane, from, to) {
            planned.first = first.first().copied();
            planned.last = first.last().copied();
            planned.bytes = Some(bytes * planned.events);
        }
        let near_the_end = to.saturating_sub(limits::SURVEY_TAIL).max(from);
        if near_the_end > from
            && let Some((last, _)) = self.look(lane, near_the_end, to)
        {
            planned.last = last.last().copied().or(planned.last);
        }
    }
}

/// The lanes that are meant.
fn chosen(ground: &Ground, lane: Option<&str>) -> Result<Vec<LaneView>, EngineError> {
    let all = &ground.lanes;
    let run = &ground.run.name;
    if all.is_empty() {
        return refuse(format!(
            "run '{run}' has no position of source '{}' yet; it has one once `evermill run` has found it",
            ground.source().id
        ));
    }
    let Some(name) = lane else {
        return Ok(all.clone());
    };
    let found: Vec<LaneView> = all
        .iter()
        .filter(|lane| lane.name == name)
        .cloned()
        .collect();
    if found.is_empty() {
        let names: Vec<&str> = all.iter().map(|lane| &*lane.name).collect();
        return refuse(format!(
            "there is no lane '{name}'; there are {}",
            names.join(", ")
        ));
    }
    Ok(found)
}

fn one_lane_only(lanes: &[LaneView], what: &str) -> Result<(), EngineError> {
    if lanes.len() == 1 {
        return Ok(());
    }
    let names: Vec<&str> = lanes.iter().map(|lane| &*lane.name).collect();
    refuse(format!(
        "{what} is a position, and each lane has its own: name the lane by --lane ({}), or give a time",
        names.join(", ")
    ))
}

/// What a replay would read.
pub(crate) fn replay(
    ground: &Ground,
    ask: &ReplayAsk,
    sources: &SourceFactory,
    notices: &NoticeSink,
) -> Result<(ReplayAnswer, Again), EngineError> {
    check_kind(ground, false)?;
    let lanes = chosen(ground, ask.lane.as_deref())?;
    if matches!(ask.from, Place::Position(_)) {
        one_lane_only(&lanes, "--from")?;
    }
    if matches!(ask.to, Some(Place::Position(_))) {
        one_lane_only(&lanes, "--to")?;
    }
    let mut survey = Survey::open(ground, &lanes, sources, notices)?;
    let mut answer = ReplayAnswer {
        run: ground.run.name.clone(),
        source: ground.source().id.clone(),
        ..ReplayAnswer::default()
    };
    let mut stretches = Vec::new();
    for lane in &lanes {
        let earliest = survey.locate(&lane.name, Place::Earliest)?;
        let from = survey.locate(&lane.name, ask.from)?;
        if matches!(ask.from, Place::Position(_)) && from < earliest {
            return refuse(format!(
                "position {from} of {} can no longer be read; the first that can is {earliest}: \
                 --from {earliest}",
                lane.name
            ));
        }
        let from = from.max(earliest);
        let wanted = match ask.to {
            None => lane.low,
            Some(Place::Position(last)) => last.saturating_add(1),
            Some(place) => survey.locate(&lane.name, place)?,
        };
        let to = wanted.min(lane.low);
        if wanted > lane.low && ask.to.is_some() {
            answer.notes.push(format!(
                "{} is read again up to {}, where the run stands; what lies behind it comes anyway",
                lane.name, lane.low
            ));
        }
        if from >= to {
            continue;
        }
        let mut planned = PlannedLane {
            name: lane.name.clone(),
            from,
            to,
            events: to - from,
            ..PlannedLane::default()
        };
        if ask.dry_run && answer.lanes.len() < limits::SURVEY_LANES {
            survey.sample(lane, &mut planned);
        }
        answer.events += planned.events;
        answer.lanes.push(planned);
        stretches.push(Stretch {
            lane: lane.lane.lane,
            from,
            to,
        });
    }
    if stretches.is_empty() {
        return refuse(format!(
            "nothing lies there: of what source '{}' still holds, run '{}' has read nothing in that stretch",
            answer.source, answer.run
        ));
    }
    let again = Again {
        run: ground.run.run,
        stretches,
        mode: ReplayMode {
            fresh_keys: ask.new_effect_keys,
            writes_state: ask.with_state,
            claims: false,
        },
    };
    Ok((answer, again))
}

/// Positions of the instants from one to another, both included.
pub(crate) fn instants(ask: &BackfillAsk) -> Result<(u64, u64), EngineError> {
    let nanoseconds = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
    if ask.from_ms > ask.to_ms {
        return refuse("--from lies behind --to".to_owned());
    }
    Ok((
        nanoseconds(ask.from_ms),
        nanoseconds(ask.to_ms).saturating_add(1),
    ))
}

/// What a backfill would run. `unread`: what of that time the clock has passed over.
pub(crate) fn backfill(
    ground: &Ground,
    ask: &BackfillAsk,
    unread: impl FnOnce(Stretch) -> Result<Vec<(u64, u64)>, EngineError>,
    sources: &SourceFactory,
    notices: &NoticeSink,
) -> Result<(ReplayAnswer, Again), EngineError> {
    check_kind(ground, true)?;
    let lanes = chosen(ground, None)?;
    let (from, to) = instants(ask)?;
    let mut survey = Survey::open(ground, &lanes, sources, notices)?;
    let mut answer = ReplayAnswer {
        run: ground.run.name.clone(),
        source: ground.source().id.clone(),
        ..ReplayAnswer::default()
    };
    let lane = &lanes[0];
    let now = survey.locate(&lane.name, Place::Latest)?.saturating_add(1);
    let end = if ask.reprocess {
        lane.low.min(now)
    } else {
        now
    };
    if to > end {
        answer.notes.push(
            "instants that are still to come are not part of it: the clock runs them".to_owned(),
        );
    }
    let stretch = Stretch {
        lane: lane.lane.lane,
        from,
        to: to.min(end),
    };
    let parts = match ask.reprocess {
        true => vec![(stretch.from, stretch.to)],
        false => unread(stretch)?,
    };
    let all = survey.count(&lane.name, stretch.from, stretch.to)?;
    for (from, to) in parts.into_iter().filter(|(from, to)| from < to) {
        let events = survey.count(&lane.name, from, to)?;
        answer.events += events;
        if events > 0 {
            answer.lanes.push(PlannedLane {
                name: lane.name.clone(),
                from,
                to,
                events,
                ..PlannedLane::default()
            });
        }
    }
    answer.skipped = all.saturating_sub(answer.events);
    let again = Again {
        run: ground.run.run,
        stretches: vec![stretch],
        mode: ReplayMode {
            fresh_keys: false,
            writes_state: ask.with_state,
            claims: !ask.reprocess,
        },
    };
    Ok((answer, again))
}

/// Where positions would go on.
pub(crate) fn reset(
    ground: &Ground,
    ask: &ResetAsk,
    sources: &SourceFactory,
    notices: &NoticeSink,
) -> Result<(ResetAnswer, Vec<(LaneId, u64)>), EngineError> {
    let lanes = chosen(ground, ask.lane.as_deref())?;
    if matches!(ask.to, Place::Position(_)) {
        one_lane_only(&lanes, "--to")?;
    }
    let mut survey = Survey::open(ground, &lanes, sources, notices)?;
    let mut answer = ResetAnswer {
        run: ground.run.name.clone(),
        source: ground.source().id.clone(),
        lanes: Vec::new(),
    };
    let mut moves = Vec::new();
    for lane in &lanes {
        let to = survey.locate(&lane.name, ask.to)?;
        if !ground.is_clock() {
            let earliest = survey.locate(&lane.name, Place::Earliest)?;
            let latest = survey.locate(&lane.name, Place::Latest)?;
            if !(earliest..=latest).contains(&to) {
                return refuse(format!(
                    "{} holds the positions from {earliest} up to {latest}, and {to} is none of them",
                    lane.name
                ));
            }
        }
        check_reset(ground, to < lane.low)?;
        answer.lanes.push((lane.name.clone(), lane.low, to));
        if to != lane.low || lane.in_waves > 0 {
            moves.push((lane.lane, to));
        }
    }
    Ok((answer, moves))
}
