//! Waves: containers of members that go through the graph together.
//!
//! A wave keeps, for every node of its plan, one bit per member in each of these rows:
//!
//! ```text
//! (nothing) --verdict run--> WAITS (ordered) --> READY --dispatch--> RUN --success--> SUCCESS, DONE
//!     |                                            ^                  |---skip------> SKIPPED, DONE
//!     |                                            |----- HOLD <------|---retry
//!     |                                                               |---final-----> FAILED, DONE
//!     |--verdict skip--> SKIPPED, DONE
//!     '--verdict upstream_failed--> UPSTREAM_FAILED, DONE
//! ```
//!
//! `JUDGED` is set with the verdict, `FORCED` by a branch or short circuit above, `NOTED` once the
//! member's scope knows it is done here. A mapped node (W9) keeps its instances in a `MapSpace`;
//! its rows here then say "some instance is ...", and `DONE` that all are.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::bits::{self, Mask};
use crate::command::{ActivationKey, Event, LaneId, Ms, RunIx};
use crate::dag::{Dag, Plan, PlanNode, TaskKind, TaskSpec};
use crate::map::MapSpace;
use crate::rule::Upstreams;
use crate::scope::ScopeKey;

/// A row of bits, one per member, kept for every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Row {
    Judged,
    Waits,
    Ready,
    Run,
    Hold,
    Success,
    Failed,
    UpstreamFailed,
    Skipped,
    Done,
    Forced,
    Noted,
}

const ROWS: usize = 12;

/// One activation inside a wave.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) key: ActivationKey,
    /// Position of its last event: the first one unless it is a source batch.
    pub(crate) last: u64,
    /// Its events in `Wave::events`.
    pub(crate) first_event: u32,
    pub(crate) events: u32,
    /// How often it was redriven.
    pub(crate) round: u32,
    /// Its missed deadline was counted.
    pub(crate) late: bool,
    /// Its join timed out (W6).
    pub(crate) silenced: bool,
    /// It has a row of its own, to be deleted when it settles.
    pub(crate) row: bool,
    /// Unclean stops at which it was running with a row of its own (C6).
    pub(crate) stops: u32,
}

/// What is known of a (node, instance) beyond its bits; most have no such entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trial {
    /// Failed tries so far.
    pub(crate) failures: u32,
    /// Deaths of a worker while this attempt ran.
    pub(crate) interruptions: u32,
    /// Must be dispatched alone: a suspect (W3).
    pub(crate) alone: bool,
    /// When the hold ends; `None` while held means "on an event", such as a signal.
    pub(crate) due: Option<Ms>,
    /// Of a sensor that has said *not yet*.
    pub(crate) asked: Option<Asked>,
    /// It ended skipped by its own wish, not by a verdict.
    pub(crate) skipped_itself: bool,
    /// The last error, for parked activations.
    pub(crate) error: Option<Bytes>,
}

/// How far a sensor has got with its waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// When it first said *not yet*.
    pub(crate) since: Ms,
    /// How often it did.
    pub(crate) times: u32,
}

/// Some nodes of a plan.
pub(crate) type Nodes = SmallVec<[u16; 8]>;

/// A container of members. See the module's table.
#[derive(Debug)]
pub(crate) struct Wave {
    pub(crate) id: u64,
    pub(crate) run: RunIx,
    pub(crate) version: u16,
    pub(crate) dag: Arc<Dag>,
    pub(crate) plan: u16,
    pub(crate) members: Vec<Member>,
    pub(crate) events: Vec<Event>,
    /// Places of members in their scopes; empty when nothing is ordered.
    pub(crate) scopes: Vec<Option<(ScopeKey, u64)>>,
    /// Events of further sources (W6), by member: source, lane, event.
    pub(crate) bound: BTreeMap<u32, Vec<(u16, LaneId, Event)>>,
    pub(crate) words: usize,
    rows: Vec<u64>,
    /// Members that settled or were materialised.
    pub(crate) left: Mask,
    /// Members with rows of their own while they are here (W2); empty until there are any.
    pub(crate) covered: Mask,
    /// Sparse: (node, member) or, for mapped nodes, (node, instance).
    pub(crate) trials: BTreeMap<(u16, u32), Trial>,
    /// Results by node, one per member, once any was reported.
    pub(crate) results: BTreeMap<u16, Vec<Option<Bytes>>>,
    /// Reported list lengths by (node, member).
    pub(crate) map_lengths: BTreeMap<(u16, u32), u32>,
    pub(crate) maps: BTreeMap<u16, MapSpace>,
    /// Nodes whose ready members are queued with the run.
    pub(crate) queued: Mask,
    /// Outcome rows written so far.
    pub(crate) rows_written: u64,
    /// Dispatches must follow a commit: probation, batches, recovered or redriven members.
    pub(crate) careful: bool,
    /// The lane it was read from, in one stretch; `None` for released activations.
    pub(crate) lane: Option<LaneId>,
    /// Nodes a branch or short circuit skipped, by its (node, member).
    pub(crate) choices: BTreeMap<(u16, u32), Vec<u16>>,
    /// The loop's `until` said yes (W15).
    pub(crate) until_reached: bool,
    /// Events in `events` that belong to no member any more (W8: split off).
    pub(crate) shrunk: u32,
    /// Nothing else may be in flight with it (C6).
    pub(crate) alone: bool,
    /// A suspect row covers this wave, keyed by this position (C6).
    pub(crate) suspect: Option<(LaneId, u64)>,
    /// When members were first sent and when they ended there, where that will be remembered; as
    /// `trials`.
    pub(crate) times: BTreeMap<(u16, u32), (Ms, Option<Ms>)>,
    /// Signal waits begun by the last sweep, for the machine to register: (node, member).
    pub(crate) signal_waits: Vec<(u16, u32)>,
}

impl Wave {
    pub(crate) fn new(
        id: u64,
        run: RunIx,
        (version, dag): (u16, Arc<Dag>),
        plan: u16,
        members: Vec<Member>,
        events: Vec<Event>,
    ) -> Self {
        let steps = dag.plans[usize::from(plan)].steps.len();
        let words = bits::words(members.len());
        Self {
            id,
            run,
            version,
            plan,
            scopes: Vec::new(),
            bound: BTreeMap::new(),
            words,
            rows: vec![0; steps * ROWS * words],
            left: bits::none(words),
            covered: Mask::new(),
            trials: BTreeMap::new(),
            results: BTreeMap::new(),
            map_lengths: BTreeMap::new(),
            maps: BTreeMap::new(),
            queued: bits::none(bits::words(steps)),
            rows_written: 0,
            careful: false,
            lane: None,
            choices: BTreeMap::new(),
            until_reached: false,
            shrunk: 0,
            alone: false,
            suspect: None,
            signal_waits: Vec::new(),
            times: BTreeMap::new(),
            dag,
            members,
            events,
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.dag.plans[usize::from(self.plan)]
    }

    /// The task a node stands for; `None` for sources.
    pub(crate) fn task(&self, node: u16) -> Option<&TaskSpec> {
        self.dag.task(&self.plan().steps[usize::from(node)])
    }

    pub(crate) fn task_index(&self, node: u16) -> Option<u16> {
        match self.plan().steps[usize::from(node)].node {
            PlanNode::Task(task) => Some(task),
            PlanNode::Source(_) => None,
        }
    }

    pub(crate) fn everyone(&self) -> Mask {
        bits::full(self.members.len())
    }

    const fn offset(&self, node: u16, row: Row) -> usize {
        (node as usize * ROWS + row as usize) * self.words
    }

    pub(crate) fn row(&self, node: u16, row: Row) -> &[u64] {
        let at = self.offset(node, row);
        &self.rows[at..at + self.words]
    }

    pub(crate) fn row_mut(&mut self, node: u16, row: Row) -> &mut [u64] {
        let at = self.offset(node, row);
        &mut self.rows[at..at + self.words]
    }

    fn word(&self, node: u16, row: Row, word: usize) -> u64 {
        self.rows[self.offset(node, row) + word]
    }

    fn word_mut(&mut self, node: u16, row: Row, word: usize) -> &mut u64 {
        let at = self.offset(node, row) + word;
        &mut self.rows[at]
    }

    pub(crate) fn is(&self, node: u16, row: Row, member: u32) -> bool {
        bits::get(self.row(node, row), member)
    }

    pub(crate) fn put(&mut self, node: u16, row: Row, member: u32) {
        bits::set(self.row_mut(node, row), member);
    }

    pub(crate) fn take(&mut self, node: u16, row: Row, member: u32) {
        bits::clear(self.row_mut(node, row), member);
    }

    /// Ends the masked members of a node in this state.
    pub(crate) fn end(&mut self, node: u16, state: Row, mask: &[u64]) {
        for (word, &bits) in mask.iter().enumerate() {
            self.end_word(node, state, word, bits);
        }
    }

    /// `end` for one word.
    pub(crate) fn end_word(&mut self, node: u16, state: Row, word: usize, bits: u64) {
        for row in [Row::Waits, Row::Ready, Row::Run, Row::Hold] {
            *self.word_mut(node, row, word) &= !bits;
        }
        for row in [Row::Judged, Row::Done, state] {
            *self.word_mut(node, row, word) |= bits;
        }
    }

    pub(crate) fn trial(&mut self, node: u16, at: u32) -> &mut Trial {
        self.trials.entry((node, at)).or_default()
    }

    pub(crate) fn keep_result(&mut self, node: u16, member: u32, result: Bytes) {
        let count = self.members.len();
        let column = self
            .results
            .entry(node)
            .or_insert_with(|| vec![None; count]);
        column[member as usize] = Some(result);
    }

    pub(crate) fn result(&self, node: u16, member: u32) -> Option<&Bytes> {
        self.results.get(&node)?.get(member as usize)?.as_ref()
    }

    /// Skips, for this member, what a branch did not choose.
    pub(crate) fn force_unchosen(&mut self, node: u16, member: u32, chosen: &[u16]) {
        let plan = self.plan();
        let step = &plan.steps[usize::from(node)];
        let chosen: Vec<u16> = chosen
            .iter()
            .filter_map(|&t| plan.place[usize::from(t)])
            .collect();
        let spared = |down: &u16| {
            chosen.iter().any(|c| {
                c == down
                    || plan.steps[usize::from(*c)]
                        .below
                        .binary_search(down)
                        .is_ok()
            })
        };
        let skipped: Vec<u16> = step.down.iter().copied().filter(|d| !spared(d)).collect();
        self.force(node, member, skipped);
    }

    /// Marks these nodes as skipped by this one for this member.
    pub(crate) fn force(&mut self, node: u16, member: u32, skipped: Vec<u16>) {
        for &down in &skipped {
            self.put(down, Row::Forced, member);
        }
        self.choices.insert((node, member), skipped);
    }

    /// Skips, for this member, what is below a short circuit that said no.
    pub(crate) fn force_below(&mut self, node: u16, member: u32, all: bool) {
        let step = &self.plan().steps[usize::from(node)];
        let below = if all { &step.below } else { &step.down };
        let is_teardown = |n: &u16| self.task(*n).is_some_and(|task| task.teardown);
        let below: Vec<u16> = below.iter().copied().filter(|n| !is_teardown(n)).collect();
        self.force(node, member, below);
    }

    /// Gives every verdict that has become possible for the masked members below the dirty nodes
    /// (a bitset over nodes, emptied), cascading. Nodes that gained runnable members are added to
    /// `runnable`; delays begun here end at `now` plus their length.
    pub(crate) fn sweep(
        &mut self,
        mask: &[u64],
        dirty: &mut [u64],
        now: Ms,
        ordered: bool,
        runnable: &mut Nodes,
    ) {
        let dag = Arc::clone(&self.dag);
        let plan = &dag.plans[usize::from(self.plan)];
        let mut at = 0;
        while let Some(node) = next_one(dirty, at) {
            bits::clear(dirty, u32::from(node));
            at = node;
            let PlanNode::Task(task) = plan.steps[usize::from(node)].node else {
                continue;
            };
            let spec = &dag.spec.tasks[usize::from(task)];
            let (mut ended, mut ran) = (false, false);
            for (word, &masked) in mask.iter().enumerate() {
                let open = masked & !self.word(node, Row::Judged, word) & !self.left[word];
                if open == 0 {
                    continue;
                }
                let (end, run) = self.judge_word(plan, node, spec, word, open);
                ended |= end;
                if run != 0 {
                    let (end, start) = self.start_word(node, spec, word, run, now, ordered);
                    ended |= end;
                    ran |= start;
                }
            }
            if ran {
                runnable.push(node);
            }
            if ended {
                for &down in &plan.steps[usize::from(node)].down {
                    bits::set(dirty, u32::from(down));
                }
                for &below in guarded_by(plan, node, spec) {
                    bits::set(dirty, u32::from(below));
                }
            }
        }
    }

    /// Verdicts for one word: whether any member ended here, and which are to run.
    fn judge_word(
        &mut self,
        plan: &Plan,
        node: u16,
        spec: &TaskSpec,
        word: usize,
        open: u64,
    ) -> (bool, u64) {
        let step = &plan.steps[usize::from(node)];
        let mut cleared = open;
        for &guard in &step.guards {
            cleared &= self.word(guard, Row::Done, word);
        }
        if cleared == 0 {
            return (false, 0);
        }
        let mut up = Upstreams {
            done: !0,
            ..Upstreams::default()
        };
        for &above in &step.up {
            up.success |= self.word(above, Row::Success, word);
            up.failed |= self.word(above, Row::Failed, word);
            up.upstream_failed |= self.word(above, Row::UpstreamFailed, word);
            up.skipped |= self.word(above, Row::Skipped, word);
            up.done &= self.word(above, Row::Done, word);
        }
        for &setup in &step.setup_up {
            up.has_setup = !0;
            up.setup_success |= self.word(setup, Row::Success, word);
            // Of a mapped setup some instances may be skipped and others not.
            for row in [Row::Success, Row::Failed, Row::UpstreamFailed] {
                up.setup_not_skipped |= self.word(setup, row, word);
            }
        }
        let mut verdicts = if step.up.is_empty() {
            crate::rule::Verdicts {
                run: !0,
                ..Default::default()
            }
        } else {
            spec.rule.judge(&up)
        };
        let forced = cleared & self.word(node, Row::Forced, word);
        verdicts.run &= cleared & !forced;
        verdicts.upstream_failed &= cleared & !forced;
        verdicts.skip = (verdicts.skip & cleared) | forced;
        let ends = verdicts.skip | verdicts.upstream_failed;
        *self.word_mut(node, Row::Judged, word) |= ends | verdicts.run;
        *self.word_mut(node, Row::Skipped, word) |= verdicts.skip;
        *self.word_mut(node, Row::UpstreamFailed, word) |= verdicts.upstream_failed;
        *self.word_mut(node, Row::Done, word) |= ends;
        (ends != 0, verdicts.run)
    }

    /// Puts the members that are to run into the row their kind begins in: whether any ended, and
    /// whether any goes on.
    fn start_word(
        &mut self,
        node: u16,
        spec: &TaskSpec,
        word: usize,
        run: u64,
        now: Ms,
        ordered: bool,
    ) -> (bool, bool) {
        if spec.mapped.is_some() {
            return self.map_word(node, word, run, ordered);
        }
        match &spec.kind {
            TaskKind::Noop => {
                *self.word_mut(node, Row::Success, word) |= run;
                *self.word_mut(node, Row::Done, word) |= run;
                return (true, false);
            }
            TaskKind::Delay { ms } => {
                *self.word_mut(node, Row::Hold, word) |= run;
                for member in bits::ones(&[run]) {
                    self.trial(node, word as u32 * 64 + member).due = Some(now + ms);
                }
            }
            TaskKind::Signal { .. } => {
                *self.word_mut(node, Row::Hold, word) |= run;
                for member in bits::ones(&[run]) {
                    self.signal_waits.push((node, word as u32 * 64 + member));
                }
            }
            _ if ordered => *self.word_mut(node, Row::Waits, word) |= run,
            _ => *self.word_mut(node, Row::Ready, word) |= run,
        }
        (false, true)
    }

    /// Masked members whose every task is final, that await no source, and that have not left.
    pub(crate) fn settled(&self, mask: &[u64]) -> Mask {
        let steps = self.plan().steps.len() as u16;
        let mut settled = bits::without(mask, &self.left);
        // From the end of the graph, where what is under way lacks something soonest.
        for node in (0..steps).rev() {
            let mut any = 0;
            for (all, done) in settled.iter_mut().zip(self.row(node, Row::Done)) {
                *all &= done;
                any |= *all;
            }
            if any == 0 {
                break;
            }
        }
        settled
    }

    /// Whether any attempt of this member is out or could go out now.
    pub(crate) fn is_busy(&self, member: u32) -> bool {
        let steps = self.plan().steps.len() as u16;
        (self.plan().sources as u16..steps).any(|node| {
            self.is(node, Row::Run, member)
                || self.is(node, Row::Ready, member)
                || self
                    .maps
                    .get(&node)
                    .is_some_and(|space| space.is_busy(member))
        })
    }

    /// Place in its scope; `None` when nothing is ordered or it left the order.
    pub(crate) fn scope(&self, member: u32) -> Option<(ScopeKey, u64)> {
        self.scopes.get(member as usize).copied().flatten()
    }

    /// Events of further sources a member has.
    pub(crate) fn bound(&self, member: u32) -> &[(u16, LaneId, Event)] {
        self.bound.get(&member).map_or(&[], Vec::as_slice)
    }

    /// Events of the masked members, and their payload bytes.
    pub(crate) fn load(&self, mask: &[u64]) -> (usize, usize) {
        let bytes = |events: &[Event]| events.iter().map(|event| event.body.len()).sum::<usize>();
        if bits::count(mask) as usize == self.members.len() && self.shrunk == 0 {
            return (self.events.len(), bytes(&self.events));
        }
        bits::ones(mask)
            .map(|member| self.member_events(member))
            .fold((0, 0), |(count, sum), events| {
                (count + events.len(), sum + bytes(events))
            })
    }

    pub(crate) fn is_over(&self) -> bool {
        bits::count(&self.left) as usize == self.members.len()
    }

    pub(crate) fn member_events(&self, member: u32) -> &[Event] {
        let member = &self.members[member as usize];
        let first = member.first_event as usize;
        &self.events[first..first + member.events as usize]
    }
}

/// The nodes whose verdict waits for this one beyond its direct downstreams.
fn guarded_by<'a>(plan: &'a Plan, node: u16, spec: &TaskSpec) -> &'a [u16] {
    match spec.kind {
        TaskKind::ShortCircuit {
            all_downstream: true,
        } => &plan.steps[usize::from(node)].below,
        _ => &[],
    }
}

fn next_one(row: &[u64], from: u16) -> Option<u16> {
    let (mut word, bit) = (usize::from(from) / 64, from % 64);
    let mut current = *row.get(word)? & (!0 << bit);
    while current == 0 {
        word += 1;
        current = *row.get(word)?;
    }
    Some((word * 64) as u16 + current.trailing_zeros() as u16)
}
