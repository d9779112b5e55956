//! A function of the DAG file that is asked again and again: an event is the moment in which it becomes true,
//! or in which what it found is something else.
//!
//! ```text
//! due -> the engine asks it in a worker -> its word -> compare with what is remembered -> event and memo, committed together
//! ```
//! `README.md` in this folder says what counts as what.

mod source;

pub use source::PollSource;
