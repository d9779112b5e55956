//! Large results. The core carries a reference; the result itself is a row of the table `spill`, written
//! by the commit that also says that its task has succeeded, and read when somebody wants it. So neither waves
//! in memory nor the rows that are written again with every step hold it. It goes in the commit
//! in which its activation is over.
//!
//! | what | is |
//! |---|---|
//! | key | run and lane of the activation; position (`u64`), child (`u32`) and number (`u64`), big endian |
//! | body | a task's result as `outcome.rs` packs it |
//! | reference | the byte 1, which begins no JSON and no packed result; run, lane (`u32`), the key's id |

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::{BufMut, Bytes};
use evermill_core::command::{ActivationKey, DispatchId, LaneId, Outcome, OutcomeRun};
use evermill_core::row::{Key, Row, Table, Write};
use evermill_store::{HistoryPage, HistoryQuery, Reader, Store, StoreError};

use crate::groups::After;
use crate::limits;
use crate::shard::Shard;

const REFERENCE: u8 = 1;
const ID_BYTES: usize = 8 + 4 + 8;
const REFERENCE_BYTES: usize = 1 + 4 + 4 + ID_BYTES;

/// What lies in the table, and the way to it.
pub(crate) struct Spill {
    rows: BTreeMap<ActivationKey, Vec<Key>>,
    count: usize,
    next: u64,
    swept_at: Instant,
    bodies: RefCell<Bodies>,
}

struct Bodies {
    reader: Box<dyn Reader>,
    /// Not durable yet, so that no reader finds them.
    fresh: BTreeMap<Key, Bytes>,
    /// Used last, newest at the end.
    recent: VecDeque<(Key, Bytes)>,
    recent_bytes: usize,
}

impl Spill {
    /// Learns what is stored. `epoch` is the store's: numbers never repeat.
    pub(crate) fn load(store: &mut dyn Store, epoch: u64) -> Result<Self, StoreError> {
        let mut rows: BTreeMap<ActivationKey, Vec<Key>> = BTreeMap::new();
        let (mut count, mut next) = (0, epoch << 32);
        store.load(Table::Spill, &mut |row| {
            if let Some((activation, number)) = read_key(&row.key) {
                next = next.max(number + 1);
                count += 1;
                rows.entry(activation).or_default().push(row.key);
            }
        })?;
        Ok(Self {
            rows,
            count,
            next,
            swept_at: Instant::now(),
            bodies: RefCell::new(Bodies {
                reader: store.reader()?,
                fresh: BTreeMap::new(),
                recent: VecDeque::new(),
                recent_bytes: 0,
            }),
        })
    }

    fn add(&mut self, activation: ActivationKey, body: Bytes) -> (Row, Bytes) {
        let key = key(activation, self.next);
        self.next += 1;
        self.count += 1;
        self.rows.entry(activation).or_default().push(key.clone());
        let bodies = self.bodies.get_mut();
        bodies.fresh.insert(key.clone(), body.clone());
        let reference = refer(&key);
        let row = Row {
            table: Table::Spill,
            key,
            body,
        };
        (row, reference)
    }

    /// What a reference leads to; what is none is the result itself.
    pub(crate) fn read(&self, kept: &Bytes) -> Result<Bytes, String> {
        let Some(key) = referred(kept) else {
            return Ok(kept.clone());
        };
        let mut bodies = self.bodies.borrow_mut();
        if let Some(body) = bodies.at_hand(&key) {
            return Ok(body);
        }
        let found = bodies.reader.row(Table::Spill, &key);
        let found = found.map_err(|cause| cause.to_string())?;
        let body = found.ok_or("a large result is missing in the table spill")?;
        bodies.remember(key, body.clone());
        Ok(body)
    }

    /// The row of an activation that only waits, and of which the machine has the address alone.
    ///
    /// # Panics
    /// If the store does not give it: the shard is then loaded again, from what it gives.
    pub(crate) fn waiting(&self, activation: ActivationKey) -> Bytes {
        let mut bodies = self.bodies.borrow_mut();
        let found = bodies.reader.row(Table::Activation, &activation.row());
        match found {
            Ok(Some(body)) => body,
            Ok(None) => panic!("the row of an activation that waits is missing: {activation:?}"),
            Err(cause) => panic!("an activation that waits cannot be read: {cause}"),
        }
    }

    /// What is remembered, by the same reader.
    pub(crate) fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, String> {
        let mut bodies = self.bodies.borrow_mut();
        let page = bodies.reader.history(query);
        page.map_err(|cause| cause.to_string())
    }

    fn is_due(&self) -> bool {
        let few = self.count <= limits::SPILLED_SWEPT_AT_ONCE;
        self.count > 0 && (few || self.swept_at.elapsed() >= limits::SPILL_SWEEP)
    }

    /// Forgets the activations that are not in `open`; their rows.
    fn keep(&mut self, open: &BTreeSet<ActivationKey>) -> Vec<Key> {
        let mut gone = Vec::new();
        self.rows.retain(|activation, keys| {
            let stays = open.contains(activation);
            if !stays {
                gone.append(keys);
            }
            stays
        });
        self.count -= gone.len();
        self.swept_at = Instant::now();
        let bodies = self.bodies.get_mut();
        gone.iter().for_each(|key| bodies.forget(key));
        gone
    }
}

impl Bodies {
    fn at_hand(&self, key: &Key) -> Option<Bytes> {
        let recent = || self.recent.iter().rev().find(|(known, _)| known == key);
        let fresh = self.fresh.get(key);
        fresh.or_else(|| recent().map(|(_, body)| body)).cloned()
    }

    /// Keeps a durable result for whoever wants it next, within bounds.
    fn remember(&mut self, key: Key, body: Bytes) {
        self.recent_bytes += body.len();
        self.recent.push_back((key, body));
        while self.recent_bytes > limits::SPILLED_AT_HAND_BYTES
            && let Some((_, oldest)) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.len();
        }
    }

    fn forget(&mut self, key: &Key) {
        self.fresh.remove(key);
        if let Some(at) = self.recent.iter().position(|(known, _)| known == key)
            && let Some((_, body)) = self.recent.remove(at)
        {
            self.recent_bytes -= body.len();
        }
    }
}

impl Shard {
    /// Puts large results of members that have just ended aside; they are durable with the outcomes.
    pub(crate) fn spill(&mut self, dispatch: DispatchId, runs: &mut [OutcomeRun]) {
        let mut keys = Vec::new();
        for run in runs.iter_mut().filter(|run| run.count == 1) {
            let Outcome::SuccessWith(success) = &mut run.outcome else {
                continue;
            };
            let large = |result: &&mut Bytes| result.len() > limits::RESULT_INLINE_BYTES;
            let Some(result) = success.result.as_mut().filter(large) else {
                continue;
            };
            let view = self.machine.dispatch(dispatch);
            // Gone when it was reported before, and then it is refused.
            let Some(member) = view.and_then(|view| view.member(run.first)) else {
                continue;
            };
            let (row, reference) = self.spill.add(member.activation(), result.clone());
            *result = reference;
            keys.push(row.key.clone());
            self.decision.writes.push(Write::Put(row));
        }
        if !keys.is_empty() {
            let durable = |shard: &mut Self| {
                let bodies = shard.spill.bodies.get_mut();
                for key in keys {
                    if let Some(body) = bodies.fresh.remove(&key) {
                        bodies.remember(key, body);
                    }
                }
            };
            self.after.push(After::Do(Box::new(durable)));
        }
    }

    /// Deletes what belongs to activations that are over with what was just sealed.
    pub(crate) fn sweep_spilled(&mut self) {
        if !self.spill.is_due() {
            return;
        }
        let mut open: BTreeSet<ActivationKey> = self.spill.rows.keys().copied().collect();
        self.machine.keep_open(&mut open);
        let gone = self.spill.keep(&open);
        let deletes = gone.into_iter().map(|key| Write::Delete(Table::Spill, key));
        self.decision.writes.extend(deletes);
    }

    /// A result, wherever it is. Without it nothing right can follow: the process ends.
    pub(crate) fn whole(&self, kept: &Bytes) -> Bytes {
        match self.spill.read(kept) {
            Ok(result) => result,
            Err(why) => self.abort(&why),
        }
    }
}

/// Whether a kept result is a reference.
pub(crate) fn is_reference(kept: &[u8]) -> bool {
    kept.first() == Some(&REFERENCE) && kept.len() == REFERENCE_BYTES
}

fn key(activation: ActivationKey, number: u64) -> Key {
    let mut id = Vec::with_capacity(ID_BYTES);
    id.put_u64(activation.position);
    id.put_u32(activation.child);
    id.put_u64(number);
    Key {
        run: activation.lane.run,
        lane: activation.lane.lane,
        id: Bytes::from(id),
    }
}

fn read_key(key: &Key) -> Option<(ActivationKey, u64)> {
    let (position, rest) = key.id.split_first_chunk()?;
    let (child, rest) = rest.split_first_chunk()?;
    let activation = ActivationKey {
        lane: LaneId {
            run: key.run,
            lane: key.lane,
        },
        position: u64::from_be_bytes(*position),
        child: u32::from_be_bytes(*child),
    };
    Some((activation, u64::from_be_bytes(rest.try_into().ok()?)))
}

fn refer(key: &Key) -> Bytes {
    let mut reference = Vec::with_capacity(REFERENCE_BYTES);
    reference.put_u8(REFERENCE);
    reference.put_u32(key.run);
    reference.put_u32(key.lane);
    reference.put_slice(&key.id);
    Bytes::from(reference)
}

fn referred(kept: &Bytes) -> Option<Key> {
    if !is_reference(kept) {
        return None;
    }
    let (run, rest) = kept[1..].split_first_chunk()?;
    let (lane, _) = rest.split_first_chunk()?;
    Some(Key {
        run: u32::from_be_bytes(*run),
        lane: u32::from_be_bytes(*lane),
        id: kept.slice(9..),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_leads_back_to_its_row_and_is_taken_for_nothing_else() {
        let activation = ActivationKey {
            lane: LaneId { run: 3, lane: 4 },
            position: 1 << 40,
            child: 2,
        };
        let key = key(activation, 77);
        assert_eq!(read_key(&key), Some((activation, 77)));
        assert_eq!(referred(&refer(&key)), Some(key));
        for other in [
            &b""[..],
            b"1",
            b"\x01",
            b"{\"a\": 1}",
            &[0; REFERENCE_BYTES],
        ] {
            assert_eq!(referred(&Bytes::copy_from_slice(other)), None);
        }
    }
}
