//! evermill as a library: DAGs of closures, run by the same engine in the same process.
//!
//! ```no_run
//! use evermill::{Ctx, Dag, Engine, Event, kafka};
//!
//! # async fn doc() -> Result<(), evermill::Error> {
//! let dag = Dag::new("orders")
//!     .source("wait", kafka::topic("orders").group_id("billing"))
//!     .task("load", &["wait"], async |event: Event, ctx: Ctx| {
//!         let order: serde_json::Value = event.json()?;
//!         println!("{} {order}", ctx.effect_key());
//!         Ok(())
//!     })
//!     .retries(3);
//! Engine::local("./data")
//!     .connection("kafka_default", "127.0.0.1:9092")
//!     .run(dag)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//! The promises are those of every other DAG: positions, results and retries are committed together,
//! and what a crash cut off runs again. A version is the build: another program is another version.

mod closure;
mod local;

pub use closure::{
    After, Ctx, Dag, Event, Failure, Sink, Source, State, ToHttp, after, files, kafka, sqs,
    to_file, to_http, to_kafka, to_sqs, topic,
};
pub use evermill_contract::manifest::{
    Codec, End, History, OnFailure, OnInterrupt, Order, TriggerRule,
};
pub use evermill_engine::view::RunView;
pub use local::{Engine, Error, Local, Running};
