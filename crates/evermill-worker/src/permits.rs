//! Permits of dispatches: what decides whether a worker may begin one that it was sent.
//!
//! A pipe that the worker and we both read, holding the calls (four bytes each, native order) of the
//! dispatches that were sent and not begun, oldest first. Whoever reads a call has its dispatch: the
//! worker to run it, we to give it to somebody else. So what waits behind a long task is never lost to a
//! worker that does not listen, for the system decides and no goodwill is needed.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

const CALL_BYTES: usize = size_of::<u32>();

#[derive(Debug)]
pub(crate) struct Permits {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Permits {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // For both of us: they share what is open.
        fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
        Ok(Self { reader, writer })
    }

    /// Lets the worker begin this call. A pipe holds thousands of them, and a worker gets two.
    pub(crate) fn give(&self, call: u32) -> io::Result<()> {
        (&self.writer).write_all(&call.to_ne_bytes())
    }

    /// The oldest call that was not begun; never to be begun by the worker from now on.
    pub(crate) fn take_back(&self) -> Option<u32> {
        let mut call = [0; CALL_BYTES];
        // Read whole or not at all, as they were written.
        (&self.reader).read_exact(&mut call).ok()?;
        Some(u32::from_ne_bytes(call))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn each_call_is_had_once_in_order() {
        let permits = Permits::new().unwrap();
        assert_eq!(permits.take_back(), None);
        permits.give(2).unwrap();
        permits.give(u32::MAX).unwrap();
        let mut worker = File::from(permits.fd().try_clone_to_owned().unwrap());
        let mut call = [0; CALL_BYTES];
        worker.read_exact(&mut call).unwrap();
        assert_eq!(u32::from_ne_bytes(call), 2);
        assert_eq!(permits.take_back(), Some(u32::MAX));
        let gone = worker.read_exact(&mut call).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::WouldBlock);
    }
}
