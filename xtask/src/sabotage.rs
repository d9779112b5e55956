//! `cargo xtask sabotage`: the test of the tests. Five deliberate defects, one at a time, each of
//! which has to be noticed by the check that guards against it.

use std::process::Command;

use crate::crash::World;
use crate::workspace::{self, Fault};

const PROFILE: &str = "ci";
/// Lives in which the kill loop has to notice a defect.
const CYCLES: u32 = 300;

/// What guards against a defect.
enum Guard {
    /// The kill loop ends in failure and says this.
    KillLoop(&'static str),
    /// This test of this package fails when the environment chooses the defect.
    FailingTest(&'static str, &'static str),
    /// This test of this package builds the defect in by itself and passes when it is noticed.
    OwnTest(&'static str, &'static str),
}

const DEFECTS: [(&str, Guard); 5] = [
    // A killed process loses nothing that the kernel has: only a power cut tells.
    (
        "skip_fsync",
        Guard::OwnTest("evermill-store", "sabotage_skipped_fsync_is_noticed"),
    ),
    (
        "ack_before_commit",
        Guard::KillLoop("but the broker was told"),
    ),
    ("position_before_result", Guard::KillLoop("taken in and")),
    (
        "drop_fence_check",
        Guard::OwnTest(
            "evermill-store",
            "sabotage_dropped_fence_check_lets_a_stale_owner_write",
        ),
    ),
    (
        "accept_second_result",
        Guard::FailingTest(
            "evermill-engine",
            "a_report_under_an_old_fence_is_refused_and_counted",
        ),
    ),
];

/// Tries every defect; fails when one goes unnoticed.
pub(crate) fn run() -> Result<(), Fault> {
    let world = World::open()?;
    let mut unnoticed = Vec::new();
    for (name, guard) in &DEFECTS {
        let noticed = noticed(&world, name, guard)?;
        println!("{name:<24} {}", noticed.as_deref().unwrap_or("NOT noticed"));
        if noticed.is_none() {
            unnoticed.push(*name);
        }
    }
    if unnoticed.is_empty() {
        println!("all {} noticed", DEFECTS.len());
        return Ok(());
    }
    Err(format!("not noticed: {}", unnoticed.join(", ")))
}

/// By what, in words, when it was.
fn noticed(world: &World, name: &str, guard: &Guard) -> Result<Option<String>, Fault> {
    match guard {
        Guard::KillLoop(says) => {
            let mut command = world.kill_loop(&["sabotage"], CYCLES);
            command.env("EVERMILL_CRASH_SABOTAGE", name);
            let output = ended(&mut command)?;
            let fault = output.text.lines().find(|line| line.contains(says));
            let after = output
                .text
                .lines()
                .find_map(|line| line.strip_prefix("in all: "));
            let (fault, after) = (fault.filter(|_| !output.passed), after.unwrap_or_default());
            Ok(fault.map(|fault| format!("noticed by the kill loop: {fault} ({after})")))
        }
        Guard::FailingTest(package, test) => {
            let output = ended(one_test(package, test).env("EVERMILL_SABOTAGE", name))?;
            let failed = !output.passed && output.text.contains(&format!("{test} ... FAILED"));
            Ok(failed.then(|| format!("noticed by {package}: {test} fails")))
        }
        Guard::OwnTest(package, test) => {
            let output = ended(&mut one_test(package, test))?;
            let passed = output.passed && output.text.contains(&format!("{test} ... ok"));
            Ok(passed.then(|| format!("noticed by {package}: {test}")))
        }
    }
}

fn one_test(package: &str, test: &str) -> Command {
    let mut command = workspace::cargo();
    command.args([
        "test",
        "--profile",
        PROFILE,
        "--package",
        package,
        "--features",
        "sabotage",
    ]);
    command.args(["--test", "it", "--", test]);
    command
}

struct Ended {
    passed: bool,
    text: String,
}

/// Runs a command that may fail.
fn ended(command: &mut Command) -> Result<Ended, Fault> {
    let output = command
        .output()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if text.contains("error: could not compile") {
        return Err(text);
    }
    Ok(Ended {
        passed: output.status.success(),
        text,
    })
}
