//! What waits for signals (W14), for those who answer them.
//!
//! What an activation that only waits has brought lies in the store alone. The shard says who waits; what
//! they have brought is read beside the writer, for the few that are looked at.

use std::sync::Arc;

use bytes::Bytes;
use evermill_core::command::{ActivationKey, Command};
use evermill_core::row::Table;
use evermill_core::{Brought, LaneView, Machine, RunView, WaitView as Wait};
use evermill_store::Reader;

use crate::books::{Books, event_parts, face_name, name_of};
use crate::handle::EngineError;
use crate::limits;
use crate::manifest::Outline;
use crate::operate::{Page, Signal};
use crate::outcome;
use crate::spill;
use crate::triggering;
use crate::view::{Blob, ResultView, WaitGroup, WaitPage, WaitView};

/// A page of what waits, and where the rest of it is.
pub(crate) struct Waits {
    page: WaitPage,
    /// Of each entry, if payloads are wanted.
    brought: Vec<(ActivationKey, Option<Brought>)>,
    /// By the number an activation is pinned to; `None` for one that nothing needs any more.
    versions: Vec<Option<Arc<Outline>>>,
}

impl Books<'_> {
    /// A page of what waits for signals, or for the one of this name.
    pub(crate) fn waits(
        &self,
        run: &str,
        signal: Option<&str>,
        page: Page,
    ) -> Result<Waits, EngineError> {
        let run = self.find(run)?;
        let lanes: Vec<LaneView> = self.machine.lanes(run.run).collect();
        let outline = |hash: &String| Some(Arc::clone(&self.versions.get(hash)?.outline));
        let versions = self.machine.run_versions(run.run);
        let versions: Vec<_> = versions.iter().map(outline).collect();
        let mut found = Waits {
            page: WaitPage::default(),
            brought: Vec::new(),
            versions,
        };
        let limit = page.limit.min(limits::PARKED_LISTED);
        let is_wanted = |name: &str| signal.is_none_or(|signal| signal == name);
        for (signal, count) in self
            .machine
            .awaited(run.run)
            .filter(|(name, _)| is_wanted(name))
        {
            let before = found.page.matched;
            found.page.matched += count;
            found.page.groups.push(WaitGroup {
                signal: signal.to_owned(),
                count,
                since_ms: self
                    .machine
                    .waits(run.run, signal)
                    .next()
                    .map_or(0, |wait| wait.since),
            });
            let skip = page.skip.saturating_sub(before).min(count);
            let room = (limit - found.page.entries.len()) as u64;
            if room < count - skip && found.page.next.is_none() {
                found.page.next = Some(before + skip + room);
            }
            let part = self.machine.waits(run.run, signal).skip(skip as usize);
            for wait in part.take(room as usize) {
                let entry = found.entry(self.machine, &run, &lanes, signal, wait);
                found.page.entries.push(entry);
                if page.payload {
                    let key = wait.activation;
                    found.brought.push((key, self.machine.brought(key)));
                }
            }
        }
        Ok(found)
    }

    /// The command of a signal for tasks that wait; `None` when it came before under its id.
    pub(crate) fn for_tasks(
        &self,
        run: &RunView,
        signal: &Signal,
        now_us: u64,
    ) -> Result<Option<Command>, EngineError> {
        let named = signal.to.as_deref();
        let meant = named.map(|id| (id, self.activation(run, id)));
        let to = meant.and_then(|(_, key)| key);
        let command = triggering::to_tasks(run, signal, to, now_us);
        if let Command::Signal { id, .. } = &command
            && self.machine.knows_signal(run.run, id)
        {
            return Ok(None);
        }
        let waits = |key: ActivationKey| {
            let mut all = self.machine.waits(run.run, &signal.name);
            all.any(|wait| wait.activation == key)
        };
        match meant {
            Some((id, key)) if !key.is_some_and(waits) => {
                Err(EngineError::NotWaiting(id.to_owned()))
            }
            _ => Ok(Some(command)),
        }
    }

    /// The activation of this name: [`name_of`] the other way round.
    fn activation(&self, run: &RunView, id: &str) -> Option<ActivationKey> {
        let of_run = id.strip_prefix(&run.name)?.strip_prefix('/')?;
        self.machine.lanes(run.run).find_map(|lane| {
            let (source, name) = names(&lane);
            let of_source = of_run.strip_prefix(source)?.strip_prefix('/')?;
            let place = of_source.strip_prefix(&name)?.strip_prefix('/')?;
            let (position, child) = place.split_once('/').unwrap_or((place, "0"));
            Some(ActivationKey {
                lane: lane.lane,
                position: position.parse().ok()?,
                child: child.parse().ok()?,
            })
        })
    }
}

/// A lane's source and its own name, as faces have them.
fn names(lane: &LaneView) -> (&str, String) {
    let source = match &*lane.source_id {
        "" => crate::MANUAL,
        id => id,
    };
    (source, face_name(lane))
}

impl Waits {
    fn entry(
        &self,
        machine: &Machine,
        run: &RunView,
        lanes: &[LaneView],
        signal: &str,
        wait: Wait,
    ) -> WaitView {
        let key = wait.activation;
        let lane = lanes.iter().find(|lane| lane.lane == key.lane);
        let (source, lane) = lane.map_or((crate::MANUAL, String::new()), names);
        let version = machine.pinned(key).map(usize::from);
        let outline = version.and_then(|version| self.versions.get(version)?.as_deref());
        let task = outline.and_then(|outline| outline.tasks.get(usize::from(wait.task)));
        WaitView {
            id: name_of(&run.name, source, &lane, key),
            signal: signal.to_owned(),
            task: task.map_or_else(String::new, |task| task.id.to_string()),
            source: source.to_owned(),
            lane,
            position: key.position,
            since_ms: wait.since,
            payload: Vec::new(),
            results: Vec::new(),
        }
    }

    /// The page, with what the store has of it.
    pub(crate) fn told(mut self, reader: &mut dyn Reader) -> Result<WaitPage, EngineError> {
        let mut bytes = 0;
        for (entry, (key, brought)) in self.page.entries.iter_mut().zip(self.brought) {
            let brought = match brought {
                Some(brought) => Some(brought),
                None => {
                    let row = reader.row(Table::Activation, &key.row());
                    let row = row.map_err(EngineError::store)?;
                    // Gone when it was answered just now.
                    row.and_then(|body| Brought::read(key, body).ok())
                }
            };
            let Some(brought) = brought else { continue };
            let size = brought.events.iter().map(|event| event.body.len());
            bytes += size.sum::<usize>();
            if bytes > limits::PARKED_LISTED_BYTES {
                break;
            }
            let events = brought.events.iter();
            let event =
                |event: &evermill_core::command::Event| event_parts(event.position, &event.body);
            entry.payload = events.map(event).collect();
            let outline = self.versions.get(usize::from(brought.version));
            let outline = outline.and_then(Option::as_deref);
            let told = |(task, kept): (u16, Bytes)| {
                let kept = Some(kept).filter(|kept| !spill::is_reference(kept))?;
                Some(ResultView {
                    task: outline?.tasks.get(usize::from(task))?.id.to_string(),
                    result: Blob::of(&outcome::returned(&kept)?),
                })
            };
            entry.results = brought.results.into_iter().filter_map(told).collect();
        }
        Ok(self.page)
    }
}
