//! `evermill api`: what the HTTP API says of itself.

use crate::failure::Failure;
use crate::table::print;

/// What can be typed behind `api`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Print its description for programs that make clients: OpenAPI 3.1, JSON
    Openapi,
}

/// Prints.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Args::Openapi = args;
    print(&format!("{:#}\n", evermill_api::document()))
}
