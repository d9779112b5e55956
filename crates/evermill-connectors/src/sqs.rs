//! Queues of Amazon SQS: to read from, to write to.
//!
//! ```text
//! receive (long poll) -> lease -> delivery -> kept, or settled -> delete
//!                          |
//!                          +-- renewed for as long as it takes
//! ```
//! `README.md` in this folder says what is promised.

mod api;
mod leases;
mod message;
mod queue;
mod sink;
mod source;

pub use sink::SqsSink;
pub use source::SqsSource;
