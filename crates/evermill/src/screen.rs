//! Standard error, shared by what tasks print, what the engine says and the status.
//!
//! On a terminal the status, a line or a picture of many, stays last and is drawn anew below every
//! other line. Nothing of the terminal is switched over, so that nothing has to be switched back,
//! however the process ends. Elsewhere a status is an ordinary line, and whoever calls
//! [`Screen::status`] sees to it that it comes seldom.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use evermill_api::live::Line;

/// Terminals that understand it show what lies between at once, without flicker; others ignore it.
const BEGIN: &str = "\x1b[?2026h";
/// See [`BEGIN`].
const END: &str = "\x1b[?2026l";
/// What is assumed of a terminal that does not say how large it is.
const SIZE: (usize, usize) = (80, 24);

/// Standard error.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    colours: bool,
    status: Mutex<Status>,
}

/// What stays last.
#[derive(Debug, Default)]
struct Status {
    text: String,
    /// Of each line, the cells it takes.
    widths: Vec<usize>,
}

impl Screen {
    pub(crate) fn new() -> Arc<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        Arc::new(Self {
            terminal: io::stderr().is_terminal() && !dumb,
            colours: set("NO_COLOR").is_none(),
            status: Mutex::default(),
        })
    }

    /// Whether somebody looks, through a terminal that can move its cursor.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns and rows of the terminal, at this moment.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => SIZE,
        }
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
        if self.terminal && !status.text.is_empty() {
            let erased = format!("{BEGIN}{}", status.erased(self.size().0));
            out.splice(0..0, erased.into_bytes());
            out.extend_from_slice(status.text.as_bytes());
            out.extend_from_slice(END.as_bytes());
        }
        write(&out);
    }

    /// Replaces the status; an empty one goes away. Not on a terminal: a line when it is not the
    /// one before.
    pub(crate) fn status(&self, text: &str) {
        let widths = vec![text.chars().count()];
        let text = text.to_owned();
        self.show(Status { text, widths });
    }

    /// Replaces the status by a picture; for terminals.
    pub(crate) fn picture(&self, lines: &[Line]) {
        let coloured = |line: &Line| match self.colours {
            true => line.coloured(),
            false => line.text(),
        };
        let text: Vec<String> = lines.iter().map(coloured).collect();
        let widths = lines.iter().map(|line| line.text().chars().count());
        self.show(Status {
            text: text.join("\n"),
            widths: widths.collect(),
        });
    }

    /// Lets the status stand where it is; the next line comes below it.
    pub(crate) fn keep(&self) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if self.terminal && !status.text.is_empty() {
            write(b"\n");
        }
        *status = Status::default();
    }

    fn show(&self, next: Status) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.text == next.text {
            return;
        }
        if self.terminal {
            let erased = status.erased(self.size().0);
            write(format!("{BEGIN}{erased}{}{END}", next.text).as_bytes());
        } else if !next.text.is_empty() {
            write(format!("{}\n", next.text).as_bytes());
        }
        *status = next;
    }
}

impl Status {
    /// Moves to where it begins and erases to the end (ECMA-48: CUU, ED). A terminal that became
    /// narrower has broken its lines.
    fn erased(&self, columns: usize) -> String {
        let rows = |width: &usize| width.div_ceil(columns.max(1)).max(1);
        let rows: usize = self.widths.iter().map(rows).sum();
        let mut out = "\r".to_owned();
        if rows > 1 {
            write!(out, "\x1b[{}A", rows - 1).expect("a String takes everything");
        }
        out.push_str("\x1b[J");
        out
    }
}

/// Nobody can be told that standard error is closed.
fn write(bytes: &[u8]) {
    drop(io::stderr().lock().write_all(bytes));
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn a_picture_is_erased_from_its_first_row_even_when_the_terminal_became_narrower() {
        let status = |widths: &[usize]| Status {
            text: String::new(),
            widths: widths.to_vec(),
        };
        assert_eq!(status(&[]).erased(80), "\r\x1b[J");
        assert_eq!(status(&[80]).erased(80), "\r\x1b[J");
        assert_eq!(status(&[10, 0, 80]).erased(80), "\r\x1b[2A\x1b[J");
        assert_eq!(status(&[10, 0, 80]).erased(40), "\r\x1b[3A\x1b[J");
        assert_eq!(status(&[3, 3]).erased(0), "\r\x1b[5A\x1b[J");
    }
}
