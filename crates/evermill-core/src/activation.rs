//! Activations outside waves: snapshots, as rows and as state to start from again.
//!
//! A snapshot holds only what cannot be derived: how attempts ended. Verdicts follow from them, so
//! putting a snapshot back into a wave is: apply the entries, sweep.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{ActivationKey, Event, LaneId, Ms};
use crate::row::Key;
use crate::wave::Asked;

/// Format number of activation rows.
const ACTIVATION_FORMAT: u8 = 1;
/// Format number of outcome rows.
const OUTCOME_FORMAT: u8 = 1;

/// How one (task, instance) of an activation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Index into `DagSpec::tasks` of the activation's version.
    pub(crate) task: u16,
    /// Map index; 0 for tasks that are not mapped.
    pub(crate) instance: u32,
    pub(crate) standing: Standing,
}

/// See `Entry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Succeeded, with what it brought; `forced` are the tasks it skipped, as task indexes.
    Success {
        /// Tries that failed before.
        failures: u32,
        result: Option<Bytes>,
        map_length: Option<u32>,
        forced: Vec<u16>,
    },
    /// Skipped itself, after so many failed tries.
    Skipped { failures: u32 },
    /// Failed for good.
    Failed { failures: u32, error: Bytes },
    /// Waits for its next try or for an event, until `due` if there is one.
    Hold {
        failures: u32,
        due: Option<Ms>,
        error: Option<Bytes>,
    },
    /// Started under `on_interrupt = "fail"`; found at resume it means: interrupted (C4).
    Started { failures: u32 },
    /// What was on record as started came back unstarted.
    Returned,
    /// Not ended, but failed before: the tries count.
    Tried {
        failures: u32,
        interruptions: u32,
        error: Option<Bytes>,
    },
    /// A sensor that has said *not yet*; held until `due` if there is one, else to be asked.
    Asked {
        asked: Asked,
        failures: u32,
        interruptions: u32,
        due: Option<Ms>,
        error: Option<Bytes>,
    },
}

/// Why an activation is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ParkReason {
    /// A leaf failed.
    Failed = 1,
    /// In flight at too many unclean stops (C6).
    SuspectCrash = 2,
    /// A join stayed open too long (W6).
    JoinTimeout = 3,
    /// A task with `on_failure = "block"` failed; its scope waits.
    Blocked = 4,
    /// Its run ended before it settled.
    RunStopped = 5,
}

/// Why an activation has a row of its own (W2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Waits for a time or an event.
    Waiting,
    /// Held behind an earlier activation of its scope.
    Behind,
    /// Open join: waits for events of other sources, until then if there is a limit.
    Open { until: Option<Ms> },
    /// Gave up; kept.
    Parked(ParkReason),
    /// In a wave, where an attempt runs for long; how many unclean stops it was running at (C6).
    Running {
        /// Unclean stops.
        stops: u32,
    },
}

impl Held {
    /// Unclean stops on its record.
    pub(crate) const fn stops(self) -> u32 {
        match self {
            Self::Running { stops } => stops,
            _ => 0,
        }
    }
}

/// An activation outside a wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) key: ActivationKey,
    pub(crate) last: u64,
    pub(crate) version: u16,
    pub(crate) round: u32,
    /// It still has its place in its scope.
    pub(crate) ordered: bool,
    /// Its missed deadline was counted.
    pub(crate) late: bool,
    /// Its join timed out: sources that did not fire are skipped (W6).
    pub(crate) silenced: bool,
    pub(crate) events: Vec<Event>,
    /// Source index, lane and event of further sources (W6).
    pub(crate) bound: Vec<(u16, LaneId, Event)>,
    pub(crate) entries: Vec<Entry>,
}

impl Snapshot {
    /// When the earliest hold ends.
    pub(crate) fn due(&self) -> Option<Ms> {
        let due = |entry: &Entry| match entry.standing {
            Standing::Hold { due, .. } | Standing::Asked { due, .. } => due,
            _ => None,
        };
        self.entries.iter().filter_map(due).min()
    }

    /// Events it counts for.
    pub(crate) fn weight(&self) -> u64 {
        (self.events.len() + self.bound.len()) as u64
    }

    pub(crate) fn encode(&self, held: Held) -> Bytes {
        let mut out = Writer::new(ACTIVATION_FORMAT);
        match held {
            Held::Waiting => out.byte(1),
            Held::Behind => out.byte(2),
            Held::Open { until } => out.byte(3).option(until),
            Held::Parked(reason) => out.byte(4).byte(reason as u8),
            Held::Running { stops } => out.byte(5).int(u64::from(stops)),
        };
        out.int(self.last)
            .int(u64::from(self.version))
            .int(u64::from(self.round));
        out.flag(self.ordered)
            .flag(self.late)
            .flag(self.silenced)
            .int(self.events.len() as u64);
        for event in &self.events {
            encode_event(&mut out, event);
        }
        out.int(self.bound.len() as u64);
        for (source, lane, event) in &self.bound {
            out.int(u64::from(*source)).int(u64::from(lane.lane));
            encode_event(&mut out, event);
        }
        encode_entries(&mut out, &self.entries);
        out.finish()
    }

    pub(crate) fn decode(key: ActivationKey, body: Bytes) -> Result<(Self, Held), DecodeError> {
        let mut body = Reader::new("activation", body, ACTIVATION_FORMAT)?;
        let held = decode_held(&mut body)?;
        let (last, version, round) = (body.int()?, body.small()?, body.small()?);
        let (ordered, late, silenced) = (body.flag()?, body.flag()?, body.flag()?);
        let events = (0..body.length()?)
            .map(|_| decode_event(&mut body))
            .collect::<Result<_, _>>()?;
        let mut bound = Vec::new();
        for _ in 0..body.length()? {
            let source = body.small()?;
            let lane = LaneId {
                run: key.lane.run,
                lane: body.small()?,
            };
            bound.push((source, lane, decode_event(&mut body)?));
        }
        let entries = decode_entries(&mut body)?;
        body.end()?;
        Ok((
            Self {
                key,
                last,
                version,
                round,
                ordered,
                late,
                silenced,
                events,
                bound,
                entries,
            },
            held,
        ))
    }
}

impl ActivationKey {
    /// The address of its row in [`crate::row::Table::Activation`], if it has one.
    #[must_use]
    pub fn row(self) -> Key {
        row_key(self)
    }
}

/// The address of an activation's row.
pub(crate) fn row_key(key: ActivationKey) -> Key {
    Key::numbered(
        key.lane.run,
        key.lane.lane,
        &[key.position, u64::from(key.child)],
    )
}

/// The activation a row address names.
pub(crate) fn parse_row_key(key: &Key) -> Option<ActivationKey> {
    let position = u64::from_be_bytes(key.id.get(..8)?.try_into().ok()?);
    let child = u64::from_be_bytes(key.id.get(8..16)?.try_into().ok()?);
    let lane = LaneId {
        run: key.run,
        lane: key.lane,
    };
    Some(ActivationKey {
        lane,
        position,
        child: u32::try_from(child).ok()?,
    })
}

fn decode_held(body: &mut Reader) -> Result<Held, DecodeError> {
    Ok(match body.byte()? {
        1 => Held::Waiting,
        2 => Held::Behind,
        3 => Held::Open {
            until: body.option()?,
        },
        4 => Held::Parked(decode_reason(body)?),
        5 => Held::Running {
            stops: body.small()?,
        },
        _ => return Err(body.error("unknown kind of hold")),
    })
}

fn decode_reason(body: &mut Reader) -> Result<ParkReason, DecodeError> {
    Ok(match body.byte()? {
        1 => ParkReason::Failed,
        2 => ParkReason::SuspectCrash,
        3 => ParkReason::JoinTimeout,
        4 => ParkReason::Blocked,
        5 => ParkReason::RunStopped,
        _ => return Err(body.error("unknown park reason")),
    })
}

fn encode_event(out: &mut Writer, event: &Event) {
    out.int(event.position)
        .wide(event.key)
        .int(event.arrived_ms)
        .bytes(&event.body);
}

fn decode_event(body: &mut Reader) -> Result<Event, DecodeError> {
    Ok(Event {
        position: body.int()?,
        key: body.wide()?,
        arrived_ms: body.int()?,
        body: body.bytes()?,
    })
}

fn encode_entries(out: &mut Writer, entries: &[Entry]) {
    out.int(entries.len() as u64);
    for entry in entries {
        out.int(u64::from(entry.task))
            .int(u64::from(entry.instance));
        match &entry.standing {
            Standing::Success {
                failures: 0,
                result: None,
                map_length: None,
                forced,
            } if forced.is_empty() => {
                out.byte(1);
            }
            Standing::Success {
                failures,
                result,
                map_length,
                forced,
            } => {
                if *failures == 0 {
                    out.byte(2);
                } else {
                    out.byte(9).int(u64::from(*failures));
                }
                out.option_bytes(result.as_ref())
                    .option(map_length.map(u64::from));
                out.int(forced.len() as u64);
                for task in forced {
                    out.int(u64::from(*task));
                }
            }
            Standing::Skipped { failures: 0 } => drop(out.byte(3)),
            Standing::Skipped { failures } => drop(out.byte(10).int(u64::from(*failures))),
            Standing::Failed { failures, error } => {
                out.byte(4).int(u64::from(*failures)).bytes(error);
            }
            Standing::Hold {
                failures,
                due,
                error,
            } => {
                out.byte(5)
                    .int(u64::from(*failures))
                    .option(*due)
                    .option_bytes(error.as_ref());
            }
            Standing::Started { failures } => drop(out.byte(6).int(u64::from(*failures))),
            Standing::Returned => drop(out.byte(8)),
            Standing::Tried {
                failures,
                interruptions,
                error,
            } => {
                out.byte(7)
                    .int(u64::from(*failures))
                    .int(u64::from(*interruptions));
                out.option_bytes(error.as_ref());
            }
            asked @ Standing::Asked { .. } => encode_asked(out, asked),
        }
    }
}

fn encode_asked(out: &mut Writer, standing: &Standing) {
    let Standing::Asked {
        asked,
        failures,
        interruptions,
        due,
        error,
    } = standing
    else {
        return;
    };
    out.byte(11).int(asked.since).int(u64::from(asked.times));
    out.int(u64::from(*failures))
        .int(u64::from(*interruptions))
        .option(*due)
        .option_bytes(error.as_ref());
}

fn decode_asked(body: &mut Reader) -> Result<Standing, DecodeError> {
    Ok(Standing::Asked {
        asked: Asked {
            since: body.int()?,
            times: body.small()?,
        },
        failures: body.small()?,
        interruptions: body.small()?,
        due: body.option()?,
        error: body.option_bytes()?,
    })
}

fn decode_entries(body: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let mut entries = Vec::new();
    for _ in 0..body.length()? {
        let (task, instance) = (body.small()?, body.small()?);
        let standing = match body.byte()? {
            1 => Standing::Success {
                failures: 0,
                result: None,
                map_length: None,
                forced: Vec::new(),
            },
            tag @ (2 | 9) => {
                let failures = if tag == 2 { 0 } else { body.small()? };
                let result = body.option_bytes()?;
                let map_length = match body.option()? {
                    None => None,
                    Some(length) => Some(
                        u32::try_from(length).map_err(|_| body.error("map length too large"))?,
                    ),
                };
                let forced = (0..body.length()?)
                    .map(|_| body.small())
                    .collect::<Result<_, _>>()?;
                Standing::Success {
                    failures,
                    result,
                    map_length,
                    forced,
                }
            }
            3 => Standing::Skipped { failures: 0 },
            10 => Standing::Skipped {
                failures: body.small()?,
            },
            4 => Standing::Failed {
                failures: body.small()?,
                error: body.bytes()?,
            },
            5 => Standing::Hold {
                failures: body.small()?,
                due: body.option()?,
                error: body.option_bytes()?,
            },
            6 => Standing::Started {
                failures: body.small()?,
            },
            8 => Standing::Returned,
            7 => Standing::Tried {
                failures: body.small()?,
                interruptions: body.small()?,
                error: body.option_bytes()?,
            },
            11 => decode_asked(body)?,
            _ => return Err(body.error("unknown standing")),
        };
        entries.push(Entry {
            task,
            instance,
            standing,
        });
    }
    Ok(entries)
}

/// Body of an outcome row (S1): what one report said about members that go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutcomeRow {
    pub(crate) version: u16,
    pub(crate) members: Vec<OutcomeMember>,
}

/// One member of an outcome row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutcomeMember {
    /// The lane's number: waves of released activations have members of several lanes.
    pub(crate) lane: u32,
    pub(crate) position: u64,
    pub(crate) child: u32,
    pub(crate) round: u32,
    /// Its missed deadline was counted.
    pub(crate) late: bool,
    pub(crate) entries: Vec<Entry>,
}

impl OutcomeRow {
    /// Neighbours that share everything but the position are written as one group.
    pub(crate) fn encode(&self) -> Bytes {
        let groups: Vec<&[OutcomeMember]> = self.members.chunk_by(OutcomeMember::is_like).collect();
        let mut out = Writer::new(OUTCOME_FORMAT);
        out.int(u64::from(self.version)).int(groups.len() as u64);
        for group in groups {
            encode_group(
                &mut out,
                &group[0],
                group.iter().map(|member| member.position),
            );
        }
        out.finish()
    }

    /// One group: members like this one at these positions.
    pub(crate) fn encode_uniform(
        version: u16,
        like: &OutcomeMember,
        positions: impl Iterator<Item = u64> + Clone,
    ) -> Bytes {
        let mut out = Writer::new(OUTCOME_FORMAT);
        out.int(u64::from(version)).int(1);
        encode_group(&mut out, like, positions);
        out.finish()
    }

    pub(crate) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut body = Reader::new("outcome", body, OUTCOME_FORMAT)?;
        let version = body.small()?;
        let mut members = Vec::new();
        for _ in 0..body.length()? {
            let (lane, child, round) = (body.small()?, body.small()?, body.small()?);
            let late = body.flag()?;
            let entries = decode_entries(&mut body)?;
            let mut position = 0u64;
            for _ in 0..body.length()? {
                position = position.wrapping_add(body.signed()?.cast_unsigned());
                let entries = entries.clone();
                members.push(OutcomeMember {
                    lane,
                    position,
                    child,
                    round,
                    late,
                    entries,
                });
            }
        }
        body.end()?;
        Ok(Self { version, members })
    }
}

impl OutcomeMember {
    fn is_like(&self, other: &Self) -> bool {
        let all_but_position = |m: &Self| (m.lane, m.child, m.round, m.late);
        all_but_position(self) == all_but_position(other) && self.entries == other.entries
    }
}

fn encode_group(
    out: &mut Writer,
    like: &OutcomeMember,
    positions: impl Iterator<Item = u64> + Clone,
) {
    out.int(u64::from(like.lane))
        .int(u64::from(like.child))
        .int(u64::from(like.round));
    out.flag(like.late);
    encode_entries(out, &like.entries);
    out.int(positions.clone().count() as u64);
    let mut previous = 0u64;
    for position in positions {
        out.signed(position.wrapping_sub(previous).cast_signed());
        previous = position;
    }
}
