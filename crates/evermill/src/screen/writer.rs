//! What is to be written waits here for a thread of its own: who reads standard error slowly, or not at all, holds up
//! nobody. What does not fit is counted, and said as soon as there is room again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait. What tasks print, and pictures, may take half of it: they crowd out nothing that the engine says.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// At the end nobody is waited for who has not read for this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// The engine says it.
    Said,
    /// A task printed it.
    Printed,
    /// A status, which the next one replaces: nobody misses it.
    Drawn,
}

/// The near end.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// What is written about so many lines that did not fit.
    own_up: Box<dyn Fn(u64) -> Vec<Vec<u8>> + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    /// Each is written at once.
    pieces: VecDeque<Vec<u8>>,
    /// Of the pieces.
    bytes: usize,
    said: Share,
    printed: Share,
    /// A piece is on its way.
    is_writing: bool,
    /// Pieces that were written; wraps.
    written: u64,
    /// Nothing more will come.
    is_over: bool,
}

/// What one sort has lost.
#[derive(Default)]
struct Share {
    lines: u64,
    /// Something did not fit, and there is too little room yet to begin again: a report of losses for each line that
    /// fits would be all that is read.
    is_shut: bool,
}

impl Writer {
    /// `sink` writes a piece; `own_up` words what is written about lines that did not fit.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(
        mut sink: impl FnMut(&[u8]) + Send + 'static,
        own_up: impl Fn(u64) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            own_up: Box::new(own_up),
        });
        let work = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("stderr".to_owned())
            .spawn(move || {
                while let Some(piece) = work.next() {
                    sink(&piece);
                }
            })?;
        Ok(Self { shared })
    }

    /// Has the pieces written, each at once, or none of them: false when they do not fit.
    pub(super) fn put(&self, sort: Sort, pieces: impl IntoIterator<Item = Vec<u8>>) -> bool {
        let pieces: Vec<Vec<u8>> = pieces.into_iter().collect();
        let mut queue = self.shared.lock();
        let fits = queue.admits(sort, &pieces);
        if fits {
            self.shared.report(&mut queue);
            queue.push(pieces);
            self.shared.changed.notify_all();
        }
        fits
    }

    /// Waits until everything is written, as long as somebody reads it.
    pub(super) fn finish(&self) {
        let mut queue = self.shared.lock();
        self.shared.report(&mut queue);
        self.shared.changed.notify_all();
        while queue.is_busy() {
            let before = queue.written;
            let waited = self.shared.changed.wait_timeout(queue, PATIENCE);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = after;
            if timeout.timed_out() && queue.written == before {
                return;
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece, as soon as there is one; none when nothing more will come.
    fn next(&self) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        if queue.is_writing {
            queue.is_writing = false;
            queue.written = queue.written.wrapping_add(1);
            self.changed.notify_all();
        }
        loop {
            if queue.pieces.is_empty() {
                self.report(&mut queue);
            }
            if let Some(piece) = queue.pieces.pop_front() {
                queue.bytes -= piece.len();
                queue.is_writing = true;
                return Some(piece);
            }
            if queue.is_over {
                return None;
            }
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts into the queue what is to be said about losses.
    fn report(&self, queue: &mut Queue) {
        let lines =
            std::mem::take(&mut queue.said.lines) + std::mem::take(&mut queue.printed.lines);
        if lines > 0 {
            queue.push((self.own_up)(lines));
        }
    }
}

impl Queue {
    fn is_busy(&self) -> bool {
        self.is_writing || !self.pieces.is_empty()
    }

    /// Whether there is room; what there is none for is counted.
    fn admits(&mut self, sort: Sort, pieces: &[Vec<u8>]) -> bool {
        let size: usize = pieces.iter().map(Vec::len).sum();
        let (most, bytes) = (sort.most(), self.bytes);
        // However large, one alone goes through.
        let fits = bytes == 0 || bytes + size <= most;
        let share = match sort {
            Sort::Said => &mut self.said,
            Sort::Printed => &mut self.printed,
            Sort::Drawn => return fits,
        };
        share.is_shut = !fits || share.is_shut && bytes > most / 2;
        if share.is_shut {
            let lines = pieces.iter().flatten().filter(|byte| **byte == b'\n');
            share.lines += lines.count() as u64;
        }
        !share.is_shut
    }

    fn push(&mut self, pieces: Vec<Vec<u8>>) {
        self.bytes += pieces.iter().map(Vec::len).sum::<usize>();
        self.pieces.extend(pieces);
    }
}

impl Sort {
    /// Bytes that may wait when one of these comes.
    const fn most(self) -> usize {
        match self {
            Self::Said => WAITING_BYTES_MAX,
            Self::Printed | Self::Drawn => WAITING_BYTES_MAX / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender, bounded};

    use super::{Sort, WAITING_BYTES_MAX, Writer};

    const LINE: usize = 1 << 10;

    fn line(letter: u8) -> Vec<u8> {
        let mut line = vec![letter; LINE];
        line[LINE - 1] = b'\n';
        line
    }

    /// A reader who reads a piece for each word he gets, and any number when nobody can give him one any more.
    fn reader() -> (Writer, Sender<()>, Receiver<Vec<u8>>) {
        let (go, gate) = bounded::<()>(0);
        // More than fits into what waits.
        let (read, pieces) = bounded(4 * WAITING_BYTES_MAX / LINE);
        let sink = move |piece: &[u8]| {
            gate.recv().ok();
            read.send(piece.to_vec()).unwrap();
        };
        let own_up = |lines: u64| vec![format!("{lines} lost\n").into_bytes()];
        (Writer::start(sink, own_up).unwrap(), go, pieces)
    }

    #[test]
    fn who_does_not_read_holds_up_nobody_and_hears_later_what_is_missing() {
        let (writer, go, pieces) = reader();
        let sent = 2 * WAITING_BYTES_MAX / LINE;
        let kept = (0..sent)
            .filter(|_| writer.put(Sort::Said, [line(b's')]))
            .count();
        assert!(kept < sent, "nothing is unbounded");
        drop(go);
        writer.finish();
        let read: Vec<Vec<u8>> = pieces.try_iter().collect();
        assert_eq!(read.len(), kept + 1);
        let lost = format!("{} lost\n", sent - kept);
        assert_eq!(read.last().unwrap(), lost.as_bytes());
        assert!(writer.put(Sort::Said, [line(b's')]), "it goes on");
    }

    #[test]
    fn what_tasks_print_leaves_room_for_what_the_engine_says() {
        let (writer, go, pieces) = reader();
        while writer.put(Sort::Printed, [line(b'p')]) {}
        assert!(!writer.put(Sort::Drawn, [line(b'd')]));
        assert!(writer.put(Sort::Said, [line(b's')]));
        assert!(
            !writer.put(Sort::Printed, [line(b'p')]),
            "not before there is room again"
        );
        drop(go);
        writer.finish();
        let read: Vec<Vec<u8>> = pieces.try_iter().collect();
        let tail: Vec<&[u8]> = read.iter().rev().take(2).map(|piece| &piece[..1]).collect();
        assert_eq!(
            tail,
            [b"1", b"s"],
            "one of each is lost or said, in this order"
        );
    }

    #[test]
    fn losses_are_said_where_they_happened_and_not_for_every_line_that_fits() {
        let (writer, go, pieces) = reader();
        while writer.put(Sort::Said, [line(b's')]) {}
        let mut reports = 0;
        for _ in 0..WAITING_BYTES_MAX / LINE {
            go.send(()).unwrap();
            writer.put(Sort::Said, [line(b's')]);
            let piece = pieces.recv().unwrap();
            reports += usize::from(piece.ends_with(b"lost\n"));
        }
        assert!(reports <= 2, "{reports}");
        drop(go);
    }

    #[test]
    fn pieces_of_one_text_are_all_written_or_none() {
        let (writer, go, pieces) = reader();
        while writer.put(Sort::Said, [line(b's')]) {}
        assert!(!writer.put(Sort::Said, vec![line(b'a'), line(b'b')]));
        drop(go);
        writer.finish();
        assert!(pieces.try_iter().all(|piece| !b"ab".contains(&piece[0])));
    }

    #[test]
    fn nobody_is_waited_for_who_never_reads() {
        let (writer, _go, pieces) = reader();
        writer.put(Sort::Said, [line(b's')]);
        writer.finish();
        assert!(pieces.is_empty());
    }
}
