use evermill_core::row::Row;
use evermill_store::{MemoryDisk, MemoryStore, StoreId};

use super::*;

fn arrival(id: Option<&str>, value: &str) -> Arrival {
    Arrival {
        timestamp_ms: Some(7),
        key: Some("k".into()),
        headers: vec![("h".into(), "x".into())],
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        id: id.map(|id| Bytes::copy_from_slice(id.as_bytes())),
        ..Arrival::default()
    }
}

fn value(body: &Bytes) -> &[u8] {
    let (start, len) = crate::payload::Parts::read(body).value.expect("a value");
    &body[start as usize..(start + len) as usize]
}

/// A store, and what was written to it.
struct Rig {
    store: Box<dyn Store>,
    inboxes: Inboxes,
}

impl Rig {
    fn new() -> Self {
        let mut store: Box<dyn Store> =
            Box::new(MemoryStore::open(&MemoryDisk::new(StoreId([3; 16]))));
        let inboxes = Inboxes::load(&mut *store).unwrap();
        Self { store, inboxes }
    }

    fn accept(&mut self, arrivals: &[Arrival], memo: Option<&str>, now_us: u64) -> Accepted {
        let number = self.inboxes.number("d", "s");
        let inbox = self.inboxes.get_mut(number).unwrap();
        let memo = memo.map(|memo| Bytes::copy_from_slice(memo.as_bytes()));
        let mut writes = Vec::new();
        let accepted = inbox
            .accept(arrivals, memo, now_us, Bringer::Asks, &mut writes)
            .unwrap();
        if let Some(shelved) = accepted.shelved.clone() {
            inbox.shelve(shelved);
        }
        self.commit(writes);
        accepted
    }

    fn commit(&mut self, writes: Vec<Write>) {
        let fence = self.store.claim(0).unwrap();
        self.store.commit_one(fence, writes).unwrap();
    }

    fn reload(&mut self) {
        self.inboxes = Inboxes::load(&mut *self.store).unwrap();
    }

    fn inbox(&mut self) -> &mut Inbox {
        let number = self.inboxes.number("d", "s");
        self.inboxes.get_mut(number).unwrap()
    }

    fn rows(&mut self, table: Table) -> Vec<Row> {
        let mut rows = Vec::new();
        self.store.load(table, &mut |row| rows.push(row)).unwrap();
        rows
    }
}

#[test]
fn what_was_accepted_is_there_after_a_restart_with_its_position_and_memo() {
    let mut rig = Rig::new();
    rig.accept(&[arrival(None, "a"), arrival(None, "b")], Some("m1"), 5);
    rig.accept(&[arrival(None, "c")], None, 6);
    let number = rig.inboxes.number("d", "s");
    rig.reload();
    assert_eq!(rig.inboxes.number("d", "s"), number);
    assert_ne!(rig.inboxes.number("d", "other"), number);
    let inbox = rig.inbox();
    assert_eq!((inbox.next(), inbox.first()), (3, 0));
    assert_eq!(inbox.memo().map(|memo| &memo[..]), Some(&b"m1"[..]));
    let first = inbox.from(0).unwrap();
    assert_eq!((first.first, first.end(), first.arrived_us), (0, 2, 5));
    assert_eq!(value(&first.bodies[1]), b"b");
    assert_eq!(inbox.from(1).unwrap().first, 0);
    assert_eq!(value(&inbox.from(2).unwrap().bodies[0]), b"c");
    assert!(inbox.from(3).is_none());
}

#[test]
fn rows_go_when_all_of_them_is_settled_and_positions_never_repeat() {
    let mut rig = Rig::new();
    rig.accept(&[arrival(None, "a"), arrival(None, "b")], None, 5);
    let mut writes = Vec::new();
    rig.inbox().settle(1, &mut writes);
    assert!(writes.is_empty());
    rig.inbox().settle(2, &mut writes);
    rig.commit(writes);
    assert_eq!(rig.rows(Table::Inbox).len(), 1, "the inbox itself");
    rig.reload();
    assert_eq!((rig.inbox().first(), rig.inbox().next()), (2, 2));
    let accepted = rig.accept(&[arrival(None, "c")], None, 6);
    assert_eq!(accepted.shelved.unwrap().first, 2);
}

#[test]
fn the_same_id_counts_once_within_the_window_over_a_restart_too() {
    let mut rig = Rig::new();
    let twice = [arrival(Some("1"), "a"), arrival(Some("1"), "a")];
    let accepted = rig.accept(&twice, None, 0);
    assert_eq!(
        (accepted.shelved.unwrap().bodies.len(), accepted.repeated),
        (1, 1)
    );
    rig.reload();
    let accepted = rig.accept(
        &[arrival(Some("1"), "a"), arrival(Some("2"), "b")],
        None,
        1_000,
    );
    assert_eq!(
        (accepted.shelved.unwrap().bodies.len(), accepted.repeated),
        (1, 1)
    );
    let accepted = rig.accept(&[arrival(Some("2"), "b")], None, 2_000);
    assert!(accepted.shelved.is_none());
    let later_us = 1_000 * (limits::DEDUP_WINDOW_MS + 2 * limits::DEDUP_BUCKET_MS);
    let accepted = rig.accept(&[arrival(Some("1"), "new")], None, later_us);
    assert_eq!(accepted.repeated, 0);
    assert_eq!(rig.rows(Table::Dedup).len(), 1, "the old bucket is gone");
}

/// E03.
#[test]
fn e03_an_id_stands_for_its_first_content_whoever_asks_hears_so_and_a_reader_need_not() {
    let mut rig = Rig::new();
    let accept = |rig: &mut Rig, arrivals: &[Arrival], by| {
        let mut writes = Vec::new();
        let accepted = rig.inbox().accept(arrivals, None, 0, by, &mut writes);
        rig.commit(writes);
        rig.reload();
        accepted.map(|accepted| {
            (
                accepted.shelved.map_or(0, |s| s.bodies.len()),
                accepted.repeated,
            )
        })
    };
    let (asks, let_in) = (Bringer::Asks, Bringer::LetIn);
    assert_eq!(
        accept(&mut rig, &[arrival(Some("1"), "a")], asks),
        Ok((1, 0))
    );
    let other = arrival(Some("1"), "b");
    let refused = accept(&mut rig, std::slice::from_ref(&other), asks);
    assert_eq!(refused, Err(Refusal::Other { at: 0, of: 1 }));
    // Nothing of a list is kept whose part is refused, and it may come again without that part.
    let list = [arrival(Some("2"), "c"), other.clone()];
    let refused = accept(&mut rig, &list, asks);
    assert_eq!(refused, Err(Refusal::Other { at: 1, of: 2 }));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .starts_with("event 1: its id came before")
    );
    assert_eq!(accept(&mut rig, &list[..1], asks), Ok((1, 0)));
    let twice = [arrival(Some("3"), "d"), arrival(Some("3"), "e")];
    assert_eq!(
        accept(&mut rig, &twice, asks),
        Err(Refusal::Other { at: 1, of: 2 })
    );
    // Headers do not count; a key does.
    let mut again = arrival(Some("1"), "a");
    again.headers.clear();
    assert_eq!(accept(&mut rig, &[again.clone()], asks), Ok((0, 1)));
    again.key = None;
    assert!(accept(&mut rig, &[again], asks).is_err());
    // A queue's ids are its own affair, and what nobody compared is a repeat.
    assert_eq!(accept(&mut rig, &[other], let_in), Ok((0, 1)));
    assert_eq!(
        accept(&mut rig, &[arrival(Some("4"), "f")], let_in),
        Ok((1, 0))
    );
    assert_eq!(
        accept(&mut rig, &[arrival(Some("4"), "g")], asks),
        Ok((0, 1))
    );
}

#[test]
fn a_full_inbox_refuses_and_takes_more_once_something_is_settled() {
    let mut rig = Rig::new();
    let large = "x".repeat(limits::DELIVERY_BYTES - 100);
    let mut refused = None;
    for _ in 0..10 {
        let mut writes = Vec::new();
        match rig.inbox().accept(
            &[arrival(None, &large)],
            None,
            0,
            Bringer::Asks,
            &mut writes,
        ) {
            Ok(accepted) => rig.inbox().shelve(accepted.shelved.unwrap()),
            Err(refusal) => {
                refused = Some(refusal);
                assert!(writes.is_empty());
            }
        }
    }
    assert!(matches!(refused, Some(Refusal::Full { .. })), "{refused:?}");
    // What a source remembers goes on without room for events.
    let memo = Some(Bytes::from_static(b"m"));
    assert!(
        rig.inbox()
            .accept(&[], memo, 0, Bringer::Asks, &mut Vec::new())
            .is_ok()
    );
    rig.inbox().settle(2, &mut Vec::new());
    assert!(
        rig.inbox()
            .accept(
                &[arrival(None, "a")],
                None,
                0,
                Bringer::Asks,
                &mut Vec::new()
            )
            .is_ok()
    );
}

#[test]
fn what_is_too_long_to_keep_is_refused_by_name() {
    let mut rig = Rig::new();
    let mut refusal = |arrival: Arrival, memo: usize| {
        let memo = Some(Bytes::from(vec![0; memo]));
        let refused = rig
            .inbox()
            .accept(&[arrival], memo, 0, Bringer::Asks, &mut Vec::new());
        refused
            .err()
            .map(|refusal| refusal.to_string())
            .unwrap_or_default()
    };
    assert!(refusal(arrival(None, "a"), MEMO_BYTES_MAX + 1).starts_with("a memo of 65537 bytes"));
    let id = "i".repeat(ID_BYTES_MAX + 1);
    assert!(refusal(arrival(Some(&id), "a"), 0).starts_with("an id of 513 bytes"));
    let value = "v".repeat(limits::DELIVERY_BYTES);
    assert!(refusal(arrival(None, &value), 0).starts_with("a delivery of"));
}

#[test]
fn damaged_rows_are_refused() {
    let shelved = Shelved {
        first: 1,
        bodies: vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")],
        arrived_us: 9,
    };
    let whole = row::events(&shelved);
    assert_eq!(row::read_events(1, &whole), Some(shelved));
    for cut in (1..9).chain(10..16).chain(17..whole.len()) {
        assert_eq!(
            row::read_events(1, &whole.slice(..cut)),
            None,
            "cut at {cut}"
        );
    }
    let head = Head {
        next: 3,
        dag: "d",
        source: "s",
        memo: Some(b""),
    };
    let whole = head.encode();
    assert_eq!(Head::decode(&whole), Some(head));
    for cut in 0..whole.len() {
        assert_eq!(Head::decode(&whole[..cut]), None, "cut at {cut}");
    }
}
