//! Rate limits (W19): how many events of a source, members of a task, or members of one key of a
//! task may start in a stretch of time.
//!
//! A window begins with the first start in it and lasts one interval; in any stretch as long as an
//! interval lie two windows at most, so at most twice as many starts.

use std::collections::{BTreeMap, BTreeSet};

use crate::bits;
use crate::command::{ActivationKey, LaneId, Limited, Ms, RunIx};
use crate::dispatch::{Dispatch, Slot};
use crate::limits;
use crate::machine::{Machine, Timer};
use crate::run::Turn;
use crate::wave::{Row, Wave};

/// At most `members` starts per `interval`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    members: u32,
    interval: Ms,
    window_start: Ms,
    used: u64,
}

impl Rate {
    const fn new(members: u32, interval: Ms, now: Ms) -> Self {
        Self {
            members,
            interval,
            window_start: now,
            used: 0,
        }
    }

    /// How many may start now; 0 until [`Rate::opens`].
    pub(crate) fn room(&mut self, now: Ms) -> usize {
        let windows = now.saturating_sub(self.window_start) / self.interval.max(1);
        if windows > 0 {
            // What went beyond a window, as a batch may, is taken off the next ones.
            let paid = u64::from(self.members).saturating_mul(windows);
            self.used = self.used.saturating_sub(paid);
            self.window_start = now;
        }
        u64::from(self.members).saturating_sub(self.used) as usize
    }

    pub(crate) const fn opens(&self) -> Ms {
        self.window_start + self.interval
    }

    pub(crate) const fn take(&mut self, count: usize) {
        self.used += count as u64;
    }

    /// Members that were sent and came back unstarted do not count.
    pub(crate) const fn give_back(&mut self, sent: Ms, count: usize) {
        if sent >= self.window_start {
            self.used = self.used.saturating_sub(count as u64);
        }
    }
}

/// At most `members` starts per `interval` of each key. A member that may not start at once gets its
/// time right away, behind those of its key that came before, and waits for it in nobody's way. When
/// workers are late, several of a key may have their time at once: then they start window by window.
#[derive(Debug, Clone)]
pub(crate) struct KeyRates {
    members: u32,
    interval: Ms,
    windows: BTreeMap<u128, Windows>,
    /// The same, by when they can be forgotten.
    by_end: BTreeSet<(Ms, u128)>,
    /// Members that have a time and were not sent yet; true: counted in the window of starts.
    booked: BTreeMap<ActivationKey, bool>,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy)]
struct Windows {
    /// When the last window that has bookings begins, which may lie ahead, and how many it has.
    booked: (Ms, u32),
    /// When the last window with starts began, and how many it has.
    started: (Ms, u32),
}

impl Windows {
    fn end(&self, interval: Ms) -> Ms {
        self.booked.0.max(self.started.0) + interval
    }
}

impl KeyRates {
    const fn new(members: u32, interval: Ms) -> Self {
        Self {
            members,
            interval,
            windows: BTreeMap::new(),
            by_end: BTreeSet::new(),
            booked: BTreeMap::new(),
        }
    }

    /// When this member may start: now, and then it counts; or later. What has no key is not held up.
    fn book(&mut self, who: ActivationKey, key: u128, now: Ms) -> Ms {
        let known = self.booked.get(&who).copied();
        if key == 0 || known == Some(true) {
            return now;
        }
        self.forget(now);
        let interval = self.interval;
        let mut of_key = self.windows.get(&key).copied().unwrap_or(Windows {
            booked: (now, 0),
            started: (now, 0),
        });
        self.by_end.remove(&(of_key.end(interval), key));
        let mut due = now;
        if known.is_none() {
            let (start, used) = &mut of_key.booked;
            if *used >= self.members {
                (*start, *used) = ((*start + interval).max(now), 0);
            }
            *used += 1;
            due = (*start).max(now);
        }
        if due <= now {
            let (start, used) = &mut of_key.started;
            if *start + interval <= now {
                (*start, *used) = (now, 0);
            }
            if *used < self.members {
                *used += 1;
            } else {
                due = *start + interval;
            }
        }
        self.booked.insert(who, due <= now);
        self.by_end.insert((of_key.end(interval), key));
        self.windows.insert(key, of_key);
        due
    }

    fn forget(&mut self, now: Ms) {
        while let Some(&(end, past)) = self.by_end.first()
            && (end <= now || self.windows.len() > limits::RATE_KEYS_MAX)
        {
            self.by_end.pop_first();
            self.windows.remove(&past);
        }
    }

    /// It was sent and came back unstarted: it has its time, and does not count as started.
    fn came_back(&mut self, who: ActivationKey, key: u128, sent: Ms) {
        if key == 0 {
            return;
        }
        self.booked.insert(who, false);
        if let Some(of_key) = self.windows.get_mut(&key)
            && sent >= of_key.started.0
        {
            of_key.started.1 = of_key.started.1.saturating_sub(1);
        }
    }
}

impl Machine {
    pub(crate) fn rate_limit(&mut self, run: RunIx, of: Limited, members: u32, interval: Ms) {
        let now = self.now;
        let Some(run) = self.runs.get_mut(&run) else {
            return;
        };
        match of {
            Limited::Key(task) => {
                let rates = run.key_rates.entry(task);
                let rates = rates.or_insert_with(|| KeyRates::new(members, interval));
                (rates.members, rates.interval) = (members, interval);
            }
            of => {
                let rate = run.rates.entry(of);
                let rate = rate.or_insert_with(|| Rate::new(members, interval, now));
                (rate.members, rate.interval) = (members, interval);
            }
        }
    }

    /// Events of a lane become activations: the rate of its source counts them.
    pub(crate) fn count_begun(&mut self, lane: LaneId, count: usize) {
        let run = self.runs.get_mut(&lane.run).expect("lanes have runs");
        let source = run.lanes.get(&lane.lane).map(|lane| lane.cursor.source);
        let rate = source.and_then(|source| run.rates.get_mut(&Limited::Source(source)));
        if let Some(rate) = rate {
            rate.take(count);
        }
    }

    /// What came back unstarted has not used up its rate.
    pub(crate) fn give_back_rates(&mut self, dispatch: &Dispatch, back: &[Slot]) {
        let Some(run) = self.runs.get_mut(&dispatch.run) else {
            return;
        };
        let Some(task) = run.place_of_task(dispatch.version, dispatch.task) else {
            return;
        };
        if let Some(rate) = run.rates.get_mut(&Limited::Task(task)) {
            rate.give_back(dispatch.issued, back.len());
        }
        if let Some(rates) = run.key_rates.get_mut(&task) {
            for (who, key) in back.iter().filter_map(|slot| member_key(&self.waves, slot)) {
                rates.came_back(who, key, dispatch.issued);
            }
        }
    }

    /// Members are on their way: the rates of their task count them.
    pub(crate) fn count_rates(&mut self, dispatch: &Dispatch) {
        let run = self.runs.get_mut(&dispatch.run).expect("served runs exist");
        let Some(task) = run.place_of_task(dispatch.version, dispatch.task) else {
            return;
        };
        if let Some(rate) = run.rates.get_mut(&Limited::Task(task)) {
            rate.take(dispatch.slots.len());
        }
        if let Some(rates) = run.key_rates.get_mut(&task) {
            for slot in &dispatch.slots {
                // The next try needs a time of its own.
                let (who, _) = member_key(&self.waves, slot).expect("a live wave");
                rates.booked.remove(&who);
            }
        }
    }

    /// Ready members whose key has used up its window go on hold until theirs begins; of the others
    /// at least `room` are left, if there are so many.
    pub(crate) fn hold_back_keys(&mut self, ix: RunIx, wave_ix: u32, turn: Turn, room: usize) {
        let now = self.now;
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        let task = run.place_of_task(turn.version, turn.task);
        let Some(rates) = task.and_then(|task| run.key_rates.get_mut(&task)) else {
            return;
        };
        let Some(wave) = self.waves[wave_ix as usize].as_mut() else {
            return;
        };
        let node = wave.plan().place[usize::from(turn.task)].expect("queued by this task");
        if wave.maps.contains_key(&node) {
            // Refused at load, but of an earlier version it may be mapped.
            return;
        }
        let ready: Vec<u32> = bits::ones(wave.row(node, Row::Ready)).collect();
        let mut left = 0;
        for member in ready {
            if left >= room {
                return;
            }
            if wave.is_alone(node, member) {
                // A suspect runs before anything else is known of it (W3).
                left += 1;
                continue;
            }
            let key = wave.member_events(member).first().map_or(0, |e| e.key);
            let due = rates.book(wave.members[member as usize].key, key, now);
            if due <= now {
                left += 1;
                continue;
            }
            wave.take(node, Row::Ready, member);
            wave.trial(node, member).due = Some(due);
            wave.hold(node, member);
            self.timers.insert((due, Timer::Wave(wave_ix, wave.id)));
            // One that waits for long leaves its wave (W2).
            self.revisit.push((wave_ix, wave.id, member));
        }
    }
}

fn member_key(waves: &[Option<Wave>], slot: &Slot) -> Option<(ActivationKey, u128)> {
    let wave = waves[slot.wave as usize].as_ref()?;
    let member = wave.member_of(slot.node, slot.at);
    let key = wave
        .member_events(member)
        .first()
        .map_or(0, |event| event.key);
    Some((wave.members[member as usize].key, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(position: u64) -> ActivationKey {
        ActivationKey {
            lane: LaneId { run: 1, lane: 1 },
            position,
            child: 0,
        }
    }

    #[test]
    fn members_of_a_key_get_their_times_in_order_and_others_are_not_held_up() {
        let mut rates = KeyRates::new(2, 100);
        let times: Vec<Ms> = (0..5).map(|n| rates.book(who(n), 7, 1_000)).collect();
        assert_eq!(times, [1_000, 1_000, 1_100, 1_100, 1_200]);
        assert_eq!(rates.book(who(9), 8, 1_000), 1_000, "another key");
        assert_eq!(rates.book(who(10), 0, 1_000), 1_000, "no key");
        assert_eq!(rates.book(who(2), 7, 1_100), 1_100, "its time has come");
        rates.booked.remove(&who(2));
        assert_eq!(
            rates.book(who(2), 7, 1_100),
            1_200,
            "the next try, second in its window"
        );
    }

    #[test]
    fn those_who_come_late_together_start_window_by_window() {
        let mut rates = KeyRates::new(1, 100);
        let times: Vec<Ms> = (0..4).map(|n| rates.book(who(n), 7, 1_000)).collect();
        assert_eq!(times, [1_000, 1_100, 1_200, 1_300]);
        // No worker was free until now.
        let late: Vec<Ms> = (1..4).map(|n| rates.book(who(n), 7, 1_350)).collect();
        assert_eq!(late, [1_350, 1_450, 1_450]);
        rates.came_back(who(1), 7, 1_350);
        assert_eq!(
            rates.book(who(2), 7, 1_360),
            1_360,
            "one came back unstarted"
        );
    }

    #[test]
    fn keys_are_forgotten_with_their_windows_and_never_too_many_are_known() {
        let mut rates = KeyRates::new(1, 100);
        for n in 0..limits::RATE_KEYS_MAX as u64 + 10 {
            rates.book(who(n), u128::from(n) + 1, 1_000);
        }
        assert!(rates.windows.len() <= limits::RATE_KEYS_MAX + 1);
        assert_eq!(rates.by_end.len(), rates.windows.len());
        rates.book(who(u64::MAX), 1, 1_100);
        assert_eq!(rates.windows.len(), 1);
    }

    #[test]
    fn what_goes_beyond_a_window_is_taken_off_the_next_ones() {
        let mut rate = Rate::new(10, 100, 1_000);
        assert_eq!(rate.room(1_000), 10);
        rate.take(25);
        assert_eq!((rate.room(1_050), rate.opens()), (0, 1_100));
        assert_eq!(rate.room(1_100), 0);
        assert_eq!(rate.room(1_200), 5);
        rate.take(5);
        rate.give_back(1_200, 2);
        assert_eq!(rate.room(1_250), 2);
        assert_eq!(rate.room(1_300), 10);
    }
}
