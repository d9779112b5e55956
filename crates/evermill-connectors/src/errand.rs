//! Something slow that a receiver has done on a thread of its own, one at a time, so that whoever waits for
//! it can be woken.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::source::Waker;

/// The errands of one receiver.
pub(crate) struct Errands<T> {
    post: Arc<Post<T>>,
    /// Answers to earlier errands are of no use after a new beginning.
    generation: u64,
    /// Since when one is under way.
    out: Option<Instant>,
}

/// Where an errand's thread leaves the answer.
struct Post<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    answer: Option<(u64, T)>,
    woken: bool,
    closed: bool,
}

impl<T> Post<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a wait is over.
pub(crate) enum Waited<T> {
    Answer(T),
    /// Whoever waits is to return.
    Woken,
    TimeUp,
}

impl<T> Default for Errands<T> {
    fn default() -> Self {
        let state = State {
            answer: None,
            woken: false,
            closed: false,
        };
        Self {
            post: Arc::new(Post {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            generation: 0,
            out: None,
        }
    }
}

impl<T: Send + 'static> Errands<T> {
    /// Whether one is under way.
    pub(crate) const fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// How much longer than so long one has been under way.
    pub(crate) fn overdue(&self, limit: Duration) -> Option<Duration> {
        self.out?.elapsed().checked_sub(limit)
    }

    /// Whatever is under way is of no use any more.
    pub(crate) const fn forget(&mut self) {
        self.generation += 1;
        self.out = None;
    }

    /// Begins one; `failed` makes the answer when the system gives no thread.
    pub(crate) fn send(
        &mut self,
        name: &str,
        errand: impl FnOnce() -> T + Send + 'static,
        failed: impl FnOnce(std::io::Error) -> T,
    ) {
        let (post, generation) = (Arc::clone(&self.post), self.generation);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let answer = errand();
                post.lock().answer = Some((generation, answer));
                post.changed.notify_all();
            });
        if let Err(cause) = thread {
            self.post.lock().answer = Some((generation, failed(cause)));
        }
        self.out = Some(Instant::now());
    }

    /// Waits for an answer, until then at most.
    pub(crate) fn wait(&mut self, until: Instant) -> Waited<T> {
        let post = Arc::clone(&self.post);
        let mut state = post.lock();
        loop {
            if let Some((generation, answer)) = state.answer.take()
                && generation == self.generation
            {
                self.out = None;
                return Waited::Answer(answer);
            }
            if state.closed || std::mem::take(&mut state.woken) {
                return Waited::Woken;
            }
            let now = Instant::now();
            if now >= until {
                return Waited::TimeUp;
            }
            let waited = post.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn waker(&self) -> Waker {
        let post = Arc::clone(&self.post);
        Waker::new(move || {
            post.lock().woken = true;
            post.changed.notify_all();
        })
    }

    /// Every wait is over from now on.
    pub(crate) fn close(&self) {
        self.post.lock().closed = true;
        self.post.changed.notify_all();
    }
}
