//! `cargo xtask postgres`: the tests' database in the foreground.

use std::io;

use crate::postgres_server::{self, Postgres};
use crate::workspace::Fault;

/// Runs until Ctrl-C, which ends us and, through the guard, the server and its data; or until the end
/// of standard input.
pub(crate) fn run() -> Result<(), Fault> {
    let server = Postgres::start(&postgres_server::install()?)?;
    println!("{}", server.address());
    eprintln!("PostgreSQL answers; Ctrl-C stops it and removes its data");
    let mut line = String::new();
    while io::stdin()
        .read_line(&mut line)
        .map_err(|error| format!("standard input: {error}"))?
        > 0
    {}
    Ok(())
}
