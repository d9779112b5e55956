//! Who is connected, and who has to go when there is no room: whoever has said nothing for the longest. Otherwise a
//! thousand connections that ask nothing would keep everybody else out.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// Places, and who has them.
pub(crate) struct Guests {
    room: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    silent: Silent,
}

/// Those whom nobody is answering, by when they fell silent.
#[derive(Clone, Default)]
struct Silent(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    last: u64,
    guests: BTreeMap<u64, Arc<Notify>>,
}

/// What becomes of somebody who comes.
pub(crate) enum Admission {
    /// He has a place, or gets one in a moment from somebody who has to go.
    Welcome(Arc<Guest>),
    /// All places are taken by those who are being answered: he is told to come again, while he holds this.
    Later(OwnedSemaphorePermit),
}

/// One who is connected.
pub(crate) struct Guest {
    room: Arc<Semaphore>,
    silent: Silent,
    /// His place among the silent.
    place: Mutex<Option<u64>>,
    leave: Arc<Notify>,
}

impl Guests {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(most)),
            turned_away: Arc::new(Semaphore::new(limits::TURNED_AWAY_MAX)),
            silent: Silent::default(),
        }
    }

    /// Somebody comes; `None` when there is not even room for telling him to come again.
    pub(crate) fn admit(&self) -> Option<Admission> {
        let is_full = self.room.available_permits() == 0;
        if is_full && !self.silent.send_away() {
            let permit = Arc::clone(&self.turned_away).try_acquire_owned();
            return permit.ok().map(Admission::Later);
        }
        let guest = Arc::new(Guest {
            room: Arc::clone(&self.room),
            silent: self.silent.clone(),
            place: Mutex::default(),
            leave: Arc::default(),
        });
        guest.falls_silent();
        Some(Admission::Welcome(guest))
    }
}

impl Guest {
    /// Does what he came for, as soon as he has a place and as long as he need not go.
    pub(crate) async fn stays(&self, what: impl Future<Output = ()>) {
        let mut stay = pin!(async {
            // Never closed.
            let _place = self.room.acquire().await;
            what.await;
        });
        let mut leave = pin!(self.leave.notified());
        poll_fn(|context| match leave.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => stay.as_mut().poll(context),
        })
        .await;
    }

    /// He is being answered, until this goes.
    pub(crate) fn speaks(self: &Arc<Self>) -> Speaking {
        self.give_up_place();
        Speaking(Arc::clone(self))
    }

    fn falls_silent(&self) {
        *self.place() = Some(self.silent.add(&self.leave));
    }

    fn give_up_place(&self) {
        if let Some(place) = self.place().take() {
            self.silent.lock().guests.remove(&place);
        }
    }

    fn place(&self) -> MutexGuard<'_, Option<u64>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.give_up_place();
    }
}

impl Silent {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To the end of the line.
    fn add(&self, leave: &Arc<Notify>) -> u64 {
        let mut line = self.lock();
        line.last += 1;
        let place = line.last;
        line.guests.insert(place, Arc::clone(leave));
        place
    }

    /// Makes the first of them go; false when all are being answered.
    fn send_away(&self) -> bool {
        let first = self.lock().guests.pop_first();
        if let Some((_, leave)) = &first {
            leave.notify_one();
        }
        first.is_some()
    }
}

/// Somebody is being answered.
pub(crate) struct Speaking(Arc<Guest>);

impl Drop for Speaking {
    fn drop(&mut self) {
        self.0.falls_silent();
    }
}

/// The body of an answer; when it has gone, whoever asked is silent.
pub(crate) struct Spoken<B> {
    pub(crate) body: B,
    /// Nobody is sent away who hears this one.
    pub(crate) _speaking: Option<Speaking>,
}

impl<B: Body + Unpin> Body for Spoken<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::{Admission, Guest, Guests};
    use crate::limits::TURNED_AWAY_MAX;

    fn comes(guests: &Guests) -> (Arc<Guest>, JoinHandle<()>) {
        let Some(Admission::Welcome(guest)) = guests.admit() else {
            panic!("there is room");
        };
        let stays = Arc::clone(&guest);
        let stay = tokio::spawn(async move { stays.stays(pending()).await });
        (guest, stay)
    }

    fn asynchronously(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let patience = Duration::from_secs(60);
        let ended = runtime
            .unwrap()
            .block_on(async { timeout(patience, test).await });
        ended.expect("it ends");
    }

    /// S12.
    #[test]
    fn k02_who_has_said_nothing_for_the_longest_goes_when_there_is_no_room() {
        asynchronously(async {
            let guests = Guests::new(3);
            let (first, first_stay) = comes(&guests);
            let (_second, second_stay) = comes(&guests);
            let (third, third_stay) = comes(&guests);
            tokio::task::yield_now().await;
            // The first is being answered, the third has been and is silent again after the second.
            let speaking = first.speaks();
            drop(third.speaks());
            let (fourth, fourth_stay) = comes(&guests);
            second_stay.await.unwrap();
            assert!(!first_stay.is_finished() && !third_stay.is_finished());
            drop(speaking);
            let (_fifth, fifth_stay) = comes(&guests);
            third_stay.await.unwrap();
            assert!(!first_stay.is_finished() && !fourth_stay.is_finished());
            drop(fourth.speaks());
            comes(&guests);
            first_stay.await.unwrap();
            assert!(!fourth_stay.is_finished() && !fifth_stay.is_finished());
        });
    }

    #[test]
    fn nobody_goes_who_is_being_answered_and_who_comes_hears_to_come_again() {
        asynchronously(async {
            let guests = Guests::new(2);
            let stays = [comes(&guests), comes(&guests)];
            tokio::task::yield_now().await;
            let _speaking = stays.each_ref().map(|(guest, _)| guest.speaks());
            let told: Vec<_> = (0..TURNED_AWAY_MAX).map(|_| guests.admit()).collect();
            let later = |told: &Option<Admission>| matches!(told, Some(Admission::Later(_)));
            assert!(told.iter().all(later));
            assert!(guests.admit().is_none());
            assert!(stays.iter().all(|(_, stay)| !stay.is_finished()));
        });
    }

    #[test]
    fn who_has_gone_stands_in_no_line() {
        asynchronously(async {
            let guests = Guests::new(1);
            for _ in 0..5 {
                let (guest, stay) = comes(&guests);
                tokio::task::yield_now().await;
                drop(guest.speaks());
                stay.abort();
                assert!(stay.await.unwrap_err().is_cancelled());
                drop(guest);
                assert!(guests.silent.lock().guests.is_empty());
            }
            assert_eq!(guests.room.available_permits(), 1);
        });
    }
}
