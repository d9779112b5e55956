//! The command line: what can be typed. Each command is a module with its arguments and its `run`.

mod alerts;
mod api;
mod audit;
mod backfill;
mod backup;
mod check;
mod completions;
mod config;
mod connections;
mod demo;
mod dev_kafka;
mod doctor;
mod judge;
mod logs;
mod parked;
mod place;
mod pools;
mod ps;
mod replay;
mod reset;
mod rollback;
mod run;
mod secrets;
mod serve;
mod shadow;
mod show;
mod signal;
mod sources;
mod start;
mod steer;
mod test;
mod token;
mod top;
mod trigger;
mod versions;
mod waits;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use self::steer::Verb;
use crate::failure::Failure;

/// Runs DAGs continuously: tasks run when there is new data, milliseconds after it arrives.
#[derive(Parser)]
#[command(name = "evermill", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Where the engine keeps everything it must not forget [default: ./.evermill]
    #[arg(long, global = true, env = "EVERMILL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See a pipeline live within a minute: a broker, a producer and a DAG, all in this process
    Demo(demo::Args),
    /// Load DAG files and run every DAG in them until interrupted
    Run(run::Args),
    /// Serve every DAG of a folder, and follow the folder as it changes
    Serve(serve::Args),
    /// Say everything that is wrong with DAG files, and draw what is right
    Check(check::Args),
    /// Run one activation in the foreground, without engine or broker, to look or to debug
    Test(test::Args),
    /// List the runs of a data directory
    Ps(ps::Args),
    /// One run: lanes and their lag, tasks, what is parked, the latest failures
    Show(show::Args),
    /// What the tasks of a run printed
    Logs(logs::Args),
    /// Watch every run live
    Top(top::Args),
    /// Switch a DAG of a running server on, also after `stop`
    Start(start::Args),
    /// Go back to an earlier version of a DAG
    Rollback(rollback::Args),
    /// Versions that a DAG had, and what is different between two of them
    #[command(subcommand)]
    Versions(versions::Args),
    /// Give a DAG one activation by hand, durable when the command ends
    Trigger(trigger::Args),
    /// Send a run a named message, durable when the command ends
    Signal(signal::Args),
    /// What waits for a signal, such as somebody's answer
    Waits(waits::Args),
    /// Take no new work, until `resume`
    Pause(steer::Args),
    /// Go on after `pause`
    Resume(steer::Args),
    /// Read nothing more, settle what was read, then rest until the next `run`
    Drain(steer::Args),
    /// End a run for good; the next run of its DAG goes on behind its positions
    Stop(steer::Args),
    /// What failed for good and was kept: look at it, change it, run it again
    #[command(subcommand)]
    Parked(parked::Args),
    /// Slots that tasks of all DAGs share: look at them, change them while they are used
    #[command(subcommand)]
    Pools(pools::Args),
    /// What goes wrong while nobody looks: the latest of it, and whether it is told
    #[command(subcommand)]
    Alerts(alerts::Args),
    /// Read a stretch of a log source again beside the live run, or say what that would be
    Replay(replay::Args),
    /// Move the live position of a run that is paused or at rest
    Reset(reset::Args),
    /// Let go of what is kept for a source that is gone
    #[command(subcommand)]
    Sources(sources::Args),
    /// Run the instants of a clock that it has passed over, each once
    Backfill(backfill::Args),
    /// Run another version of a DAG on events that a run has settled, and compare what came of them
    Shadow(shadow::Args),
    /// Copy the store to a file, also while an engine runs, and check the copy
    Backup(backup::Backup),
    /// Put a backup in the place of the store
    Restore(backup::Restore),
    /// Check every row of the store, or of a backup
    Verify(backup::Verify),
    /// Where connections lead: keep addresses, list them, see who answers
    #[command(subcommand)]
    Connections(connections::Args),
    /// Values that nobody must see: keep them sealed, list their names
    #[command(subcommand)]
    Secrets(secrets::Args),
    /// What would go wrong later, said now: configuration, disk, clock, connections, risky settings
    Doctor(doctor::Args),
    /// Tokens for those who ask over TCP: make them, list them, take them back
    #[command(subcommand)]
    Token(token::Args),
    /// Who changed what, over the API or by a command
    Audit(audit::Args),
    /// What the HTTP API says of itself
    #[command(subcommand)]
    Api(api::Args),
    /// What is set, and by whom
    #[command(subcommand)]
    Config(config::Args),
    /// Print a script for your shell that completes commands and options
    Completions(completions::Args),
    /// Tools for development
    #[command(subcommand)]
    Dev(Dev),
}

#[derive(Subcommand)]
enum Dev {
    /// Run a small Kafka broker in memory, and print its address
    Kafka(dev_kafka::Args),
    /// Say what a source's codec and schema make of values; `evermill.testing` asks it, in JSON
    Judge,
}

impl Cli {
    /// Does what was typed.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let data_dir = self.data_dir;
        match self.command {
            Command::Demo(args) => demo::run(&args),
            Command::Run(args) => run::run(&args, data_dir),
            Command::Serve(args) => serve::run(&args, data_dir),
            Command::Check(args) => check::run(&args, data_dir),
            Command::Test(args) => test::run(&args, data_dir),
            Command::Ps(args) => ps::run(&args, data_dir),
            Command::Show(args) => show::run(&args, data_dir),
            Command::Logs(args) => logs::run(&args, data_dir),
            Command::Top(args) => top::run(&args, data_dir),
            Command::Start(args) => start::run(&args, data_dir),
            Command::Rollback(args) => rollback::run(&args, data_dir),
            Command::Versions(args) => versions::run(&args, data_dir),
            Command::Trigger(args) => trigger::run(&args, data_dir),
            Command::Signal(args) => signal::run(&args, data_dir),
            Command::Waits(args) => waits::run(&args, data_dir),
            Command::Pause(args) => steer::run(Verb::Pause, &args, data_dir),
            Command::Resume(args) => steer::run(Verb::Resume, &args, data_dir),
            Command::Drain(args) => steer::run(Verb::Drain, &args, data_dir),
            Command::Stop(args) => steer::run(Verb::Stop, &args, data_dir),
            Command::Parked(args) => parked::run(&args, data_dir),
            Command::Pools(args) => pools::run(&args, data_dir),
            Command::Alerts(args) => alerts::run(&args, data_dir),
            Command::Replay(args) => replay::run(args, data_dir),
            Command::Sources(args) => sources::run(&args, data_dir),
            Command::Reset(args) => reset::run(&args, data_dir),
            Command::Backfill(args) => backfill::run(&args, data_dir),
            Command::Shadow(args) => shadow::run(&args, data_dir),
            Command::Backup(args) => backup::backup(&args, data_dir),
            Command::Restore(args) => backup::restore(&args, data_dir),
            Command::Verify(args) => backup::verify(&args, data_dir),
            Command::Connections(args) => connections::run(&args, data_dir),
            Command::Secrets(args) => secrets::run(&args, data_dir),
            Command::Doctor(args) => doctor::run(&args, data_dir),
            Command::Token(args) => token::run(&args, data_dir),
            Command::Audit(args) => audit::run(&args, data_dir),
            Command::Api(args) => api::run(&args),
            Command::Config(args) => config::run(&args, data_dir),
            Command::Completions(args) => completions::run(&args),
            Command::Dev(Dev::Kafka(args)) => dev_kafka::run(&args),
            Command::Dev(Dev::Judge) => judge::run(data_dir),
        }
    }
}
