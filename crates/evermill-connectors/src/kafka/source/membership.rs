//! Partitions that come and go with the group (`membership=True`); decision 0007 has the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use evermill_contract::source::{LaneFound, Severity, SourceError, SourceEvent};

use super::KafkaSource;
use crate::kafka::client::Client;
use crate::kafka::lane::{Lane, LaneState};
use crate::kafka::member::{Change, Member, Told};
use crate::limits;

impl KafkaSource {
    /// Becomes a member of the group, once the topic is there.
    pub(super) fn join(&mut self) -> Result<(), SourceError> {
        let Some(group) = self.config.group_id.as_deref().filter(|_| self.shares()) else {
            return Ok(());
        };
        if self.member.is_none() {
            let topic = &self.config.topic;
            let (connection, signal) = (&self.connection, &self.signal);
            let joined = Member::join(connection, group, topic, &self.diagnostics, signal);
            self.member = Some(joined.map_err(|error| {
                SourceError::Refused(format!("group {group:?} cannot be joined: {error}"))
            })?);
        }
        Ok(())
    }

    /// Whether partitions are shared with the other members of a group.
    pub(super) const fn shares(&self) -> bool {
        self.config.membership
    }

    /// Whether a partition is ours to read.
    pub(super) fn is_ours(&self, partition: i32) -> bool {
        let given = |member: &Member| member.is_ours(partition);
        !self.shares() || self.member.as_ref().is_some_and(given)
    }

    /// Tells of a lane that is ours.
    pub(super) fn tell_lane(&self, index: usize, out: &mut Vec<SourceEvent>) {
        let lane = &self.lanes[index];
        out.push(SourceEvent::Lane(LaneFound {
            name: lane.name.clone(),
            incarnation: self.incarnation(lane.partition),
            appeared: lane.appeared,
            shared: self.shares(),
        }));
    }

    /// Hears what the group has decided, and does what is due.
    pub(super) fn attend(&mut self, consumer: &Client, out: &mut Vec<SourceEvent>) {
        let Some(member) = &mut self.member else {
            return;
        };
        for change in member.attend() {
            match change {
                Change::Given(partitions) => self.given(&partitions, out),
                Change::Taken(partitions) => self.taken(consumer, partitions, false, out),
                Change::Lost(partitions) => self.taken(consumer, partitions, true, out),
            }
        }
        self.hear_told(consumer);
        self.hand_on();
    }

    fn given(&mut self, partitions: &BTreeSet<i32>, out: &mut Vec<SourceEvent>) {
        let Some(member) = &mut self.member else {
            return;
        };
        member.take(partitions);
        if member.has_none() {
            out.push(SourceEvent::NoLane);
        }
        for index in self.known_lanes(partitions) {
            self.tell_lane(index, out);
        }
    }

    fn taken(
        &mut self,
        consumer: &Client,
        partitions: BTreeSet<i32>,
        lost: bool,
        out: &mut Vec<SourceEvent>,
    ) {
        let lanes = self.known_lanes(&partitions);
        for &index in &lanes {
            self.stop(consumer, index);
            out.push(SourceEvent::LaneTaken {
                lane: self.lanes[index].name.clone(),
            });
        }
        let settling = lanes.iter().map(|&index| self.lanes[index].partition);
        let settling = settling.collect();
        let Some(member) = &mut self.member else {
            return;
        };
        if lost {
            member.lose(&partitions);
            (self.diagnostics)(
                Severity::Warning,
                &format!(
                    "topic {:?}: the group went on without us; what is under way of partitions \
                     {partitions:?} may run elsewhere, too",
                    self.config.topic
                ),
            );
        } else {
            member.give(partitions, settling);
        }
    }

    fn known_lanes(&self, partitions: &BTreeSet<i32>) -> Vec<usize> {
        let index = |partition: &i32| usize::try_from(*partition).ok();
        let known = partitions.iter().filter_map(index);
        known.filter(|index| *index < self.lanes.len()).collect()
    }

    /// The engine has settled a lane that was taken.
    pub(super) fn released(&mut self, index: usize, position: Option<u64>) {
        let lane = &mut self.lanes[index];
        let member = self.member.as_mut();
        if member.is_some_and(|member| member.release(lane.partition)) {
            lane.ack = position.or(lane.ack);
        }
    }

    /// Sends positions that the group does not have: acknowledged ones, and those where lanes begin.
    pub(super) fn tell_group(&mut self) -> bool {
        let Some(member) = &mut self.member else {
            return false;
        };
        if member.is_telling() {
            return true;
        }
        let mut positions = BTreeMap::new();
        for lane in &mut self.lanes {
            if !member.may_tell(lane.partition) {
                lane.ack = None;
            }
            let begins = match lane.state {
                LaneState::Announced { from } => Some(from),
                _ => None,
            };
            // Never backwards: what settles late here may lie below what another has done since.
            let settled = lane.ack.take().filter(|ack| *ack > lane.group_has);
            if let Some(position) = settled.max(begins) {
                positions.insert(lane.partition, position);
            }
        }
        if positions.is_empty() {
            return false;
        }
        member.tell(positions);
        true
    }

    /// What the group has kept lets lanes begin; what it has not is sent again.
    fn hear_told(&mut self, consumer: &Client) {
        match self.member.as_mut().and_then(Member::told) {
            None => {}
            Some(Told::Kept(positions)) => {
                for (partition, position) in positions {
                    let index = usize::try_from(partition).unwrap_or(usize::MAX);
                    let Some(lane) = self.lanes.get_mut(index) else {
                        continue;
                    };
                    lane.group_has = lane.group_has.max(position);
                    if let LaneState::Announced { from } = lane.state
                        && from <= position
                        && let Err(error) = self.assign(consumer, index, from)
                    {
                        (self.diagnostics)(Severity::Debug, &error.to_string());
                        self.lanes[index].state = LaneState::Announced { from };
                    }
                }
            }
            Some(Told::Refused(positions)) => {
                for (partition, position) in positions {
                    let index = usize::try_from(partition).unwrap_or(usize::MAX);
                    if let Some(lane) = self.lanes.get_mut(index) {
                        lane.ack = lane.ack.max(Some(position));
                    }
                }
            }
        }
    }

    /// Lets the group have what was taken, once its last positions are told.
    fn hand_on(&mut self) {
        let Some(member) = &self.member else { return };
        if !member.is_late() {
            let Some(partitions) = member.settled() else {
                return;
            };
            let untold = |lane: &&Lane| {
                let waits = lane.ack.is_some() || member.is_telling_of(lane.partition);
                partitions.contains(&lane.partition) && waits
            };
            if self.lanes.iter().any(|lane| untold(&lane)) {
                self.tell_group();
                return;
            }
        }
        let late = self.member.as_mut().map(Member::hand_on);
        if let Some(late) = late.filter(|late| !late.is_empty()) {
            (self.diagnostics)(
                Severity::Warning,
                &format!(
                    "topic {:?}: partitions {late:?} went to another member although something of \
                     them is still under way here: it runs there, too",
                    self.config.topic
                ),
            );
        }
    }

    /// When positions are to be told next, if any wait.
    pub(super) fn shared_acks_due(&self) -> Option<Instant> {
        let waits = self
            .lanes
            .iter()
            .any(|lane| lane.ack.is_some() || matches!(lane.state, LaneState::Announced { .. }));
        (self.shares() && waits).then_some(self.acks_due)
    }

    /// How long acknowledged positions wait for company.
    pub(super) const fn ack_interval(&self) -> std::time::Duration {
        if self.shares() {
            limits::KAFKA_SHARED_ACK_INTERVAL
        } else {
            limits::KAFKA_ACK_INTERVAL
        }
    }
}
