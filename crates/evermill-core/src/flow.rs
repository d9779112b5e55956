//! Flow: after something ended in a wave, give verdicts, pass turns on, settle, shed, retire.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::activation::{self, Held, ParkReason};
use crate::bits::{self, Mask};
use crate::command::{Decision, LaneId, Ms, News};
use crate::dag::{OnFailure, Order, TaskKind};
use crate::history::Ended;
use crate::lane::Lane;
use crate::limits;
use crate::machine::{Machine, Timer};
use crate::row::{HistoryRow, Key, Table, Write};
use crate::scope::{Place, ScopeKey};
use crate::wave::{Nodes, Row, Trial, Wave};

/// How the members of one sweep settled.
#[derive(Debug, Default, Clone, Copy)]
struct Settled {
    done: u64,
    skipped: u64,
    parked: u64,
    dropped: u64,
}

impl Machine {
    /// Gives verdicts below the dirty nodes and queues what became runnable.
    pub(crate) fn sweep(&mut self, ix: u32, mask: &[u64], mut dirty: Mask) {
        let now = self.now;
        let mut runnable = Nodes::new();
        let wave = self.wave_mut(ix);
        let ordered = wave.dag.spec.order != Order::None;
        wave.sweep(mask, &mut dirty, now, ordered, &mut runnable);
        for node in runnable {
            let wave = self.wave(ix);
            if let Some(TaskKind::Delay { ms }) = wave.task(node).map(|task| &task.kind) {
                self.timers.insert((now + ms, Timer::Wave(ix, wave.id)));
            } else {
                self.enqueue(ix, node);
            }
        }
    }

    /// Everything that follows from a change to the masked members of a wave.
    pub(crate) fn progress(&mut self, ix: u32, mask: &[u64], dirty: Mask, out: &mut Decision) {
        self.sweep(ix, mask, dirty);
        loop {
            if self.wave(ix).dag.spec.order != Order::None {
                self.pass_turns(ix, mask);
            }
            self.settle(ix, mask, out);
            if self.wave(ix).signal_waits.is_empty() {
                break;
            }
            // One that was there already may begin the next wait.
            self.await_signals(ix, out);
        }
        self.shed(ix, mask, out);
        self.retire(ix, out);
    }

    /// W4: members that are done somewhere let the next of their scope start there.
    fn pass_turns(&mut self, ix: u32, mask: &[u64]) {
        let members: Vec<u32> = bits::ones(mask).collect();
        for member in members {
            let wave = self.wave(ix);
            let nodes = wave.plan().sources as u16..wave.plan().steps.len() as u16;
            if let Some((scope, seq)) = wave.scope(member) {
                for node in nodes.clone() {
                    let wave = self.wave(ix);
                    let news = wave.is(node, Row::Done, member)
                        && !wave.is(node, Row::Noted, member)
                        && !wave.withholds(node, member);
                    if news {
                        self.wave_mut(ix).put(node, Row::Noted, member);
                        self.note_done(ix, node, scope, seq);
                    }
                }
            }
            for node in nodes {
                self.try_start(ix, node, member);
            }
        }
    }

    fn note_done(&mut self, ix: u32, node: u16, scope: ScopeKey, seq: u64) {
        let wave = self.wave(ix);
        let (run, version) = (wave.run, wave.version);
        let Some(task) = wave.task_index(node) else {
            return;
        };
        let run = self.runs.get_mut(&run).expect("waves have runs");
        let Some(queue) = run.scopes.get_mut(&scope) else {
            return;
        };
        if let Some(next) = queue.done_at(seq, version, task) {
            let place = queue.place(next);
            self.give_turn(place, version, Some(task));
        }
    }

    /// It may be this activation's turn: at one task, or at any.
    fn give_turn(&mut self, place: Option<Place>, version: u16, task: Option<u16>) {
        match place {
            Some(Place::Wave(ix, member)) => {
                let wave = self.wave(ix);
                let nodes: Vec<u16> = match task {
                    Some(task) if wave.version == version => {
                        wave.plan().place[usize::from(task)].into_iter().collect()
                    }
                    _ => (wave.plan().sources as u16..wave.plan().steps.len() as u16).collect(),
                };
                for node in nodes {
                    self.try_start(ix, node, member);
                }
            }
            Some(Place::Held(key)) => {
                let run = &self.runs[&key.lane.run];
                // Waiting in one branch, it may have its turn in another.
                if run
                    .materialised
                    .get(&key)
                    .is_some_and(|m| !matches!(m.held, Held::Parked(_)))
                {
                    self.releases.push(key);
                }
            }
            Some(Place::Gone) | None => {}
        }
    }

    /// Makes a waiting member ready if it is its turn.
    pub(crate) fn try_start(&mut self, ix: u32, node: u16, member: u32) {
        let wave = self.wave(ix);
        if !wave.is(node, Row::Waits, member) || bits::get(&wave.left, member) {
            return;
        }
        let task = wave.task_index(node).expect("only tasks wait");
        if let Some((scope, seq)) = wave.scope(member) {
            let serial = wave.dag.spec.order == Order::Serial;
            let queue = &self.runs[&wave.run].scopes[&scope];
            if !queue.may_start(seq, wave.version, task, serial) {
                return;
            }
        }
        let mapped = wave.task(node).is_some_and(|task| task.mapped.is_some());
        let wave = self.wave_mut(ix);
        wave.take(node, Row::Waits, member);
        if mapped {
            wave.expand_member(node, member);
        } else {
            wave.put(node, Row::Ready, member);
        }
        self.enqueue(ix, node);
    }

    /// Ends activations whose every task is final.
    fn settle(&mut self, ix: u32, mask: &[u64], out: &mut Decision) {
        let settled = self.wave(ix).settled(mask);
        if bits::is_empty(&settled) {
            return;
        }
        let (failed, skipped) = self.wave(ix).verdicts(&settled);
        if bits::is_empty(&failed) && self.wave(ix).is_plain() {
            return self.settle_plainly(ix, &settled, &skipped, out);
        }
        let mut dropped = bits::none(failed.len());
        for member in bits::ones(&failed) {
            if self.wave(ix).failure_policy(member) == OnFailure::Drop {
                bits::set(&mut dropped, member);
            }
        }
        let ended = |member| {
            if bits::get(&dropped, member) {
                Ended::Dropped
            } else if bits::get(&failed, member) {
                Ended::Parked
            } else if bits::get(&skipped, member) {
                Ended::Skipped
            } else {
                Ended::Done
            }
        };
        let body = self.remember(ix, &settled, false, ended);
        self.announce(ix, &settled, ended, out);
        let mut sum = Settled::default();
        let (mut first, mut last) = (u64::MAX, 0);
        let members: Vec<u32> = bits::ones(&settled).collect();
        for member in members {
            let wave = self.wave(ix);
            let m = &wave.members[member as usize];
            (first, last) = (first.min(m.key.position), last.max(m.last));
            let weight = u64::from(m.events) + wave.bound(member).len() as u64;
            match ended(member) {
                Ended::Done => sum.done += weight,
                Ended::Skipped => sum.skipped += weight,
                Ended::Dropped => sum.dropped += weight,
                Ended::Parked => {
                    self.keep_failed(ix, member, out);
                    sum.parked += weight;
                }
            }
            self.leave(ix, member, bits::get(&failed, member), out);
        }
        self.account(ix, &settled, sum, (first, last), body, out);
    }

    /// `settle` where nothing failed and nothing is ordered: counting is all there is to do.
    fn settle_plainly(&mut self, ix: u32, settled: &[u64], skipped: &[u64], out: &mut Decision) {
        let wave = self.wave(ix);
        let weight = |row: &[u64]| -> u64 {
            if wave.events.len() == wave.members.len() {
                return u64::from(bits::count(row));
            }
            bits::ones(row)
                .map(|m| u64::from(wave.members[m as usize].events))
                .sum()
        };
        let skipped_row = skipped;
        let skipped = weight(skipped_row);
        let done = weight(settled) - skipped;
        let sum = Settled {
            done,
            skipped,
            ..Settled::default()
        };
        // Members of a wave that was read from a lane lie in read order.
        let first = bits::ones(settled).next().expect("someone settled");
        let last = bits::last(settled).expect("someone settled");
        let span = (
            wave.members[first as usize].key.position,
            wave.members[last as usize].last,
        );
        let ended = |member| {
            if bits::get(skipped_row, member) {
                Ended::Skipped
            } else {
                Ended::Done
            }
        };
        let body = self.remember(ix, settled, true, ended);
        self.announce(ix, settled, ended, out);
        self.account(ix, settled, sum, span, body, out);
    }

    /// Tells how these members ended, if anybody listens to their DAG.
    fn announce(&self, ix: u32, settled: &[u64], ended: impl Fn(u32) -> Ended, out: &mut Decision) {
        let wave = self.wave(ix);
        if !self.announces(&wave.dag.spec.id) {
            return;
        }
        let told = bits::ones(settled).filter(|member| {
            let m = &wave.members[*member as usize];
            self.tells(m.key.lane)
        });
        out.news.extend(told.map(|member| {
            let m = &wave.members[member as usize];
            News::Ended {
                activation: m.key,
                round: m.round,
                ended: ended(member),
                event: wave.events[m.first_event as usize].clone(),
                events: u64::from(m.events) + wave.bound(member).len() as u64,
            }
        }));
    }

    /// Whether somebody listens to a DAG.
    pub(crate) fn announces(&self, dag: &str) -> bool {
        let announced = self.announced.as_ref();
        announced.is_none_or(|dags| !dags.is_empty() && dags.contains(dag))
    }

    /// Whether what happens in a lane is news to other DAGs.
    pub(crate) fn tells(&self, lane: LaneId) -> bool {
        let lane = self
            .runs
            .get(&lane.run)
            .and_then(|run| run.lanes.get(&lane.lane));
        lane.is_none_or(Lane::tells)
    }

    /// Applies the failure policy to a member that is not dropped.
    fn keep_failed(&mut self, ix: u32, member: u32, out: &mut Decision) {
        let wave = self.wave(ix);
        let policy = wave.failure_policy(member);
        let scope = wave.scope(member);
        let blocks = policy == OnFailure::Block && scope.is_some();
        let (run, reason) = (
            wave.run,
            if blocks {
                ParkReason::Blocked
            } else {
                ParkReason::Failed
            },
        );
        let mut snapshot = self.snapshot(ix, member);
        snapshot.ordered = blocks;
        self.materialise(
            snapshot,
            Held::Parked(reason),
            scope.filter(|_| blocks),
            out,
        );
        if blocks {
            let (scope, seq) = scope.expect("only ordered members block");
            let run = self.runs.get_mut(&run).expect("waves have runs");
            if let Some(queue) = run.scopes.get_mut(&scope) {
                queue.blocked.insert(seq);
                let places: Vec<Place> = queue.places_from(seq + 1).map(|(_, p)| p).collect();
                self.take_turns_back(&places);
            }
        }
        if policy == OnFailure::Stop {
            self.stopping.push(run);
        }
    }

    /// A scope blocked: what had its turn and is not out yet waits again.
    fn take_turns_back(&mut self, places: &[Place]) {
        for place in places {
            let Place::Wave(ix, member) = *place else {
                continue;
            };
            let wave = self.wave_mut(ix);
            for node in wave.plan().sources as u16..wave.plan().steps.len() as u16 {
                if wave.is(node, Row::Ready, member) {
                    wave.take(node, Row::Ready, member);
                    wave.put(node, Row::Waits, member);
                } else if wave
                    .maps
                    .get_mut(&node)
                    .is_some_and(|space| space.hold_back(member))
                {
                    wave.put(node, Row::Waits, member);
                }
            }
        }
    }

    /// A settled member leaves its scope, its row, its join, its loop.
    fn leave(&mut self, ix: u32, member: u32, failed: bool, out: &mut Decision) {
        let wave = self.wave(ix);
        let (m, scope) = (wave.members[member as usize].clone(), wave.scope(member));
        let run_ix = wave.run;
        let run = self.runs.get_mut(&run_ix).expect("waves have runs");
        run.joins.remove(&m.key);
        let kept = run.materialised.get(&m.key);
        let blocked = kept.is_some_and(|k| k.held == Held::Parked(ParkReason::Blocked));
        if m.row && kept.is_none() {
            let key = activation::row_key(m.key);
            out.writes.push(Write::Delete(Table::Activation, key));
        }
        if let Some((scope, seq)) = scope
            && !blocked
        {
            self.leave_scope(run_ix, scope, seq);
        }
        self.after_iteration(ix, member, failed, out);
    }

    /// The front of a scope may have moved: whoever is there now may start.
    pub(crate) fn leave_scope(&mut self, run: u32, scope: ScopeKey, seq: u64) {
        let run = self.runs.get_mut(&run).expect("scopes have runs");
        let Some(queue) = run.scopes.get_mut(&scope) else {
            return;
        };
        let was_blocked = queue.blocked.remove(&seq);
        let moved = queue.settle(seq);
        if queue.is_empty() {
            run.scopes.remove(&scope);
            return;
        }
        if moved || was_blocked {
            let ix = run.ix;
            self.give_turns_after(scope, ix, seq);
        }
    }

    /// Every activation of a scope from this one on may have its turn somewhere.
    pub(crate) fn give_turns_after(&mut self, scope: ScopeKey, run: u32, seq: u64) {
        let Some(queue) = self.runs[&run].scopes.get(&scope) else {
            return;
        };
        let places: Vec<Place> = queue.places_from(seq).map(|(_, place)| place).collect();
        for place in places {
            self.give_turn(Some(place), u16::MAX, None);
        }
    }

    /// Counters, cursor bookkeeping and history of settled members.
    fn account(
        &mut self,
        ix: u32,
        settled: &[u64],
        sum: Settled,
        (first, last): (u64, u64),
        body: Bytes,
        out: &mut Decision,
    ) {
        let now = self.now;
        let wave = self.waves[ix as usize]
            .as_mut()
            .expect("settling waves are live");
        for (left, settled) in wave.left.iter_mut().zip(settled) {
            *left |= settled;
        }
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        let counters = &mut run.row.counters;
        counters.done += sum.done;
        counters.skipped += sum.skipped;
        counters.parked += sum.parked;
        counters.dropped += sum.dropped;
        self.dirty_runs.insert(wave.run);
        let lane = home(wave);
        if let Some(id) = wave.lane {
            let (gone, bytes) = wave.load(settled);
            let lane = run.lanes.get_mut(&id.lane).expect("waves have lanes");
            lane.events -= gone;
            lane.bytes -= bytes;
            self.dirty_lanes.insert(id);
        }
        out.writes.push(Write::History(HistoryRow {
            run: lane.run,
            lane: lane.lane,
            settled_ms: now.cast_signed(),
            first,
            last,
            done: sum.done as u32,
            skipped: sum.skipped as u32,
            parked: sum.parked as u32,
            dropped: sum.dropped as u32,
            body,
        }));
    }

    /// W2: members that only wait, and for long, get a row of their own and leave the wave.
    fn shed(&mut self, ix: u32, mask: &[u64], out: &mut Decision) {
        let wave = self.wave(ix);
        let ordered = wave.dag.spec.order != Order::None;
        let waits = wave.plan().is_join || wave.plan().has_signals;
        if wave.trials.is_empty() && !ordered && !waits && wave.is_plain() {
            return;
        }
        let members: Vec<u32> = bits::ones(mask).collect();
        for member in members {
            let wave = self.wave(ix);
            if bits::get(&wave.left, member) || wave.is_busy(member) {
                continue;
            }
            if let Some(held) = self.why_held(ix, member) {
                self.extract(ix, member, held, out);
            }
        }
    }

    /// Why an idle, unsettled member should leave its wave, if it should.
    fn why_held(&self, ix: u32, member: u32) -> Option<Held> {
        let wave = self.wave(ix);
        let run = &self.runs[&wave.run];
        let mut waits_for_scope = false;
        for node in wave.plan().sources as u16..wave.plan().steps.len() as u16 {
            let (held, due) = wave.held_until(node, member);
            if held {
                let long = due.is_none_or(|due| due > self.now + limits::WAVE_BACKOFF_MS_MAX);
                return long.then_some(Held::Waiting);
            }
            waits_for_scope |= wave.is(node, Row::Waits, member);
        }
        if waits_for_scope {
            let (scope, seq) = wave.scope(member)?;
            let queue = run.scopes.get(&scope)?;
            let room = (queue.held as usize) < limits::HELD_PER_KEY_MAX;
            let key_order = wave.dag.spec.order == Order::Key;
            return (key_order && room && queue.held_before(seq)).then_some(Held::Behind);
        }
        let open = wave.plan().is_join
            && (0..wave.plan().sources as u16).any(|s| !wave.is(s, Row::Done, member));
        open.then(|| Held::Open {
            until: self.join_deadline(ix, member),
        })
    }

    /// Moves a member out of its wave into a row of its own.
    fn extract(&mut self, ix: u32, member: u32, held: Held, out: &mut Decision) {
        let snapshot = self.snapshot(ix, member);
        let wave = self.wave(ix);
        let (scope, run_ix) = (wave.scope(member), wave.run);
        self.forget_member(ix, member);
        let waiting = held == Held::Waiting;
        self.materialise(snapshot, held, scope, out);
        if waiting && let Some((scope, seq)) = scope {
            self.shed_followers(run_ix, scope, seq, out);
        }
    }

    /// Key order: those behind a waiting activation would hold their lanes; they leave too (W2).
    fn shed_followers(&mut self, run: u32, scope: ScopeKey, seq: u64, out: &mut Decision) {
        let Some(queue) = self.runs[&run].scopes.get(&scope) else {
            return;
        };
        let places: Vec<Place> = queue.places_from(seq + 1).map(|(_, place)| place).collect();
        for place in places {
            let Place::Wave(ix, member) = place else {
                continue;
            };
            if bits::get(&self.wave(ix).left, member) || self.wave(ix).is_busy(member) {
                continue;
            }
            if self.why_held(ix, member) == Some(Held::Behind) {
                self.extract(ix, member, Held::Behind, out);
                let wave = self.wave(ix);
                self.revisit.push((ix, wave.id, member));
            }
        }
    }

    /// Members touched while another wave was being worked on: settle, shed and retire theirs.
    pub(crate) fn revisit(&mut self, out: &mut Decision) -> bool {
        let list = std::mem::take(&mut self.revisit);
        let any = !list.is_empty();
        for (ix, id, member) in list {
            if self.waves[ix as usize]
                .as_ref()
                .is_some_and(|wave| wave.id == id)
            {
                let mask = bits::single(self.wave(ix).words, member);
                let nothing = bits::none(bits::words(self.wave(ix).plan().steps.len()));
                self.progress(ix, &mask, nothing, out);
            }
        }
        any
    }

    /// Frees a wave that has no member left.
    fn retire(&mut self, ix: u32, out: &mut Decision) {
        if !self.wave(ix).is_over() {
            return;
        }
        let wave = self.waves[ix as usize].take().expect("just looked at");
        self.free_waves.push(ix);
        self.alone -= u32::from(wave.alone);
        for node in bits::ones(&wave.queued) {
            if let Some(task) = wave.task_index(node as u16) {
                self.unqueue(ix, &wave, task);
            }
        }
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        run.waves -= 1;
        let lane = home(&wave);
        if wave.rows_written > 0 {
            let key = Key::numbered(wave.run, lane.lane, &[wave.id]);
            out.writes.push(Write::DeletePrefix(Table::Outcome, key));
        }
        if let Some((lane, at)) = wave.suspect {
            let key = Key::numbered(lane.run, lane.lane, &[at]);
            out.writes.push(Write::Delete(Table::Suspect, key));
        }
        if let Some(id) = wave.lane {
            let lane = run.lanes.get_mut(&id.lane).expect("waves have lanes");
            for segment in &mut lane.segments {
                if segment.wave == Some(ix) {
                    segment.wave = None;
                }
            }
            if wave.is_batch() {
                let key = Key::numbered(id.run, id.lane, &[wave.members[0].key.position]);
                out.writes.push(Write::Delete(Table::Batch, key));
            }
            self.dirty_lanes.insert(id);
        }
        self.dirty_runs.insert(wave.run);
    }

    /// What has come to an end or a turn by the passing of time.
    pub(crate) fn timer(&mut self, out: &mut Decision) {
        self.cover_long(out);
        while let Some((due, timer)) = self.first_timer() {
            if due > self.now {
                return;
            }
            if let Timer::Held(key) = timer {
                self.held_timers.remove(&(due, key));
            } else {
                self.timers.pop_first();
            }
            match timer {
                Timer::Wave(ix, id) => {
                    if self.waves[ix as usize]
                        .as_ref()
                        .is_some_and(|wave| wave.id == id)
                    {
                        self.wake_wave(ix, out);
                    }
                }
                Timer::Held(key) => self.wake_held(key, out),
                Timer::Late(key) => self.count_held_deadline(key, out),
                Timer::Linger(lane) => self.stop_lingering(lane),
                Timer::Loop(lane) => self.emit_iteration(lane),
                // The scheduler starts a new window by itself: being woken is all it needs.
                Timer::Rate(_) => {}
                Timer::Signal(run) => self.expire_signals(run, out),
            }
        }
    }

    fn first_timer(&self) -> Option<(Ms, Timer)> {
        let held = self.held_timers.first();
        let held = held.map(|(&(due, key), ())| (due, Timer::Held(key)));
        self.timers.first().copied().into_iter().chain(held).min()
    }

    fn wake_wave(&mut self, ix: u32, out: &mut Decision) {
        let now = self.now;
        let wave = self.wave(ix);
        let ordered = wave.dag.spec.order != Order::None;
        let is_due = |due: Option<Ms>| due.is_some_and(|due| due <= now);
        let held = |&(node, at): &(u16, u32)| wave.is_held(node, at);
        let due = wave.trials.iter().filter(|(_, trial)| is_due(trial.due));
        let due: Vec<(u16, u32)> = due.map(|(&at, _)| at).filter(held).collect();
        let (mut mask, mut dirty) = (
            bits::none(wave.words),
            bits::none(bits::words(wave.plan().steps.len())),
        );
        let mut delayed: BTreeMap<u16, Mask> = BTreeMap::new();
        for (node, at) in due {
            let wave = self.wave_mut(ix);
            wave.trial(node, at).due = None;
            let member = wave.member_of(node, at);
            if bits::get(&wave.left, member) {
                continue;
            }
            bits::set(&mut mask, member);
            if matches!(
                wave.task(node).map(|t| &t.kind),
                Some(TaskKind::Delay { .. })
            ) {
                wave.end(node, Row::Success, &bits::single(wave.words, at));
                for (word, below) in dirty.iter_mut().zip(wave.dirty_below(node)) {
                    *word |= below;
                }
                delayed
                    .entry(node)
                    .or_insert_with(|| bits::none(wave.words))[at as usize / 64] |= 1 << (at % 64);
            } else {
                wave.unhold(node, at, ordered);
                self.enqueue(ix, node);
                self.try_start(ix, node, member);
            }
        }
        self.rearm(ix);
        self.count_deadlines(ix, out);
        let id = self.wave(ix).id;
        self.progress(ix, &mask, dirty, out);
        // That a delay is over is committed like any end: what follows must not depend on when.
        for (node, mask) in delayed {
            if self.waves[ix as usize]
                .as_ref()
                .is_some_and(|wave| wave.id == id)
            {
                self.record(ix, node, &mask, out);
            }
        }
    }

    /// Registers the timer of a wave's holds.
    pub(crate) fn rearm(&mut self, ix: u32) {
        let wave = self.wave(ix);
        let held =
            |(at, trial): (&(u16, u32), &Trial)| trial.due.filter(|_| wave.is_held(at.0, at.1));
        if let Some(due) = wave.trials.iter().filter_map(held).min() {
            self.timers.insert((due, Timer::Wave(ix, wave.id)));
        }
    }
}

/// The address of the lane a wave's rows are kept under.
pub(crate) fn home(wave: &Wave) -> LaneId {
    wave.lane.unwrap_or(wave.members[0].key.lane)
}
