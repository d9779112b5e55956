//! `cargo xtask kafka`: the tests' broker in the foreground, for whoever wants to look inside.

use crate::kafka_broker::{self, Broker};
use crate::workspace::Fault;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on 127.0.0.1; a free one when absent.
    #[arg(long)]
    port: Option<u16>,
}

/// Runs until Ctrl-C, which ends us and, through the guard, the broker and its data.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let installed = kafka_broker::install()?;
    let mut broker = Broker::start(&installed, args.port)?;
    println!("{}", broker.address());
    for (name, value) in broker.secured() {
        eprintln!("{name}={value}");
    }
    eprintln!("Apache Kafka answers; Ctrl-C stops it and removes its data");
    broker.wait()
}
