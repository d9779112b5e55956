//! Scheduling: which ready members go to a worker next, under every limit.

use crate::bits;
use crate::command::{Decision, DispatchId, DispatchOrder, Effect, Limited, Ms, RunIx};
use crate::dag::{OnInterrupt, Order};
use crate::dispatch::{Dispatch, Slot};
use crate::limits;
use crate::machine::{Machine, Timer};
use crate::run::{Run, Turn};
use crate::scope::Place;
use crate::wave::{Row, Wave};

impl Machine {
    /// Queues a wave's ready members of a node with its run.
    pub(crate) fn enqueue(&mut self, ix: u32, node: u16) {
        let wave = self.waves[ix as usize]
            .as_mut()
            .expect("queued waves are live");
        if bits::get(&wave.queued, u32::from(node)) || !wave.has_ready(node) {
            return;
        }
        bits::set(&mut wave.queued, u32::from(node));
        let task = wave.task_index(node).expect("only tasks are queued");
        let (version, turn) = (wave.version, turn(wave, task));
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        let load = run.loads.entry((version, task)).or_default();
        if load.waves.is_empty() {
            load.since = self.now;
        }
        load.waves.push_back(ix);
        run.ready.insert(turn);
        let run = run.ix;
        self.place_run(run);
    }

    /// Takes a wave that is over out of the queue of a task, and the task's turn with its last wave.
    pub(crate) fn unqueue(&mut self, ix: u32, wave: &Wave, task: u16) {
        let run = self.runs.get_mut(&wave.run).expect("waves have runs");
        if let Some(load) = run.loads.get_mut(&(wave.version, task)) {
            load.waves.retain(|&queued| queued != ix);
            let run = run.ix;
            self.forget_if_empty(run, turn(wave, task));
        }
    }

    /// Puts a run where it belongs among those with ready members. One that comes anew has the share of
    /// the one that was served last: it owes nothing for the time before, and nothing is owed to it.
    fn place_run(&mut self, ix: RunIx) {
        let run = self.runs.get_mut(&ix).expect("queued runs exist");
        let first = run.ready.after(None);
        if first.is_some() && run.place.is_none() {
            run.served = run.served.max(self.served);
        }
        let place = first.map(|turn| (turn.unimportance, run.served));
        let old = std::mem::replace(&mut run.place, place);
        if old == place {
            return;
        }
        if let Some((top, served)) = old {
            self.ready_runs.remove((top, served, ix));
        }
        if let Some((top, served)) = place {
            self.ready_runs.insert((top, served, ix));
        }
    }

    /// Hands out work while there are slots.
    pub(crate) fn schedule(&mut self, out: &mut Decision) {
        while self.used < self.slots && (self.serve_passed_over(out) || self.serve_next(out)) {}
    }

    /// Serves the task whose turn it is: by priority, then by the shares of runs, then the one most
    /// downstream. False when no limit lets any start.
    fn serve_next(&mut self, out: &mut Decision) -> bool {
        // Tasks of which nothing could be taken after all.
        let mut empty: Vec<(RunIx, Turn)> = Vec::new();
        loop {
            let mut best: Option<(i64, u64, RunIx, Turn)> = None;
            let mut at = None;
            while let Some((top, served, ix)) = self.ready_runs.after(at) {
                at = Some((top, served, ix));
                if best.is_some_and(|best| (best.0, best.1) <= (top, served)) {
                    break;
                }
                let Some(turn) = self.first_with_room(ix, &empty) else {
                    continue;
                };
                let found = (turn.unimportance, served, ix, turn);
                if best.is_none_or(|best| (found.0, found.1) < (best.0, best.1)) {
                    best = Some(found);
                }
            }
            let Some((.., ix, turn)) = best else {
                return false;
            };
            if self.serve(ix, turn, out) {
                return true;
            }
            empty.push((ix, turn));
        }
    }

    /// The first task of a run that its limits let start.
    fn first_with_room(&mut self, ix: RunIx, without: &[(RunIx, Turn)]) -> Option<Turn> {
        let mut at = None;
        loop {
            let run = self.runs.get(&ix).filter(|run| run.works())?;
            let turn = run.ready.after(at)?;
            at = Some(turn);
            if !without.contains(&(ix, turn)) && self.room(ix, turn) > 0 {
                return Some(turn);
            }
        }
    }

    /// Serves the task that has been passed over longest, if that is longer than
    /// [`limits::PASSED_OVER_MS`], whatever its priority: with every second dispatch at most, so that
    /// many of them do not turn the order round.
    fn serve_passed_over(&mut self, out: &mut Decision) -> bool {
        if std::mem::take(&mut self.served_out_of_turn) || self.now < self.passed_over_at {
            return false;
        }
        let mut waiting: Vec<(Ms, RunIx, Turn)> = Vec::new();
        let mut oldest = self.now;
        let mut at = None;
        while let Some(place) = self.ready_runs.after(at) {
            at = Some(place);
            let Some(run) = self.runs.get(&place.2).filter(|run| run.works()) else {
                continue;
            };
            let mut turn_at = None;
            while let Some(turn) = run.ready.after(turn_at) {
                turn_at = Some(turn);
                let since = run.loads[&(turn.version, turn.task)].since;
                oldest = oldest.min(since);
                if since + limits::PASSED_OVER_MS <= self.now {
                    waiting.push((since, run.ix, turn));
                }
            }
        }
        if waiting.is_empty() {
            self.passed_over_at = oldest + limits::PASSED_OVER_MS;
            return false;
        }
        waiting.sort_unstable();
        for (_, ix, turn) in waiting {
            if self.room(ix, turn) > 0 && self.serve(ix, turn, out) {
                self.served_out_of_turn = true;
                return true;
            }
        }
        self.passed_over_at = self.now + limits::PASSED_OVER_LOOK_MS;
        false
    }

    /// Forms one dispatch of this task; false if nothing of it can be taken.
    fn serve(&mut self, ix: RunIx, turn: Turn, out: &mut Decision) -> bool {
        let room = self.room(ix, turn);
        let slots = self.collect(ix, turn, room);
        self.forget_if_empty(ix, turn);
        if slots.is_empty() {
            return false;
        }
        self.issue(ix, turn, slots, out);
        true
    }

    /// Members of this task that may start now: 0 when a limit is reached (W19).
    fn room(&mut self, ix: RunIx, turn: Turn) -> usize {
        let free = (self.slots - self.used).max(1) as usize;
        let now = self.now;
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        let dag = &run.dags[usize::from(turn.version)].spec;
        let spec = &dag.tasks[usize::from(turn.task)];
        let load = &run.loads[&(turn.version, turn.task)];
        if spec.concurrency.is_some_and(|most| load.out >= most) {
            return 0;
        }
        let mut room = limits::WAVE_MEMBERS_MAX;
        if let Some(pool) = spec.pool.and_then(|pool| self.pools.get(&pool)) {
            // With fewer slots than the worker would use, it gets no more members than slots.
            if pool.free() < spec.at_once(dag.order) {
                room = pool.free() as usize;
            }
        }
        let of = run.place_of_task(turn.version, turn.task);
        let of = of.map(Limited::Task);
        if let Some(rate) = of.and_then(|of| run.rates.get_mut(&of)) {
            room = room.min(rate.room(now));
            if rate.room(now) == 0 {
                self.timers.insert((rate.opens(), Timer::Rate(ix)));
            }
        }
        if room == 0 {
            return 0;
        }
        let waves = &self.waves;
        let ready: usize = run.loads[&(turn.version, turn.task)]
            .waves
            .iter()
            .take(limits::QUEUE_LOOK_AHEAD)
            .filter_map(|&ix| waves[ix as usize].as_ref())
            .map(|wave| wave.ready_count(turn.task))
            .sum();
        room.min(ready.div_ceil(free).max(1))
    }

    /// Takes up to `room` ready members of a task out of the waves queued for it.
    fn collect(&mut self, ix: RunIx, turn: Turn, room: usize) -> Vec<Slot> {
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        let place = (turn.version, turn.task);
        let load = run.loads.get_mut(&place).expect("ready tasks have a load");
        let mut queue = std::mem::take(&mut load.waves);
        let by_key = run.has_key_rates(turn.version, turn.task);
        let mut slots: Vec<Slot> = Vec::new();
        // Waves that have more stay in the queue, before this place.
        let mut at = 0;
        while slots.len() < room
            && let Some(&wave_ix) = queue.get(at)
        {
            if by_key {
                self.hold_back_keys(ix, wave_ix, turn, room - slots.len());
            }
            let run = self.runs.get_mut(&ix).expect("served runs exist");
            let Some(wave) = self.waves[wave_ix as usize].as_mut() else {
                queue.remove(at);
                continue;
            };
            let node = wave.plan().place[usize::from(turn.task)].expect("queued by this task");
            let ordered = wave.dag.spec.order != Order::None;
            let more = if ordered {
                take_in_order(run, &mut self.waves, wave_ix, node, turn, room, &mut slots)
            } else {
                wave.take_ready(node, wave_ix, room, &mut slots)
            };
            let wave = self.waves[wave_ix as usize].as_mut().expect("just used");
            if more || wave.has_ready(node) {
                at += 1;
            } else {
                queue.remove(at);
                bits::clear(&mut wave.queued, u32::from(node));
            }
            if slots.first().is_some_and(|slot| slot.alone) {
                break;
            }
        }
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        run.loads.entry(place).or_default().waves = queue;
        slots
    }

    fn forget_if_empty(&mut self, ix: RunIx, turn: Turn) {
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        if run.loads[&(turn.version, turn.task)].waves.is_empty() {
            run.ready.remove(turn);
            self.place_run(ix);
        }
    }

    /// Registers a dispatch and asks for it to be sent.
    fn issue(&mut self, ix: RunIx, turn: Turn, slots: Vec<Slot>, out: &mut Decision) {
        let id = DispatchId(self.next_dispatch);
        self.next_dispatch += 1;
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        self.served = self.served.max(run.served);
        run.served += 1;
        let load = run.loads.entry((turn.version, turn.task)).or_default();
        load.out += 1;
        load.since = self.now;
        let dag = std::sync::Arc::clone(&run.dags[usize::from(turn.version)]);
        let spec = &dag.spec.tasks[usize::from(turn.task)];
        self.place_run(ix);
        self.used += 1;
        let only_once = spec.on_interrupt == OnInterrupt::Fail;
        let plain_input = {
            let first = self.wave(slots[0].wave);
            let place = first.plan().place[usize::from(turn.task)].expect("it has the task");
            first.plan().steps[usize::from(place)].replayable && spec.mapped.is_none()
        };
        let mut waves = slots.chunk_by(|a, b| a.wave == b.wave);
        let careful = waves.any(|group| self.wave(group[0].wave).careful);
        let speculative = plain_input && !careful && !only_once && !spec.reads_committed;
        let order = self.dispatch_order(&slots);
        let mut dispatch = Dispatch::new(
            id,
            ix,
            std::sync::Arc::clone(&dag),
            (turn.version, turn.task),
            order,
            self.now,
            slots,
        );
        if let Some(pool) = spec.pool.and_then(|pool| self.pools.get_mut(&pool)) {
            dispatch.taken = spec
                .at_once(dag.spec.order)
                .min(dispatch.slots.len() as u32);
            pool.used += dispatch.taken;
        }
        self.count_rates(&dispatch);
        self.note_issued(&dispatch);
        if only_once {
            self.record_starts(&dispatch, out);
        }
        self.dispatches.push(dispatch);
        out.effects.push(Effect::Dispatch { id, speculative });
    }

    fn dispatch_order(&self, slots: &[Slot]) -> DispatchOrder {
        let scope = |slot: &Slot| {
            let wave = self.wave(slot.wave);
            wave.scope(wave.member_of(slot.node, slot.at))
                .map(|(scope, _)| scope)
        };
        if self.wave(slots[0].wave).dag.spec.order == Order::None {
            return DispatchOrder::Independent;
        }
        let first = scope(&slots[0]);
        if first.is_some() && slots.iter().all(|slot| scope(slot) == first) {
            DispatchOrder::StopOnFailure
        } else {
            DispatchOrder::SkipSameScope
        }
    }
}

fn turn(wave: &Wave, task: u16) -> Turn {
    let spec = &wave.dag.spec.tasks[usize::from(task)];
    // Plan by plan a task has other places; its turn must be one.
    let place = wave
        .dag
        .plans
        .iter()
        .find_map(|plan| plan.place[usize::from(task)]);
    let depth = u16::MAX - place.unwrap_or_default();
    Turn {
        unimportance: -i64::from(spec.priority),
        shallowness: depth,
        version: wave.version,
        task,
    }
}

/// Takes ready heads, each followed by those of its scope that wait right behind it; `true` if
/// ready members stay behind.
fn take_in_order(
    run: &Run,
    waves: &mut [Option<Wave>],
    ix: u32,
    node: u16,
    turn: Turn,
    room: usize,
    slots: &mut Vec<Slot>,
) -> bool {
    let wave = waves[ix as usize].as_mut().expect("queued waves are live");
    if wave.maps.contains_key(&node) {
        return wave.take_ready(node, ix, room, slots);
    }
    let serial = wave.dag.spec.order == Order::Serial;
    let heads: Vec<u32> = bits::ones(wave.row(node, Row::Ready)).collect();
    for head in heads {
        if slots.len() >= room {
            return true;
        }
        let wave = waves[ix as usize].as_mut().expect("queued waves are live");
        if wave.is_alone(node, head) {
            if slots.is_empty() {
                wave.take_one(node, ix, head, slots);
            }
            return true;
        }
        wave.take_one(node, ix, head, slots);
        // A vectorised call starts all its members at once: one of each scope (W8).
        let vectorised = wave.task(node).is_some_and(|task| task.batch.is_some());
        // Under a rate per key each has to wait for a time of its own (W19).
        let by_key = run.has_key_rates(turn.version, turn.task);
        // What one of them reads, the one before it may have written: it is to be committed by then (C3, W5).
        let reads = wave.task(node).is_some_and(|task| task.reads_state);
        let none_behind = serial || vectorised || by_key || reads || wave.withholds(node, head);
        let Some((scope, seq)) = wave.scope(head).filter(|_| !none_behind) else {
            continue;
        };
        for (_, place) in run.scopes[&scope].places_from(seq + 1) {
            let Place::Wave(next_ix, next) = place else {
                break;
            };
            let Some(wave) = waves[next_ix as usize].as_mut() else {
                break;
            };
            let Some(node) = wave.plan().place[usize::from(turn.task)] else {
                break;
            };
            let follows = wave.version == turn.version && wave.is(node, Row::Waits, next);
            if slots.len() >= room
                || !follows
                || wave.is_alone(node, next)
                || wave
                    .task(node)
                    .is_some_and(|t| t.on_failure >= crate::dag::OnFailure::Block)
            {
                break;
            }
            wave.take(node, Row::Waits, next);
            wave.put(node, Row::Ready, next);
            wave.take_one(node, next_ix, next, slots);
            if wave.withholds(node, next) {
                break;
            }
        }
    }
    false
}

impl Wave {
    /// Whether members of this node are ready.
    pub(crate) fn has_ready(&self, node: u16) -> bool {
        self.maps.get(&node).map_or_else(
            || !bits::is_empty(self.row(node, Row::Ready)),
            |space| !bits::is_empty(&space.ready),
        )
    }

    pub(crate) fn ready_count(&self, task: u16) -> usize {
        let Some(node) = self.plan().place[usize::from(task)] else {
            return 0;
        };
        let row = self
            .maps
            .get(&node)
            .map_or_else(|| self.row(node, Row::Ready), |s| &s.ready);
        bits::count(row) as usize
    }

    pub(crate) fn is_alone(&self, node: u16, at: u32) -> bool {
        !self.trials.is_empty()
            && self
                .trials
                .get(&(node, at))
                .is_some_and(|trial| trial.alone)
    }

    fn take_one(&mut self, node: u16, ix: u32, at: u32, slots: &mut Vec<Slot>) {
        let alone = self.is_alone(node, at);
        if let Some(space) = self.maps.get_mut(&node) {
            bits::clear(&mut space.ready, at);
            bits::set(&mut space.run, at);
        } else {
            self.take(node, Row::Ready, at);
            self.put(node, Row::Run, at);
        }
        slots.push(Slot {
            wave: ix,
            node,
            at,
            alone,
        });
    }

    /// Takes ready members in order; `true` if some stay behind.
    fn take_ready(&mut self, node: u16, ix: u32, room: usize, slots: &mut Vec<Slot>) -> bool {
        let row = self
            .maps
            .get(&node)
            .map_or_else(|| self.row(node, Row::Ready), |s| &s.ready);
        if self.trials.is_empty() && !self.maps.contains_key(&node) {
            return self.take_plainly(node, ix, room, slots);
        }
        let ready: Vec<u32> = bits::ones(row).collect();
        for at in ready {
            if slots.len() >= room {
                return true;
            }
            if self.is_alone(node, at) {
                if !slots.is_empty() {
                    return true;
                }
                self.take_one(node, ix, at, slots);
                return true;
            }
            self.take_one(node, ix, at, slots);
        }
        false
    }

    /// `take_ready` where no member is special: a word at a time.
    fn take_plainly(&mut self, node: u16, ix: u32, room: usize, slots: &mut Vec<Slot>) -> bool {
        for word in 0..self.words {
            let mut bits = self.row(node, Row::Ready)[word];
            let mut taken = 0u64;
            while bits != 0 && slots.len() < room {
                let bit = bits & bits.wrapping_neg();
                let at = word as u32 * 64 + bit.trailing_zeros();
                slots.push(Slot {
                    wave: ix,
                    node,
                    at,
                    alone: false,
                });
                taken |= bit;
                bits ^= bit;
            }
            self.row_mut(node, Row::Ready)[word] &= !taken;
            self.row_mut(node, Row::Run)[word] |= taken;
            if bits != 0 {
                return true;
            }
        }
        false
    }
}
