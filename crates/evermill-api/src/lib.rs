//! **Tells** people and programs what there is, and takes their orders. Nothing here changes state
//! except through the engine's [`evermill_engine::Operations`].

pub mod drawing;
mod feed;
mod hooks;
mod limits;
pub mod live;
mod openapi;
mod pages;
mod patient;
mod problem;
mod reading;
mod routes;
mod serve;
mod table;

pub use openapi::document;
pub use problem::Problem;
pub use routes::{Method, Request, Response, respond};
pub use serve::{Service, Site, listen, serve};
pub use table::Role;
