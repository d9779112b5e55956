//! **Tells** people and programs what there is, and takes their orders. Nothing here changes state
//! except through the engine's [`evermill_engine::Operations`].

mod access;
mod audit;
mod beside;
mod clock;
pub mod drawing;
mod feed;
mod guests;
mod hooks;
mod limits;
pub mod live;
mod metrics;
mod openapi;
mod pages;
mod patient;
mod problem;
mod reading;
mod replies;
mod routes;
mod serve;
mod table;
mod tail;
mod tls;

pub use access::{Token, TokenFault, Tokens, Wanted, Who};
pub use audit::{Audit, Entry, Record, Sought};
pub use beside::{ConnectionFault, ConnectionView, Connections, Tested};
pub use metrics::{Kind, METRICS, Metric};
pub use openapi::document;
pub use problem::Problem;
pub use routes::{Method, Request, Response, respond};
pub use serve::{Face, Service, Site, listen, serve};
pub use table::Role;
pub use tls::Tls;
