//! The steps of a long verb: each is announced, timed and remembered for the closing table.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::workspace::Fault;

/// Lines of a fault that the summary repeats.
const FAULT_LINES: usize = 20;

enum Outcome {
    Passed,
    Failed(Fault),
    LeftOut(&'static str),
}

/// What has been done so far.
#[derive(Default)]
pub(crate) struct Steps {
    rows: Vec<(&'static str, Duration, Outcome)>,
}

impl Steps {
    /// Does one step. A fault is printed where it happens and the verb goes on, so that one run
    /// shows every fault; the step's value is there only when it passed.
    pub(crate) fn take<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Fault>,
    ) -> Option<T> {
        println!("\n==> {name}");
        flush();
        let start = Instant::now();
        let result = work();
        if let Err(fault) = &result {
            eprintln!("{name} failed: {fault}");
        }
        let (value, outcome) = match result {
            Ok(value) => (Some(value), Outcome::Passed),
            Err(fault) => (None, Outcome::Failed(fault)),
        };
        self.rows.push((name, start.elapsed(), outcome));
        value
    }

    /// Remembers that a step was not done, and why.
    pub(crate) fn leave_out(&mut self, name: &'static str, reason: &'static str) {
        self.rows
            .push((name, Duration::ZERO, Outcome::LeftOut(reason)));
    }

    /// Prints the table; fails when a step did.
    pub(crate) fn close(self) -> Result<(), Fault> {
        println!("\n{:<12} {:>9}", "step", "seconds");
        let mut failed = Vec::new();
        for (name, duration, outcome) in &self.rows {
            let seconds = duration.as_secs_f64();
            match outcome {
                Outcome::Passed => println!("{name:<12} {seconds:>9.1}"),
                Outcome::Failed(fault) => {
                    println!("{name:<12} {seconds:>9.1}  FAILED");
                    failed.push((*name, beginning(fault)));
                }
                Outcome::LeftOut(reason) => println!("{name:<12} {:>9}  left out: {reason}", "-"),
            }
        }
        let total: Duration = self.rows.iter().map(|(_, duration, _)| *duration).sum();
        println!("{:<12} {:>9.1}", "in all", total.as_secs_f64());
        flush();
        if failed.is_empty() {
            return Ok(());
        }
        // Again: where it happened is far above.
        for (name, fault) in &failed {
            println!("\n{name} failed: {fault}");
        }
        flush();
        let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
        Err(format!("failed: {}", names.join(", ")))
    }
}

/// As much of a fault as one reads in a summary.
fn beginning(fault: &str) -> String {
    let lines: Vec<_> = fault.lines().take(FAULT_LINES).collect();
    lines.join("\n")
}

/// The steps' own output goes straight to the terminal: ours must not arrive after it.
fn flush() {
    // A closed standard output is noticed by the next step that writes.
    drop(io::stdout().flush());
}
