//! **Tells** people and programs what there is, and takes their orders. Nothing here changes state
//! except through the engine's [`evermill_engine::Operations`].

pub mod drawing;
mod hooks;
pub mod live;
mod problem;
mod routes;
mod serve;

pub use hooks::listen;
pub use problem::Problem;
pub use routes::{Method, Request, Response, respond};
pub use serve::{REQUEST_BYTES_MAX, Service, serve};
