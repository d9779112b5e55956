//! Files that appear in a place: an event is a version of a file that was not seen before and is whole.
//!
//! ```text
//! list -> not seen before? -> unchanged for the settle time -> by age -> events and pages, committed together
//! ```
//! `README.md` in this folder says what counts as what, and what is promised. A place is listed by a
//! [`place::Place`]; everything else is the same for all of them.

mod bucket;
mod config;
mod folder;
mod place;
mod seen;
mod source;
#[cfg(test)]
mod tests;
mod watch;

pub use config::check;
pub use source::FilesSource;
