//! `evermill-sim`: the campaign.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that people read"
)]

use std::process::ExitCode;
use std::time::Instant;

use evermill_sim::campaign::{play, run};
use evermill_sim::feature::Features;
use evermill_sim::generate::generate;
use evermill_sim::shrink::shrink;

const USAGE: &str = "\
evermill-sim [--cases N] [--seed S] [--only SEED] [--features LIST] [--threads N] [--flaws N]
             [--shrink RUNS]
  --cases N        random cases to play (default 20000)
  --seed S         the first seed; case i has seed S + i (default 1)
  --only SEED      play one case and print its steps
  --features LIST  all, none, NAME or -NAME, separated by commas (default all)
  --threads N      threads (default 2)
  --flaws N        stop after this many flaws per thread (default 1)
  --shrink RUNS    plays spent on making a failing case small (default 20000; 0 = as it is)";

struct Options {
    cases: u64,
    seed: u64,
    only: Option<u64>,
    features: Features,
    threads: u64,
    flaws: usize,
    shrink: u32,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        cases: 20_000,
        seed: 1,
        only: None,
        features: Features::all(),
        threads: 2,
        flaws: 1,
        shrink: 20_000,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            return Err(String::new());
        }
        let value = words
            .next()
            .ok_or_else(|| format!("{word} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{word} needs a number, not '{value}'"))
        };
        match word.as_str() {
            "--cases" => options.cases = number()?,
            "--seed" => options.seed = number()?,
            "--only" => options.only = Some(number()?),
            "--features" => options.features = Features::parse(&value)?,
            "--threads" => options.threads = number()?,
            "--flaws" => options.flaws = number()? as usize,
            "--shrink" => options.shrink = number()? as u32,
            _ => return Err(format!("unknown option '{word}'")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match options.only {
        Some(seed) => only(seed, &options),
        None => campaign(&options),
    }
}

fn only(seed: u64, options: &Options) -> ExitCode {
    let case = generate(seed, options.features);
    let played = play(&case, true);
    let Some(flaw) = played.flaw else {
        println!(
            "{}{}\nseed {seed}: holds",
            case.describe(),
            played.trace.join("\n")
        );
        return ExitCode::SUCCESS;
    };
    explain(seed, &flaw, options);
    ExitCode::FAILURE
}

fn explain(seed: u64, flaw: &str, options: &Options) {
    println!("seed {seed}: {flaw}\n");
    let (small, flaw) = shrink(&generate(seed, options.features), flaw, options.shrink);
    println!("small case:\n{}", small.describe());
    println!("{}", play(&small, true).trace.join("\n"));
    println!("\nBROKEN: {flaw}\n(replay: evermill-sim --only {seed})");
}

fn campaign(options: &Options) -> ExitCode {
    let begun = Instant::now();
    let found = run(
        options.seed,
        options.cases,
        options.threads,
        options.features,
        options.flaws,
    );
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} cases, {} steps in {seconds:.1} s: {:.0} cases/s on {} threads, seeds from {}",
        found.cases,
        found.steps,
        found.cases as f64 / seconds,
        options.threads,
        options.seed
    );
    println!("{}", found.coverage.table());
    if let Some((seed, flaw)) = found.flaws.first() {
        for (seed, flaw) in &found.flaws {
            println!(
                "FLAW seed {seed}: {}",
                flaw.lines().next().unwrap_or_default()
            );
        }
        explain(*seed, flaw, options);
        return ExitCode::FAILURE;
    }
    let missing = found.coverage.missing(options.features);
    if !missing.is_empty() {
        println!("NOT EXERCISED: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    println!("no flaw found");
    ExitCode::SUCCESS
}
