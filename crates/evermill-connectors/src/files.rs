//! Files that appear in a place: an event is a version of a file that was not seen before and is whole.
//!
//! ```text
//! list -> not seen before? -> unchanged for the settle time -> by age -> events and pages, committed together
//! ```
//! Beside it files that are written: one for each record, whole or not at all.
//!
//! `README.md` in this folder says what counts as what, and what is promised. A place is listed by a
//! [`place::Place`]; everything else is the same for all of them.

mod bucket;
mod config;
mod folder;
mod object;
mod place;
mod seen;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod watch;

pub use config::check;
pub use sink::FileSink;
pub use source::FilesSource;
