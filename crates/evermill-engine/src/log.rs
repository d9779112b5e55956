//! Output of tasks on its way to whoever shows it, on a thread of its own: a slow terminal holds
//! up no task. What does not fit in the queue is counted, never silently lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Sender, bounded};
use evermill_contract::source::{DiagnosticSink, Severity};

use crate::clock::Clock;
use crate::kept::Kept;
use crate::limits;
use crate::open::{LogLine, LogSink};

/// The near end of the queue.
pub(crate) struct Logger {
    lines: Sender<LogLine>,
    queued_bytes: Arc<AtomicUsize>,
    lost: AtomicU64,
}

impl Logger {
    /// What is printed is kept in the data directory, and goes to `sink` as well.
    pub(crate) fn start(
        mut sink: LogSink,
        data_dir: &Path,
        clock: Clock,
        notices: DiagnosticSink,
    ) -> std::io::Result<Self> {
        let mut kept = Kept::new(data_dir);
        let mut whole = true;
        let (lines, queue) = bounded::<LogLine>(limits::LOG_LINES_QUEUED);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let bytes = Arc::clone(&queued_bytes);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                for line in &queue {
                    bytes.fetch_sub(line.text.len(), Ordering::Relaxed);
                    let mut written = kept.write(clock.now_ms(), &line);
                    if queue.is_empty() {
                        written = written.and(kept.flush());
                    }
                    if let (Err(cause), true) = (&written, whole) {
                        let text = format!("what tasks print is not kept at the moment: {cause}");
                        notices(Severity::Warning, &text);
                    }
                    whole = written.is_ok();
                    sink(line);
                }
            })?;
        Ok(Self {
            lines,
            queued_bytes,
            lost: AtomicU64::new(0),
        })
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

    /// Lines that did not fit.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
