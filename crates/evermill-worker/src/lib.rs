//! **Runs.** User code in Python processes of its own: one fork server per interpreter, one
//! worker process per slot, frames over socket pairs (docs/spec/frames.md). Shell commands,
//! requests over HTTP and closures of this process run in slots that are threads ([`shell`], [`NativePool`]).
//!
//! Threads on our side, all blocking:
//!
//! | thread | owns |
//! |---|---|
//! | supervisor | the fork server: starts it, asks it for workers, hears how they end |
//! | reader, one per worker | a worker's life, from its hello to its death |
//! | writer, one per worker | what goes to it and is large or has to wait; apart from the reader, so that two full socket buffers never lock each other |
//! | watch | what needs a clock: timeouts, kills, output at descriptor level |
//!
//! Nothing that a worker does can block the engine's thread, and nothing it sends is believed
//! before it is checked: a frame that does not fit what was dispatched ends the worker.

mod config;
mod connection;
mod declared;
mod http;
pub mod load;
pub mod member;
mod native;
mod outbox;
mod output;
mod page;
mod permits;
mod places;
mod pool;
mod pools;
mod server;
pub mod shell;
mod sinks;
mod slot;
mod supervisor;
mod threads;
mod watch;

pub use config::{PoolConfig, Preload};
pub use declared::{Answer, Shadow, Withheld};
pub use load::Loader;
pub use native::{Lease, NativePool, NativeTask};
pub use places::Places;
pub use pool::PythonPool;
pub use pools::{DeclaredConfig, Growth, Interpreter, Pools};
pub use sinks::Sinks;
