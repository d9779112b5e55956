//! A place that is asked again and again over HTTP: an event is an edge, or a new item of a list.
//!
//! ```text
//! ask -> judge (true, false, unknown) -> compare with what is remembered -> events and memo, committed together
//! ```
//! `README.md` in this folder says what counts as what, and what is promised.

mod config;
mod judge;
mod memory;
mod observe;
mod page;
mod source;

pub use source::HttpSource;
