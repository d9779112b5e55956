//! What is checked at every step: who may start, what may be accepted, what adds up.

use std::collections::{BTreeMap, BTreeSet};

use evermill_core::MemberView;
use evermill_core::ParkReason;
use evermill_core::command::{
    DispatchId, DispatchOrder, Event, Limited, News, Outcome, ScopeState,
};
use evermill_core::dag::{Node, OnFailure, OnInterrupt, Order, TaskKind, TaskSpec};
use evermill_core::history::Ended;

use crate::case::LaneCase;
use crate::feature::Mark;
use crate::ledger::{Fact, Ledger};
use crate::oracle::{Final, Judged, State, apply};
use crate::script::{Act, Ask, input_hash, own_view, reads_results, reads_state};
use crate::versions::place_of;
use crate::worker::{Member, Running, outcome};
use crate::world::{Batch, Issued, RUN, World};

impl World<'_> {
    /// What listeners would have heard with this commit adds up to what is counted as settled: an end is
    /// told in the decision that settles it, once, whatever crashed.
    pub(crate) fn hear(&mut self, batch: &Batch) -> Result<(), String> {
        // What is read again tells nothing, and counts (W18).
        let again = |lane: &LaneCase| lane.replay_until.is_some();
        let reads_again = self.case.lanes.iter().any(again);
        for news in &batch.decision.news {
            let of = match news {
                News::Ended { activation, .. } | News::Said { activation, .. } => activation.lane,
            };
            let mut lanes = self.machine.lanes(of.run);
            if lanes.any(|lane| lane.lane == of && lane.replay.is_some()) {
                return Err(format!("a replay tells other DAGs: {news:?} (W18)"));
            }
            match news {
                News::Ended {
                    ended: Ended::Done,
                    events,
                    ..
                } => self.told.0 += events,
                News::Ended {
                    ended: Ended::Skipped,
                    events,
                    ..
                } => self.told.1 += events,
                _ => {}
            }
        }
        let counted = batch.counters.map(|c| (c.done, c.skipped));
        let is_wrong = |counted: (u64, u64)| match reads_again {
            true => counted.0 < self.told.0 || counted.1 < self.told.1,
            false => counted != self.told,
        };
        if counted.is_some_and(is_wrong) {
            return Err(format!("told {:?}, counted {counted:?}", self.told));
        }
        Ok(())
    }

    /// A dispatch as a worker would get it; `None` when it is over already.
    pub(crate) fn receive(&self, id: DispatchId) -> Result<Option<Running>, String> {
        let Some(view) = self.machine.dispatch(id) else {
            return Ok(None);
        };
        let spec = &self.case.spec;
        let mut members = Vec::new();
        for member in view.members() {
            let act = self.act_of(member.activation())?;
            let state = self.machine.scope_state(RUN, &member.state_scope());
            let source = self.case.lanes[usize::from(act.lane)].source;
            let own = member.events().iter().map(|event| (source, event.clone()));
            let bound = member
                .bound()
                .map(|(source, event)| (place_of(spec, &view.dag().spec, source), event.clone()));
            let events: Vec<_> = own.chain(bound).collect();
            let generation = member.key_generation();
            if (generation > 0) != self.case.lanes[usize::from(act.lane)].fresh_keys {
                return Err(format!("{act} has keys of generation {generation} (W18)"));
            }
            let key = member.state_scope().scope.key;
            members.push(Member {
                act,
                index: member.map_index(),
                tries: member.try_number(),
                asked: member.asked(),
                round: member.round(),
                results: self.results(&member, view.task()),
                scope: (act.lane, key),
                state: state.cloned().unwrap_or_default(),
                fired: member
                    .fired()
                    .map(|source| place_of(spec, &view.dag().spec, source))
                    .collect(),
                events,
            });
        }
        let task = &spec.tasks[usize::from(view.task())];
        Ok(Some(Running {
            id,
            fence: self.machine.fence(),
            task: view.task(),
            version: view.dag().spec.version.clone(),
            order: view.order(),
            call: task.batch.map_or(1, |n| n as usize),
            ordered: spec.order != Order::None,
            members,
            next: 0,
            failed: Vec::new(),
            unreported: BTreeMap::new(),
            reported: BTreeMap::new(),
            overlays: BTreeMap::new(),
            recalled: false,
        }))
    }

    /// Accepted results of the direct upstreams, as they travel with a dispatch (W11).
    fn results(
        &self,
        member: &MemberView<'_>,
        task: u16,
    ) -> BTreeMap<u16, Vec<(i32, bytes::Bytes)>> {
        let mut all: BTreeMap<u16, Vec<(i32, bytes::Bytes)>> = BTreeMap::new();
        for node in &self.case.spec.tasks[usize::from(task)].upstream {
            let Node::Task(up) = *node else { continue };
            if matches!(
                self.case.spec.tasks[usize::from(up)].kind,
                TaskKind::Signal { .. }
            ) {
                // Which message came is the world's business.
                continue;
            }
            let found = if self.case.spec.tasks[usize::from(up)].mapped.is_some() {
                let numbered = member.results(up).into_iter().enumerate();
                numbered
                    .filter_map(|(i, r)| r.map(|r| (i as i32, r.clone())))
                    .collect()
            } else {
                member
                    .result(up)
                    .map(|r| (-1, r.clone()))
                    .into_iter()
                    .collect()
            };
            all.insert(up, found);
        }
        all
    }

    /// What must hold of every dispatch when it leaves.
    pub(crate) fn check_dispatch(
        &mut self,
        running: &Running,
        speculative: bool,
    ) -> Result<(), String> {
        let spec = &self.case.spec.tasks[usize::from(running.task)];
        if running.members.is_empty() {
            return Err("an empty dispatch".into());
        }
        if running.members.len() > 1 {
            self.coverage.hit(Mark::ManyMembers);
        }
        if running
            .members
            .iter()
            .any(|m| m.act.lane != running.members[0].act.lane)
        {
            self.coverage.hit(Mark::ManyLanes);
        }
        if running.call > 1 {
            self.coverage.hit(Mark::Vector);
        }
        if speculative && (spec.on_interrupt == OnInterrupt::Fail || spec.reads_committed) {
            return Err(format!("task {} must not start before a commit", spec.id));
        }
        self.check_frame(running)?;
        self.check_version(running)?;
        self.check_limits(running)?;
        for member in &running.members {
            let key = (member.act, running.task, member.index);
            if self.suspects.remove(&key) && running.members.len() > 1 {
                return Err(format!("suspect {} goes out with others (W3)", member.act));
            }
            let same = |r: &Running| {
                r.task == running.task
                    && r.left().iter().any(|&at| {
                        let m = &r.members[at];
                        (m.act, m.index) == (member.act, member.index)
                    })
            };
            if self.workers.iter().any(same) {
                return Err(format!(
                    "{} task {} is in two dispatches",
                    member.act, running.task
                ));
            }
            self.check_events(member)?;
        }
        Ok(())
    }

    /// W16: an activation ends on the version of its first commit.
    fn check_version(&mut self, running: &Running) -> Result<(), String> {
        for member in &running.members {
            let entry = self.durable.entries.get(&member.act);
            let began = entry.is_some_and(|e| {
                !e.finals.is_empty() || !e.failures.is_empty() || !e.started.is_empty()
            });
            if !began {
                // Nothing of it is committed: after a crash it may begin on another one.
                self.pinned.insert(member.act, running.version.clone());
            }
            let pinned = self
                .pinned
                .entry(member.act)
                .or_insert_with(|| running.version.clone());
            if *pinned != running.version {
                let version = &running.version;
                return Err(format!(
                    "{} began on {pinned}, goes on with {version} (W16)",
                    member.act
                ));
            }
        }
        if running.version != self.case.spec.version {
            self.coverage.hit(Mark::Swap);
        }
        Ok(())
    }

    /// W19: a window of a rate limit starts with its first member; two windows may touch. What came
    /// back unstarted does not count.
    pub(crate) fn check_rates(&mut self, running: &Running) -> Result<(), String> {
        let limited = |of: &Limited| match of {
            Limited::Task(task) | Limited::Key(task) => *task == running.task,
            Limited::Source(_) => false,
        };
        let rates = &self.case.world.rates;
        if !rates.iter().any(|(of, ..)| limited(of)) {
            return Ok(());
        }
        let now = self.now;
        // Of a join a task may see only what came later: the key is that of the event that began it.
        let lanes = &self.case.lanes;
        let opening_key = |act: Act| {
            let mut events = lanes[usize::from(act.lane)].events.iter();
            let first = events.find(|event| event.position == act.position);
            first.map_or(0, |event| event.key)
        };
        let issued = |member: &Member| Issued {
            at: now,
            dispatch: running.id,
            task: running.task,
            act: member.act,
            key: opening_key(member.act),
        };
        self.issued.extend(running.members.iter().map(issued));
        for &(of, most, interval) in rates.iter().filter(|(of, ..)| limited(of)) {
            let recent = |like: &Issued| like.task == running.task && like.at + interval > now;
            let recent = self.issued.iter().filter(|issued| recent(issued));
            let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
            for issued in recent {
                let by_key = matches!(of, Limited::Key(_));
                if !by_key || issued.key != 0 {
                    *counts
                        .entry(if by_key { issued.key } else { 0 })
                        .or_default() += 1;
                }
            }
            let recent = counts.into_values().max().unwrap_or(0);
            if recent > 2 * most as usize {
                let task = running.task;
                return Err(format!(
                    "task {task}: {recent} members within {interval} ms, {of:?} (W19)"
                ));
            }
            if recent >= most as usize {
                self.coverage.hit(match of {
                    Limited::Key(_) => Mark::KeyRate,
                    _ => Mark::Rate,
                });
            }
        }
        Ok(())
    }

    /// These members were not started.
    pub(crate) fn unissue(&mut self, running: &Running, left: &[usize]) {
        let back: Vec<Act> = left.iter().map(|&at| running.members[at].act).collect();
        self.issued
            .retain(|issued| issued.dispatch != running.id || !back.contains(&issued.act));
    }

    /// W4: the frame says what a failure means.
    fn check_frame(&self, running: &Running) -> Result<(), String> {
        let ordered = self.case.spec.order != Order::None;
        let scope = running.members[0].scope;
        let many = running.members.iter().any(|m| m.scope != scope);
        let fits = match running.order {
            DispatchOrder::Independent => !ordered || running.members.len() == 1,
            DispatchOrder::StopOnFailure => ordered && !many,
            DispatchOrder::SkipSameScope => ordered,
        };
        if fits {
            Ok(())
        } else {
            Err(format!("frame {:?} does not fit the order", running.order))
        }
    }

    /// W19, and `concurrency=`.
    fn check_limits(&mut self, running: &Running) -> Result<(), String> {
        let tasks = &self.case.spec.tasks;
        let spec = &tasks[usize::from(running.task)];
        let alike = |r: &&Running| r.task == running.task && r.version == running.version;
        let same = self.workers.iter().filter(alike).count() as u32 + 1;
        if let Some(most) = spec.concurrency {
            if same > most {
                return Err(format!(
                    "{same} dispatches of task {}, at most {most}",
                    spec.id
                ));
            }
            if same == most {
                self.coverage.hit(Mark::Concurrency);
            }
        }
        if let Some(pool) = spec.pool {
            let slots = self.case.world.pools[usize::from(pool)];
            let of_pool = |r: &&Running| tasks[usize::from(r.task)].pool == Some(pool);
            let order = self.case.spec.order;
            let executions = |r: &Running| {
                let most = tasks[usize::from(r.task)].at_once(order);
                // A worker is not free before its dispatch is over.
                most.min(r.left().len() as u32).max(1)
            };
            let out = self.workers.iter().filter(of_pool).map(executions);
            let used = out.sum::<u32>() + executions(running);
            if used > slots {
                return Err(format!(
                    "pool {pool} has {slots} slots, {used} are taken (W19)"
                ));
            }
            if spec.at_once(order) > 1 && executions(running) > 1 {
                self.coverage.hit(Mark::Parallel);
            }
            if used == slots {
                self.coverage.hit(Mark::Pool);
            }
        }
        Ok(())
    }

    /// Members carry their own events, whatever was regrouped; membership of a batch never changes.
    fn check_events(&mut self, member: &Member) -> Result<(), String> {
        let who = member.act;
        if self.graph.joins {
            return self.check_join(member);
        }
        let lane = &self.case.lanes[usize::from(who.lane)].events;
        let Some(first) = lane.iter().position(|e| e.position == who.position) else {
            if self.has_stray_laps() {
                return Ok(());
            }
            return Err(format!("{who} was never read"));
        };
        let count = member.events.len();
        let own = lane.iter().skip(first).take(count);
        let carried = member.events.iter().map(|(_, event)| event);
        if self.case.is_loop() {
            // Laps arise in the machine; when, is its business.
            self.coverage.hit(Mark::Loop);
        } else if !own.eq(carried) {
            return Err(format!("{who} carries the wrong events"));
        }
        let batch = self.case.spec.sources[0]
            .batch
            .map_or(1, |b| b.max_events as usize);
        let was = *self.members.entry(who).or_insert(count);
        if count > batch || was != count {
            return Err(format!(
                "{who} has {count} events, had {was}, at most {batch} (W8)"
            ));
        }
        Ok(())
    }

    /// W6: the n-th event (of a key) of one source goes with the n-th (of that key) of the other.
    fn check_join(&mut self, member: &Member) -> Result<(), String> {
        let who = member.act;
        let events = &member.events;
        let ranks: BTreeSet<(usize, u128)> = events
            .iter()
            .filter_map(|(source, e)| self.case.rank(*source, e))
            .collect();
        let sources: BTreeSet<u16> = events.iter().map(|(source, _)| *source).collect();
        if ranks.len() > 1 || sources.len() != events.len() {
            return Err(format!("{who} joins the wrong events: {events:?} (W6)"));
        }
        let bound = self.bound.entry(who).or_default();
        bound.extend(member.fired.iter().copied());
        if sources.len() > 1 {
            self.coverage.hit(Mark::Join);
        }
        Ok(())
    }

    /// Runs the next call of a worker; the member that killed it, if one did.
    pub(crate) fn call(&mut self, at: usize, upcoming: &[usize]) -> Result<Option<usize>, String> {
        for &member in upcoming {
            self.check_start(at, member)?;
            self.workers[at].next = member + 1;
        }
        for &member in upcoming {
            let running = &self.workers[at];
            let (task, m) = (running.task, running.members[member].clone());
            let calls = self.script.calls(m.act, task, m.index);
            let round = self.live.entries.get(&m.act).map_or(0, |e| e.round);
            self.effects
                .extend((0..calls).map(|call| (m.act, task, m.index, call)));
            self.started.push((task, m.act, m.index));
            let view = running.overlays.get(&m.scope).unwrap_or(&m.state).clone();
            let input = self.input(task, &m, &view);
            let ask = Ask {
                act: m.act,
                task,
                index: m.index,
                tries: m.tries,
                asked: m.asked,
                round,
                input,
            };
            let answer = self.script.answer(&self.case.spec, self.graph, &ask);
            self.say(|_| {
                format!(
                    "run task {task} {}[{}]#{}: {answer:?}",
                    m.act, m.index, m.tries
                )
            });
            let Some(ended) = outcome(&answer) else {
                return Ok(Some(member));
            };
            let running = &mut self.workers[at];
            match &ended {
                Outcome::SuccessWith(success) => {
                    let mut overlay = view;
                    success.state.iter().for_each(|op| apply(&mut overlay, op));
                    running.overlays.insert(m.scope, overlay);
                }
                Outcome::Failed { .. } | Outcome::Waiting { .. } => running.failed.push(m.scope),
                Outcome::Success | Outcome::Skipped => {}
            }
            running.unreported.insert(member as u32, ended);
        }
        Ok(None)
    }

    fn input(&mut self, task: u16, m: &Member, view: &ScopeState) -> u64 {
        if reads_results(&self.case.spec, task) && !m.results.is_empty() {
            self.coverage.hit(Mark::ResultRead);
        }
        if reads_state(&self.case.spec, task) {
            self.coverage.hit(Mark::StateRead);
        }
        let view = own_view(&self.script, task, view.clone());
        let events: Vec<Event> = m.events.iter().map(|(_, event)| event.clone()).collect();
        input_hash(&self.case.spec, task, &events, &view, |up| {
            m.results.get(&up).cloned().unwrap_or_default()
        })
    }

    /// What must hold when a member starts.
    fn check_start(&mut self, at: usize, member: usize) -> Result<(), String> {
        let running = &self.workers[at];
        let task = running.task;
        let m = running.members[member].clone();
        let who = format!("{} task {task}[{}] try {}", m.act, m.index, m.tries);
        let spec = &self.case.spec.tasks[usize::from(task)];
        let tries = self.live.failures(m.act, task, m.index) + 1;
        let round = self.live.entries.get(&m.act).map_or(0, |e| e.round);
        if self
            .live
            .entries
            .get(&m.act)
            .is_some_and(|e| e.finals.contains_key(&(task, m.index)))
        {
            return Err(format!("{who} runs again after its outcome was accepted"));
        }
        if round != m.round {
            return Err(format!("{who}: round {} instead of {round}", m.round));
        }
        if tries != m.tries {
            return Err(format!("{who}: {} failures are on record", tries - 1));
        }
        if self.durable.entries.get(&m.act).map_or(0, |e| e.round) != round {
            return Err(format!("{who} runs before its redrive is committed"));
        }
        // C3: what made the verdict is committed.
        let verdict = self.judged(&self.durable, m.act)[usize::from(task)].clone();
        if !matches!(&verdict, Judged::Runs(left) if left.contains(&m.index)) {
            return Err(format!(
                "{who} runs, but what is committed says {verdict:?}"
            ));
        }
        let known = self.judged(&self.durable, m.act);
        let ends = |node: &Node| match *node {
            Node::Task(up) => matches!(known[usize::from(up)], Judged::Is(_)),
            Node::Source(_) => true,
        };
        if !spec.upstream.iter().all(ends) {
            self.coverage.hit(Mark::EarlyVerdict);
        }
        self.check_active(m.act)?;
        if spec.on_interrupt == OnInterrupt::Fail {
            let on_record = self.durable.entries.get(&m.act);
            if !on_record.is_some_and(|e| e.started.contains(&(task, m.index))) {
                return Err(format!("{who} starts before its start is committed (C4)"));
            }
            if !self.starts.insert((m.act, task, m.index, round, m.tries)) {
                return Err(format!("{who} starts twice, and must not (C4)"));
            }
        }
        self.check_order(at, &m, &who)
    }

    /// W19: `max_active_runs` counts what has begun and not settled, blocked ones included.
    fn check_active(&mut self, act: Act) -> Result<(), String> {
        let Some(most) = self.case.spec.max_active_runs else {
            return Ok(());
        };
        if self.live.entries.get(&act).is_some_and(|e| e.round > 0) {
            // An operator's redrive comes on top.
            return Ok(());
        }
        self.begun.insert(act);
        let active: Vec<Act> = self
            .begun
            .iter()
            .copied()
            .filter(|&a| {
                let redriven = self.live.entries.get(&a).is_some_and(|e| e.round > 0);
                !redriven && !self.past_caring(a) && !self.is_settled(&self.live, a)
            })
            .collect();
        if active.len() > most as usize {
            return Err(format!(
                "{active:?} are active, at most {most} may be (W19)"
            ));
        }
        if active.len() == most as usize {
            self.coverage.hit(Mark::ActiveMax);
        }
        Ok(())
    }

    /// W4: who of the same scope has to be done before.
    fn check_order(&self, at: usize, m: &Member, who: &str) -> Result<(), String> {
        let order = self.case.spec.order;
        if order == Order::None || self.live.entries.get(&m.act).is_some_and(|e| e.left_order) {
            return Ok(());
        }
        let task = self.workers[at].task;
        let lane = &self.case.lanes[usize::from(m.act.lane)].events;
        for event in lane.iter().take_while(|e| e.position < m.act.position) {
            if order == Order::Key && event.key != m.scope.1 {
                continue;
            }
            let earlier = Act {
                lane: m.act.lane,
                position: event.position,
                child: 0,
            };
            let part_of_batch = !self.members.contains_key(&earlier) && self.case.is_batch();
            if part_of_batch || self.past_caring(earlier) {
                continue;
            }
            let running = &self.workers[at];
            // What was decided before a redrive may end (W4).
            let redriven = self.redriven.get(&earlier);
            let outran =
                redriven.is_some_and(|&(fence, last)| fence == running.fence && running.id <= last);
            // What still runs when the run is over ends for nobody.
            if outran || self.is_over() {
                continue;
            }
            let fresh = running.members.iter().enumerate().any(|(i, other)| {
                other.act == earlier
                    && matches!(
                        running.unreported.get(&(i as u32)),
                        Some(Outcome::Success | Outcome::SuccessWith(_) | Outcome::Skipped)
                    )
            });
            if order == Order::Serial && !self.is_settled(&self.live, earlier) {
                return Err(format!("{who} starts before {earlier} has settled (W4)"));
            }
            if !fresh && !self.is_done_at(earlier, task) {
                return Err(format!("{who} starts before {earlier} is done at it (W4)"));
            }
        }
        Ok(())
    }

    /// Given up, or out of the order since it parked.
    fn past_caring(&self, act: Act) -> bool {
        self.live
            .entries
            .get(&act)
            .is_some_and(|e| e.discarded || e.left_order)
            || self.is_written_off(act)
    }

    /// Parked because it may be what kills the engine (C6).
    pub(crate) fn is_written_off(&self, act: Act) -> bool {
        self.crashes > 2
            && self.machine.parked(RUN).any(|parked| {
                parked.reason == ParkReason::SuspectCrash
                    && self.act_of(parked.activation) == Ok(act)
            })
    }

    fn is_done_at(&self, act: Act, task: u16) -> bool {
        let judged = self.judged(&self.live, act);
        matches!(judged[usize::from(task)], Judged::Is(_) | Judged::Absent)
    }

    /// W4: a redrive of what failed under `block` or `stop` would clear this task. Below tasks that
    /// may run early the failure can come too late to hold anyone.
    fn is_withheld(&self, judged: &[Judged], task: u16) -> bool {
        let early = self.graph.judges_early(&self.case.spec);
        (0..judged.len()).any(|failed| {
            let policy = self.case.spec.tasks[failed].on_failure;
            judged[failed] == Judged::Is(State::Failed)
                && matches!(policy, OnFailure::Block | OnFailure::Stop)
                && (failed == usize::from(task)
                    || !early && self.graph.below[failed].contains(&task))
        })
    }

    /// W4: nothing of a blocked scope is sent any more; what is out already may end.
    pub(crate) fn check_blocked(&self, running: &Running) -> Result<(), String> {
        let order = self.case.spec.order;
        let unseen =
            |task: &TaskSpec| matches!(task.kind, TaskKind::Delay { .. } | TaskKind::Signal { .. });
        if order == Order::None || self.case.spec.tasks.iter().any(unseen) {
            // When a delay ends nobody hears of it: whether the activation has settled is not known.
            return Ok(());
        }
        for m in &running.members {
            let lane = &self.case.lanes[usize::from(m.act.lane)].events;
            for event in lane.iter().take_while(|e| e.position < m.act.position) {
                let same = order != Order::Key || event.key == m.scope.1;
                let earlier = Act {
                    lane: m.act.lane,
                    position: event.position,
                    child: 0,
                };
                if !same || !self.live.entries.contains_key(&earlier) || self.past_caring(earlier) {
                    continue;
                }
                let judged = self.judged(&self.live, earlier);
                let all = judged
                    .iter()
                    .all(|j| matches!(j, Judged::Is(_) | Judged::Absent));
                let left = self.live.entries.get(&m.act).is_some_and(|e| e.left_order);
                let withheld = !all && self.is_withheld(&judged, running.task);
                if withheld && !left {
                    let (who, task) = (m.act, running.task);
                    return Err(format!(
                        "{who} task {task} is sent, {earlier} may be redriven there"
                    ));
                }
                if all && self.is_blocked(&judged) && !left {
                    let (who, task) = (m.act, running.task);
                    return Err(format!(
                        "{who} task {task} is sent while {earlier} blocks (W4)"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Settled, and not in the way of its scope.
    fn is_settled(&self, ledger: &Ledger, act: Act) -> bool {
        let judged = self.judged(ledger, act);
        let all = judged
            .iter()
            .all(|j| matches!(j, Judged::Is(_) | Judged::Absent));
        all && !self.is_blocked(&judged)
    }

    /// Whether an activation with these final states settles as blocked.
    pub(crate) fn is_blocked(&self, judged: &[Judged]) -> bool {
        let state = |t: usize| match judged[t] {
            Judged::Is(state) => Some(state),
            _ => None,
        };
        let all = 0..judged.len();
        let bad = |t: &usize| {
            let takes_part = |task: usize| judged[task] != Judged::Absent;
            matches!(state(*t), Some(State::Failed | State::UpstreamFailed))
                && self.graph.is_leaf(*t, takes_part)
        };
        let policy = all
            .clone()
            .filter(|&t| state(t) == Some(State::Failed))
            .map(|t| self.case.spec.tasks[t].on_failure)
            .max();
        let mut all = all;
        all.any(|t| bad(&t)) && policy == Some(OnFailure::Block)
    }

    /// A report under the current fence: it will be accepted.
    pub(crate) fn accept(
        &mut self,
        at: usize,
        member: usize,
        ended: &Outcome,
    ) -> Result<(), String> {
        let running = &self.workers[at];
        let (task, m) = (running.task, running.members[member].clone());
        let round = self.live.entries.get(&m.act).map_or(0, |e| e.round);
        let mut end = Final {
            state: State::Success,
            tries: m.tries,
            round,
            result: None,
            chosen: None,
            proceed: None,
            map_length: None,
        };
        match ended {
            Outcome::Success => {}
            Outcome::SuccessWith(success) => {
                end.result.clone_from(&success.result);
                end.chosen.clone_from(&success.chosen);
                end.proceed = success.proceed;
                end.map_length = success.map_length;
                if !success.state.is_empty() {
                    self.coverage.hit(Mark::StateWrite);
                }
                if success.chosen.is_some() {
                    self.coverage.hit(Mark::Branch);
                }
            }
            Outcome::Skipped => {
                self.coverage.hit(Mark::SelfSkip);
                end.state = State::Skipped;
            }
            Outcome::Waiting { .. } => {
                self.coverage.hit(Mark::Poke);
                let poke = self.case.spec.tasks[usize::from(task)].poke;
                // One that has more time than none is asked again.
                let Some(poke) = poke.filter(|poke| poke.timeout_ms == Some(0)) else {
                    return Ok(());
                };
                self.coverage.hit(Mark::PokeLate);
                end.state = if poke.skips {
                    State::Skipped
                } else {
                    State::Failed
                };
            }
            Outcome::Failed { retryable, .. } => {
                let fact = self.failed_try(&Book::Live, m.act, task, m.index, *retryable, false);
                return self.fact(fact);
            }
        }
        self.fact(Fact::Ended(m.act, task, m.index, end))
    }

    /// A try failed: for good, or another one follows.
    pub(crate) fn failed_try(
        &mut self,
        book: &Book,
        act: Act,
        task: u16,
        index: i32,
        retryable: bool,
        interrupted: bool,
    ) -> Fact {
        let ledger = match book {
            Book::Live => &self.live,
            Book::Durable => &self.durable,
        };
        let tries = ledger.failures(act, task, index) + 1;
        let round = ledger.entries.get(&act).map_or(0, |e| e.round);
        if interrupted {
            self.script
                .interrupted
                .insert((act, task, index, round, tries));
        }
        if retryable && tries <= self.case.spec.tasks[usize::from(task)].retries {
            self.coverage.hit(Mark::Retry);
            return Fact::Tried(act, task, index);
        }
        if !retryable && tries <= self.case.spec.tasks[usize::from(task)].retries {
            self.coverage.hit(Mark::Fatal);
        }
        let state = State::Failed;
        let (result, chosen, proceed, map_length) = (None, None, None, None);
        let end = Final {
            state,
            tries,
            round,
            result,
            chosen,
            proceed,
            map_length,
        };
        Fact::Ended(act, task, index, end)
    }

    /// A worker died in this member (W3, C4).
    pub(crate) fn interrupted(
        &mut self,
        running: &Running,
        member: usize,
        by_chance: bool,
    ) -> Result<(), String> {
        let m = &running.members[member];
        let spec = &self.case.spec.tasks[usize::from(running.task)];
        if spec.on_interrupt == OnInterrupt::Fail {
            // Whatever ran up to there and was not reported may have happened: it has failed.
            for &ran in running.left().iter().filter(|&&ran| ran <= member) {
                self.coverage.hit(Mark::InterruptFail);
                let (act, index) = (running.members[ran].act, running.members[ran].index);
                let fact = self.failed_try(&Book::Live, act, running.task, index, false, true);
                self.fact(fact)?;
            }
            return Ok(());
        }
        if running.members.len() > 1 {
            self.suspects.insert((m.act, running.task, m.index));
            return Ok(());
        }
        self.coverage.hit(Mark::DeathAlone);
        let (act, index) = (m.act, m.index);
        let fact = self.failed_try(&Book::Live, act, running.task, index, true, by_chance);
        self.fact(fact)
    }

    /// Which laps follow one that is parked as a suspect is not known beforehand (W15).
    fn has_stray_laps(&self) -> bool {
        let mut parked = self.machine.parked(RUN);
        self.case.is_loop() && parked.any(|p| p.reason == ParkReason::SuspectCrash)
    }

    /// W10, at every seal: every event is in exactly one counter.
    pub(crate) fn check_counters(&mut self) -> Result<(), String> {
        let c = self.counters()?;
        let gone = c.done + c.skipped + c.parked + c.dropped;
        if gone > c.seen {
            return Err(format!("counters do not add up: {c:?}"));
        }
        let known: usize = self.case.lanes.iter().map(|lane| lane.events.len()).sum();
        if c.seen > known as u64 && !self.has_stray_laps() {
            return Err(format!("{} events were seen, there are {known}", c.seen));
        }
        Ok(())
    }
}

/// Which ledger a failure is counted in.
pub(crate) enum Book {
    /// What the machine was told.
    Live,
    /// What is committed.
    Durable,
}
