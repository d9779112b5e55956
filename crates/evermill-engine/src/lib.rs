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

mod clock;
mod handle;
mod open;
pub mod view;

pub use clock::Clock;
pub use handle::{
    ActivationKey, Drained, EngineError, Handle, Idle, Selection, StartRequest, Started,
};
pub use open::{
    ExecutorFactory, LogLine, LogSink, NoSettings, OpenError, OpenOptions, Settings, SourceFactory,
    SourceRequest, StoreFactory, first_position,
};

/// The engine; see [`Engine::open`] and [`Handle`].
#[derive(Debug)]
pub struct Engine;
