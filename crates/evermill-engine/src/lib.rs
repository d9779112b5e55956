//! **Drives.** Time, channels and order: one thread owns the machine, one the store, one each
//! source. Decisions come from the core, promises from the contract; what is decided here is only
//! *when* things happen, never *what* they mean.
//!
//! ```text
//! source threads --batches--> |             | --dispatches--> executor (worker processes)
//! executor -----events------> | shard thread| --groups------> committer thread (one fsync)
//! committer ---completions--> |  (Machine)  | --orders------> source threads
//! handles ------requests----> |             | --views-------> board
//! ```
//!
//! Every arrow into the shard is one bounded channel; the shard never blocks on anything else.

mod ack;
mod alerts;
mod attempts;
mod board;
mod books;
mod boot;
mod bundle;
mod clock;
mod commit;
mod compare;
mod copy;
mod dispatch;
mod doors;
mod drain;
mod effects;
mod elsewhere;
mod engine;
pub mod failpoint;
mod feeding;
mod forgetting;
mod freshness;
mod gate;
mod groups;
mod handle;
mod hearing;
mod histogram;
mod inbox;
mod ingest;
mod input;
mod inquiry;
mod judging;
mod kept;
mod lanes;
pub mod limits;
mod log;
mod manifest;
mod masking;
mod notice;
mod open;
mod operate;
mod orders;
mod outcome;
mod past;
mod payload;
mod pools;
mod prepare;
mod publish;
mod receipts;
mod receiving;
mod record;
mod replay;
mod replaying;
mod requests;
mod rest;
mod sabotage;
mod shard;
mod slots;
mod sources;
mod spill;
mod stall;
mod survey;
mod swap;
mod tally;
mod timers;
mod traces;
mod triggering;
mod unused;
pub mod view;
mod waits;
mod workers;

pub use attempts::AttemptQuery;
pub use clock::Clock;
pub use copy::{Checked, workshop};
pub use engine::Engine;
pub use evermill_contract::alert::Alert;
pub use evermill_contract::source::PushRequest;
pub use evermill_store::leave_to_owner;
pub use forgetting::LeftView;
pub use handle::{
    ActivationKey, Drained, EngineError, Handle, Idle, PushError, Pushed, Selection, StartRequest,
    Started,
};
pub use kept::{
    LOG_LEVELS, LogEntry, LogFilter, LogOrder, LogPage, LogPlace, LogQuery, LogRetention, RunLogs,
};
pub use manifest::faults;
pub use masking::diagnostics;
pub use notice::{Notice, NoticeSink, Subject};
pub use open::{
    ExecutorFactory, LogLine, LogSink, NoSettings, OpenError, OpenOptions, Settings, SourceFactory,
    SourceRequest, StoreFactory, first_position, store_options,
};
pub use operate::{Operations, Order, Page, Resolve, Signal, SwitchOn};
pub use past::{PastPlace, PastQuery};
pub use record::Why;
pub use replay::{
    BackfillAsk, PlannedLane, ReplayAnswer, ReplayAsk, ReplayOrder, ResetAnswer, ResetAsk, Sample,
};
pub use rest::AtRest;

/// Name of the lane and the source of activations that somebody triggered by hand.
pub(crate) const MANUAL: &str = "manual";
