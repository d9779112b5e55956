//! Group commit: one thread owns the store, turns whatever waits into one transaction, and
//! answers everybody after the fsync. There is no artificial delay: while one group is synced the
//! next one gathers.
//!
//! | state | on | goes to |
//! |---|---|---|
//! | working | a group commits, fences refused or not | working |
//! | working | disk full | waiting: the group is kept, order too, `Event::Full` |
//! | waiting | space returns | working, `Event::SpaceBack` |
//! | waiting | stop | stopped: what waits is answered `Full` |
//! | working | unknown outcome, fatal error | stopped: the group gets that error, the rest `Stopped` |

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{CommitError, StoreError};
use crate::limits;
use crate::step::{Step, StepHook};
use crate::store::{Batch, CommitId, Committed, Store, check_sizes, write_bytes};

/// Told what became of a batch: exactly once, on the committer's thread (or on the submitting one
/// when the committer has stopped). It must not wait for the committer.
pub type Ticket = Box<dyn FnOnce(Result<CommitId, CommitError>) + Send>;

/// Work for the store that is no commit, done in its place in the queue: load, claim, verify, ...
pub type Between = Box<dyn FnOnce(&mut dyn Store) + Send>;

/// What the engine must know about the store besides its tickets.
#[derive(Debug, Clone)]
pub enum Event {
    /// The disk is full: stop credit (C5). Tickets wait; the same group is tried again and again.
    Full,
    /// Commits work again.
    SpaceBack,
    /// The store has stopped for good; the engine aborts the process, or for an unknown outcome
    /// may open again and ask.
    Stopped(CommitError),
}

/// Pause between two tries on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(100);
/// Quiet time before housekeeping.
const IDLE_AFTER: Duration = Duration::from_millis(20);

/// The handle; dropping it without [`Committer::stop`] also stops the thread, after what is queued.
pub struct Committer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Box<dyn Store>>>,
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl Committer {
    /// Starts the thread. `hook` is called at [`Step::GroupDrained`] and [`Step::GroupUnanswered`].
    ///
    /// # Errors
    /// [`StoreError::Io`] when the system gives no thread.
    pub fn start(
        store: Box<dyn Store>,
        hook: Option<StepHook>,
        events: impl Fn(Event) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let worker = Worker {
            queue: Arc::clone(&queue),
            store,
            hook,
            events: Box::new(events),
        };
        let thread = thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || worker.run())
            .map_err(|cause| StoreError::Io {
                path: "committer".into(),
                doing: "starting its thread",
                cause: Arc::from(cause.to_string()),
            })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Queues a batch behind everything queued before; waits while the queue is full. The ticket
    /// gets the answer, [`CommitError::Oversize`] and [`CommitError::Stopped`] included.
    pub fn submit(&self, batch: Batch, ticket: Ticket) {
        if let Err(error) = check_sizes(std::slice::from_ref(&batch)) {
            return ticket(Err(error));
        }
        if let Err((_, ticket)) = self.queue.push_batch(batch, ticket, true) {
            ticket(Err(CommitError::Stopped));
        }
    }

    /// As [`Committer::submit`], but gives batch and ticket back when the queue is full.
    ///
    /// # Errors
    /// The batch and its ticket, unanswered.
    pub fn try_submit(&self, batch: Batch, ticket: Ticket) -> Result<(), (Batch, Ticket)> {
        if let Err(error) = check_sizes(std::slice::from_ref(&batch)) {
            ticket(Err(error));
            return Ok(());
        }
        match self.queue.push_batch(batch, ticket, false) {
            Err((_, ticket)) if self.queue.lock().closed => {
                ticket(Err(CommitError::Stopped));
                Ok(())
            }
            result => result,
        }
    }

    /// Runs work on the store after everything queued before and ahead of everything queued
    /// later; it is dropped unrun when the committer has stopped.
    pub fn between(&self, work: Between) {
        self.queue.push_between(work);
    }

    /// Finishes what is queued, ends the thread and hands the store back, to close it cleanly or
    /// to drop it.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when the thread died of a panic.
    pub fn stop(mut self) -> Result<Box<dyn Store>, StoreError> {
        self.queue.close();
        let died = || StoreError::Stopped(Arc::from("its thread panicked"));
        self.thread
            .take()
            .ok_or_else(died)?
            .join()
            .map_err(|_| died())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; there is nobody to tell here.
            drop(thread.join());
        }
    }
}

enum Job {
    Commit {
        batch: Batch,
        ticket: Ticket,
        bytes: usize,
    },
    Between(Between),
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    batches: usize,
    bytes: usize,
    closed: bool,
}

/// The bounded queue between submitters and the thread.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Something was queued, or the queue closed.
    work: Condvar,
    /// Something was taken, or the queue closed.
    room: Condvar,
}

enum Next {
    Group(Vec<Batch>, Vec<Ticket>),
    Between(Between),
    Quiet,
    Closed,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is consistent after each statement; a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push_batch(&self, batch: Batch, ticket: Ticket, wait: bool) -> Result<(), (Batch, Ticket)> {
        let bytes = batch.writes.iter().map(write_bytes).sum();
        let full = |waiting: &Waiting| {
            waiting.batches >= limits::QUEUE_BATCHES
                || (waiting.batches > 0 && waiting.bytes + bytes > limits::QUEUE_BYTES)
        };
        let mut waiting = self.lock();
        while wait && !waiting.closed && full(&waiting) {
            waiting = self
                .room
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.closed || full(&waiting) {
            return Err((batch, ticket));
        }
        waiting.batches += 1;
        waiting.bytes += bytes;
        waiting.jobs.push_back(Job::Commit {
            batch,
            ticket,
            bytes,
        });
        self.work.notify_one();
        Ok(())
    }

    fn push_between(&self, work: Between) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.jobs.push_back(Job::Between(work));
            self.work.notify_one();
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Takes what is next; `Quiet` after a while without work, if asked for.
    fn next(&self, tell_quiet: bool) -> Next {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return Next::Closed;
            }
            if tell_quiet {
                let (guard, timeout) = self
                    .work
                    .wait_timeout(waiting, IDLE_AFTER)
                    .unwrap_or_else(PoisonError::into_inner);
                waiting = guard;
                if timeout.timed_out() && waiting.jobs.is_empty() && !waiting.closed {
                    return Next::Quiet;
                }
            } else {
                waiting = self
                    .work
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        let next = waiting.take();
        self.room.notify_all();
        next
    }

    /// Waits out a full disk; true when the queue was closed meanwhile.
    fn closed_within(&self, time: Duration) -> bool {
        let waiting = self.lock();
        let (waiting, _) = self
            .work
            .wait_timeout_while(waiting, time, |waiting| !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.closed
    }

    /// Closes the queue and answers what is still in it; nobody is answered under the lock.
    fn close_and_stop(&self) {
        self.close();
        let jobs = std::mem::take(&mut self.lock().jobs);
        tell_all(jobs.into_iter().filter_map(|job| match job {
            Job::Commit { ticket, .. } => Some((ticket, Err(CommitError::Stopped))),
            Job::Between(_) => None,
        }));
    }
}

impl Waiting {
    /// Everything up to the next `Between`, within the bounds of a group.
    fn take(&mut self) -> Next {
        let (mut batches, mut tickets) = (Vec::new(), Vec::new());
        let (mut writes, mut bytes) = (0, 0);
        while let Some(job) = self.jobs.pop_front() {
            match job {
                Job::Between(work) if batches.is_empty() => return Next::Between(work),
                Job::Commit {
                    batch,
                    ticket,
                    bytes: size,
                } if batches.is_empty()
                    || (writes + batch.writes.len() <= limits::GROUP_WRITES
                        && bytes + size <= limits::GROUP_BYTES) =>
                {
                    writes += batch.writes.len();
                    bytes += size;
                    self.batches -= 1;
                    self.bytes -= size;
                    batches.push(batch);
                    tickets.push(ticket);
                }
                later => {
                    self.jobs.push_front(later);
                    break;
                }
            }
        }
        Next::Group(batches, tickets)
    }
}

struct Worker {
    queue: Arc<Queue>,
    store: Box<dyn Store>,
    hook: Option<StepHook>,
    events: Box<dyn Fn(Event) + Send>,
}

impl Worker {
    fn run(mut self) -> Box<dyn Store> {
        let _answers = AnswerRest(Arc::clone(&self.queue));
        let mut untended = true;
        loop {
            let done = match self.queue.next(untended) {
                Next::Group(batches, tickets) => {
                    untended = true;
                    self.group(&batches, tickets)
                        .and_then(|()| self.tend(false))
                }
                Next::Between(work) => {
                    untended = true;
                    work(&mut *self.store);
                    Ok(())
                }
                Next::Quiet => {
                    untended = false;
                    self.tend(true)
                }
                Next::Closed => return self.store,
            };
            if let Err(error) = done {
                self.queue.close_and_stop();
                (self.events)(Event::Stopped(error));
                return self.store;
            }
        }
    }

    fn group(&mut self, batches: &[Batch], tickets: Vec<Ticket>) -> Result<(), CommitError> {
        self.step(Step::GroupDrained);
        match self.commit(batches) {
            Ok(committed) => {
                self.step(Step::GroupUnanswered);
                answer(&committed, tickets);
                Ok(())
            }
            Err(error) => {
                tell_all(
                    tickets
                        .into_iter()
                        .map(|ticket| (ticket, Err(error.clone()))),
                );
                Err(error)
            }
        }
    }

    /// Commits, waiting out a full disk.
    fn commit(&mut self, batches: &[Batch]) -> Result<Committed, CommitError> {
        let mut full = false;
        loop {
            match self.store.commit(batches) {
                Err(CommitError::Full) => {
                    if !full {
                        (self.events)(Event::Full);
                        full = true;
                    }
                    if self.queue.closed_within(FULL_RETRY) {
                        return Err(CommitError::Full);
                    }
                }
                result => {
                    if full && result.is_ok() {
                        (self.events)(Event::SpaceBack);
                    }
                    return result;
                }
            }
        }
    }

    fn tend(&mut self, idle: bool) -> Result<(), CommitError> {
        self.store
            .tend(idle)
            .map_err(|error| CommitError::Fatal(Arc::from(error.to_string())))
    }

    fn step(&self, step: Step) {
        if let Some(hook) = &self.hook {
            hook(step);
        }
    }
}

/// Answers whatever is still queued when the thread ends, by a panic too.
struct AnswerRest(Arc<Queue>);

impl Drop for AnswerRest {
    fn drop(&mut self) {
        self.0.close_and_stop();
    }
}

fn answer(committed: &Committed, tickets: Vec<Ticket>) {
    let mut refused = committed.refused.iter().peekable();
    tell_all(tickets.into_iter().enumerate().map(|(index, ticket)| {
        match refused.next_if(|refused| refused.index == index) {
            Some(refused) => (ticket, Err(refused.to_error())),
            None => (ticket, Ok(committed.id)),
        }
    }));
}

/// Answers everybody, even when a ticket panics; the panic goes on afterwards.
fn tell_all(answers: impl Iterator<Item = (Ticket, Result<CommitId, CommitError>)>) {
    let mut panicked = None;
    for (ticket, answer) in answers {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| ticket(answer))) {
            panicked = Some(panic);
        }
    }
    if let Some(panic) = panicked {
        resume_unwind(panic);
    }
}
