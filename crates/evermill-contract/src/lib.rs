//! **Promises.** The shapes that others compile against or speak: manifests, sources, workers and
//! the identities they share. Nothing here knows how the engine works.

pub mod alert;
pub mod identity;
pub mod manifest;
pub mod sensor;
pub mod settings;
pub mod sink;
pub mod source;
pub mod template;
pub mod trace;
pub mod worker;
pub mod yaml;
