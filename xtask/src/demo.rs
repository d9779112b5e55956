//! `cargo xtask demo`: the web page, the binary with it, and its demo.

use crate::web;
use crate::workspace::{self, Fault};

/// What can be typed behind `demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For `evermill demo`, such as --for 20s; `cargo xtask demo -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds what is missing and runs the demo until it ends.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    if let Err(fault) = web::refresh() {
        // The demo is whole in the terminal, too; who has no node is to see it all the same.
        let instead = match web::is_built() {
            true => "it runs with the web page that was built before",
            false => "it runs in this terminal; the web page only says how to build it",
        };
        eprintln!("demo: no new web page: {fault}\ndemo: {instead}");
    }
    let mut command = workspace::cargo();
    command.args(["run", "--release", "--bin", "evermill", "--", "demo"]);
    workspace::run(command.args(&args.arguments))
}
