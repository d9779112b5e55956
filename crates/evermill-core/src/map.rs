//! Mapped tasks (W9): the flattened instances of one node over the members of a wave.
//!
//! Instances are numbered in the order their members expand; a member's instances are one segment.
//! Downstream rules see the segment reduced to "some succeeded", "some failed", "all done".

use bytes::Bytes;

use crate::bits;
use crate::dag::Mapped;
use crate::limits;
use crate::wave::{Row, Wave};

/// Instance space of one mapped node.
#[derive(Debug, Default)]
pub(crate) struct MapSpace {
    /// First instance and length per expanded member.
    segments: std::collections::BTreeMap<u32, (u32, u32)>,
    /// Member of each instance.
    member_of: Vec<u32>,
    pub(crate) waits: Vec<u64>,
    pub(crate) ready: Vec<u64>,
    pub(crate) run: Vec<u64>,
    pub(crate) hold: Vec<u64>,
    pub(crate) success: Vec<u64>,
    pub(crate) failed: Vec<u64>,
    pub(crate) skipped: Vec<u64>,
    pub(crate) results: std::collections::BTreeMap<u32, Bytes>,
}

impl MapSpace {
    /// Adds a member's instances, all ready.
    pub(crate) fn expand(&mut self, member: u32, length: u32) {
        let first = self.member_of.len() as u32;
        self.segments.insert(member, (first, length));
        self.member_of
            .extend(std::iter::repeat_n(member, length as usize));
        let words = bits::words(self.member_of.len());
        for row in self.rows_mut() {
            row.resize(words, 0);
        }
        for instance in first..first + length {
            bits::set(&mut self.ready, instance);
        }
    }

    fn rows_mut(&mut self) -> [&mut Vec<u64>; 7] {
        [
            &mut self.waits,
            &mut self.ready,
            &mut self.run,
            &mut self.hold,
            &mut self.success,
            &mut self.failed,
            &mut self.skipped,
        ]
    }

    /// Takes the turn of a member's ready instances back; `true` if there were any.
    pub(crate) fn hold_back(&mut self, member: u32) -> bool {
        Self::shift(self.segment(member), &mut self.ready, &mut self.waits)
    }

    /// Gives the turn to a member's instances that wait for it.
    fn let_go(&mut self, member: u32) {
        Self::shift(self.segment(member), &mut self.waits, &mut self.ready);
    }

    fn shift(segment: Option<(u32, u32)>, from: &mut [u64], to: &mut [u64]) -> bool {
        let Some((first, length)) = segment else {
            return false;
        };
        let moved: Vec<u32> = (first..first + length)
            .filter(|&i| bits::get(from, i))
            .collect();
        for &instance in &moved {
            bits::clear(from, instance);
            bits::set(to, instance);
        }
        !moved.is_empty()
    }

    /// The member and map index of an instance.
    pub(crate) fn locate(&self, instance: u32) -> (u32, u32) {
        let member = self.member_of[instance as usize];
        (member, instance - self.segments[&member].0)
    }

    /// First instance and length of a member, once expanded.
    pub(crate) fn segment(&self, member: u32) -> Option<(u32, u32)> {
        self.segments.get(&member).copied()
    }

    /// Whether an instance of this member is out or could go out now.
    pub(crate) fn is_busy(&self, member: u32) -> bool {
        self.any(member, &self.ready) || self.any(member, &self.run)
    }

    /// Instances of a member that succeeded.
    pub(crate) fn successes(&self, member: u32) -> u32 {
        let segment = self.segment(member);
        let instances = segment.map_or(0..0, |(first, count)| first..first + count);
        instances.filter(|&at| bits::get(&self.success, at)).count() as u32
    }

    fn any(&self, member: u32, row: &[u64]) -> bool {
        self.segment(member).is_some_and(|(first, len)| {
            (first..first + len).any(|instance| bits::get(row, instance))
        })
    }

    fn all_done(&self, member: u32) -> bool {
        self.segment(member).is_some_and(|(first, len)| {
            (first..first + len).all(|instance| {
                [&self.success, &self.failed, &self.skipped]
                    .iter()
                    .any(|r| bits::get(r, instance))
            })
        })
    }

    /// Ends an instance; the states of its member to raise, if it was the member's last one.
    pub(crate) fn end(&mut self, instance: u32, state: Row) -> Option<Vec<Row>> {
        for row in [
            &mut self.waits,
            &mut self.ready,
            &mut self.run,
            &mut self.hold,
        ] {
            bits::clear(row, instance);
        }
        let row = match state {
            Row::Success => &mut self.success,
            Row::Skipped => &mut self.skipped,
            _ => &mut self.failed,
        };
        bits::set(row, instance);
        let (member, _) = self.locate(instance);
        self.all_done(member).then(|| {
            let rows = [
                (&self.success, Row::Success),
                (&self.failed, Row::Failed),
                (&self.skipped, Row::Skipped),
            ];
            rows.iter()
                .filter(|(row, _)| self.any(member, row))
                .map(|(_, state)| *state)
                .collect()
        })
    }
}

/// Where the trial of a mapped member without instances is kept: trials of mapped nodes go by
/// instance, and no wave has so many.
pub(crate) const fn no_instance(member: u32) -> u32 {
    u32::MAX - member
}

impl Wave {
    /// Begins the members of one word that are to run: whether any ended (nothing to run: that
    /// needs no turn), and whether any goes on.
    pub(crate) fn map_word(
        &mut self,
        node: u16,
        word: usize,
        run: u64,
        ordered: bool,
    ) -> (bool, bool) {
        let (mut ended, mut ran) = (false, false);
        for bit in bits::ones(&[run]) {
            let member = word as u32 * 64 + bit;
            if self.end_empty(node, member) {
                ended = true;
                continue;
            }
            ran = true;
            if ordered {
                self.put(node, Row::Waits, member);
            } else {
                self.expand_member(node, member);
            }
        }
        (ended, ran)
    }

    /// Ends a member that has no instances: skipped over an empty list, failed over none.
    fn end_empty(&mut self, node: u16, member: u32) -> bool {
        let end = match self.map_length(node, member) {
            Some(0) => Row::Skipped,
            Some(length) if length <= limits::MAP_LENGTH_MAX => return false,
            _ => Row::Failed,
        };
        if end == Row::Failed {
            let error = Bytes::from_static(b"mapped over no list, or over one that is too long");
            self.trial(node, no_instance(member)).error = Some(error);
        }
        let mask = bits::single(self.words, member);
        self.end(node, end, &mask);
        true
    }

    /// Expands a member, or lets its instances go on that had to wait for their turn again.
    pub(crate) fn expand_member(&mut self, node: u16, member: u32) {
        let length = self.map_length(node, member).unwrap_or_default();
        let space = self.maps.entry(node).or_default();
        if space.segment(member).is_some() {
            space.let_go(member);
        } else {
            space.expand(member, length);
        }
    }

    /// Every ready instance has to ask for its turn again.
    pub(crate) fn hold_back(&mut self, node: u16) {
        for member in 0..self.members.len() as u32 {
            let space = self.maps.get_mut(&node);
            if space.is_some_and(|space| space.hold_back(member)) {
                self.put(node, Row::Waits, member);
            }
        }
    }

    /// `None`: what it is mapped over reported no list.
    fn map_length(&self, node: u16, member: u32) -> Option<u32> {
        match self.task(node)?.mapped? {
            Mapped::Length(length) => Some(length),
            Mapped::Over(task) => {
                let above = self.plan().place[usize::from(task)]?;
                self.map_lengths.get(&(above, member)).copied()
            }
        }
    }

    /// Ends one instance of a mapped node; the member, if that was its last instance.
    pub(crate) fn end_instance(&mut self, node: u16, instance: u32, state: Row) -> Option<u32> {
        let space = self.maps.get_mut(&node)?;
        let (member, _) = space.locate(instance);
        let raised = space.end(instance, state)?;
        let mask = bits::single(self.words, member);
        for state in raised {
            self.end(node, state, &mask);
        }
        Some(member)
    }
}
