//! A DAG of closures on a topic: `cargo run --release --example orders -- 127.0.0.1:9092`.
#![allow(clippy::print_stdout, reason = "an example speaks to the terminal")]

use std::time::Duration;

use evermill::{Ctx, Dag, Engine, Event, kafka};

fn main() -> Result<(), evermill::Error> {
    let broker = std::env::args().nth(1);
    let broker = broker.unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let dag = Dag::new("orders")
        .source("orders", kafka::topic("orders").from_earliest())
        .task("price", &["orders"], async |event: Event, _: Ctx| {
            let order: serde_json::Value = event.json()?;
            Ok(order["items"].as_object().map_or(0, serde_json::Map::len))
        })
        .retries(3)
        .task("tell", &["price"], async |event: Event, ctx: Ctx| {
            let price: Option<usize> = ctx.result("price")?;
            println!("{}@{}: {price:?}", event.lane(), event.position());
            Ok(())
        });
    let running = Engine::local("./.evermill-orders")
        .connection("kafka_default", &broker)
        .notices(|text| println!("{text}"))
        .start(dag)?;
    // A service would wait for its own signal here.
    running.wait_idle(Duration::from_secs(2));
    let run = running.drain(Duration::from_secs(10))?;
    println!("{} orders, {} parked", run.done, run.parked);
    Ok(())
}
