//! `cargo xtask aws`: the tests' emulators of AWS in the foreground, for whoever wants to look inside.

use crate::aws_emulator::{Emulator, Kind};
use crate::workspace::Fault;

/// Runs until Ctrl-C, which ends us and, through their guards, both.
pub(crate) fn run() -> Result<(), Fault> {
    let second = Emulator::start(Kind::ElasticMq)?;
    let mut first = Emulator::start(Kind::Moto)?;
    for emulator in [&first, &second] {
        println!("{}={}", emulator.kind().variable(), emulator.address());
    }
    eprintln!("moto and ElasticMQ answer; Ctrl-C stops both");
    first.wait()
}
