//! What must not be seen: secrets at rest, references to them in addresses, and the masker that keeps
//! them out of everything that is shown.
//!
//! Knows neither a DAG nor a run, and imports nothing of ours.

mod address;
mod error;
mod key;
mod limits;
mod mask;
mod owner;
mod rotate;
mod sealed;

pub use address::{Reference, Resolved, is_hidden, password_in, resolve, shown};
pub use error::Error;
pub use key::Key;
pub use limits::{MASKED_BYTES_MIN, NAME_BYTES_MAX, SECRET_BYTES_MAX};
pub use mask::Masker;
pub use rotate::{Rotated, key_for, rotate, rotate_to};
pub use sealed::{Kind, Sealed, is_name};
pub use zeroize::Zeroizing;
