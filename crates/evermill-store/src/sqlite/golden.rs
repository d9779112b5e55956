//! Holds the frozen format against `golden/store-3.txt`: schema, encodings and sums, byte by byte;
//! and reads the header of every older one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Table};

use super::history::Segment;
use super::{file, schema};
use crate::header::HeaderRow;
use crate::store::{CommitId, StoreId};
use crate::sum::{Sums, Tally};

const GOLDEN: &str = include_str!("../../golden/store-3.txt");
/// Older ones, with the tables that came after them.
const OLDER: [(u32, &str, &[Table]); 2] = [
    (
        1,
        include_str!("../../golden/store-1.txt"),
        &[Table::Inbox, Table::Spill, Table::Setting],
    ),
    (
        2,
        include_str!("../../golden/store-2.txt"),
        &[Table::Setting],
    ),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sample_header(store_id: StoreId) -> HeaderRow {
    let mut header = HeaderRow::new(store_id);
    header.epoch = 3;
    header.clean = false;
    header.last = CommitId { epoch: 2, seq: 99 };
    header.shards = Tally { rows: 1, sum: 0x11 };
    header.history.closed = Tally { rows: 2, sum: 0x22 };
    header.history.open = 2;
    header.history.first_id = 21;
    header.history.next_id = 30;
    header.history.bytes = 1_234;
    header.history.rows = Tally { rows: 9, sum: 0x33 };
    for table in Table::ALL {
        *header.tally_mut(table) = Tally {
            rows: table as u64,
            sum: u64::MAX - table as u64,
        };
    }
    header
}

fn sample_history() -> HistoryRow {
    HistoryRow {
        run: 1,
        lane: 2,
        settled_ms: -3,
        first: 4,
        last: u64::MAX,
        done: 5,
        skipped: 6,
        parked: 7,
        dropped: 8,
        body: Bytes::from_static(b"rows"),
    }
}

fn sample_segment() -> Segment {
    Segment {
        number: 7,
        first_id: 1,
        bytes: 600,
        rows: Tally {
            rows: 20,
            sum: 0x44,
        },
        oldest_ms: -1,
        newest_ms: 1_700_000_000_000,
        spans: BTreeMap::from([((1, 2), (3, 4)), ((1, u32::MAX), (0, u64::MAX))]),
    }
}

fn format_3() -> String {
    let store_id = StoreId(*b"evermill's store");
    let sums = Sums::new(store_id);
    let key = |id: &'static [u8]| Key {
        run: 1,
        lane: 2,
        id: Bytes::from_static(id),
    };
    let long = key(&[b'k'; 100]);
    let segment = sample_segment().encode();
    let lines = [
        (
            "first 112 bytes of an empty file",
            hex(&file::empty_database()[..112]),
        ),
        ("store id", store_id.to_string()),
        (
            "sum: run 1 lane 2, no id, no body",
            format!("{:016x}", sums.row(Table::Run, &key(b""), b"")),
        ),
        (
            "sum: state 1 2 \"id\" = \"body\"",
            format!("{:016x}", sums.row(Table::State, &key(b"id"), b"body")),
        ),
        (
            "sum: outcome 1 2, id of 100 k, body of 300 z",
            format!("{:016x}", sums.row(Table::Outcome, &long, &[b'z'; 300])),
        ),
        (
            "sum: history row 9",
            format!("{:016x}", sums.history(9, &sample_history())),
        ),
        (
            "sum: shard 0, token 5, epoch 3",
            format!("{:016x}", sums.shard(0, 5, 3)),
        ),
        ("segment 7", hex(&segment)),
        (
            "sum: segment 7",
            format!("{:016x}", sums.segment(7, &segment)),
        ),
        ("header", hex(&sample_header(store_id).encode())),
        (
            "sum: header",
            format!("{:016x}", Sums::header(&sample_header(store_id).encode())),
        ),
    ];
    let mut text = String::from("# Format 3 of the store, see docs/spec/store.md. Frozen.\n");
    for sql in schema::all(&Table::ALL, [0].into_iter()) {
        writeln!(text, "{sql}").expect("a string takes all");
    }
    for (name, value) in lines {
        writeln!(text, "{name}: {value}").expect("a string takes all");
    }
    text
}

#[test]
fn format_3_is_frozen() {
    let now = format_3();
    for (line, (now, golden)) in now.lines().zip(GOLDEN.lines()).enumerate() {
        assert_eq!(
            now,
            golden,
            "golden/store-3.txt, line {}: a new layout is a new format",
            line + 1
        );
    }
    assert_eq!(now, GOLDEN);
}

#[test]
fn headers_of_older_formats_are_read_and_written_as_they_were() {
    for (format, golden, later) in OLDER {
        let line = golden
            .lines()
            .find_map(|line| line.strip_prefix("header: "));
        let line = line.expect("the golden header");
        let (pairs, _) = line.as_bytes().as_chunks::<2>();
        let number = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let bytes: Vec<u8> = pairs.iter().map(|pair| number(pair).unwrap()).collect();
        let header = HeaderRow::decode(&bytes).expect("a header");
        assert_eq!(header.encode(), bytes);
        let mut expected = sample_header(StoreId(*b"evermill's store"));
        expected.format = format;
        for table in later {
            *expected.tally_mut(*table) = Tally::default();
        }
        assert_eq!(header, expected);
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    let header = sample_header(StoreId([9; 16]));
    assert_eq!(HeaderRow::decode(&header.encode()), Some(header));
    let segment = sample_segment();
    assert_eq!(Segment::decode(7, &segment.encode()), Some(segment.clone()));
    assert_eq!(Segment::decode(7, &segment.encode()[..56]), None);
}
