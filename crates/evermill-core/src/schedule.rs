//! Scheduling: which ready members go to a worker next, under every limit.

use crate::bits;
use crate::command::{Decision, DispatchId, DispatchOrder, Effect, RunIx};
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
        load.waves.push_back(ix);
        if run.ready.is_empty() {
            self.ready_runs.insert((run.served, run.ix));
        }
        run.ready.insert(turn);
    }

    /// Hands out work while there are slots.
    pub(crate) fn schedule(&mut self, out: &mut Decision) {
        while self.used < self.slots {
            let mut at = None;
            loop {
                at = self.ready_runs.after(at);
                match at {
                    None => return,
                    Some((_, run)) if self.serve(run, out) => break,
                    Some(_) => {}
                }
            }
        }
    }

    /// Forms one dispatch of this run, if its limits allow any.
    fn serve(&mut self, ix: RunIx, out: &mut Decision) -> bool {
        let Some(run) = self.runs.get(&ix) else {
            return false;
        };
        if !run.works() {
            return false;
        }
        let mut at = None;
        while let Some(turn) = self.runs.get(&ix).and_then(|run| run.ready.after(at)) {
            at = Some(turn);
            let room = self.room(ix, turn);
            if room == 0 {
                continue;
            }
            let slots = self.collect(ix, turn, room);
            self.forget_if_empty(ix, turn);
            if slots.is_empty() {
                continue;
            }
            self.issue(ix, turn, slots, out);
            return true;
        }
        false
    }

    /// Members of this task that may start now: 0 when a limit is reached (W19).
    fn room(&mut self, ix: RunIx, turn: Turn) -> usize {
        let free = (self.slots - self.used).max(1) as usize;
        let now = self.now;
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        let spec = &run.dags[usize::from(turn.version)].spec.tasks[usize::from(turn.task)];
        let load = &run.loads[&(turn.version, turn.task)];
        if spec.concurrency.is_some_and(|most| load.out >= most) {
            return 0;
        }
        let pool = spec.pool.and_then(|pool| self.pools.get(&pool));
        if pool.is_some_and(|pool| pool.used >= pool.slots) {
            return 0;
        }
        let mut room = limits::WAVE_MEMBERS_MAX;
        if let Some(rate) = run.rates.get_mut(&turn.task) {
            if now >= rate.window_start + rate.interval {
                rate.window_start = now;
                rate.used = 0;
            }
            room = room.min((rate.members - rate.used) as usize);
            if room == 0 {
                self.timers
                    .insert((rate.window_start + rate.interval, Timer::Rate(ix)));
            }
        }
        let waves = &self.waves;
        let ready: usize = load
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
        let mut slots: Vec<Slot> = Vec::new();
        // Waves that have more stay in the queue, before this place.
        let mut at = 0;
        while slots.len() < room
            && let Some(&wave_ix) = queue.get(at)
        {
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
        run.loads.entry(place).or_default().waves = queue;
        slots
    }

    fn forget_if_empty(&mut self, ix: RunIx, turn: Turn) {
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        if run.loads[&(turn.version, turn.task)].waves.is_empty() {
            run.ready.remove(turn);
            if run.ready.is_empty() {
                self.ready_runs.remove((run.served, ix));
            }
        }
    }

    /// Registers a dispatch and asks for it to be sent.
    fn issue(&mut self, ix: RunIx, turn: Turn, slots: Vec<Slot>, out: &mut Decision) {
        let id = DispatchId(self.next_dispatch);
        self.next_dispatch += 1;
        let run = self.runs.get_mut(&ix).expect("served runs exist");
        if !run.ready.is_empty() {
            self.ready_runs.remove((run.served, ix));
            self.ready_runs.insert((run.served + 1, ix));
        }
        run.served += 1;
        let load = run.loads.entry((turn.version, turn.task)).or_default();
        load.out += 1;
        if let Some(rate) = run.rates.get_mut(&turn.task) {
            rate.used += slots.len() as u32;
        }
        let dag = std::sync::Arc::clone(&run.dags[usize::from(turn.version)]);
        let spec = &dag.spec.tasks[usize::from(turn.task)];
        if let Some(pool) = spec.pool.and_then(|pool| self.pools.get_mut(&pool)) {
            pool.used += 1;
        }
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
        let dispatch = Dispatch::new(
            id,
            ix,
            dag,
            (turn.version, turn.task),
            order,
            self.now,
            slots,
        );
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
        let none_behind = serial || vectorised || wave.withholds(node, head);
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

    fn ready_count(&self, task: u16) -> usize {
        let Some(node) = self.plan().place[usize::from(task)] else {
            return 0;
        };
        let row = self
            .maps
            .get(&node)
            .map_or_else(|| self.row(node, Row::Ready), |s| &s.ready);
        bits::count(row) as usize
    }

    fn is_alone(&self, node: u16, at: u32) -> bool {
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
