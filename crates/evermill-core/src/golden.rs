//! The row formats are frozen: every body written by an earlier build must read the same.
//! `golden/rows.txt` has one line per row kind: name, then the body in hexadecimal.

use bytes::Bytes;

use crate::activation::{
    Entry, Held, OutcomeMember, OutcomeRow, ParkReason, Snapshot, Standing, row_key,
};
use crate::command::{ActivationKey, Counters, Event, LaneId, RunState, StateValue};
use crate::history::{Ended, PastEvent, Remembered, TaskEnd, TaskState};
use crate::lane::{Cursor, Replay, Reset, Suspect};
use crate::run::{RunRow, StateScope};
use crate::scope::ScopeKey;
use crate::wave::Asked;

const GOLDEN: &str = include_str!("../golden/rows.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(name: &str, body: &[u8]) {
    let ours = hex(body);
    let frozen = GOLDEN
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    assert_eq!(
        frozen,
        Some(ours.as_str()),
        "the format of '{name}' changed: {name} {ours}"
    );
}

/// A body of a format that is only read.
fn frozen(name: &str) -> Bytes {
    let named = |line: &'static str| line.strip_prefix(name)?.strip_prefix(' ');
    let digits = GOLDEN.lines().find_map(named).expect("it is frozen");
    let bytes = (0..digits.len()).step_by(2);
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    bytes.map(byte).collect()
}

fn event(position: u64) -> Event {
    Event {
        position,
        key: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        arrived_ms: 1_700_000_000_000,
        body: Bytes::from_static(b"payload"),
    }
}

fn entries() -> Vec<Entry> {
    let error = Bytes::from_static(b"boom");
    let standings = [
        Standing::Success {
            failures: 0,
            result: None,
            map_length: None,
            forced: Vec::new(),
        },
        Standing::Success {
            failures: 0,
            result: Some(Bytes::from_static(b"41")),
            map_length: Some(3),
            forced: vec![7, 300],
        },
        Standing::Skipped { failures: 0 },
        Standing::Failed {
            failures: 2,
            error: error.clone(),
        },
        Standing::Hold {
            failures: 1,
            due: Some(1_700_000_010_000),
            error: Some(error.clone()),
        },
        Standing::Hold {
            failures: 0,
            due: None,
            error: None,
        },
        Standing::Started { failures: 1 },
        Standing::Returned,
        Standing::Tried {
            failures: 1,
            interruptions: 2,
            error: Some(error),
        },
        Standing::Success {
            failures: 2,
            result: None,
            map_length: None,
            forced: Vec::new(),
        },
        Standing::Skipped { failures: 1 },
    ];
    let entry = |(task, standing)| Entry {
        task,
        instance: u32::from(task),
        standing,
    };
    (0u16..).zip(standings).map(entry).collect()
}

fn snapshot() -> Snapshot {
    let lane = LaneId { run: 3, lane: 2 };
    Snapshot {
        key: ActivationKey {
            lane,
            position: 17,
            child: 0,
        },
        last: 18,
        version: 1,
        round: 4,
        ordered: true,
        late: false,
        silenced: false,
        events: vec![event(17), event(18)],
        bound: vec![(1, LaneId { run: 3, lane: 5 }, event(9))],
        entries: entries(),
    }
}

#[test]
fn activation_rows_are_frozen_and_read_back() {
    let kinds = [
        ("activation/waiting", Held::Waiting),
        ("activation/behind", Held::Behind),
        (
            "activation/open",
            Held::Open {
                until: Some(1_700_000_060_000),
            },
        ),
        ("activation/parked", Held::Parked(ParkReason::SuspectCrash)),
        ("activation/running", Held::Running { stops: 1 }),
    ];
    for (name, held) in kinds {
        let body = snapshot().encode(held);
        check(name, &body);
        let back = Snapshot::decode(snapshot().key, body).expect("it was just encoded");
        assert_eq!(back, (snapshot(), held));
    }
    check("address/activation", &row_key(snapshot().key).id);
}

#[test]
fn what_a_sensor_has_waited_is_frozen_and_read_back() {
    let asked = |due| Entry {
        task: 3,
        instance: 0,
        standing: Standing::Asked {
            asked: Asked {
                since: 1_700_000_000_000,
                times: 7,
            },
            failures: 1,
            interruptions: 0,
            due,
            error: None,
        },
    };
    let snapshot = Snapshot {
        entries: vec![asked(Some(1_700_000_060_000)), asked(None)],
        ..snapshot()
    };
    let body = snapshot.encode(Held::Waiting);
    check("activation/asked", &body);
    let back = Snapshot::decode(snapshot.key, body).expect("it was just encoded");
    assert_eq!(back, (snapshot, Held::Waiting));
}

#[test]
fn outcome_rows_are_frozen_and_read_back() {
    let member = |position| OutcomeMember {
        lane: 2,
        position,
        child: 0,
        round: 1,
        late: false,
        entries: entries(),
    };
    let row = OutcomeRow {
        version: 1,
        members: vec![member(1_000), member(1_001), member(990)],
    };
    let body = row.encode();
    check("outcome", &body);
    assert_eq!(OutcomeRow::decode(body), Ok(row));
}

#[test]
fn history_rows_are_frozen_and_read_back() {
    let event = PastEvent {
        lane: 2,
        position: 17,
        key: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        arrived_ms: 1_700_000_000_000,
        body: Some(Bytes::from_static(b"payload")),
    };
    let task = TaskEnd {
        task: 0,
        state: TaskState::Success,
        tries: 2,
        instances: None,
        times: Some((1_700_000_000_005, 1_700_000_000_042)),
        result: Some(Bytes::from_static(b"41")),
        error: Some(Bytes::from_static(b"boom")),
    };
    let skipped = TaskEnd {
        task: 1,
        state: TaskState::UpstreamFailed,
        tries: 0,
        instances: Some(3),
        times: None,
        result: None,
        error: None,
    };
    let rows = vec![Remembered {
        lane: 2,
        position: 17,
        child: 0,
        round: 1,
        version: 1,
        ended: Ended::Parked,
        events: vec![
            event.clone(),
            PastEvent {
                body: None,
                ..event
            },
        ],
        tasks: vec![task, skipped],
    }];
    let body = Remembered::encode(&rows);
    check("history", &body);
    assert_eq!(Remembered::decode(&body), Ok(rows));
    assert_eq!(Remembered::decode(&Bytes::new()), Ok(Vec::new()));
}

#[test]
fn lane_rows_are_frozen_and_read_back() {
    let cursor = Cursor {
        source: 0,
        name: "2".into(),
        incarnation: "q1Sh-9wZTJyLdV8qzV0cRQ/2".into(),
        generation: 1,
        origin: Some(1),
        replay: Some(Replay {
            of: 1,
            from: 90,
            until: 200,
            asked: 210,
            fresh_keys: false,
            writes_state: true,
            claims: false,
            paused: true,
            asked_ms: 1_700_000_000_000,
        }),
        reset: Some(Reset {
            from: 300,
            to: 90,
            at_ms: 1_700_000_000_001,
            by: "ada".into(),
        }),
        low: 100,
        ranges: vec![(110, 119), (125, 125)],
        switches: vec![(0, 0), (121, 1)],
        passed: vec![(0, 90), (95, 97)],
        closed: false,
    };
    let body = cursor.encode();
    check("lane-2", &body);
    assert_eq!(Cursor::decode(body), Ok(cursor.clone()));
    let first = Cursor {
        origin: None,
        replay: Some(Replay {
            of: 1,
            from: 0,
            until: 200,
            asked: 200,
            fresh_keys: true,
            writes_state: false,
            claims: false,
            paused: false,
            asked_ms: 0,
        }),
        reset: None,
        passed: Vec::new(),
        ..cursor
    };
    assert_eq!(Cursor::decode(frozen("lane")), Ok(first));
}

#[test]
fn run_rows_are_frozen_and_read_back() {
    let row = RunRow {
        name: "orders-1".into(),
        dag: "orders".into(),
        state: RunState::Draining,
        versions: vec!["aa".into(), "bb".into()],
        current: 1,
        counters: Counters {
            seen: 10,
            done: 5,
            skipped: 2,
            parked: 1,
            dropped: 2,
        },
        deadlines_missed: 3,
        failures_in_a_row: 1,
    };
    let body = row.encode();
    check("run", &body);
    assert_eq!(RunRow::decode(body), Ok(row));
}

#[test]
fn suspect_and_state_rows_are_frozen_and_read_back() {
    let suspect = Suspect {
        last: 81,
        count: 32,
        stops: 1,
        in_flight: true,
    };
    let body = suspect.encode();
    check("suspect", &body);
    assert_eq!(Suspect::decode(body), Ok(suspect));
    let scope = StateScope {
        scope: ScopeKey { lane: 2, key: 77 },
        task: "count".into(),
    };
    let name = Bytes::from_static(b"seen");
    let values = [
        ("state/blob", StateValue::Blob(Bytes::from_static(b"{}"))),
        ("state/int", StateValue::Int(-5)),
        (
            "state/set",
            StateValue::Set([Bytes::from_static(b"a")].into()),
        ),
    ];
    for (kind, value) in values {
        let crate::row::Write::Put(row) = crate::state::write(3, &scope, &name, &value) else {
            panic!("a value is put");
        };
        check(kind, &row.body);
        check("address/state", &row.key.id);
        let back = crate::state::decode(&row.key, row.body);
        assert_eq!(back, Ok((scope.clone(), name.clone(), value)));
    }
}

#[test]
fn every_truncated_body_is_refused() {
    let body = snapshot().encode(Held::Waiting);
    for length in 0..body.len() {
        let cut = Snapshot::decode(snapshot().key, body.slice(..length));
        assert!(cut.is_err(), "a body cut at byte {length} was accepted");
    }
}
