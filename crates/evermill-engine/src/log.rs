//! Output of tasks on its way to whoever shows it, on a thread of its own: a slow terminal holds
//! up no task. What does not fit in the queue is counted, never silently lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use evermill_contract::source::Severity;

use crate::clock::Clock;
use crate::kept::Kept;
use crate::limits;
use crate::notice::{Notice, NoticeSink, Subject};
use crate::open::{LogLine, LogSink};

/// The near end of the queue.
pub(crate) struct Logger {
    lines: Sender<LogLine>,
    queued_bytes: Arc<AtomicUsize>,
    lost: AtomicU64,
    unwritten: Arc<AtomicU64>,
    /// Closed when the thread has ended; nothing ever comes.
    ended: Receiver<()>,
}

impl Logger {
    /// What is printed is kept, and goes to `sink` as well.
    pub(crate) fn start(
        mut sink: LogSink,
        kept: Kept,
        clock: Clock,
        notices: NoticeSink,
    ) -> std::io::Result<Self> {
        let (lines, queue) = bounded::<LogLine>(limits::LOG_LINES_QUEUED);
        let (ends, ended) = bounded(0);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let bytes = Arc::clone(&queued_bytes);
        let unwritten = Arc::new(AtomicU64::new(0));
        let mut keeper = Keeper {
            kept,
            clock,
            notices,
            unwritten: Arc::clone(&unwritten),
            lost_at: None,
            is_stuck: false,
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                let _ends: Sender<()> = ends;
                let mut look = Instant::now() + limits::LOG_CHECK_EVERY[1];
                loop {
                    match queue.recv_deadline(look) {
                        Ok(line) => {
                            bytes.fetch_sub(line.text.len(), Ordering::Relaxed);
                            keeper.keep(&line, queue.is_empty());
                            sink(line);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                    if Instant::now() >= look {
                        let soon = keeper.check();
                        look = Instant::now() + limits::LOG_CHECK_EVERY[usize::from(soon)];
                    }
                }
            })?;
        Ok(Self {
            lines,
            queued_bytes,
            lost: AtomicU64::new(0),
            unwritten,
            ended,
        })
    }

    /// Waits until what was printed is kept and shown, but not for ever.
    pub(crate) fn finish(self) {
        drop(self.lines);
        self.ended.recv_timeout(limits::LOG_FINISH).ok();
    }

    pub(crate) fn write(&self, line: LogLine) {
        let size = line.text.len();
        let before = self.queued_bytes.fetch_add(size, Ordering::Relaxed);
        let fits = before == 0 || before + size <= limits::LOG_BYTES_QUEUED;
        if !fits || self.lines.try_send(line).is_err() {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that did not fit into the queue, and those that could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed) + self.unwritten.load(Ordering::Relaxed)
    }
}

/// What the thread has.
struct Keeper {
    kept: Kept,
    clock: Clock,
    notices: NoticeSink,
    /// What `kept` has lost, for others to see.
    unwritten: Arc<AtomicU64>,
    /// Nothing can be written, and so many were lost before.
    lost_at: Option<u64>,
    /// Nothing can be removed.
    is_stuck: bool,
}

impl Keeper {
    /// Keeps a line; `waits`: nothing more is there at the moment.
    fn keep(&mut self, line: &LogLine, waits: bool) {
        let before = self.kept.lost();
        let mut written = self.kept.write(self.clock.now_ms(), line);
        if waits {
            written = written.and(self.kept.flush());
        }
        let lost = self.kept.lost();
        self.unwritten.store(lost, Ordering::Relaxed);
        match (written, self.lost_at) {
            (Err(cause), None) => {
                self.lost_at = Some(before);
                let text = format!("what tasks print is not kept at the moment: {cause}");
                self.tell(line, &text);
            }
            (Ok(()), Some(at)) if waits => {
                self.lost_at = None;
                let text = format!(
                    "what tasks print is kept again; {} lines are lost",
                    lost - at
                );
                self.tell(line, &text);
            }
            _ => {}
        }
    }

    /// Whether there is more to do.
    fn check(&mut self) -> bool {
        let checked = self.kept.check(self.clock.now_ms());
        self.unwritten.store(self.kept.lost(), Ordering::Relaxed);
        let is_stuck = checked.is_err();
        if let (Err(cause), false) = (&checked, self.is_stuck) {
            let text = format!("what tasks printed long ago cannot be removed: {cause}");
            self.notice(&Subject::default(), &text);
        }
        self.is_stuck = is_stuck;
        checked.unwrap_or(false)
    }

    fn tell(&self, line: &LogLine, text: &str) {
        let subject = Subject {
            dag: line.dag.clone(),
            run: line.run.clone(),
            ..Subject::default()
        };
        self.notice(&subject, text);
    }

    fn notice(&self, subject: &Subject, text: &str) {
        (self.notices)(&Notice {
            severity: Severity::Warning,
            text,
            subject,
        });
    }
}
