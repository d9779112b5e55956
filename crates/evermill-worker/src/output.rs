//! Output at descriptor level: C code, child processes. It belongs to the dispatch that runs
//! when it is read; of each dispatch the beginning and the end are kept.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::worker::limits::{LOG_DISPATCH_BYTES_MAX, LOG_TAIL_BYTES_MAX};
use evermill_contract::worker::{LogOrigin, Slot, Token, WorkerEvent};

const READ_BYTES: usize = 64 * 1024;
const HEAD_BYTES_MAX: usize = LOG_DISPATCH_BYTES_MAX - LOG_TAIL_BYTES_MAX;

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) slot: Slot,
    pub(crate) worker: u32,
    pub(crate) ended: bool,
    token: Option<Token>,
    sent: usize,
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
            tail: Vec::new(),
            left_out: 0,
        }
    }

    /// Reads once, while `token` runs. True if there may be more.
    pub(crate) fn read(&mut self, token: Option<Token>, events: &mut Vec<WorkerEvent>) -> bool {
        self.turn_to(token, events);
        let mut part = [0; READ_BYTES];
        match rustix::io::read(&*self.fd, &mut part) {
            Ok(0) => self.ended = true,
            Ok(read) => {
                self.keep(&part[..read], events);
                return true;
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.ended = true,
        }
        false
    }

    /// Another dispatch runs, or none: the end of what the last one wrote is due.
    pub(crate) fn turn_to(&mut self, token: Option<Token>, events: &mut Vec<WorkerEvent>) {
        if token == self.token {
            return;
        }
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
            events.push(self.event(Bytes::copy_from_slice(head)));
        }
        self.tail.extend_from_slice(rest);
        let excess = self.tail.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
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
