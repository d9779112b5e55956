//! When the shard has to look up although nothing came in.

use std::time::Duration;

use evermill_core::command::{Command, Ms};

use crate::clock::Clock;
use crate::failpoint::fp;
use crate::limits;
use crate::shard::Shard;

/// Time until a moment of the clock.
pub(crate) fn until_ms(due: Option<Ms>, clock: &Clock) -> Option<Duration> {
    let due_us = due?.saturating_mul(1_000);
    let wait = Duration::from_micros(due_us.saturating_sub(clock.now_us()));
    // What was due was fired before the wait: a timer that stays due must not spin.
    Some(wait.max(limits::TIMER_WAIT_MIN))
}

pub(crate) fn shortest<const N: usize>(waits: [Option<Duration>; N]) -> Option<Duration> {
    waits.into_iter().flatten().min()
}

impl Shard {
    /// Lets the machine see to what is due.
    pub(crate) fn fire_timer(&mut self) {
        let now = self.world.clock.now_ms();
        if self.machine.next_timer().is_some_and(|due| due <= now) {
            fp!("timer.fired");
            self.apply(Command::Timer);
        }
    }

    /// Recalls a dispatch that waits behind a long one while a worker idles.
    pub(crate) fn unstick(&mut self) {
        if let Some(token) = self.slots.stuck() {
            self.executor.recall(token);
            self.slots.recalled(token);
        }
    }

    pub(crate) fn until_unstuck(&self) -> Option<Duration> {
        self.slots
            .has_queued()
            .then_some(evermill_contract::worker::limits::SLICE)
    }
}
