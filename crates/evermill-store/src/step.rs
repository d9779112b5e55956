//! Named places where a test may stop the process (`kill -9` at every step of opening,
//! committing, checkpointing and closing). In a product build the hook is absent.

use std::sync::Arc;

use evermill_core::row::Table;

/// Called at each step, on the thread that works on the store.
pub type StepHook = Arc<dyn Fn(Step) + Send + Sync>;

/// A named place. [`Step::name`] is what failpoint lists and command lines use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The directory is locked; nothing was read.
    OpenLocked,
    /// A new database file exists, without tables.
    OpenFileMade,
    /// The tables are committed.
    OpenTablesMade,
    /// The log was scanned for damage; SQLite has not seen it yet.
    OpenLogScanned,
    /// Boot epoch + 1 and "not clean" are durable.
    OpenEpochCommitted,
    /// The log is folded into the database file and empty.
    OpenCheckpointed,
    /// The transaction has begun.
    CommitBegun,
    /// The fences of the group are checked.
    CommitFenceChecked,
    /// Consecutive writes to this table are applied, not committed.
    CommitWrote(Table),
    /// Consecutive history rows are appended, not committed.
    CommitWroteHistory,
    /// A full history segment was closed and the next one opened, not committed.
    CommitSegmentRolled,
    /// The header row is updated; the next statement is COMMIT.
    CommitHeaderWritten,
    /// The commit is durable; nobody was told.
    CommitDurable,
    /// A shard was claimed durably; the claimer does not know yet.
    ClaimDurable,
    /// Before pages go from the log to the database file.
    CheckpointBefore,
    /// After they went and were synced.
    CheckpointAfter,
    /// The oldest history segment is dropped, not committed.
    TrimDropped,
    /// The drop is durable.
    TrimDurable,
    /// "Clean" is durable, the log not yet folded in.
    CloseMarked,
    /// The log is folded in; the files are not closed.
    CloseCheckpointed,
    /// A group was drained from the queue, its commit not begun.
    GroupDrained,
    /// The group is durable, none of its tickets answered.
    GroupUnanswered,
}

impl Step {
    /// Every step. `CommitWrote` stands here for each table.
    pub const ALL: [Self; 36] = [
        Self::OpenLocked,
        Self::OpenFileMade,
        Self::OpenTablesMade,
        Self::OpenLogScanned,
        Self::OpenEpochCommitted,
        Self::OpenCheckpointed,
        Self::CommitBegun,
        Self::CommitFenceChecked,
        Self::CommitWrote(Table::Run),
        Self::CommitWrote(Table::Version),
        Self::CommitWrote(Table::Bundle),
        Self::CommitWrote(Table::Lane),
        Self::CommitWrote(Table::Batch),
        Self::CommitWrote(Table::Outcome),
        Self::CommitWrote(Table::Activation),
        Self::CommitWrote(Table::State),
        Self::CommitWrote(Table::Signal),
        Self::CommitWrote(Table::Dedup),
        Self::CommitWrote(Table::Outbox),
        Self::CommitWrote(Table::Suspect),
        Self::CommitWrote(Table::Inbox),
        Self::CommitWrote(Table::Spill),
        Self::CommitWrote(Table::Setting),
        Self::CommitWroteHistory,
        Self::CommitSegmentRolled,
        Self::CommitHeaderWritten,
        Self::CommitDurable,
        Self::ClaimDurable,
        Self::CheckpointBefore,
        Self::CheckpointAfter,
        Self::TrimDropped,
        Self::TrimDurable,
        Self::CloseMarked,
        Self::CloseCheckpointed,
        Self::GroupDrained,
        Self::GroupUnanswered,
    ];

    /// The step's name in failpoint lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenLocked => "store.open.locked",
            Self::OpenFileMade => "store.open.file_made",
            Self::OpenTablesMade => "store.open.tables_made",
            Self::OpenLogScanned => "store.open.log_scanned",
            Self::OpenEpochCommitted => "store.open.epoch_committed",
            Self::OpenCheckpointed => "store.open.checkpointed",
            Self::CommitBegun => "store.commit.begun",
            Self::CommitFenceChecked => "store.commit.fence_checked",
            Self::CommitWrote(table) => wrote_name(table),
            Self::CommitWroteHistory => "store.commit.wrote.history",
            Self::CommitSegmentRolled => "store.commit.segment_rolled",
            Self::CommitHeaderWritten => "store.commit.header_written",
            Self::CommitDurable => "store.commit.durable",
            Self::ClaimDurable => "store.claim.durable",
            Self::CheckpointBefore => "store.checkpoint.before",
            Self::CheckpointAfter => "store.checkpoint.after",
            Self::TrimDropped => "store.trim.dropped",
            Self::TrimDurable => "store.trim.durable",
            Self::CloseMarked => "store.close.marked",
            Self::CloseCheckpointed => "store.close.checkpointed",
            Self::GroupDrained => "store.group.drained",
            Self::GroupUnanswered => "store.group.unanswered",
        }
    }
}

const fn wrote_name(table: Table) -> &'static str {
    match table {
        Table::Run => "store.commit.wrote.run",
        Table::Version => "store.commit.wrote.version",
        Table::Bundle => "store.commit.wrote.bundle",
        Table::Lane => "store.commit.wrote.lane",
        Table::Batch => "store.commit.wrote.batch",
        Table::Outcome => "store.commit.wrote.outcome",
        Table::Activation => "store.commit.wrote.activation",
        Table::State => "store.commit.wrote.state",
        Table::Signal => "store.commit.wrote.signal",
        Table::Dedup => "store.commit.wrote.dedup",
        Table::Outbox => "store.commit.wrote.outbox",
        Table::Suspect => "store.commit.wrote.suspect",
        Table::Inbox => "store.commit.wrote.inbox",
        Table::Spill => "store.commit.wrote.spill",
        Table::Setting => "store.commit.wrote.setting",
    }
}
