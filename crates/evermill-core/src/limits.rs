//! Every bound of the core, with their relations asserted at compile time.

/// Sources and tasks of one DAG.
pub const NODES_PER_DAG_MAX: usize = 10_000;

/// Members of one wave, and of one dispatch.
pub const WAVE_MEMBERS_MAX: usize = 1_000;

/// Waves a lane forms ahead of what workers ask for; further ones form when a slot is idle.
pub const WAVES_PER_LANE_EAGER: usize = 2;

/// Events buffered or in flight in one lane at which its source is told to stop.
pub const LANE_EVENTS_HIGH: usize = 8_000;
/// Events below which it is told to go on.
pub const LANE_EVENTS_LOW: usize = 4_000;

/// Payload bytes buffered or in flight in one lane at which its source is told to stop.
pub const LANE_BYTES_HIGH: usize = 8 * 1024 * 1024;
/// Bytes below which it is told to go on.
pub const LANE_BYTES_LOW: usize = 4 * 1024 * 1024;

/// Materialised activations of one run, parked ones not counted; beyond it credit stops (W2).
pub const MATERIALISED_MAX: usize = 1_000_000;

/// Parked activations of one run; beyond it credit stops.
pub const PARKED_MAX: usize = 1_000_000;

/// Activations of one key held behind a waiting one; beyond it the lane pauses (W12).
pub const HELD_PER_KEY_MAX: usize = 1_000;

/// Activations open for a missing source; beyond it the sources that fired pause (W6).
pub const OPEN_JOINS_MAX: usize = 10_000;

/// Longest backoff that stays inside a wave, milliseconds; longer ones materialise (W2).
pub const WAVE_BACKOFF_MS_MAX: u64 = 1_000;

/// How long an attempt may run before its activation gets a row of its own, milliseconds (W2).
pub const ATTEMPT_ROW_MS: u64 = 1_000;

/// Longest wait between two tries, milliseconds: a day.
pub const BACKOFF_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Instances of one mapped task in one activation (W9).
pub const MAP_LENGTH_MAX: u32 = 10_000;

/// Full rows of history a second of what simply succeeded: below this rate, of every activation (S4).
pub const HISTORY_ROWS_PER_SECOND: u64 = 100;

/// Payloads and results longer than this are left out of sampled history, bytes.
pub const HISTORY_VALUE_BYTES_MAX: usize = 16 * 1024;

/// Members of the largest wave in which it is noted when each task was sent and ended.
pub const TIMED_MEMBERS_MAX: usize = 64;

/// Keys of one task of which it is known how many of their members started, under a rate per key; with
/// more of them at a time the one whose window ends first is forgotten.
pub const RATE_KEYS_MAX: usize = 100_000;

/// How long a task with something to do may be passed over, milliseconds; then it is served out of
/// turn, with every second dispatch (W19).
pub const PASSED_OVER_MS: u64 = 10_000;

/// How soon it is looked again for such a task, when none could be served, milliseconds.
pub const PASSED_OVER_LOOK_MS: u64 = 100;

/// Waves looked at to judge how much of a task is ready.
pub const QUEUE_LOOK_AHEAD: usize = 16;

/// Unclean stops an event may be in flight at before it is parked as `suspect_crash` (C6).
pub const SUSPECT_STOPS_MAX: u32 = 3;

/// Events of a lane taken with commit before dispatch after an unclean stop: what may have been in
/// flight (C6).
pub const PROBATION_EVENTS: usize = LANE_EVENTS_HIGH;

/// `ctx.state` of one scope, bytes of names and values (W5).
pub const STATE_BYTES_PER_SCOPE_MAX: usize = 1024 * 1024;

/// Missed deadlines of one wave that are told one by one; all are counted.
pub const MISSES_TOLD_MAX: usize = 100;

/// Longest pause of a failing loop, milliseconds (W15).
pub const LOOP_PAUSE_MS_MAX: u64 = 60_000;

/// Replays of one run that have not come to their end.
pub const REPLAYS_OPEN_MAX: usize = 16;

/// Lanes of one run into which nothing is read any more, and of which the record is kept: replays at
/// their end, and lanes that were reset.
pub const LANES_CLOSED_MAX: usize = 1_000;

/// Stretches of one lane that were passed unread and are on record.
pub const PASSED_RANGES_MAX: usize = 1_000;

/// Error text kept with a parked activation, bytes.
pub const ERROR_BYTES_MAX: usize = 16 * 1024;

const _: () = assert!(LANE_EVENTS_LOW < LANE_EVENTS_HIGH);
const _: () = assert!(LANE_BYTES_LOW < LANE_BYTES_HIGH);
const _: () = assert!(WAVE_MEMBERS_MAX * WAVES_PER_LANE_EAGER <= LANE_EVENTS_LOW);
const _: () = assert!(WAVE_BACKOFF_MS_MAX < BACKOFF_MS_MAX);
const _: () = assert!(HELD_PER_KEY_MAX < MATERIALISED_MAX);

/// Versions that a run's history tells apart; beyond them the place of a forgotten one is taken again.
pub const VERSION_PLACES: usize = 256;
