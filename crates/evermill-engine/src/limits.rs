//! Every queue and size of this room, with its unit and its relations.

use std::time::Duration;

use evermill_core::limits as core;
use evermill_store::limits as store;

/// Inputs that wait for the shard before whoever has the next one waits.
pub const INPUTS_QUEUED: usize = 1_024;
/// Inputs applied before the shard looks at commits again.
pub const INPUTS_PER_TURN: usize = 256;
/// Batches of one source that are sent and not sealed yet; its thread waits with the next one, so
/// that a slow or full disk holds up the sources.
pub const BATCHES_QUEUED_PER_SOURCE: usize = 8;
/// Events in one batch of a source.
pub const BATCH_EVENTS: usize = 1_000;
/// Bytes in one batch of a source; a larger event travels alone.
pub const BATCH_BYTES: usize = 512 * 1024;
/// Bytes a source fetches ahead of its thread, over all lanes.
pub const PREFETCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of events of one source in memory, over all its lanes, at which it may deliver no more.
pub const HELD_BYTES_HIGH: usize = 32 * 1024 * 1024;
/// Bytes below which it may again.
pub const HELD_BYTES_LOW: usize = 24 * 1024 * 1024;

/// Activations a second of which those who trace are told; what history remembers beyond is left out of traces.
pub const TRACES_PER_SECOND: u64 = 200;
/// History has room for no more of what simply succeeded, unless it is to have all of it.
const _: () = assert!(TRACES_PER_SECOND >= core::HISTORY_ROWS_PER_SECOND);

/// Bytes of events that one inbox holds; beyond it nothing more is accepted.
pub const INBOX_BYTES: usize = 32 * 1024 * 1024;
/// The same in events.
pub const INBOX_EVENTS: usize = 100_000;
/// Bytes of one delivery to an inbox.
pub const DELIVERY_BYTES: usize = 8 * 1024 * 1024;
/// Deliveries of one source that are not committed yet; its thread waits with the next one.
pub const DELIVERIES_OPEN: usize = 16;
/// For how long the id of an event is known, milliseconds.
pub const DEDUP_WINDOW_MS: u64 = 60 * 60 * 1_000;
/// Ids are forgotten together that came within so long, milliseconds.
pub const DEDUP_BUCKET_MS: u64 = DEDUP_WINDOW_MS / 12;
/// Ids known to one inbox; beyond it the oldest are forgotten early.
pub const DEDUP_ENTRIES: usize = 1_000_000;
/// For how long a task may come to wait for a signal that was sent before, milliseconds.
pub const SIGNAL_TTL_MS: u64 = 24 * 60 * 60 * 1_000;
/// How often it is looked whether what its lane has passed is settled, for a source that waits for that.
pub const OUTCOMES_LOOK: Duration = Duration::from_secs(1);
/// How long a source's function may take to judge one thing; then its worker is ended.
pub const INQUIRY_TIME: Duration = Duration::from_secs(60);
/// Messages that one attempt may emit to topics.
pub const EMITS_PER_ATTEMPT: usize = 1_000;
/// Bytes of all of them.
pub const EMIT_BYTES_PER_ATTEMPT: usize = 1024 * 1024;
/// Once an inbox was full, those who fill it wait until it holds no more than this part of what it may,
/// in percent.
pub const INBOX_LOW_PERCENT: usize = 75;
/// How often a source is asked to keep its leases alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Unsettled batches of one lane whose arrivals are told apart.
pub const UNSETTLED_BATCHES: usize = 4_096;

/// Groups submitted and not yet answered.
pub const GROUPS_IN_FLIGHT: usize = 2;
/// Writes that make a second group worth its own commit while the first is being synced.
pub const SECOND_GROUP_WRITES: usize = 64;

/// Bytes of a result up to which it travels with its activation; a larger one has a row of its own.
pub const RESULT_INLINE_BYTES: usize = 16 * 1024;
/// Bytes of larger results that stay in memory for whoever wants them next.
pub const SPILLED_AT_HAND_BYTES: usize = 16 * 1024 * 1024;
/// Rows of larger results up to which each commit looks for those that are not needed any more ...
pub const SPILLED_SWEPT_AT_ONCE: usize = 256;
/// ... and how often it does with more of them.
pub const SPILL_SWEEP: Duration = Duration::from_millis(100);

/// How long a commit that nobody waits for gathers company while workers are busy.
pub const GATHER: Duration = Duration::from_millis(10);

/// How long the end of a dispatch is waited for once its last outcome has come: both are on their way
/// through the same thread, and what follows from both is one commit.
pub const FINISH_WAIT: Duration = Duration::from_micros(200);

/// Dispatches a slot holds: one that runs and one behind it.
pub const DISPATCHES_PER_SLOT: usize = evermill_contract::worker::limits::DISPATCHES_PER_SLOT_MAX;

/// Bytes of `ctx.state` that go along with a member, and about as many with a dispatch; what is more is asked for.
pub const STATE_BYTES_SHIPPED_MAX: [usize; 2] = [4 * 1024, 256 * 1024];

/// Lines of task output that wait for the log sink; more are dropped and counted.
pub const LOG_LINES_QUEUED: usize = 16_384;
/// Bytes of task output that wait for the log sink; more are dropped and counted.
pub const LOG_BYTES_QUEUED: usize = 8 * 1024 * 1024;
/// How long an engine that ends waits for task output on its way to the log sink.
pub const LOG_FINISH: Duration = Duration::from_secs(5);

/// Bytes after which a segment of what tasks printed is closed.
pub const LOG_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of it that are gathered for one write while more is waiting.
pub const LOG_PENDING_BYTES: usize = 64 * 1024;
/// Segments of each run that are kept; the oldest goes first.
pub const LOG_SEGMENTS_KEPT: u64 = 16;
/// How long lines are kept unless somebody says otherwise: 30 days.
pub const LOG_AGE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Bytes that are kept of all runs together unless somebody says otherwise; the oldest go first.
pub const LOG_BYTES: u64 = 1 << 30;
/// Logs of runs that are open at a time: two files each.
pub const LOG_FILES_OPEN: usize = 256;
/// How often it is looked whether something is kept for too long, and while there is more to do.
pub const LOG_CHECK_EVERY: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(1)];
/// Folders of runs that are listed in one check.
pub const LOG_FOLDERS_PER_CHECK: usize = 64;
/// Segments that are removed in one check.
pub const LOG_REMOVED_PER_CHECK: usize = 32;
/// Bytes of a segment that its index describes together: what is looked for in none of their lines is passed
/// over unread.
pub const LOG_BLOCK_BYTES: u64 = 64 * 1024;
/// Bytes that are read at a time.
pub const LOG_READ_BYTES: u64 = 64 * 1024;
/// Bytes that are read for one page of lines; whoever looks for something rare goes on with the next page.
pub const LOG_PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// Lines of a page.
pub const LOG_PAGE_LINES: usize = 1_000;
/// Bytes of an event's key that are kept with each line.
pub const LOG_KEY_BYTES: usize = 256;

/// The shortest wait for a timer.
pub const TIMER_WAIT_MIN: Duration = Duration::from_millis(1);
/// Age at which a published view is replaced while work is done.
pub const VIEW_AGE: Duration = Duration::from_millis(100);
/// The same while somebody looks, ...
pub const VIEW_AGE_ASKED: Duration = Duration::from_millis(5);
/// ... and at least so many times as long as it takes to make one.
pub const VIEW_SPARING: u32 = 20;
/// How often it is said of a run what was parked.
pub const PARKED_SAID_EVERY: Duration = Duration::from_secs(10);
/// How long whoever looks waits for what the last commits say, before he gets what there is.
pub const FRESH_VIEW: Duration = Duration::from_secs(1);
/// How long a source's thread waits for events; orders wake it at once.
pub const POLL_WAIT: Duration = Duration::from_millis(500);
/// The same while memory is short, which nothing announces when it ends.
pub const THROTTLE_WAIT: Duration = Duration::from_millis(10);
/// How long a source's thread waits with a batch before it closes credit and polls on.
pub const PERMIT_WAIT: Duration = Duration::from_millis(200);
/// Wait before asking a source again that could not answer.
pub const SOURCE_RETRY: Duration = Duration::from_secs(1);
/// Wait before a value is judged again when whoever its gate asks did not answer ...
pub const JUDGE_RETRY_FIRST: Duration = Duration::from_millis(250);
/// ... which doubles up to this.
pub const JUDGE_RETRY_MAX: Duration = Duration::from_secs(10);
/// Bytes of values that took the place of others after which a batch goes on without its rest.
pub const JUDGED_BYTES: usize = 4 * 1024 * 1024;
/// How long workers have between TERM and KILL when a shard is dropped.
pub const RELOAD_GRACE: Duration = Duration::ZERO;
/// How long the engine waits for workers to end after it told them to, beyond the grace.
pub const WORKERS_END: Duration = Duration::from_secs(10);
/// How often a reload looks whether everything has ended, unless it is told.
pub const RELOAD_TICK: Duration = Duration::from_millis(20);
/// How often a drain looks whether it is over, unless it is told.
pub const DRAIN_TICK: Duration = Duration::from_millis(20);
/// Reloads of the shard without a commit in between after which the engine gives up.
pub const RELOADS_IN_A_ROW: u32 = 5;
/// How long a call into a source may take before the source is stalled, milliseconds; doubled with
/// each restart in a row.
pub const SOURCE_STALL_MS: u64 = 60_000;
/// Restarts of a stalled source without progress in between; each may leave a thread behind.
pub const SOURCE_RESTARTS: u32 = 5;
/// How often it is looked whether a source is stalled.
pub const SOURCE_LOOK: Duration = Duration::from_secs(15);

/// Latest alerts that are kept in memory.
pub const ALERTS_KEPT: usize = 500;
/// Of them, how many are shown with a run.
pub const ALERTS_SHOWN: usize = 20;
/// Alerts that hooks were not told of yet and that a crash does not lose; more are kept in memory only.
pub const ALERTS_OWED: usize = 1_000;
/// Latest missed deadlines of a run that are kept in memory.
pub const MISSES_KEPT: usize = 50;
/// Simultaneous executions of a pool that nobody gave a size.
pub const POOL_SLOTS: u32 = 128;
/// Members of a task with a sink that are sent in one call; each has an outcome of its own.
pub const SINK_BATCH: u32 = 500;
/// The same where each is a request of its own, so that a timeout has not to cover many of them.
pub const SINK_REQUESTS: u32 = 64;
/// Such calls of one task at a time. A place that is away holds them all; others have slots left.
pub const SINK_CALLS: u32 = 4;
/// Parked activations one answer lists.
pub const PARKED_LISTED: usize = 1_000;
/// Bytes of payload after which a list of parked activations ends; a larger one is listed alone.
pub const PARKED_LISTED_BYTES: usize = 8 * 1024 * 1024;
/// Activations of the past one answer lists.
pub const PAST_LISTED: usize = 1_000;
/// Pages of history one answer is looked for in.
pub const PAST_PAGES: usize = 50;
/// Times that a DAG went over to another version, as far back as they are known.
pub const CHANGES_KEPT: usize = 20;
/// Lanes whose positions are kept of each.
pub const LANES_RECORDED: usize = 64;
/// Versions of a DAG that can be gone back to.
pub const VERSIONS_KEPT: usize = 10;
/// Options that are told when two versions are compared.
pub const DIFF_OPTIONS: usize = 2_000;
/// Bytes of a value that are told of each, as JSON.
pub const DIFF_VALUE_BYTES: usize = 300;
/// Bytes of a file that are compared line by line.
pub const DIFF_FILE_BYTES: usize = 1024 * 1024;
/// Bytes of files that are read for a comparison.
pub const DIFF_READ_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of text that a comparison tells, all files together.
pub const DIFF_TEXT_BYTES: usize = 512 * 1024;
/// After so long a comparison of two files goes on more coarsely.
pub const DIFF_TIME: Duration = Duration::from_millis(300);
/// How often a start is prepared anew when the run changes meanwhile.
pub const STARTS_TRIED: usize = 10;
/// For how long somebody who wants to read again waits for a source to say what it holds.
pub const SURVEY_WAIT: Duration = Duration::from_secs(15);
/// For how long a look at one end of a stretch lasts.
pub const SURVEY_LOOK: Duration = Duration::from_secs(3);
/// How long it waits at a time.
pub const SURVEY_POLL: Duration = Duration::from_millis(100);
/// Positions at the end of a stretch among which its last event is looked for.
pub const SURVEY_TAIL: u64 = 100;
/// Lanes whose ends are looked at.
pub const SURVEY_LANES: usize = 64;
/// Attempts of a run that failed, or came after one that did, which are kept for whoever looks.
pub const ATTEMPTS_KEPT: usize = 500;
/// Bytes of the error of each.
pub const ATTEMPT_ERROR_BYTES: usize = 1_024;
/// What a worker has been at for longer is told with its run.
pub const LONG_WORK: Duration = Duration::from_secs(2);
/// Failed attempts that are told with a run.
pub const FAILURES_KEPT: usize = 20;

/// Bits of a token that name the dispatch, the boot and the incarnation.
pub const TOKEN_DISPATCH_BITS: u32 = 40;
/// See [`TOKEN_DISPATCH_BITS`].
pub const TOKEN_EPOCH_BITS: u32 = 12;
/// See [`TOKEN_DISPATCH_BITS`].
pub const TOKEN_INCARNATION_BITS: u32 = 12;

/// Rows of activations that waited and are due, read at a time; in between there is room for others.
pub const BROUGHT_AT_ONCE: usize = 256;

const _: () = {
    assert!(TOKEN_DISPATCH_BITS + TOKEN_EPOCH_BITS + TOKEN_INCARNATION_BITS == 64);
    assert!(INPUTS_PER_TURN <= INPUTS_QUEUED);
    assert!(BATCHES_QUEUED_PER_SOURCE < INPUTS_PER_TURN);
    assert!(BATCH_EVENTS <= core::LANE_EVENTS_LOW);
    assert!(BATCH_BYTES <= core::LANE_BYTES_LOW);
    assert!(BATCH_BYTES * BATCHES_QUEUED_PER_SOURCE < HELD_BYTES_LOW);
    assert!(HELD_BYTES_LOW < HELD_BYTES_HIGH);
    assert!(
        core::LANE_BYTES_HIGH < HELD_BYTES_HIGH,
        "one lane alone meets its own bound first"
    );
    assert!(
        GROUPS_IN_FLIGHT < store::QUEUE_BATCHES,
        "submitting never finds the queue full"
    );
    assert!(SECOND_GROUP_WRITES < store::GROUP_WRITES);
    assert!(DELIVERY_BYTES < store::ROW_BYTES_MAX);
    assert!(DELIVERY_BYTES < INBOX_BYTES);
    assert!(EMIT_BYTES_PER_ATTEMPT < DELIVERY_BYTES);
    assert!(INBOX_LOW_PERCENT < 100);
    assert!(FAILURES_KEPT <= ATTEMPTS_KEPT);
    assert!(DISPATCHES_PER_SLOT >= 1);
    assert!(RESULT_INLINE_BYTES < SPILLED_AT_HAND_BYTES);
    assert!(core::WAVE_MEMBERS_MAX <= evermill_contract::worker::limits::MEMBERS_MAX);
};
