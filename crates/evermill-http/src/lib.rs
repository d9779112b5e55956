//! **Asks over HTTP.** One client with one TLS for everything of ours that speaks HTTP to others: tasks,
//! sources. It knows no DAG, no run and no store.
//!
//! | who named the URL | what may be reached |
//! |---|---|
//! | a connection, or the DAG's author | that host, whatever its address; loopback too |
//! | anybody else: a redirect to another host, a payload | public addresses only |
//!
//! What counts is the address that is really connected to, not the name ([`guard`]). Everything that
//! comes back is bounded ([`limits`]), after decompression.

mod client;
mod connection;
mod error;
pub mod guard;
pub mod limits;
mod retry_after;
mod roots;
mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod url;

pub use client::{Client, Request, Response, Target};
pub use connection::Connection;
pub use error::Error;
pub use retry_after::{asked_to_wait, retry_after};
pub use status::is_for_good;
pub use ureq::http::{HeaderMap, Method};
