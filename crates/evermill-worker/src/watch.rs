//! What needs a clock, and does not rely on the worker's goodwill: timeouts, kills that were
//! announced, outcomes stuck behind a long member, output at descriptor level.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::worker::{Death, Slot as SlotId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::page::monotonic_ns;
use crate::pool::{Shared, begin_kill};
use crate::server::signal_group;
use crate::slot::Slot;

/// How often running members are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Ticks without work before the watch sleeps.
const IDLE_TICKS: u32 = 50;
/// A member that runs this long is urged to let go what waits: outcomes before it, output.
const URGE_AFTER_NS: u64 = 20_000_000;
/// And again and again: what a task prints while it runs for hours is to be seen.
const URGE_AGAIN_NS: u64 = 500_000_000;
/// From TERM to KILL at the end of a shutdown.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

pub(crate) fn run(shared: &Shared) {
    let mut idle = 0;
    while !shared.ended.load(Ordering::Acquire) {
        let busy = look(shared);
        idle = if busy { 0 } else { idle + 1 };
        let asleep = idle >= IDLE_TICKS;
        shared.asleep.store(asleep, Ordering::Release);
        // A dispatch that came between the look and the store did not wake us.
        if asleep && look(shared) {
            idle = 0;
            continue;
        }
        wait(shared, (!asleep).then_some(TICK));
    }
}

/// Looks at every slot; whether any has something running.
fn look(shared: &Shared) -> bool {
    let closing = *shared
        .close_at
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut busy = closing.is_some();
    for id in shared.ids() {
        let mut slot = shared.slot(id);
        if closing.is_some_and(|at| now >= at) {
            begin_kill(&mut slot, Death::Killed, None, CLOSE_GRACE);
        }
        busy |= !slot.in_flight.is_empty() || slot.kill.is_some();
        look_at(&mut slot, shared.config.kill_grace);
        finish_kill(&mut slot, now);
    }
    busy
}

fn look_at(slot: &mut Slot, grace: Duration) {
    let (Some(connection), Some(front)) = (&slot.connection, slot.in_flight.front_mut()) else {
        return;
    };
    let Ok(running) = connection.page.read() else {
        return;
    };
    let Some(started_ns) = running.started_ns.filter(|_| running.call == front.call) else {
        return;
    };
    let ran_ns = monotonic_ns().saturating_sub(started_ns);
    let member = running.member;
    if front.timeout_ns.is_some_and(|timeout| ran_ns > timeout) {
        begin_kill(slot, Death::Timeout, Some(member), grace);
    } else if ran_ns > URGE_AFTER_NS
        && front
            .urged
            .is_none_or(|(who, at)| who != member || ran_ns > at + URGE_AGAIN_NS)
    {
        front.urged = Some((member, ran_ns));
        connection.urge();
    }
}

fn finish_kill(slot: &mut Slot, now: Instant) {
    let (Some(connection), Some(kill)) = (&slot.connection, &mut slot.kill) else {
        return;
    };
    if kill.kill_at.is_some_and(|at| now >= at) {
        kill.kill_at = None;
        signal_group(connection.pid, Signal::KILL);
    }
}

/// Waits for output, a wake-up or the tick, and takes the output.
fn wait(shared: &Shared, tick: Option<Duration>) {
    let pipes: Vec<(u32, SlotId, Arc<OwnedFd>)> = shared
        .outputs
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .filter(|output| !output.ended)
        .map(|output| (output.worker, output.slot, Arc::clone(&output.fd)))
        .collect();
    let mut polled = vec![PollFd::new(&shared.wake, PollFlags::IN)];
    polled.extend(
        pipes
            .iter()
            .map(|(_, _, fd)| PollFd::new(&**fd, PollFlags::IN)),
    );
    let tick = tick.and_then(|tick| Timespec::try_from(tick).ok());
    if poll(&mut polled, tick.as_ref()).is_err() {
        return; // Interrupted: look again.
    }
    let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
    if ready[0] {
        let mut count = [0; 8];
        // Reading resets it; that somebody else did is fine.
        if rustix::io::read(&shared.wake, &mut count).is_err() {}
    }
    for ((worker, slot, _), ready) in pipes.iter().zip(&ready[1..]) {
        take_output(shared, *slot, *worker, *ready);
    }
}

fn take_output(shared: &Shared, slot: SlotId, worker: u32, ready: bool) {
    let token = shared.slot(slot).in_flight.front().map(|front| front.token);
    let mut events = Vec::new();
    {
        let mut outputs = shared
            .outputs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The reader of a dying worker takes the rest itself.
        let Some(output) = outputs.iter_mut().find(|output| output.worker == worker) else {
            return;
        };
        if ready || output.holds_a_line() {
            output.read(token, &mut events);
        } else {
            output.turn_to(token, &mut events);
        }
    }
    for event in events {
        shared.emit(event);
    }
}
