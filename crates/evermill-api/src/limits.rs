//! Every queue and size of this room, with its unit.

use std::time::Duration;

use crate::access::Rate;

/// Connections over TCP that are open at the same time. When one more comes, the one goes that has been silent for the
/// longest; when all are being answered, it is told to come again.
pub(crate) const CONNECTIONS_MAX: usize = 1_024;
/// Connections that are told so at the same time; further ones are closed.
pub(crate) const TURNED_AWAY_MAX: usize = 64;
/// Connections over the control socket.
pub(crate) const CONTROL_CONNECTIONS_MAX: usize = 64;
/// Requests that are worked on at the same time.
pub(crate) const AT_WORK_MAX: usize = 128;
/// The longest that we wait for the next bytes of a request, or for an answer to be taken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that the body of a request may take to come in, however steadily it drips.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(60);
/// Bytes of a request before its body.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of a request.
pub(crate) const HEADERS_MAX: usize = 64;
/// Bytes of the body of a request to the API ...
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// ... and of one that carries the payload of an event.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 32 << 20;
/// Bytes of all bodies that are being read at the same time, in KiB.
pub(crate) const BODIES_KIB_MAX: usize = 256 << 10;
/// Of a body that is refused as much is still taken, so that its sender hears why ...
pub(crate) const REFUSED_BYTES_MAX: usize = 32 << 20;
/// ... for so long.
pub(crate) const REFUSED_TIME: Duration = Duration::from_secs(5);

/// How often those who listen to the stream are told what has changed.
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// By how much later each of them is told than the one before, ...
pub(crate) const TURN: Duration = Duration::from_millis(2);
/// ... up to so many, among whom all are spread.
pub(crate) const TURNS: usize = 100;
/// How often they are told that nothing has.
pub(crate) const QUIET: Duration = Duration::from_secs(10);
/// Who may listen to the stream at the same time.
pub(crate) const LISTENERS_MAX: usize = 512;
/// Ticks that wait for a listener; one who is slower gets the whole picture anew.
pub(crate) const TICKS_QUEUED: usize = 8;
/// Ticks that are kept for those who come back ...
pub(crate) const TICKS_KEPT: usize = 240;
/// ... and their bytes.
pub(crate) const TICKS_KEPT_BYTES: usize = 8 << 20;
/// Runs that one listener may want everything of.
pub(crate) const RUNS_WATCHED: usize = 4;
/// Runs that are looked at whole in each tick, for all listeners.
pub(crate) const RUNS_LOOKED_AT: usize = 64;
/// Sentences of a run about what is wrong outside.
pub(crate) const TROUBLES_SHOWN: usize = 5;

/// Who may listen to what tasks print at the same time.
pub(crate) const TAILS_MAX: usize = 128;
/// How often it is looked for more of it, for each who listens.
pub(crate) const TAIL_TICK: Duration = Duration::from_millis(200);
/// Batches of lines that wait for one who takes them slowly; no more is read for him meanwhile.
pub(crate) const TAIL_BATCHES_QUEUED: usize = 2;
/// Lines of a batch.
pub(crate) const TAIL_LINES: usize = 500;

/// Tokens there may be.
pub(crate) const TOKENS_MAX: usize = 1_000;
/// Sessions of browsers there may be; beyond it the oldest ends.
pub(crate) const SESSIONS_MAX: usize = 1_000;
/// How long a session lasts.
pub(crate) const SESSION_TIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Wrong tokens from one address.
pub(crate) const FAILURES_PER_MINUTE: Rate = Rate::per_minute(10.0);
/// Requests with one token.
pub(crate) const REQUESTS_PER_SECOND: Rate = Rate::per_second(200.0, 1_000.0);
/// Requests without one from one address, where one is needed.
pub(crate) const STRANGERS_PER_SECOND: Rate = Rate::per_second(10.0, 50.0);
/// Addresses, or tokens, that are told apart for that.
pub(crate) const BUCKETS_MAX: usize = 10_000;
/// How often it is looked who of them can be forgotten.
pub(crate) const BUCKETS_SWEEP: Duration = Duration::from_secs(1);
/// How exactly it is known when a token was used last, milliseconds.
pub(crate) const USED_TO_MS: u64 = 60_000;
/// Bytes of a token's name.
pub(crate) const TOKEN_NAME_BYTES_MAX: usize = 100;
/// Bytes of a file of the audit log; the one before is kept beside it.
pub(crate) const AUDIT_BYTES: u64 = 32 << 20;
/// Bytes of the longest line of it.
pub(crate) const AUDIT_LINE_BYTES: u64 = 128 << 10;
/// Answers that are remembered for those who send a request again ...
pub(crate) const REPLIES_MAX: usize = 1_000;
/// ... for so long.
pub(crate) const REPLIES_TIME: Duration = Duration::from_secs(60 * 60);
/// The longest key that makes a request the same.
pub(crate) const KEY_BYTES_MAX: usize = 200;
/// Bytes of these answers.
pub(crate) const REPLIES_BYTES_MAX: usize = 32 << 20;
/// How often it is looked whether a certificate was renewed.
pub(crate) const CERTIFICATE_LOOK: Duration = Duration::from_secs(10);
/// Series of tasks in `/metrics`; with more, none of them is told.
pub(crate) const TASK_SERIES_MAX: usize = 20_000;
