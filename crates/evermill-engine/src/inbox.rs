//! Inboxes: events that cannot be read again, kept in our store from their arrival until they are
//! settled, and read from there like a log.
//!
//! ```text
//! accept: row and memo written --commit--> on the shelf: fed to its lane --settled--> row deleted
//!                                 |
//!                                 +--> only now the outside world is told (P1)
//! ```
//!
//! An inbox belongs to a source of a DAG, over all of its runs. Its positions never repeat. The rows
//! are described in `docs/spec/inbox.md`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use evermill_contract::source::{Arrival, ID_BYTES_MAX, MEMO_BYTES_MAX, PAGE_BYTES_MAX, Page};
use evermill_core::row::{Key, Row, Table, Write};
use evermill_store::{Store, StoreError};

use crate::limits;

pub(crate) mod row;
mod window;

use row::Head;
use window::Window;

/// What is kept for one source of one DAG.
pub(crate) struct Inbox {
    number: u32,
    dag: String,
    source: String,
    /// Position of the next event.
    next: u64,
    /// What the source remembers; as of the last [`Inbox::accept`].
    memo: Option<Bytes>,
    /// What it remembers beside that, by number; as of the last [`Inbox::turn`].
    pages: BTreeMap<u64, Bytes>,
    /// Committed and not settled, by position.
    shelf: VecDeque<Shelved>,
    /// Bytes and events that are on the shelf or on their way to it.
    held_bytes: usize,
    held_events: usize,
    window: Window,
}

/// Events that arrived together: one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shelved {
    pub(crate) first: u64,
    /// Bodies, as `payload.rs` describes them; positions are consecutive.
    pub(crate) bodies: Vec<Bytes>,
    /// When they arrived, microseconds since 1970.
    pub(crate) arrived_us: u64,
}

impl Shelved {
    /// First position behind them.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.bodies.len() as u64
    }

    fn bytes(&self) -> usize {
        self.bodies.iter().map(Bytes::len).sum()
    }
}

/// Who brings arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bringer {
    /// Somebody who hears what becomes of them: that there is no room, or that an id of theirs stands for
    /// something else.
    Asks,
    /// A reader who was let in before, and whose ids are the world's.
    LetIn,
}

/// What became of arrivals.
#[derive(Default)]
pub(crate) struct Accepted {
    /// Kept, once the writes are committed; `None` when all came before.
    pub(crate) shelved: Option<Shelved>,
    /// Came within the window under the same id.
    pub(crate) repeated: u64,
}

/// Why arrivals cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{events} events ({bytes} bytes) wait already; try again when some are done")]
    Full { events: usize, bytes: usize },
    #[error("{0}")]
    TooLong(String),
    #[error(
        "{}its id came before with other content, and what came first is kept; send what is new under an id of its own",
        of_several(*.at, *.of)
    )]
    Other { at: usize, of: usize },
}

/// Names one of several events.
fn of_several(at: usize, of: usize) -> String {
    match of {
        1 => String::new(),
        _ => format!("event {at}: "),
    }
}

impl Inbox {
    fn new(number: u32, dag: &str, source: &str) -> Self {
        Self {
            number,
            dag: dag.to_owned(),
            source: source.to_owned(),
            next: 0,
            memo: None,
            pages: BTreeMap::new(),
            shelf: VecDeque::new(),
            held_bytes: 0,
            held_events: 0,
            window: Window::default(),
        }
    }

    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Whether events are kept in it that are still to be done.
    pub(crate) const fn holds(&self) -> bool {
        self.held_events > 0
    }

    pub(crate) const fn memo(&self) -> Option<&Bytes> {
        self.memo.as_ref()
    }

    pub(crate) const fn pages(&self) -> &BTreeMap<u64, Bytes> {
        &self.pages
    }

    /// Changes what the source remembers beside its memo.
    pub(crate) fn turn(&mut self, pages: Vec<Page>, writes: &mut Vec<Write>) {
        for Page { number, content } in pages {
            let id = row::page_id(number);
            match content {
                Some(content) => {
                    writes.push(put(self.number, &id, row::page(&content)));
                    self.pages.insert(number, content);
                }
                None => {
                    self.pages.remove(&number);
                    writes.push(Write::Delete(Table::Inbox, key(self.number, &id)));
                }
            }
        }
    }

    /// Whether there is room for more.
    pub(crate) const fn has_room(&self) -> bool {
        self.held_bytes < limits::INBOX_BYTES && self.held_events < limits::INBOX_EVENTS
    }

    /// Whether it was worked off far enough for those who filled it to go on.
    pub(crate) const fn is_low(&self) -> bool {
        self.held_bytes * 100 <= limits::INBOX_BYTES * limits::INBOX_LOW_PERCENT
            && self.held_events * 100 <= limits::INBOX_EVENTS * limits::INBOX_LOW_PERCENT
    }

    /// Events that wait, from the first one kept.
    pub(crate) fn first(&self) -> u64 {
        self.shelf.front().map_or(self.next, |first| first.first)
    }

    /// A lane stands here: whatever was read before has another position than what comes.
    pub(crate) fn raise(&mut self, position: u64) {
        self.next = self.next.max(position);
    }

    /// Gives arrivals their positions and says what is to be committed. Nothing of it counts as
    /// kept before [`Inbox::shelve`].
    pub(crate) fn accept(
        &mut self,
        arrivals: &[Arrival],
        memo: Option<Bytes>,
        now_us: u64,
        by: Bringer,
        writes: &mut Vec<Write>,
    ) -> Result<Accepted, Refusal> {
        check(arrivals, memo.as_ref())?;
        if by == Bringer::Asks && !self.has_room() && !arrivals.is_empty() {
            return Err(Refusal::Full {
                events: self.held_events,
                bytes: self.held_bytes,
            });
        }
        let fresh = self
            .window
            .admit(self.number, arrivals, by, now_us / 1_000, writes)?;
        let repeated = (arrivals.len() - fresh.len()) as u64;
        let shelved = (!fresh.is_empty()).then(|| {
            let bodies: Vec<Bytes> = fresh.iter().map(|one| row::body(one, now_us)).collect();
            Shelved {
                first: self.next,
                bodies,
                arrived_us: now_us,
            }
        });
        if let Some(shelved) = &shelved {
            self.next = shelved.end();
            self.held_bytes += shelved.bytes();
            self.held_events += shelved.bodies.len();
            writes.push(put(
                self.number,
                &shelved.first.to_be_bytes(),
                row::events(shelved),
            ));
        }
        if memo.is_some() {
            self.memo = memo;
        }
        writes.push(self.head());
        Ok(Accepted { shelved, repeated })
    }

    fn head(&self) -> Write {
        let head = Head {
            next: self.next,
            dag: &self.dag,
            source: &self.source,
            memo: self.memo.as_deref(),
        };
        put(self.number, b"", head.encode())
    }

    /// Events that are kept and not settled.
    pub(crate) const fn kept(&self) -> usize {
        self.held_events
    }

    /// Lets go of all but where it stands: no position is given twice.
    pub(crate) fn empty(&mut self, writes: &mut Vec<Write>) {
        let next = self.next;
        *self = Self::new(self.number, &self.dag, &self.source);
        self.next = next;
        writes.push(Write::DeletePrefix(Table::Inbox, key(self.number, b"")));
        writes.push(Write::DeletePrefix(Table::Dedup, key(self.number, b"")));
        writes.push(self.head());
    }

    /// What was accepted is durable.
    pub(crate) fn shelve(&mut self, shelved: Shelved) {
        self.shelf.push_back(shelved);
    }

    /// The next events from a position on, at most one row of them.
    pub(crate) fn from(&self, position: u64) -> Option<&Shelved> {
        let at = self.shelf.partition_point(|row| row.end() <= position);
        self.shelf.get(at)
    }

    /// Everything below `position` is settled or has a row of its own: its rows may go.
    pub(crate) fn settle(&mut self, position: u64, writes: &mut Vec<Write>) {
        while self.shelf.front().is_some_and(|row| row.end() <= position)
            && let Some(row) = self.shelf.pop_front()
        {
            self.held_bytes -= row.bytes();
            self.held_events -= row.bodies.len();
            writes.push(Write::Delete(
                Table::Inbox,
                key(self.number, &row.first.to_be_bytes()),
            ));
        }
    }
}

/// What cannot be kept because a part of it is too long.
fn too_long<T>(what: &str, bytes: usize, most: usize) -> Result<T, Refusal> {
    Err(Refusal::TooLong(format!(
        "{what} of {bytes} bytes is longer than the {most} that are kept"
    )))
}

/// Whether these pages can be kept.
pub(crate) fn check_pages(pages: &[Page]) -> Result<(), Refusal> {
    let mut contents = pages.iter().filter_map(|page| page.content.as_ref());
    match contents.find(|content| content.len() > PAGE_BYTES_MAX) {
        Some(content) => too_long("a page", content.len(), PAGE_BYTES_MAX),
        None => Ok(()),
    }
}

/// Bytes that an arrival takes of a delivery.
pub(crate) fn size(arrival: &Arrival) -> usize {
    row::size(arrival)
}

fn check(arrivals: &[Arrival], memo: Option<&Bytes>) -> Result<(), Refusal> {
    if let Some(memo) = memo.filter(|memo| memo.len() > MEMO_BYTES_MAX) {
        return too_long("a memo", memo.len(), MEMO_BYTES_MAX);
    }
    let ids = arrivals.iter().filter_map(|arrival| arrival.id.as_ref());
    if let Some(id) = ids.into_iter().find(|id| id.len() > ID_BYTES_MAX) {
        return too_long("an id", id.len(), ID_BYTES_MAX);
    }
    let bytes: usize = arrivals.iter().map(row::size).sum();
    if bytes > limits::DELIVERY_BYTES {
        return too_long("a delivery", bytes, limits::DELIVERY_BYTES);
    }
    Ok(())
}

fn key(number: u32, id: &[u8]) -> Key {
    Key {
        run: 0,
        lane: number,
        id: Bytes::copy_from_slice(id),
    }
}

fn put(number: u32, id: &[u8], body: Bytes) -> Write {
    Write::Put(Row {
        table: Table::Inbox,
        key: key(number, id),
        body,
    })
}

/// Every inbox of a store.
#[derive(Default)]
pub(crate) struct Inboxes {
    by_number: BTreeMap<u32, Inbox>,
    numbers: BTreeMap<(String, String), u32>,
    /// What tells lanes of this store from those of another: a position is unique in its store only.
    incarnation: String,
}

impl Inboxes {
    /// Reads what is kept.
    pub(crate) fn load(store: &mut dyn Store) -> Result<Self, StoreError> {
        let mut inboxes = Self {
            incarnation: store.header().store_id.to_string(),
            ..Self::default()
        };
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        store.load(Table::Inbox, &mut |row| rows.push(row))?;
        store.load(Table::Dedup, &mut |row| ids.push(row))?;
        for row in rows {
            // Rows come by number, and the empty id of the inbox itself is the first.
            let known = match &row.key.id[..] {
                [] => inboxes.take_head(row.key.lane, &row.body),
                id => match <[u8; 8]>::try_from(id) {
                    Ok(first) => inboxes.take_events(row.key.lane, u64::from_be_bytes(first), &row),
                    Err(_) => inboxes.take_page(&row),
                },
            };
            if known.is_none() {
                return Err(damaged(&row.key));
            }
        }
        for row in ids {
            let inbox = inboxes.by_number.get_mut(&row.key.lane);
            let taken = inbox.and_then(|inbox| inbox.window.take(&row.key.id, &row.body));
            taken.ok_or_else(|| damaged(&row.key))?;
        }
        Ok(inboxes)
    }

    /// DAGs for which events are kept that nobody took up yet.
    pub(crate) fn holding(&self) -> BTreeSet<&str> {
        let all = self.by_number.values();
        let holding = all.filter(|inbox| inbox.holds());
        holding.map(|inbox| inbox.dag.as_str()).collect()
    }

    /// Events that are kept for sources of a DAG which are not among `known`.
    pub(crate) fn left_behind<'a>(
        &'a self,
        dag: &'a str,
        known: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = (&'a str, usize)> + 'a {
        let of_dag = self
            .by_number
            .values()
            .filter(move |inbox| inbox.dag == dag);
        let left = of_dag.filter(move |inbox| inbox.holds() && !known(&inbox.source));
        left.map(|inbox| (inbox.source.as_str(), inbox.held_events))
    }

    fn take_head(&mut self, number: u32, body: &[u8]) -> Option<()> {
        let head = Head::decode(body)?;
        let mut inbox = Inbox::new(number, head.dag, head.source);
        inbox.next = head.next;
        inbox.memo = head.memo.map(Bytes::copy_from_slice);
        let name = (head.dag.to_owned(), head.source.to_owned());
        self.numbers.insert(name, number);
        self.by_number.insert(number, inbox);
        Some(())
    }

    fn take_events(&mut self, number: u32, first: u64, row: &Row) -> Option<()> {
        let inbox = self.by_number.get_mut(&number)?;
        let shelved = row::read_events(first, &row.body)?;
        inbox.held_bytes += shelved.bytes();
        inbox.held_events += shelved.bodies.len();
        inbox.shelf.push_back(shelved);
        Some(())
    }

    fn take_page(&mut self, row: &Row) -> Option<()> {
        let inbox = self.by_number.get_mut(&row.key.lane)?;
        let (number, content) = row::read_page(&row.key.id, &row.body)?;
        inbox.pages.insert(number, content);
        Some(())
    }

    /// The number of a source's inbox; a new one gets one.
    pub(crate) fn number(&mut self, dag: &str, source: &str) -> u32 {
        let name = (dag.to_owned(), source.to_owned());
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number = self.by_number.keys().next_back().map_or(1, |last| last + 1);
        self.by_number
            .insert(number, Inbox::new(number, dag, source));
        self.numbers.insert(name, number);
        number
    }

    /// The inbox of a source, if there is one.
    pub(crate) fn find(&self, dag: &str, source: &str) -> Option<&Inbox> {
        let number = self.numbers.get(&(dag.to_owned(), source.to_owned()))?;
        self.by_number.get(number)
    }

    /// Sources of a DAG for which something is kept.
    pub(crate) fn of_dag<'a>(&'a self, dag: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.by_number.values();
        let of_it = all.filter(move |inbox| inbox.dag == dag && inbox.holds());
        of_it.map(|inbox| inbox.source.as_str())
    }

    /// An inbox by its number.
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Inbox> {
        self.by_number.get_mut(&number)
    }

    /// An inbox by its number.
    pub(crate) fn get(&self, number: u32) -> Option<&Inbox> {
        self.by_number.get(&number)
    }

    /// See the field.
    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }
}

fn damaged(key: &Key) -> StoreError {
    StoreError::Damaged {
        path: std::path::PathBuf::from("store.db"),
        what: format!(
            "inbox {} has a row of a wrong shape: {:?}",
            key.lane, key.id
        ),
    }
}

#[cfg(test)]
mod tests;
