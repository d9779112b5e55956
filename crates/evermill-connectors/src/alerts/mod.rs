//! Alert hooks: where alerts go outside the engine. See this folder's README for what is promised.

mod config;
mod deliver;
mod hook;
mod mail;
mod parcel;

pub use config::{HookConfig, HookTo, MailTo};
pub use deliver::Delivery;
pub use hook::Hooks;
