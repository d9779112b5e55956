//! The corruption campaign, run by `cargo xtask corrupt`: `corrupt [--flips N] [--truncate-all]
//! [--seed S]`. Prints counts and fails when anything went unnoticed.
#![allow(clippy::print_stdout, reason = "a command line program")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "support modules are shared with the tests"
)]

#[path = "../tests/support/campaign.rs"]
mod campaign;
#[path = "../tests/support/workload.rs"]
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use campaign::{Counts, Subject};

/// Commits of the killed store, most of them in the log, and of the closed one.
const KILLED_COMMITS: u64 = 24;
const CLOSED_COMMITS: u64 = 60;

struct Arguments {
    flips: u64,
    truncate_all: bool,
    seed: u64,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        flips: 10_000,
        truncate_all: false,
        seed: 1,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().unwrap_or_default();
            value
                .parse()
                .map_err(|_| format!("{word} takes a number, not `{value}`"))
        };
        match word.as_str() {
            "--flips" => arguments.flips = number()?,
            "--seed" => arguments.seed = number()?,
            "--truncate-all" => arguments.truncate_all = true,
            _ => {
                return Err(format!(
                    "`{word}` is none of --flips N, --truncate-all, --seed S"
                ));
            }
        }
    }
    Ok(arguments)
}

/// A part of a campaign, given a directory to work in.
type Part<'a> = Box<dyn Fn(&Path) -> Counts + Send + 'a>;

/// Runs the parts on as many threads and adds up.
fn parallel(parts: Vec<Part<'_>>) -> Counts {
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| {
                scope.spawn(move || part(tempfile::tempdir_in(ram()).expect("directory").path()))
            })
            .collect();
        for thread in threads {
            counts.add(thread.join().expect("a part catches its panics"));
        }
    });
    counts
}

fn ram() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() {
        shm
    } else {
        std::env::temp_dir()
    }
}

fn campaign(name: &str, subject: &Subject, arguments: &Arguments) -> Counts {
    let Arguments {
        flips,
        seed,
        truncate_all,
    } = *arguments;
    let (db, log) = subject.sizes();
    println!("{name} store: {db} bytes of database, {log} bytes of log");
    let half = flips / 2;
    let mut total = Counts::default();
    let mut run = |what: &str, parts: Vec<Part<'_>>| {
        let start = Instant::now();
        let counts = parallel(parts);
        println!(
            "  {what}: {counts} [{:.1} s]",
            start.elapsed().as_secs_f64()
        );
        total.add(counts);
    };
    run(
        "bit flips",
        vec![
            Box::new(|dir| subject.flips(dir, half, seed)),
            Box::new(|dir| subject.flips(dir, flips - half, seed ^ u64::MAX)),
        ],
    );
    run(
        "pages zeroed, swapped, lost",
        vec![Box::new(|dir| subject.pages(dir))],
    );
    let stride = if truncate_all { 1 } else { 101 };
    run(
        "truncations",
        vec![
            Box::new(move |dir| subject.cuts(dir, stride, (0, 2))),
            Box::new(move |dir| subject.cuts(dir, stride, (1, 2))),
        ],
    );
    total
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            println!("{text}");
            return ExitCode::from(2);
        }
    };
    println!(
        "corruption campaign: {} flips a store, seed {}",
        arguments.flips, arguments.seed
    );
    let base = tempfile::tempdir_in(ram()).expect("temporary directory");
    let mut total = Counts::default();
    let killed = Subject::killed(&base.path().join("killed"), KILLED_COMMITS);
    total.add(campaign("killed", &killed, &arguments));
    let closed = Subject::closed(&base.path().join("closed"), CLOSED_COMMITS);
    total.add(campaign("closed", &closed, &arguments));
    for name in total.undetected.iter().chain(&total.panics) {
        println!("  NOT NOTICED: {name}");
    }
    println!("corrupt: {total}");
    if total.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
