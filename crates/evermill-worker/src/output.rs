//! Output at descriptor level: C code, child processes. It belongs to the dispatch that runs
//! when it is read; of each dispatch the beginning and the end are kept.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::worker::limits::{LOG_DISPATCH_BYTES_MAX, LOG_TAIL_BYTES_MAX};
use evermill_contract::worker::{LogOrigin, Slot, Token, WorkerEvent};

const READ_BYTES: usize = 64 * 1024;
/// A line longer than this comes in pieces.
const LINE_BYTES_MAX: usize = 16 * 1024;
const HEAD_BYTES_MAX: usize = LOG_DISPATCH_BYTES_MAX - LOG_TAIL_BYTES_MAX;

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) slot: Slot,
    pub(crate) worker: u32,
    pub(crate) ended: bool,
    token: Option<Token>,
    sent: usize,
    /// The beginning of a line whose end has not come: lines are shown whole, and searched for secrets whole.
    line: Vec<u8>,
    tail: Vec<u8>,
    left_out: u64,
}

impl Output {
    pub(crate) fn new(fd: OwnedFd, slot: Slot, worker: u32) -> Self {
        Self {
            fd: Arc::new(fd),
            slot,
            worker,
            ended: false,
            token: None,
            sent: 0,
            line: Vec::new(),
            tail: Vec::new(),
            left_out: 0,
        }
    }

    /// Reads once, while `token` runs. True if there may be more.
    pub(crate) fn read(&mut self, token: Option<Token>, events: &mut Vec<WorkerEvent>) -> bool {
        let mut part = [0; READ_BYTES];
        match rustix::io::read(&*self.fd, &mut part) {
            Ok(0) => {
                self.ended = true;
                self.turn_to(token, events);
                self.end_line(events);
            }
            Ok(read) => {
                let mut part = &part[..read];
                if token != self.token && self.holds_a_line() {
                    // The rest of a line belongs to whoever began it.
                    let end = part.iter().position(|byte| *byte == b'\n');
                    let (rest, behind) = part.split_at(end.map_or(read, |at| at + 1));
                    self.keep(rest, events);
                    part = behind;
                }
                self.turn_to(token, events);
                self.keep(part, events);
                return true;
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                self.turn_to(token, events);
            }
            Err(_) => self.ended = true,
        }
        false
    }

    /// Whether a line has begun whose end may wait to be read.
    pub(crate) const fn holds_a_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// Another dispatch runs, or none: the end of what the last one wrote is due.
    pub(crate) fn turn_to(&mut self, token: Option<Token>, events: &mut Vec<WorkerEvent>) {
        if token == self.token {
            return;
        }
        self.end_line(events);
        if !self.tail.is_empty() {
            let mut text = Vec::new();
            if self.left_out > 0 {
                let note = format!(
                    "\n[evermill: {} bytes of output were left out here]\n",
                    self.left_out
                );
                text.extend_from_slice(note.as_bytes());
            }
            text.append(&mut self.tail);
            events.push(self.event(text.into()));
        }
        self.token = token;
        self.sent = 0;
        self.left_out = 0;
    }

    fn keep(&mut self, part: &[u8], events: &mut Vec<WorkerEvent>) {
        let (head, rest) = part.split_at(part.len().min(HEAD_BYTES_MAX - self.sent));
        if !head.is_empty() {
            self.sent += head.len();
            self.line.extend_from_slice(head);
            let whole = self.line.iter().rposition(|byte| *byte == b'\n');
            let whole = whole.map_or(0, |at| at + 1);
            if whole > 0 {
                let rest = self.line.split_off(whole);
                let lines = std::mem::replace(&mut self.line, rest);
                events.push(self.event(lines.into()));
            }
            if self.line.len() > LINE_BYTES_MAX {
                self.end_line(events);
            }
        }
        self.tail.extend_from_slice(rest);
        let excess = self.tail.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
    }

    /// What there is of a line that will not go on.
    fn end_line(&mut self, events: &mut Vec<WorkerEvent>) {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            events.push(self.event(line.into()));
        }
    }

    fn event(&self, text: Bytes) -> WorkerEvent {
        WorkerEvent::Log {
            slot: self.slot,
            token: self.token,
            member: None,
            origin: LogOrigin::Descriptor,
            text,
        }
    }
}
