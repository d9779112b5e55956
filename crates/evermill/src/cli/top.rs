//! `evermill top`: every run, live. A picture on a terminal, a table every few seconds elsewhere.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{select, tick};
use evermill_api::live::{Snapshot, Watch, lines};
use evermill_engine::view::EngineView;

use super::ps::runs_table;
use super::run::progress::troubles;
use crate::failure::Failure;
use crate::reach::{Reach, get};
use crate::screen::Screen;
use crate::table::print;
use crate::{duration, signals};

/// What can be typed behind `top`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How often it looks; 500ms on a terminal, 5s elsewhere
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    every: Option<Duration>,
    /// Look once and end
    #[arg(long)]
    once: bool,
}

const EVERY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

/// Watches until a signal, or until the engine has ended.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let look = || reach.ask::<EngineView>(&get("runs"));
    let first = look()?;
    if args.once || !reach.is_live() {
        print(&runs_table(&first.runs))?;
        if !reach.is_live() && !args.once {
            eprintln!("no engine runs on this data directory, so nothing moves");
        }
        return reach.close();
    }
    let signalled = signals::catch()?;
    let screen = Screen::new();
    let usual = EVERY[usize::from(!screen.is_terminal())];
    let ticks = tick(args.every.unwrap_or(usual).max(Duration::from_millis(50)));
    let mut watch = Watch::new(std::collections::BTreeMap::new());
    let begun = Instant::now();
    let mut view = first;
    loop {
        show(&screen, &mut watch, begun.elapsed(), &view)?;
        select! {
            recv(signalled) -> _ => break,
            recv(ticks) -> _ => {}
        }
        match look() {
            Ok(next) => view = next,
            Err(_) => {
                screen.keep();
                eprintln!("the engine has ended");
                return Ok(());
            }
        }
    }
    screen.keep();
    Ok(())
}

fn show(
    screen: &Screen,
    watch: &mut Watch,
    age: Duration,
    view: &EngineView,
) -> Result<(), Failure> {
    if !screen.is_terminal() {
        return print(&runs_table(&view.runs));
    }
    let snapshot = Snapshot {
        runs: watch.look(age, view),
        wrong: troubles(view),
        said: Vec::new(),
        age,
        hint: "Ctrl-C ends watching; the engine runs on".to_owned(),
    };
    let (width, height) = screen.size();
    screen.picture(&lines(&snapshot, width, height.saturating_sub(1)));
    Ok(())
}
