//! Requests that others send to us, plain or as CloudEvents. `README.md` in this folder says how they
//! are signed, told apart and answered.

mod cloud_event;
mod signature;
mod source;
#[cfg(test)]
mod tests;

pub use source::WebhookSource;
