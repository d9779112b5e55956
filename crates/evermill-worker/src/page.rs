//! The page a worker shares with us: which member runs, and since when.
//!
//! Two words of 64 bits in native order: `call << 32 | member`, and the start on the monotonic
//! clock in nanoseconds, 0 while no member runs. The worker writes the start first. We read with
//! `pread`, so no memory is shared with code that we do not trust.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::time::{ClockId, clock_gettime};

const PAGE_BYTES: u64 = 65_536;

#[derive(Debug)]
pub(crate) struct Page(File);

/// What a worker is doing, by its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) call: u32,
    pub(crate) member: u32,
    /// None while no member runs.
    pub(crate) started_ns: Option<u64>,
}

impl Page {
    pub(crate) fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("evermill-worker", MemfdFlags::CLOEXEC)?);
        // Room for the largest memory page of any machine, as a worker maps a whole one.
        file.set_len(PAGE_BYTES)?;
        Ok(Self(file))
    }

    pub(crate) fn read(&self) -> io::Result<Running> {
        let mut words = [0; 16];
        self.0.read_exact_at(&mut words, 0)?;
        let [place, started] =
            [0, 8].map(|at| u64::from_ne_bytes(std::array::from_fn(|index| words[at + index])));
        Ok(Running {
            call: (place >> 32) as u32,
            member: place as u32,
            started_ns: (started != 0).then_some(started),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Now, on the clock that workers report with.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
