//! A place that is asked again and again over HTTP: an event is an edge, or a new item of a list.
//!
//! ```text
//! ask -> judge (true, false, unknown) -> compare with what is remembered -> events and memo, committed together
//! ```
//! Beside it a service that takes what is sent: a request per record, with the effect key in a header.
//!
//! `README.md` in this folder says what counts as what, and what is promised.

mod ask;
mod config;
mod judge;
mod observe;
mod page;
mod place;
mod sink;
mod source;

pub use place::HttpPlace;
pub use sink::HttpSink;
pub use source::HttpSource;

/// What a place answered, for tests of those who read it.
#[cfg(test)]
fn answer(status: u16, body: &str) -> evermill_http::Response {
    evermill_http::Response {
        status,
        headers: evermill_http::HeaderMap::new(),
        body: body.as_bytes().to_vec(),
        place: "http://h/x".to_owned(),
    }
}
