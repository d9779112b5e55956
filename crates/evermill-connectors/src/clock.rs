//! Clocks: a log that time itself writes. A position is a nominal instant, in nanoseconds since 1970, so
//! whatever was committed says which instants have fired: none fires twice, over restarts and changes
//! of the clock. The README beside this says what becomes of instants that nobody saw pass.

mod instants;
mod source;

#[cfg(test)]
mod tests;

pub use instants::{Instants, check};
pub use source::ClockSource;
