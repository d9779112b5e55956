//! Dispatches: what is out at a worker, and how the driver reads it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::bits::{self, Mask};
use crate::command::{ActivationKey, DispatchId, DispatchOrder, Event, LaneId, Ms, RunIx};
use crate::dag::{Dag, PlanNode};
use crate::machine::Machine;
use crate::run::{Run, StateScope};
use crate::scope::ScopeKey;
use crate::wave::Wave;

/// One member of a dispatch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) wave: u32,
    pub(crate) node: u16,
    /// Member, or instance of a mapped node.
    pub(crate) at: u32,
    pub(crate) alone: bool,
}

/// A lease on members of one task.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) id: DispatchId,
    pub(crate) run: RunIx,
    pub(crate) dag: Arc<Dag>,
    pub(crate) version: u16,
    pub(crate) task: u16,
    pub(crate) order: DispatchOrder,
    pub(crate) issued: Ms,
    pub(crate) slots: Vec<Slot>,
    /// Members not reported yet.
    pub(crate) outstanding: Mask,
    /// Slots of its task's pool that it has (W19).
    pub(crate) taken: u32,
}

impl Dispatch {
    pub(crate) fn new(
        id: DispatchId,
        run: RunIx,
        dag: Arc<Dag>,
        (version, task): (u16, u16),
        order: DispatchOrder,
        issued: Ms,
        slots: Vec<Slot>,
    ) -> Self {
        let outstanding = bits::full(slots.len());
        Self {
            id,
            run,
            dag,
            version,
            task,
            order,
            issued,
            slots,
            outstanding,
            taken: 0,
        }
    }

    /// The unreported members from this index on, as a dispatch that no worker has. Here they are no
    /// longer outstanding: what is still reported of them comes too late.
    pub(crate) fn split_off(&mut self, from: u32) -> Self {
        let left = bits::ones(&self.outstanding).filter(|index| *index >= from);
        let slots = left.map(|index| self.slots[index as usize]).collect();
        let members = self.slots.len() as u32;
        bits::clear_all(&mut self.outstanding, from.min(members), members);
        Self::new(
            self.id,
            self.run,
            Arc::clone(&self.dag),
            (self.version, self.task),
            self.order,
            self.issued,
            slots,
        )
    }
}

/// What is out, by id. Ids only grow, so a queue keeps their order, and its memory: there is one
/// dispatch or many, and they come and go with every other command.
#[derive(Debug, Default)]
pub(crate) struct Dispatches(VecDeque<Dispatch>);

impl Dispatches {
    fn place(&self, id: DispatchId) -> Option<usize> {
        self.0
            .binary_search_by_key(&id, |dispatch| dispatch.id)
            .ok()
    }

    /// Adds the latest dispatch.
    pub(crate) fn push(&mut self, dispatch: Dispatch) {
        debug_assert!(self.0.back().is_none_or(|last| last.id < dispatch.id));
        self.0.push_back(dispatch);
    }

    pub(crate) fn get(&self, id: DispatchId) -> Option<&Dispatch> {
        self.0.get(self.place(id)?)
    }

    pub(crate) fn get_mut(&mut self, id: DispatchId) -> Option<&mut Dispatch> {
        let place = self.place(id)?;
        self.0.get_mut(place)
    }

    pub(crate) fn remove(&mut self, id: DispatchId) -> Option<Dispatch> {
        self.0.remove(self.place(id)?)
    }

    /// The oldest dispatch that is not older than this one.
    pub(crate) fn first_from(&self, id: DispatchId) -> Option<&Dispatch> {
        self.0.get(self.0.partition_point(|other| other.id < id))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Dispatch> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Dispatch> {
        self.0.iter_mut()
    }
}

/// A dispatch as the driver sends it.
#[derive(Debug, Clone, Copy)]
pub struct DispatchView<'a> {
    machine: &'a Machine,
    dispatch: &'a Dispatch,
}

/// A member of a dispatch as the driver sends it.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    run: &'a Run,
    wave: &'a Wave,
    dispatch: &'a Dispatch,
    slot: Slot,
    member: u32,
}

impl<'a> DispatchView<'a> {
    pub(crate) fn of(machine: &'a Machine, id: DispatchId) -> Option<Self> {
        Some(Self {
            machine,
            // With every member reported or given up, its waves may be gone.
            dispatch: machine
                .dispatches
                .get(id)
                .filter(|dispatch| !bits::is_empty(&dispatch.outstanding))?,
        })
    }

    /// The run.
    #[must_use]
    pub const fn run(&self) -> RunIx {
        self.dispatch.run
    }

    /// The DAG, in the version the members are pinned to.
    #[must_use]
    pub const fn dag(&self) -> &'a Arc<Dag> {
        &self.dispatch.dag
    }

    /// Index into `DagSpec::tasks`.
    #[must_use]
    pub const fn task(&self) -> u16 {
        self.dispatch.task
    }

    /// What the worker does after a failure.
    #[must_use]
    pub const fn order(&self) -> DispatchOrder {
        self.dispatch.order
    }

    /// How many members it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.dispatch.slots.len()
    }

    /// Never true: a dispatch has at least one member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.dispatch.slots.is_empty()
    }

    /// The members, in the order they are to start; before any of them is reported.
    pub fn members(&self) -> impl ExactSizeIterator<Item = MemberView<'a>> + use<'a> {
        let view = *self;
        self.dispatch.slots.iter().map(move |&slot| view.at(slot))
    }

    /// One member that is not reported yet. Once it is, its wave may be gone, while others go on.
    #[must_use]
    pub fn member(&self, index: u32) -> Option<MemberView<'a>> {
        let slot = *self.dispatch.slots.get(index as usize)?;
        bits::get(&self.dispatch.outstanding, index).then(|| self.at(slot))
    }

    fn at(&self, slot: Slot) -> MemberView<'a> {
        let wave = self.machine.wave(slot.wave);
        MemberView {
            run: &self.machine.runs[&self.dispatch.run],
            wave,
            dispatch: self.dispatch,
            slot,
            member: wave.member_of(slot.node, slot.at),
        }
    }
}

impl<'a> MemberView<'a> {
    /// Which activation.
    #[must_use]
    pub fn activation(&self) -> ActivationKey {
        self.wave.members[self.member as usize].key
    }

    /// The source's name for the activation's lane.
    #[must_use]
    pub fn lane_name(&self) -> &'a str {
        &self.run.lanes[&self.activation().lane.lane].cursor.name
    }

    /// The lane's incarnation (C1); a replay has that of the lane it reads again.
    #[must_use]
    pub fn incarnation(&self) -> &'a str {
        &self.run.lanes[&self.activation().lane.lane]
            .cursor
            .incarnation
    }

    /// The generation that enters effect keys: the lane's where fresh ones were asked for, else 0
    /// (C1, W18).
    #[must_use]
    pub fn key_generation(&self) -> u32 {
        self.run.lanes[&self.activation().lane.lane].key_generation()
    }

    /// Index into `DagSpec::sources`, of its own version, of the (first) event's source.
    #[must_use]
    pub fn source(&self) -> u16 {
        let lane = self.activation().lane.lane;
        self.run.source_of(self.wave.version, lane)
    }

    /// Its events: one, or those of a source batch. None where a join may begin with another
    /// source, or begin without: see `Step::sees`.
    #[must_use]
    pub fn events(&self) -> &'a [Event] {
        if self.sees(self.source()) {
            self.wave.member_events(self.member)
        } else {
            &[]
        }
    }

    /// Events of further sources of a join that the task sees, by source index.
    pub fn bound(&self) -> impl Iterator<Item = (u16, &'a Event)> + use<'a> {
        let view = *self;
        let bound = self.wave.bound(self.member).iter();
        bound
            .map(|(source, _, event)| (*source, event))
            .filter(move |(source, _)| view.sees(*source))
    }

    /// All events that the task sees of an activation that joins sources, with their source and lane,
    /// by source. `None` where nothing is joined: [`MemberView::events`] is all there is then.
    #[must_use]
    pub fn joined(&self) -> Option<Vec<(u16, LaneId, &'a Event)>> {
        if !self.wave.plan().is_join {
            return None;
        }
        let (own, lane) = (self.source(), self.activation().lane);
        let first = self.events().iter().map(|event| (own, lane, event));
        let bound = self.wave.bound(self.member).iter();
        let bound = bound
            .map(|(source, lane, event)| (*source, *lane, event))
            .filter(|(source, ..)| self.sees(*source));
        let mut seen: Vec<_> = first.chain(bound).collect();
        seen.sort_by_key(|(source, ..)| *source);
        Some(seen)
    }

    /// Sources that have fired for this activation, whether the task sees their events or not.
    pub fn fired(&self) -> impl Iterator<Item = u16> + use<'a> {
        let bound = self.wave.bound(self.member).iter();
        std::iter::once(self.source()).chain(bound.map(|(source, ..)| *source))
    }

    fn sees(&self, source: u16) -> bool {
        let plan = self.wave.plan();
        let fired = |&place: &u16| plan.steps[usize::from(place)].node == PlanNode::Source(source);
        !plan.is_join
            || plan.steps[usize::from(self.slot.node)]
                .sees
                .iter()
                .any(fired)
    }

    /// 1 for the first try.
    #[must_use]
    pub fn try_number(&self) -> u32 {
        1 + self
            .wave
            .trials
            .get(&(self.slot.node, self.slot.at))
            .map_or(0, |t| t.failures)
    }

    /// How often this sensor has said *not yet* in this round.
    #[must_use]
    pub fn asked(&self) -> u32 {
        let trial = self.wave.trials.get(&(self.slot.node, self.slot.at));
        trial
            .and_then(|trial| trial.asked)
            .map_or(0, |asked| asked.times)
    }

    /// How often the activation was redriven.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.wave.members[self.member as usize].round
    }

    /// The instance of a mapped task, else -1.
    #[must_use]
    pub fn map_index(&self) -> i32 {
        self.wave
            .maps
            .get(&self.slot.node)
            .map_or(-1, |space| space.locate(self.slot.at).1.cast_signed())
    }

    /// The accepted result of another task of this activation, by index into `DagSpec::tasks`.
    #[must_use]
    pub fn result(&self, task: u16) -> Option<&'a Bytes> {
        let node = self.wave.plan().place[usize::from(task)]?;
        self.wave.result(node, self.member)
    }

    /// The accepted results of a mapped task of this activation, by map index.
    #[must_use]
    pub fn results(&self, task: u16) -> Vec<Option<&'a Bytes>> {
        let node = self.wave.plan().place[usize::from(task)];
        let space = node.and_then(|node| self.wave.maps.get(&node));
        let Some(space) = space else {
            return Vec::new();
        };
        let Some((first, length)) = space.segment(self.member) else {
            return Vec::new();
        };
        (first..first + length)
            .map(|instance| space.results.get(&instance))
            .collect()
    }

    /// The scope its order is kept in; `None` when nothing is ordered.
    #[must_use]
    pub fn scope(&self) -> Option<ScopeKey> {
        self.wave.scope(self.member).map(|(scope, _)| scope)
    }

    /// The scope its state lives in (W5).
    #[must_use]
    pub fn state_scope(&self) -> StateScope {
        let events = self.wave.member_events(self.member);
        let key = events.first().map_or(0, |event| event.key);
        let lane = self.run.lanes[&self.activation().lane.lane].state_lane();
        Run::state_scope(&self.dispatch.dag, self.dispatch.task, lane, key)
    }
}
