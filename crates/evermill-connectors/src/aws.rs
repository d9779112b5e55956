//! What every service of Amazon is asked with: a connection's settings, credentials from wherever the
//! machine has them, signed requests, and answers in words that name the cure.
//!
//! ```text
//! settings -> region, endpoint ----+
//! settings, machine -> credentials +--> signed request -> answer, or a Fault
//! ```
//! No connector, but what those for SQS and S3 have in common. Nothing here waits and tries again: that
//! is for whoever asks. `docs/decisions/0011-aws-client.md` says why it is our own.

mod client;
mod credentials;
mod fault;
mod profile;
mod settings;
mod sign;
pub(crate) mod xml;

pub(crate) use client::{Client, Place, Service};
pub(crate) use fault::{Fault, Kind};
pub(crate) use settings::Settings;
pub(crate) use sign::hex;
