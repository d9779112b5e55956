//! Group commit: one thread owns the store, turns whatever waits into one transaction, and
//! answers everybody after the fsync. There is no artificial delay: while one group is synced the
//! next one gathers. A caller that has nothing else to do may commit on its own thread when ours
//! rests ([`Committer::commit_here`]): waking two threads can take longer than the commit.
//!
//! | state | on | goes to |
//! |---|---|---|
//! | working | a group commits, fences refused or not | working |
//! | working | disk full | waiting: the group is kept, order too, `Event::Full` |
//! | waiting | space returns | working, `Event::SpaceBack` |
//! | waiting | stop | stopped: what waits is answered `Full` |
//! | working | unknown outcome, fatal error | stopped: the group gets that error, the rest `Stopped` |
//! | resting | a caller commits here | lent: whatever is queued meanwhile waits |
//! | lent | committed, or the disk is full | resting; on a full disk the batch is the caller's again |
//! | lent | unknown outcome, fatal error | stopped |

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
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
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
        queue.lock().untended = true;
        let desk = Arc::new(Desk {
            store: Mutex::new(Some(store)),
            hook,
        });
        let worker = Worker {
            queue: Arc::clone(&queue),
            desk: Arc::clone(&desk),
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
            desk,
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

    /// Commits on the calling thread, if nothing is queued or under way: nobody is woken, before
    /// or after. The caller waits for the disk. A refused fence is an error here.
    ///
    /// # Errors
    /// The batch, to be submitted instead: it is large, there is other work, the committer has
    /// stopped, or the disk is full.
    pub fn commit_here(&self, batch: Batch) -> Result<Result<CommitId, CommitError>, Batch> {
        if let Err(error) = check_sizes(std::slice::from_ref(&batch)) {
            return Ok(Err(error));
        }
        let bytes: usize = batch.writes.iter().map(write_bytes).sum();
        let borrowed = (bytes <= limits::COMMIT_HERE_BYTES).then(|| self.queue.borrow_store());
        let Some(lent) = borrowed.flatten() else {
            return Err(batch);
        };
        self.desk.step(Step::GroupDrained);
        match self.desk.commit(std::slice::from_ref(&batch)) {
            Ok(committed) => {
                self.desk.step(Step::GroupUnanswered);
                let refused = committed.refused.first();
                Ok(refused.map_or(Ok(committed.id), |refused| Err(refused.to_error())))
            }
            Err(CommitError::Full) => Err(batch),
            Err(error) => {
                lent.stop();
                Ok(Err(error))
            }
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
            .map_err(|_| died())?;
        self.desk.lock().take().ok_or_else(died)
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
    /// The thread has taken work and not come back for more.
    working: bool,
    /// A caller has the store.
    lent: bool,
    /// A caller had the store since the thread last looked.
    used: bool,
    /// Something was committed since the last housekeeping of a quiet store.
    untended: bool,
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
    /// Housekeeping; true when nobody has committed for a while.
    Tend(bool),
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

    /// Takes what is next; housekeeping after a while without work, if there was work before.
    fn next(&self) -> Next {
        let mut waiting = self.lock();
        waiting.working = false;
        loop {
            if !waiting.lent && !waiting.jobs.is_empty() {
                let next = waiting.take();
                waiting.working = true;
                waiting.untended = true;
                self.room.notify_all();
                return next;
            }
            if !waiting.lent && waiting.closed {
                return Next::Closed;
            }
            if waiting.untended {
                let (guard, timeout) = self
                    .work
                    .wait_timeout(waiting, IDLE_AFTER)
                    .unwrap_or_else(PoisonError::into_inner);
                waiting = guard;
                if timeout.timed_out() && waiting.rests() {
                    let quiet = !std::mem::take(&mut waiting.used);
                    waiting.untended = !quiet;
                    waiting.working = true;
                    return Next::Tend(quiet);
                }
            } else {
                waiting = self
                    .work
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Lends the store to the caller, if the thread rests and nothing is queued.
    fn borrow_store(&self) -> Option<Lent<'_>> {
        let mut waiting = self.lock();
        if waiting.working || !waiting.rests() {
            return None;
        }
        waiting.lent = true;
        Some(Lent(self))
    }

    fn give_back(&self) {
        let mut waiting = self.lock();
        waiting.lent = false;
        waiting.used = true;
        // A thread that sleeps for good has to begin to count the quiet time.
        let counts = std::mem::replace(&mut waiting.untended, true);
        if !counts || !waiting.jobs.is_empty() || waiting.closed {
            self.work.notify_all();
        }
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
    /// Nothing is queued and nobody has the store, the thread apart.
    fn rests(&self) -> bool {
        self.jobs.is_empty() && !self.closed && !self.lent
    }

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

/// The store in a caller's hands; given back when this goes, by a panic too.
struct Lent<'a>(&'a Queue);

impl Lent<'_> {
    /// Nothing more is to be committed.
    fn stop(self) {
        self.0.close_and_stop();
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
        self.0.give_back();
    }
}

/// The store, for the thread and for callers that commit by themselves; [`Waiting`] says whose turn
/// it is.
struct Desk {
    /// None once it was handed back.
    store: Mutex<Option<Box<dyn Store>>>,
    hook: Option<StepHook>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Store>>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut dyn Store) -> T) -> T {
        let mut store = self.lock();
        work(&mut **store.as_mut().expect("handed back when all is over"))
    }

    fn commit(&self, batches: &[Batch]) -> Result<Committed, CommitError> {
        self.with(|store| store.commit(batches))
    }

    fn step(&self, step: Step) {
        if let Some(hook) = &self.hook {
            hook(step);
        }
    }
}

struct Worker {
    queue: Arc<Queue>,
    desk: Arc<Desk>,
    events: Box<dyn Fn(Event) + Send>,
}

impl Worker {
    fn run(self) {
        let _answers = AnswerRest(Arc::clone(&self.queue));
        loop {
            let done = match self.queue.next() {
                Next::Group(batches, tickets) => self
                    .group(&batches, tickets)
                    .and_then(|()| self.tend(false)),
                Next::Between(work) => {
                    self.desk.with(work);
                    Ok(())
                }
                Next::Tend(quiet) => self.tend(quiet),
                Next::Closed => return,
            };
            if let Err(error) = done {
                self.queue.close_and_stop();
                (self.events)(Event::Stopped(error));
                return;
            }
        }
    }

    fn group(&self, batches: &[Batch], tickets: Vec<Ticket>) -> Result<(), CommitError> {
        self.desk.step(Step::GroupDrained);
        match self.commit(batches) {
            Ok(committed) => {
                self.desk.step(Step::GroupUnanswered);
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
    fn commit(&self, batches: &[Batch]) -> Result<Committed, CommitError> {
        let mut full = false;
        loop {
            match self.desk.commit(batches) {
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

    fn tend(&self, idle: bool) -> Result<(), CommitError> {
        self.desk
            .with(|store| store.tend(idle))
            .map_err(|error| CommitError::Fatal(Arc::from(error.to_string())))
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
