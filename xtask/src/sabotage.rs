//! `cargo xtask sabotage`: the test of the tests. Five deliberate defects, one at a time. The check
//! that guards against a defect has to fail with it and to pass, in the same build, without it.

use std::process::Command;

use crate::crash::World;
use crate::workspace::{self, Fault};

const PROFILE: &str = "ci";
/// Lives in which the kill loop has to notice a defect.
const CYCLES: u32 = 300;
/// Lives that the kill loop has to pass without one.
const SOUND_CYCLES: u32 = 50;

/// What guards against a defect.
enum Guard {
    /// The kill loop ends in failure and says this.
    KillLoop(&'static str),
    /// This test of this package fails.
    Test(&'static str, &'static str),
}

const DEFECTS: [(&str, Guard); 7] = [
    // A killed process loses nothing that the kernel has: only the pages of the log tell.
    (
        "skip_fsync",
        Guard::Test(
            "evermill-store",
            "power::acknowledged_commits_have_no_dirty_page_in_the_log",
        ),
    ),
    (
        "drop_fence_check",
        Guard::Test(
            "evermill-store",
            "conformance::stale_fence_is_refused_and_does_not_hold_up_its_group",
        ),
    ),
    (
        "accept_second_result",
        Guard::Test(
            "evermill-engine",
            "trouble::a_report_under_an_old_fence_is_refused_and_counted",
        ),
    ),
    (
        "ack_before_commit",
        Guard::Test(
            "evermill-engine",
            "trouble::a_source_hears_of_a_position_only_once_the_store_holds_it",
        ),
    ),
    (
        "ack_before_commit",
        Guard::KillLoop("but the broker was told"),
    ),
    (
        "position_before_result",
        Guard::Test(
            "evermill-engine",
            "trouble::a_position_and_the_outcomes_below_it_are_one_commit",
        ),
    ),
    ("position_before_result", Guard::KillLoop("taken in and")),
];

/// Tries every defect; fails when one goes unnoticed, or a check fails without one.
pub(crate) fn run() -> Result<(), Fault> {
    let world = World::open()?;
    let mut wrong = Vec::new();
    for (name, guard) in &DEFECTS {
        let noticed = noticed(&world, name, guard)?;
        println!("{name:<24} {}", noticed.as_deref().unwrap_or("NOT noticed"));
        if noticed.is_none() {
            wrong.push(format!("{name} is not noticed"));
        }
        if let Guard::Test(package, test) = guard {
            let sound = ended(&mut one_test(package, test))?.has_passed(test);
            wrong.extend((!sound).then(|| format!("{test} fails without a defect")));
        }
    }
    let sound = ended(&mut world.kill_loop(&["sabotage"], SOUND_CYCLES))?;
    println!("{:<24} {}", "no defect", sound.summary());
    wrong.extend(
        (!sound.passed).then(|| format!("the kill loop fails without a defect:\n{}", sound.text)),
    );
    if wrong.is_empty() {
        println!("every defect was noticed, and every check passes without it");
        return Ok(());
    }
    Err(wrong.join("\n"))
}

/// By what, in words, when it was.
fn noticed(world: &World, name: &str, guard: &Guard) -> Result<Option<String>, Fault> {
    match guard {
        Guard::KillLoop(says) => {
            let mut command = world.kill_loop(&["sabotage"], CYCLES);
            let output = ended(command.env("EVERMILL_CRASH_SABOTAGE", name))?;
            let fault = output.text.lines().find(|line| line.contains(says));
            let fault = fault.filter(|_| !output.passed);
            let after = output.summary();
            Ok(fault.map(|fault| format!("noticed by the kill loop: {fault} ({after})")))
        }
        Guard::Test(package, test) => {
            let output = ended(one_test(package, test).env("EVERMILL_SABOTAGE", name))?;
            let failed = !output.passed && output.text.contains(&format!("{test} ... FAILED"));
            Ok(failed.then(|| format!("noticed by {package}: {test} fails")))
        }
    }
}

fn one_test(package: &str, test: &str) -> Command {
    let mut command = workspace::cargo();
    let features = ["--features", "sabotage"];
    command.args(["test", "--profile", PROFILE, "--package", package]);
    command
        .args(features)
        .args(["--test", "it", "--", "--exact", test]);
    command
}

struct Ended {
    passed: bool,
    text: String,
}

impl Ended {
    fn has_passed(&self, test: &str) -> bool {
        self.passed && self.text.contains(&format!("{test} ... ok"))
    }

    /// What the kill loop says of itself in the end.
    fn summary(&self) -> &str {
        let mut lines = self.text.lines();
        let all = lines.find_map(|line| line.strip_prefix("in all: "));
        all.unwrap_or("without a summary")
    }
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
