//! `freshness=`: a source of which nothing was settled for that long is not fresh, whatever its
//! thread and its broker say. That is counted and told once, until there is progress again.

use std::time::Duration;

use evermill_contract::alert::AlertKind;
use evermill_contract::source::Severity;
use evermill_core::command::RunState;

use crate::alerts::About;
use crate::input::SourceKey;
use crate::shard::Shard;

/// How far a source came, and since when it has not come further.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// When a position of it last moved, milliseconds since the Unix epoch; at first when it was opened.
    pub(crate) at_ms: u64,
    /// Whether any has moved since it was opened.
    pub(crate) moved: bool,
    /// It is longer ago than `freshness=` allows.
    pub(crate) stale: bool,
    /// Times it was.
    pub(crate) missed: u64,
}

impl Shard {
    /// A position of this source has moved.
    pub(crate) fn note_progress(&mut self, key: SourceKey) {
        let now = self.world.clock.now_ms();
        if let Some(listening) = self.listening.get_mut(&key) {
            let progress = &mut listening.progress;
            (progress.at_ms, progress.moved, progress.stale) = (now, true, false);
            if let Some(watched) = &mut listening.watched {
                watched.restarts = 0;
            }
        }
    }

    /// From now on the source is to be as fresh as it says.
    pub(crate) fn watch_freshness(&mut self, key: SourceKey) {
        let outline = self.outline_of(key.run);
        let place = self.place_of(key);
        let source = outline.and_then(|outline| outline.sources.get(usize::from(place?)));
        let freshness_ms = source.and_then(|source| source.freshness_ms);
        let now = self.world.clock.now_ms();
        if let Some(listening) = self.listening.get_mut(&key) {
            listening.freshness_ms = freshness_ms;
            listening.progress.at_ms = now;
            self.watches_freshness |= freshness_ms.is_some();
        }
    }

    /// Sources that are to be looked at, and when.
    fn due(&self) -> impl Iterator<Item = (SourceKey, u64)> + '_ {
        self.listening.iter().filter_map(|(key, listening)| {
            let live = listening.ended.is_none() && !listening.progress.stale;
            let running = self.runs.get(&key.run)?.state == RunState::Running;
            let freshness = listening.freshness_ms.filter(|_| live && running)?;
            Some((*key, listening.progress.at_ms + freshness))
        })
    }

    /// Time until a source may miss its freshness.
    pub(crate) fn until_stale(&self) -> Option<Duration> {
        if !self.watches_freshness {
            return None;
        }
        crate::timers::until_ms(self.due().map(|(_, due)| due).min(), &self.world.clock)
    }

    /// Tells of sources that are not fresh any more.
    pub(crate) fn count_stale(&mut self) {
        if !self.watches_freshness {
            return;
        }
        let now = self.world.clock.now_ms();
        let stale: Vec<SourceKey> = self
            .due()
            .filter_map(|(key, due)| (due <= now).then_some(key))
            .collect();
        for key in stale {
            let Some(listening) = self.listening.get_mut(&key) else {
                continue;
            };
            listening.progress.stale = true;
            listening.progress.missed += 1;
            let seconds = now.saturating_sub(listening.progress.at_ms) / 1_000;
            let text = format!(
                "{}: nothing of it was settled for {seconds} s, longer than freshness= allows",
                self.source_name(key)
            );
            self.notice_of(Severity::Warning, &self.source_subject(key), &text);
            let about = About {
                source: self.place_of(key),
                ..About::default()
            };
            self.raise(AlertKind::FreshnessMissed, key.run, about, text);
        }
    }
}
