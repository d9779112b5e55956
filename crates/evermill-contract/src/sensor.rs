//! What a sensor inside an activation asks of the outside world, without code of anybody's.
//!
//! A [`Place`] is asked once for each attempt of the sensor. It remembers nothing: whether the sensor
//! is asked again, and when, is decided elsewhere.

use bytes::Bytes;

use crate::source::{Arrival, Reply};

/// A place that can be asked.
pub trait Place: Send + Sync {
    /// Asks once. Blocks, within the bounds of the place's connection.
    fn ask(&self) -> Found;

    /// Makes a question that is under way on another thread return soon.
    fn cancel(&self);
}

/// What a place said.
pub enum Found {
    /// What is waited for is there; with the value found, as JSON.
    There(Option<Bytes>),
    /// It is not there yet.
    NotYet,
    /// Nothing that could be told from the answer; one sentence.
    Unknown(String),
    /// A function of the DAG file has the last word.
    Judge {
        /// The option the function was given as.
        function: &'static str,
        /// What it is to judge.
        about: Box<Arrival>,
        /// What its word comes to; never [`Found::Judge`] again.
        then: Box<dyn FnOnce(Reply) -> Found + Send>,
    },
}
