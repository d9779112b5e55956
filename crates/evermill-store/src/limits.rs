//! Every bound of this room, with its unit, in one place.

/// Writes in one group; a single batch may be larger and then commits alone.
pub const GROUP_WRITES: usize = 4_000;
/// Bytes of rows in one group, likewise.
pub const GROUP_BYTES: usize = 4 << 20;
/// Batches that wait for the committer before `submit` blocks.
pub const QUEUE_BATCHES: usize = 1_024;
/// Bytes of rows that wait for the committer before `submit` blocks.
pub const QUEUE_BYTES: usize = 16 << 20;
/// Bytes of rows up to which a caller may commit on its own thread: what is soon written.
pub const COMMIT_HERE_BYTES: usize = 256 << 10;
/// Size of one row's id and body together. SQLite itself ends at 1 GB.
pub const ROW_BYTES_MAX: usize = 256 << 20;
/// Size of one row's id: ids are kept in inner pages too, so they stay short.
pub const ROW_ID_BYTES_MAX: usize = 1_024;

/// Bytes of a database page.
pub const PAGE_BYTES: usize = 8_192;
/// Bytes kept free at the end of each page, for page checksums (S6). Frozen at creation.
pub const PAGE_RESERVED_BYTES: usize = 8;
/// Pages SQLite may keep in memory.
pub const CACHE_PAGES: usize = 1_024;
/// Log frames after which a checkpoint runs as soon as nobody waits.
pub const CHECKPOINT_FRAMES_IDLE: u64 = 500;
/// Log frames after which a checkpoint runs between groups even under load. The log's index grows
/// a second page at 4,062 frames, and on a full disk it could not.
pub const CHECKPOINT_FRAMES_MAX: u64 = 3_000;
/// Size the log file is cut back to when it starts over, bytes.
pub const LOG_BYTES_KEPT: usize = 64 << 20;

/// Bytes of rows after which a history segment is closed.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes of history kept when nothing else is asked for; the oldest segment goes first.
pub const HISTORY_BYTES: u64 = 1 << 30;
/// History rows in a page when nothing else is asked for.
pub const HISTORY_PAGE_ROWS: usize = 100;
/// Most history rows in a page.
pub const HISTORY_PAGE_ROWS_MAX: usize = 10_000;
/// History rows one query looks at before it hands back what it has.
pub const HISTORY_SCAN_ROWS: u64 = 200_000;

const _: () = assert!(
    GROUP_BYTES <= QUEUE_BYTES,
    "a full queue holds at least one full group"
);
const _: () = assert!(CHECKPOINT_FRAMES_IDLE < CHECKPOINT_FRAMES_MAX);
const _: () = assert!(
    CHECKPOINT_FRAMES_MAX + (GROUP_BYTES / PAGE_BYTES) as u64 <= 4_062,
    "a full group after the last frame that is waited for still fits the log's index"
);
const _: () = assert!(HISTORY_PAGE_ROWS <= HISTORY_PAGE_ROWS_MAX);
const _: () = assert!(
    HISTORY_BYTES >= 4 * SEGMENT_BYTES,
    "retention works in whole segments"
);
const _: () = assert!(
    LOG_BYTES_KEPT as u64 >= CHECKPOINT_FRAMES_MAX * PAGE_BYTES as u64,
    "a log of the usual size is reused, not cut and grown again"
);
