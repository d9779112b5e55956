//! Standard error, shared by what tasks print, what the engine says and the status.
//!
//! It is sentences, or one JSON object a line ([`record`]): then there is nothing else, no status and no picture.
//! Sentences for journald begin with their priority.
//!
//! On a terminal the status, a line or a picture of many, stays last and is drawn anew below every
//! other line. Nothing of the terminal is switched over, so that nothing has to be switched back,
//! however the process ends. Elsewhere a status is an ordinary line, and whoever calls
//! [`Screen::status`] sees to it that it comes seldom.

mod record;
mod writer;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evermill_api::live::Line;
use jiff::Timestamp;

pub(crate) use self::record::Fields;
use self::writer::{Sort, Writer};
use crate::config::{Format, Level, Log};
use crate::failure::Failure;

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
    log: Log,
    /// What is written here goes to journald.
    journal: bool,
    status: Mutex<Status>,
    /// None where whoever says something may wait until it is read.
    writer: Option<Writer>,
}

/// What stays last.
#[derive(Debug, Default)]
struct Status {
    text: String,
    /// Of each line, the cells it takes.
    widths: Vec<usize>,
}

impl Screen {
    /// For a command that only looks: sentences, all of them that are no debugging.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::made(Log::default()))
    }

    /// For an engine, which nobody who reads slowly holds up. [`Screen::finish`] belongs at its end.
    pub(crate) fn with(log: Log) -> Arc<Self> {
        let mut screen = Self::made(log);
        let (format, journal) = (log.format, screen.journal);
        let own_up = move |lines: u64| {
            let text = format!(
                "{lines} lines are missing here: standard error is read too slowly. What tasks print is in `evermill logs`"
            );
            let (level, none) = (Level::Warning, Fields::default());
            match format {
                Format::Json => record::lines(Timestamp::now(), level, &none, text.as_bytes()),
                Format::Text => vec![sentences(journal, level, "warning: ", text.as_bytes())],
            }
        };
        // Without a thread it is as slow as its reader.
        screen.writer = Writer::start(write, own_up).ok();
        Arc::new(screen)
    }

    fn made(log: Log) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        let is_json = log.format == Format::Json;
        if is_json {
            end_half_a_line();
            let said = move |panic: &std::panic::PanicHookInfo<'_>| {
                // At once: it may be the last thing that is written.
                let text = panic.to_string();
                let none = Fields::default();
                for line in record::lines(Timestamp::now(), Level::Error, &none, text.as_bytes()) {
                    write(&line);
                }
            };
            std::panic::set_hook(Box::new(said));
        }
        Self {
            terminal: io::stderr().is_terminal() && !dumb && !is_json,
            colours: set("NO_COLOR").is_none(),
            log,
            journal: is_journal(),
            status: Mutex::default(),
            writer: None,
        }
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

    /// Whether lines are JSON objects.
    pub(crate) fn is_json(&self) -> bool {
        self.log.format == Format::Json
    }

    /// Says how things go.
    pub(crate) fn say(&self, fields: &Fields<'_>, text: &str) {
        self.lines(Level::Info, fields, "", text.as_bytes());
    }

    /// Says something behind the word for how grave it is.
    pub(crate) fn tell(&self, level: Level, fields: &Fields<'_>, text: &str) {
        let word = match level {
            Level::Info => String::new(),
            level => format!("{level}: "),
        };
        self.lines(level, fields, &word, text.as_bytes());
    }

    /// Writes a text that is grave enough: as sentences, each line behind `prefix`, where what is no UTF-8 is
    /// written as it came, or as an object with these fields.
    pub(crate) fn lines(&self, level: Level, fields: &Fields<'_>, prefix: &str, text: &[u8]) {
        if level >= self.log.level {
            self.write_lines(Sort::Said, level, fields, prefix, text);
        }
    }

    /// The same for what a task has printed or logged.
    pub(crate) fn printed(&self, level: Level, fields: &Fields<'_>, prefix: &str, text: &[u8]) {
        // A logger in a task says `debug` where its author has asked for it.
        if level.max(Level::Info) >= self.log.level {
            self.write_lines(Sort::Printed, level, fields, prefix, text);
        }
    }

    fn write_lines(
        &self,
        sort: Sort,
        level: Level,
        fields: &Fields<'_>,
        prefix: &str,
        text: &[u8],
    ) {
        if self.is_json() {
            self.put(sort, record::lines(Timestamp::now(), level, fields, text));
            return;
        }
        let mut out = sentences(self.journal, level, prefix, text);
        let mut status = self.lock();
        if self.terminal && !status.text.is_empty() {
            let erased = format!("{BEGIN}{}", status.erased(self.size().0));
            out.splice(0..0, erased.into_bytes());
            out.extend_from_slice(status.text.as_bytes());
            out.extend_from_slice(END.as_bytes());
        }
        self.put_or_forget(&mut status, sort, out);
    }

    /// The last word of a command that has failed; what is left of it is for whoever calls it.
    pub(crate) fn last_word(&self, failure: Failure) -> Failure {
        let text = failure.to_string();
        if text.is_empty() || !(self.is_json() || self.journal) {
            return failure;
        }
        self.tell(Level::Error, &Fields::default(), &text);
        self.finish();
        failure.quiet()
    }

    /// Replaces the status by one that is news to those as well who see none.
    pub(crate) fn news(&self, text: &str) {
        match self.is_json() {
            true => self.say(&Fields::default(), text),
            false => self.status(text),
        }
    }

    /// Replaces the status; an empty one goes away. Not on a terminal: a line when it is not the
    /// one before.
    pub(crate) fn status(&self, text: &str) {
        if self.is_json() || !self.terminal && self.log.level > Level::Info {
            return;
        }
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
        let mut status = self.lock();
        if self.terminal && !status.text.is_empty() {
            self.put(Sort::Said, [b"\n".to_vec()]);
        }
        *status = Status::default();
    }

    /// Waits until everything is written, as long as somebody reads it.
    pub(crate) fn finish(&self) {
        if let Some(writer) = &self.writer {
            writer.finish();
        }
    }

    fn show(&self, next: Status) {
        let mut status = self.lock();
        if status.text == next.text {
            return;
        }
        let out = match self.terminal {
            true => {
                let erased = status.erased(self.size().0);
                format!("{BEGIN}{erased}{}{END}", next.text).into_bytes()
            }
            false if next.text.is_empty() => Vec::new(),
            false => sentences(self.journal, Level::Info, "", next.text.as_bytes()),
        };
        *status = next;
        self.put_or_forget(&mut status, Sort::Drawn, out);
    }

    /// Where something was left out, nobody knows what stands last.
    fn put_or_forget(&self, status: &mut Status, sort: Sort, out: Vec<u8>) {
        if !self.put(sort, [out]) {
            *status = Status::default();
        }
    }

    /// Writes the pieces, each at once, so that it is whole or not there; false when they are left out.
    fn put(&self, sort: Sort, pieces: impl IntoIterator<Item = Vec<u8>>) -> bool {
        match &self.writer {
            Some(writer) => writer.put(sort, pieces),
            None => {
                pieces.into_iter().for_each(|piece| write(&piece));
                true
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Each line of the text behind `prefix`.
fn sentences(journal: bool, level: Level, prefix: &str, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2 * prefix.len());
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for line in text.split(|byte| *byte == b'\n') {
        if journal {
            out.extend_from_slice(priority(level));
        }
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out
}

/// How journald wants to hear how grave a line is: syslog's priorities.
const fn priority(level: Level) -> &'static [u8] {
    match level {
        Level::Debug => b"<7>",
        Level::Info => b"<6>",
        Level::Warning => b"<4>",
        Level::Error => b"<3>",
        Level::Critical => b"<2>",
    }
}

/// Whether systemd has said that this very standard error is journald's: it may have been sent elsewhere since.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let named = stream.split_once(':').and_then(|(device, inode)| {
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    let own = rustix::fs::fstat(io::stderr());
    own.is_ok_and(|own| named == Some((own.st_dev, own.st_ino)))
}

/// What a process before this one left in a file that both append to.
fn end_half_a_line() {
    let ends_amiss = || -> io::Result<bool> {
        let file = File::open("/proc/self/fd/2")?;
        let (mut last, length) = ([0], file.metadata()?.len());
        if !file.metadata()?.is_file() || length == 0 {
            return Ok(false);
        }
        file.read_exact_at(&mut last, length - 1)?;
        Ok(last != *b"\n")
    };
    // Of what cannot be read nothing is known.
    if ends_amiss().unwrap_or(false) {
        write(b"\n");
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
