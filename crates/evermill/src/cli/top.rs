//! `evermill top`: every run, live. A picture on a terminal, a table every few seconds elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{select, tick};
use evermill_api::drawing::Graph;
use evermill_api::live::{Snapshot, Watch, lines};
use evermill_engine::view::{EngineView, RunView};

use super::ps::{late, replays, runs_table};
use super::run::progress::{self, troubles};
use crate::failure::Failure;
use crate::reach::{Reach, get};
use crate::screen::Screen;
use crate::table::print;
use crate::{duration, signals};

/// What can be typed behind `top`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only this run, or the latest of this DAG
    #[arg(value_name = "RUN")]
    run: Option<String>,
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
    let only = args.run.as_ref().map(|run| reach.run(run)).transpose()?;
    let only = only.map(|detail| detail.run.run);
    let look = || {
        let mut view = reach.ask::<EngineView>(&get("runs"))?;
        let is_wanted = |run: &RunView| only.as_ref().is_none_or(|only| run.run == *only);
        view.runs.retain(is_wanted);
        Ok::<_, Failure>(view)
    };
    let first = look()?;
    if args.once || !reach.is_live() {
        print(&runs_table(&first.runs))?;
        print(&replays(&first.runs))?;
        print(&late(&first.runs))?;
        if !reach.is_live() && !args.once {
            eprintln!("no engine runs on this data directory, so nothing moves");
        }
        return reach.close();
    }
    let signalled = signals::catch()?;
    let screen = Screen::new();
    let usual = EVERY[usize::from(!screen.is_terminal())];
    let ticks = tick(args.every.unwrap_or(usual).max(Duration::from_millis(50)));
    let mut watch = Watch::new(BTreeMap::new());
    // By DAG, the version that its drawing is of.
    let mut drawn = BTreeMap::new();
    let begun = Instant::now();
    let mut view = first;
    loop {
        if screen.is_terminal() {
            draw(&reach, &mut watch, &mut drawn, &view);
        }
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

/// Asks for the DAGs that are not drawn yet. What cannot be had now is asked for the next time.
fn draw(reach: &Reach, watch: &mut Watch, drawn: &mut BTreeMap<String, String>, view: &EngineView) {
    let latest: BTreeMap<&str, &RunView> = view.runs.iter().map(|run| (&*run.dag, run)).collect();
    for (dag, run) in latest {
        if drawn.get(dag) != Some(&run.version)
            && let Ok(detail) = reach.run(&run.run)
        {
            watch.draw(dag, Graph::from(&detail.graph));
            drawn.insert(dag.to_owned(), run.version.clone());
        }
    }
}

fn show(
    screen: &Screen,
    watch: &mut Watch,
    age: Duration,
    view: &EngineView,
) -> Result<(), Failure> {
    if !screen.is_terminal() {
        print(&runs_table(&view.runs))?;
        print(&replays(&view.runs))?;
        return print(&late(&view.runs));
    }
    let snapshot = Snapshot {
        runs: watch.look(age, view),
        wrong: troubles(view)
            .into_iter()
            .chain(missed(&view.runs))
            .collect(),
        said: Vec::new(),
        age,
        hint: "Ctrl-C ends watching; the engine runs on".to_owned(),
    };
    let (width, height) = screen.size();
    screen.picture(&lines(&snapshot, width, height.saturating_sub(1)));
    Ok(())
}

/// Deadlines that were missed; what is not fresh is among the troubles.
fn missed(runs: &[RunView]) -> Vec<String> {
    let late = runs.iter().filter(|run| run.deadlines_missed > 0);
    let late: Vec<RunView> = late
        .map(|run| RunView {
            sources: Vec::new(),
            ..run.clone()
        })
        .collect();
    progress::late(&late)
}
