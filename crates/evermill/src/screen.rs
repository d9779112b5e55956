//! Standard error, shared by what tasks print, what the engine says and the status line.
//!
//! On a terminal the status line stays last and is drawn anew below every other line. Elsewhere
//! it is an ordinary line, and whoever calls [`Screen::status`] sees to it that it comes seldom.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// Erases the line the cursor is in and goes to its start (ECMA-48: EL, CR).
const ERASE: &[u8] = b"\r\x1b[2K";

/// Standard error.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    status: Mutex<String>,
}

impl Screen {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            terminal: io::stderr().is_terminal(),
            status: Mutex::default(),
        })
    }

    /// Whether somebody looks.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes lines, each behind `prefix`. What is no UTF-8 is written as it came.
    pub(crate) fn lines(&self, prefix: &str, text: &[u8]) {
        let mut out = Vec::with_capacity(text.len() + 2 * prefix.len());
        for line in text
            .strip_suffix(b"\n")
            .unwrap_or(text)
            .split(|byte| *byte == b'\n')
        {
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if self.terminal && !status.is_empty() {
            out.splice(0..0, ERASE.iter().copied());
            out.extend_from_slice(status.as_bytes());
        }
        write(&out);
    }

    /// Replaces the status line; an empty one goes away. Not on a terminal: a line when it is not
    /// the one before.
    pub(crate) fn status(&self, text: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *status == text {
            return;
        }
        text.clone_into(&mut status);
        if self.terminal {
            write(&[ERASE, text.as_bytes()].concat());
        } else if !text.is_empty() {
            write(format!("{text}\n").as_bytes());
        }
    }
}

/// Nobody can be told that standard error is closed.
fn write(bytes: &[u8]) {
    drop(io::stderr().lock().write_all(bytes));
}
