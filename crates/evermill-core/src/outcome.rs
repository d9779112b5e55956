//! Outcomes: what workers report, accepted once and only under the current fence (C5).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::activation::{Entry, Held, OutcomeMember, OutcomeRow, Snapshot, Standing};
use smallvec::SmallVec;

use crate::bits::{self, Mask};
use crate::command::{
    ActivationKey, Decision, DispatchId, Event, Fence, Ms, News, Outcome, OutcomeRun, StateOp,
    Success,
};
use crate::dag::{OnInterrupt, TaskKind};
use crate::dispatch::{Dispatch, Slot};
use crate::flow::home;
use crate::limits;
use crate::machine::{Machine, Timer, put};
use crate::row::{Key, Table, Write};
use crate::run::Run;
use crate::wave::{Asked, Member, Row, Wave};

/// What one report changed at one node of one wave.
struct Touched {
    wave: u32,
    id: u64,
    node: u16,
    mask: Mask,
    /// Something below may be judged now.
    ended: bool,
}

/// In the order of the report's members, neighbours at one place together; `follow` sorts.
#[derive(Default)]
struct Changes(SmallVec<[Touched; 1]>);

impl Changes {
    fn at(&mut self, ix: u32, node: u16, wave: &Wave) -> &mut Touched {
        let place = self.0.len().checked_sub(1).filter(|&last| {
            let last = &self.0[last];
            (last.wave, last.node) == (ix, node)
        });
        let place = place.unwrap_or_else(|| {
            self.0.push(Touched {
                wave: ix,
                id: wave.id,
                node,
                mask: bits::none(wave.words),
                ended: false,
            });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    fn touch(&mut self, slot: Slot, wave: &Wave, ended: bool) {
        let touched = self.at(slot.wave, slot.node, wave);
        bits::set(&mut touched.mask, wave.member_of(slot.node, slot.at));
        touched.ended |= ended;
    }

    /// Every place once, by wave and node.
    fn in_order(mut self) -> SmallVec<[Touched; 1]> {
        if self.0.len() == 1 {
            return self.0;
        }
        self.0.sort_by_key(|touched| (touched.wave, touched.node));
        self.0.dedup_by(|next, kept| {
            let same = (next.wave, next.node) == (kept.wave, kept.node);
            if same {
                bits::add(&mut kept.mask, &next.mask);
                kept.ended |= next.ended;
            }
            same
        });
        self.0
    }
}

impl Machine {
    pub(crate) fn outcomes(
        &mut self,
        id: DispatchId,
        fence: Fence,
        runs: Vec<OutcomeRun>,
        out: &mut Decision,
    ) {
        let members: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        if fence != self.fence {
            self.refused += members;
            return;
        }
        let mut changes = Changes::default();
        for run in runs {
            let Some(dispatch) = self.dispatches.get_mut(id) else {
                self.refused += members;
                return;
            };
            let last = run
                .first
                .saturating_add(run.count)
                .min(dispatch.slots.len() as u32);
            self.refused += u64::from(run.first.saturating_add(run.count) - last);
            if run.outcome == Outcome::Success
                && run.first < last
                && bits::all(&dispatch.outstanding, run.first, last)
            {
                bits::clear_all(&mut dispatch.outstanding, run.first, last);
                let slots = &dispatch.slots[run.first as usize..last as usize];
                accept_plainly(&mut self.waves, slots, self.now, &mut changes);
                continue;
            }
            for index in run.first..last {
                match self.take_outstanding(id, index) {
                    Some(slot) => self.accept(slot, &run.outcome, &mut changes, out),
                    None => self.refused += 1,
                }
            }
        }
        self.return_ended_slots(id);
        self.follow(changes, out);
    }

    /// A member of a dispatch that was not reported until now.
    fn take_outstanding(&mut self, id: DispatchId, index: u32) -> Option<Slot> {
        let dispatch = self.dispatches.get_mut(id)?;
        let outstanding = bits::get(&dispatch.outstanding, index);
        bits::clear(&mut dispatch.outstanding, index);
        outstanding.then(|| dispatch.slots[index as usize])
    }

    /// Takes one member's outcome over into its wave.
    fn accept(&mut self, slot: Slot, outcome: &Outcome, changes: &mut Changes, out: &mut Decision) {
        let ended = match outcome {
            Outcome::Success => {
                self.wave_mut(slot.wave).succeed_plainly(slot.node, slot.at);
                true
            }
            Outcome::SuccessWith(success) => self.succeed(slot, success, out),
            Outcome::Skipped => {
                let wave = self.wave_mut(slot.wave);
                wave.trial(slot.node, slot.at).skipped_itself = true;
                wave.finish(slot.node, slot.at, Row::Skipped);
                true
            }
            Outcome::Waiting { until } => self.ask_again(slot, *until),
            Outcome::Failed {
                retryable,
                after_ms,
                error,
            } => {
                let again = retryable.then_some(*after_ms);
                self.fail_try(slot, again, error)
            }
        };
        if ended {
            let now = self.now;
            self.wave_mut(slot.wave).note_ended(slot.node, slot.at, now);
        }
        changes.touch(slot, self.wave(slot.wave), ended);
    }

    fn succeed(&mut self, slot: Slot, success: &Success, out: &mut Decision) -> bool {
        if !success.failed_items.is_empty() && !self.split(slot, success, out) {
            return self.fail_try(
                slot,
                Some(0),
                &Bytes::from_static(b"every item of the batch failed"),
            );
        }
        if !self.write_state(slot, &success.state, out) {
            let error = format!(
                "ctx.state would hold more than {} bytes in this scope",
                limits::STATE_BYTES_PER_SCOPE_MAX
            );
            return self.fail_try(slot, None, &Bytes::from(error));
        }
        self.say(slot, &success.says, out);
        let wave = self.wave_mut(slot.wave);
        let member = wave.member_of(slot.node, slot.at);
        let kind = wave
            .task(slot.node)
            .expect("slots are of tasks")
            .kind
            .clone();
        match kind {
            TaskKind::Branch => {
                let chosen = success.chosen.as_deref().unwrap_or_default();
                wave.force_unchosen(slot.node, member, chosen);
            }
            TaskKind::ShortCircuit { all_downstream } if success.proceed == Some(false) => {
                wave.force_below(slot.node, member, all_downstream);
            }
            _ => {}
        }
        if let Some(length) = success.map_length {
            wave.map_lengths.insert((slot.node, member), length);
        }
        if let Some(result) = &success.result {
            wave.keep(slot.node, slot.at, result.clone());
        }
        if wave.is_until(slot.node) && success.proceed == Some(true) {
            wave.until_reached = true;
        }
        wave.finish(slot.node, slot.at, Row::Success);
        true
    }

    /// What an attempt has to say is told with its success.
    fn say(&self, slot: Slot, said: &[Bytes], out: &mut Decision) {
        if said.is_empty() {
            return;
        }
        let wave = self.wave(slot.wave);
        let member = wave.member_of(slot.node, slot.at);
        if !self.tells(wave.members[member as usize].key.lane) {
            return;
        }
        let space = wave.maps.get(&slot.node);
        out.news.push(News::Said {
            activation: wave.members[member as usize].key,
            task: wave.task(slot.node).expect("slots are of tasks").id.clone(),
            map_index: space.map_or(-1, |space| space.locate(slot.at).1.cast_signed()),
            said: said.to_vec(),
        });
    }

    /// W5: state commits with the outcome of the attempt that changed it; replays only read, unless
    /// asked otherwise (W18).
    /// `false` if the scope would grow beyond its bound: nothing is changed then.
    fn write_state(&mut self, slot: Slot, ops: &[StateOp], out: &mut Decision) -> bool {
        if ops.is_empty() {
            return true;
        }
        let wave = self.waves[slot.wave as usize]
            .as_ref()
            .expect("slots are of live waves");
        let member = &wave.members[wave.member_of(slot.node, slot.at) as usize];
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        let lane = &run.lanes[&member.key.lane.lane];
        let replay = lane.cursor.replay;
        if replay.is_some_and(|replay| !replay.writes_state) {
            return true;
        }
        let lane = lane.state_lane();
        let key = wave.events[member.first_event as usize].key;
        let task = wave.task_index(slot.node).expect("slots are of tasks");
        let scope = Run::state_scope(&wave.dag, task, lane, key);
        let mut state = run.state.get(&scope).cloned().unwrap_or_default();
        let names: BTreeSet<Bytes> = ops
            .iter()
            .map(|op| crate::state::apply(&mut state, op))
            .collect();
        if crate::state::size(&state) > limits::STATE_BYTES_PER_SCOPE_MAX {
            return false;
        }
        for name in names {
            out.writes.push(match state.get(&name) {
                Some(value) => crate::state::write(run.ix, &scope, &name, value),
                None => {
                    let key = crate::state::row_key(run.ix, &scope, &name);
                    Write::Delete(Table::State, key)
                }
            });
        }
        run.state.insert(scope, state);
        true
    }

    /// A failed try: held for the next one, or final. `again` says how long that one waits at least, if
    /// one makes sense, milliseconds. `true` if it ended.
    fn fail_try(&mut self, slot: Slot, again: Option<u64>, error: &Bytes) -> bool {
        let now = self.now;
        let wave = self.wave_mut(slot.wave);
        let task = wave.task(slot.node).expect("slots are of tasks");
        let (retries, backoff) = (task.retries, task.backoff);
        let trial = wave.trial(slot.node, slot.at);
        trial.failures += 1;
        trial.alone = false;
        trial.error = Some(error.slice(..error.len().min(limits::ERROR_BYTES_MAX)));
        if let Some(after_ms) = again.filter(|_| trial.failures <= retries) {
            let asked = after_ms.min(limits::BACKOFF_MS_MAX);
            let due = now + backoff.after(trial.failures).max(asked);
            trial.due = Some(due);
            wave.hold(slot.node, slot.at);
            let id = wave.id;
            self.timers.insert((due, Timer::Wave(slot.wave, id)));
            return false;
        }
        wave.finish(slot.node, slot.at, Row::Failed);
        true
    }

    /// A sensor said *not yet*: held until it is asked again, at the latest when its time is over; then
    /// it has failed, or is skipped. `true` if it ended.
    fn ask_again(&mut self, slot: Slot, until: Option<Ms>) -> bool {
        let now = self.now;
        let wave = self.wave_mut(slot.wave);
        let Some(poke) = wave.task(slot.node).expect("slots are of tasks").poke else {
            let error = Bytes::from_static(b"it said 'not yet', which only a sensor may say");
            return self.fail_try(slot, None, &error);
        };
        let trial = wave.trial(slot.node, slot.at);
        let asked = trial.asked.get_or_insert(Asked {
            since: now,
            times: 0,
        });
        asked.times += 1;
        let end = poke.timeout_ms.map(|ms| asked.since.saturating_add(ms));
        if end.is_some_and(|end| end <= now) && poke.skips {
            trial.skipped_itself = true;
            wave.finish(slot.node, slot.at, Row::Skipped);
            return true;
        }
        if let Some(ms) = poke
            .timeout_ms
            .filter(|_| end.is_some_and(|end| end <= now))
        {
            let error = format!("it was not there within {} s", ms as f64 / 1_000.0);
            return self.fail_try(slot, None, &Bytes::from(error));
        }
        let due = until.unwrap_or_else(|| now + poke.wait.after(asked.times));
        // Never at once: a sensor that says so without an end must not spin.
        let due = due.min(end.unwrap_or(Ms::MAX)).max(now + 1);
        trial.due = Some(due);
        trial.alone = false;
        wave.hold(slot.node, slot.at);
        let id = wave.id;
        self.timers.insert((due, Timer::Wave(slot.wave, id)));
        false
    }

    /// What follows from a report: verdicts, settling, and rows for those that go on.
    fn follow(&mut self, changes: Changes, out: &mut Decision) {
        let changes = changes.in_order();
        let live = |machine: &Self, touched: &Touched| {
            let wave = machine.waves[touched.wave as usize].as_ref();
            wave.is_some_and(|wave| wave.id == touched.id)
        };
        for touched in changes.iter() {
            if !live(self, touched) {
                continue;
            }
            let wave = self.wave(touched.wave);
            let dirty = if touched.ended {
                wave.dirty_below(touched.node)
            } else {
                bits::none(bits::words(wave.plan().steps.len()))
            };
            self.progress(touched.wave, &touched.mask, dirty, out);
        }
        for touched in changes {
            if live(self, &touched) {
                self.record(touched.wave, touched.node, &touched.mask, out);
            }
        }
    }

    /// S1: one row about the members of this report that have not settled.
    pub(crate) fn record(&mut self, ix: u32, node: u16, mask: &[u64], out: &mut Decision) {
        let wave = self.wave_mut(ix);
        let mask = bits::without(mask, &wave.left);
        if wave.is_uniform(node) {
            return wave.write_uniform_row(node, &mask, out);
        }
        let mut members = Vec::new();
        for member in bits::ones(&mask) {
            let mut entries = Vec::new();
            wave.standings(node, member, &mut entries);
            members.push(wave.members[member as usize].outcome(entries));
        }
        wave.write_row(members, out);
    }

    /// C4: attempts that may run only once are on record as started before they are sent, and
    /// taken off the record if they come back unstarted.
    pub(crate) fn record_starts(&mut self, dispatch: &Dispatch, out: &mut Decision) {
        let slots: Vec<Slot> = dispatch.slots.clone();
        self.record_standing(dispatch.task, &slots, out, |failures| Standing::Started {
            failures,
        });
    }

    fn record_standing(
        &mut self,
        task: u16,
        slots: &[Slot],
        out: &mut Decision,
        standing: impl Fn(u32) -> Standing,
    ) {
        let mut waves: BTreeMap<u32, Vec<OutcomeMember>> = BTreeMap::new();
        for slot in slots {
            let wave = self.wave(slot.wave);
            let m = &wave.members[wave.member_of(slot.node, slot.at) as usize];
            let instance = wave
                .maps
                .get(&slot.node)
                .map_or(0, |space| space.locate(slot.at).1);
            let failures = wave
                .trials
                .get(&(slot.node, slot.at))
                .map_or(0, |t| t.failures);
            let entry = Entry {
                task,
                instance,
                standing: standing(failures),
            };
            waves
                .entry(slot.wave)
                .or_default()
                .push(m.outcome(vec![entry]));
        }
        for (ix, members) in waves {
            self.wave_mut(ix).write_row(members, out);
        }
    }

    pub(crate) fn finished(&mut self, id: DispatchId, fence: Fence, out: &mut Decision) {
        if fence != self.fence {
            return;
        }
        if let Some(dispatch) = self.end_dispatch(id) {
            self.give_back(&dispatch, &[], out);
        }
    }

    /// The worker is busy with a member for long, and gives back those behind it (W3).
    pub(crate) fn returned(&mut self, id: DispatchId, fence: Fence, from: u32, out: &mut Decision) {
        if fence != self.fence {
            return;
        }
        let Some(dispatch) = self.dispatches.get_mut(id) else {
            return;
        };
        let rest = dispatch.split_off(from);
        self.return_ended_slots(id);
        self.give_back(&rest, &[], out);
    }

    /// A worker died under its dispatch: the member that was running is a suspect (W3).
    pub(crate) fn died(
        &mut self,
        id: DispatchId,
        fence: Fence,
        started: Option<u32>,
        error: &Bytes,
        out: &mut Decision,
    ) {
        if fence != self.fence {
            return;
        }
        let Some(dispatch) = self.end_dispatch(id) else {
            return;
        };
        let suspect = started.filter(|&index| {
            (index as usize) < dispatch.slots.len() && bits::get(&dispatch.outstanding, index)
        });
        let spec = &dispatch.dag.spec.tasks[usize::from(dispatch.task)];
        let only_once = spec.on_interrupt == OnInterrupt::Fail;
        // Workers start members in order: those before the running one ran, and are not reported.
        let ran = |index: &u32| suspect.is_some_and(|suspect| *index < suspect);
        let lost: Vec<u32> = match only_once {
            true => bits::ones(&dispatch.outstanding)
                .filter(ran)
                .chain(suspect)
                .collect(),
            false => suspect.into_iter().collect(),
        };
        self.give_back(&dispatch, &lost, out);
        let mut changes = Changes::default();
        for index in lost {
            let slot = dispatch.slots[index as usize];
            let trial = self.wave_mut(slot.wave).trial(slot.node, slot.at);
            trial.interruptions += 1;
            let ended = if only_once {
                self.fail_try(slot, None, &Bytes::from_static(b"interrupted"))
            } else if dispatch.slots.len() == 1 {
                self.fail_try(slot, Some(0), error)
            } else {
                trial.alone = true;
                self.make_runnable(slot);
                false
            };
            changes.touch(slot, self.wave(slot.wave), ended);
        }
        self.follow(changes, out);
    }

    fn end_dispatch(&mut self, id: DispatchId) -> Option<Dispatch> {
        let dispatch = self.dispatches.remove(id)?;
        self.used -= 1;
        if let Some(pool) = dispatch.pool().and_then(|pool| self.pools.get_mut(&pool)) {
            pool.used -= dispatch.taken;
        }
        let run = self
            .runs
            .get_mut(&dispatch.run)
            .expect("dispatches have runs");
        let load = run.loads.get_mut(&(dispatch.version, dispatch.task));
        load.expect("dispatches are counted").out -= 1;
        Some(dispatch)
    }

    /// Unreported members go back uncounted, except these.
    fn give_back(&mut self, dispatch: &Dispatch, lost: &[u32], out: &mut Decision) {
        let back: Vec<Slot> = bits::ones(&dispatch.outstanding)
            .filter(|index| !lost.contains(index))
            .map(|index| dispatch.slots[index as usize])
            .collect();
        let spec = &dispatch.dag.spec.tasks[usize::from(dispatch.task)];
        if spec.on_interrupt == OnInterrupt::Fail {
            self.record_standing(dispatch.task, &back, out, |_| Standing::Returned);
        }
        self.give_back_rates(dispatch, &back);
        for slot in back {
            self.make_runnable(slot);
        }
    }

    /// Running -> ready, or waiting for its turn.
    fn make_runnable(&mut self, slot: Slot) {
        let wave = self.wave_mut(slot.wave);
        let ordered = wave.dag.spec.order != crate::dag::Order::None;
        wave.give_back(slot, ordered);
        self.enqueue(slot.wave, slot.node);
        let member = self.wave(slot.wave).member_of(slot.node, slot.at);
        self.try_start(slot.wave, slot.node, member);
    }

    /// W8: failed items of a source batch become a child activation, which has failed this try.
    /// `false` if every item failed: that is a failed try of the whole.
    fn split(&mut self, slot: Slot, success: &Success, out: &mut Decision) -> bool {
        let wave = self.wave(slot.wave);
        let task = wave.task_index(slot.node).expect("slots are of tasks");
        let member = wave.member_of(slot.node, slot.at);
        let m = wave.members[member as usize].clone();
        let fails = |index: usize| success.failed_items.contains(&(index as u32));
        let (mut failed, mut good): (Vec<Event>, Vec<Event>) = (Vec::new(), Vec::new());
        for (index, event) in wave.member_events(member).iter().enumerate() {
            if fails(index) { &mut failed } else { &mut good }.push(event.clone());
        }
        if good.is_empty() {
            return false;
        }
        let mut child = self.snapshot(slot.wave, member);
        child.events = failed;
        child.entries.retain(|entry| entry.task != task);
        let spec = &wave.dag.spec.tasks[usize::from(task)];
        let error = Bytes::from_static(b"item failed");
        let standing = if spec.retries > 0 {
            let due = Some(self.now + spec.backoff.after(1));
            Standing::Hold {
                failures: 1,
                due,
                error: Some(error),
            }
        } else {
            Standing::Failed { failures: 1, error }
        };
        child.entries.push(Entry {
            task,
            instance: 0,
            standing,
        });
        child.key = ActivationKey {
            position: child.events[0].position,
            child: (((m.key.child >> 16) + 1) << 16) | (u32::from(task) + 1),
            ..m.key
        };
        child.last = child.events[child.events.len() - 1].position;
        child.ordered = false;
        self.shrink(slot.wave, member, good);
        let key = child.key;
        self.materialise(child, Held::Waiting, None, out);
        self.release_if_due(key);
        true
    }

    /// The parent of a split goes on with the rest.
    fn shrink(&mut self, ix: u32, member: u32, good: Vec<Event>) {
        let wave = self.wave_mut(ix);
        let old: Vec<Event> = wave.member_events(member).to_vec();
        let (lane, run) = (wave.lane, wave.run);
        let gone = old.len() - good.len();
        wave.shrunk += gone as u32;
        let bytes = |events: &[Event]| events.iter().map(|e| e.body.len()).sum::<usize>();
        let gone_bytes = bytes(&old) - bytes(&good);
        let m = &mut wave.members[member as usize];
        m.first_event = wave.events.len() as u32;
        m.events = good.len() as u32;
        wave.events.extend(good);
        if let Some(id) = lane
            && let Some(lane) = self.runs.get_mut(&run).and_then(|run| run.lane(id))
        {
            lane.events -= gone;
            lane.bytes -= gone_bytes;
        }
    }

    pub(crate) fn release_if_due(&mut self, key: ActivationKey) {
        let now = self.now;
        let held = &self.runs[&key.lane.run].materialised[&key];
        let Some(body) = held.body().cloned() else {
            return self.owe(key);
        };
        let due = Snapshot::decode(key, body).ok().and_then(|(s, _)| s.due());
        if due.is_none_or(|due: Ms| due <= now) {
            self.release(key);
        }
    }
}

/// Takes plain successes over, those of one wave at a time.
fn accept_plainly(waves: &mut [Option<Wave>], slots: &[Slot], now: Ms, changes: &mut Changes) {
    for group in slots.chunk_by(|a, b| (a.wave, a.node) == (b.wave, b.node)) {
        let (ix, node) = (group[0].wave, group[0].node);
        let wave = waves[ix as usize]
            .as_mut()
            .expect("slots are of live waves");
        if !wave.times.is_empty() {
            for slot in group {
                wave.note_ended(node, slot.at, now);
            }
        }
        let special = wave.maps.contains_key(&node)
            || matches!(
                wave.task(node).map(|task| &task.kind),
                Some(TaskKind::Branch)
            );
        if special {
            for &slot in group {
                wave.succeed_plainly(node, slot.at);
                changes.touch(slot, wave, true);
            }
            continue;
        }
        let mut mask = bits::none(wave.words);
        let row: &mut [u64] = &mut mask;
        for slot in group {
            bits::set(row, slot.at);
        }
        wave.end(node, Row::Success, &mask);
        let touched = changes.at(ix, node, wave);
        bits::add(&mut touched.mask, &mask);
        touched.ended = true;
    }
}

impl Member {
    /// What an outcome row says of it.
    pub(crate) fn outcome(&self, entries: Vec<Entry>) -> OutcomeMember {
        OutcomeMember {
            lane: self.key.lane.lane,
            position: self.key.position,
            child: self.key.child,
            round: self.round,
            late: self.late,
            entries,
        }
    }
}

impl Wave {
    /// A success with nothing to say: a branch then chose nothing.
    fn succeed_plainly(&mut self, node: u16, at: u32) {
        if matches!(
            self.task(node).map(|task| &task.kind),
            Some(TaskKind::Branch)
        ) {
            let member = self.member_of(node, at);
            self.force_unchosen(node, member, &[]);
        }
        self.finish(node, at, Row::Success);
    }

    /// Ends a member, or an instance of a mapped node.
    pub(crate) fn finish(&mut self, node: u16, at: u32, state: Row) {
        if self.maps.contains_key(&node) {
            self.end_instance(node, at, state);
        } else {
            self.end_word(node, state, at as usize / 64, 1 << (at % 64));
        }
    }

    fn give_back(&mut self, slot: Slot, ordered: bool) {
        if let Some(space) = self.maps.get_mut(&slot.node) {
            bits::clear(&mut space.run, slot.at);
        } else {
            self.take(slot.node, Row::Run, slot.at);
        }
        self.make_runnable(slot.node, slot.at, ordered);
    }

    fn is_until(&self, node: u16) -> bool {
        self.task_index(node).is_some_and(|task| {
            let untils = self
                .dag
                .spec
                .sources
                .iter()
                .filter_map(|s| s.looped.as_ref()?.until);
            untils.into_iter().any(|until| until == task)
        })
    }

    pub(crate) fn write_row(&mut self, members: Vec<OutcomeMember>, out: &mut Decision) {
        if members.is_empty() {
            return;
        }
        let lane = home(self);
        let key = Key::numbered(self.run, lane.lane, &[self.id, self.rows_written]);
        self.rows_written += 1;
        let row = OutcomeRow {
            version: self.version,
            members,
        };
        put(out, Table::Outcome, key, row.encode());
    }

    /// Whether all that can be said of a node's ended members is that they succeeded, and nothing
    /// else tells the members apart but their positions.
    fn is_uniform(&self, node: u16) -> bool {
        self.lane.is_some()
            && self.trials.is_empty()
            && self.choices.is_empty()
            && self.map_lengths.is_empty()
            && !self.results.contains_key(&node)
            && !self.maps.contains_key(&node)
            && self.dag.deadlines.is_empty()
    }

    fn write_uniform_row(&mut self, node: u16, mask: &[u64], out: &mut Decision) {
        let success = self.row(node, Row::Success);
        let ended = bits::both(mask, success);
        let Some(first) = bits::ones(&ended).next() else {
            return;
        };
        let standing = Standing::Success {
            failures: 0,
            result: None,
            map_length: None,
            forced: Vec::new(),
        };
        let task = self.task_index(node).expect("only tasks end");
        let like = self.members[first as usize].outcome(vec![Entry {
            task,
            instance: 0,
            standing,
        }]);
        let positions = bits::ones(&ended).map(|m| self.members[m as usize].key.position);
        let body = OutcomeRow::encode_uniform(self.version, &like, positions);
        let key = Key::numbered(self.run, home(self).lane, &[self.id, self.rows_written]);
        self.rows_written += 1;
        put(out, Table::Outcome, key, body);
    }
}
