//! `evermill demo`: a broker, a producer and a DAG in this process, to be seen live within a minute.

mod browser;
mod orders;
mod pace;
mod shop;
mod view;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select, tick};
use evermill_api::Site;
use evermill_connectors::kafka::DevKafka;
use evermill_engine::view::EngineView;
use evermill_engine::{Handle, Idle};

use self::shop::{Shop, TOPIC};
use self::view::View;
use super::run::files::{self, Files};
use super::run::{idle, lock, open, pools, print_lines, verdict};
use crate::config::{self, Config, LogArgs, Origin, Setting};
use crate::connections::{Given, Installed};
use crate::control::Control;
use crate::failure::Failure;
use crate::listen::{Listening, Reached};
use crate::screen::{Fields, Screen};
use crate::vault::Vault;
use crate::{duration, sdk, signals};

/// The DAG that runs: the same file as in `examples/`, so that it can be seen and copied.
const FILE: &str = include_str!("../../../../examples/demo.py");
const NAME: &str = "demo.py";
/// The topic's partitions; a lane each.
const PARTITIONS: u32 = 3;
/// The one connection there is, under the id that sources have by default.
const CONNECTION: &str = "kafka_default";
/// How often the picture is drawn, and how often a line is printed where nobody looks.
const SHOWN_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// How long what was sent may take to settle at the end.
const GRACE: Duration = Duration::from_secs(10);
/// At the end nothing may happen for so long before everything counts as settled.
const QUIET: Duration = Duration::from_millis(200);

/// What can be typed behind `demo`.
#[derive(clap::Args)]
#[command(after_long_help = "\
The broker is librdkafka's mock cluster, in this process: it speaks Kafka's protocol on a free port of
this machine, without encryption or passwords. It keeps the last 5 MB of each partition, in memory, and
forgets everything when the demo ends; it knows no transactions, no compaction, no quotas and no second
node. It is for trying things, not for measuring them. The data directory is a temporary one and goes
away with it, so --data-dir has no meaning here.")]
pub(super) struct Args {
    /// Your own DAG file instead of the demo's; orders come on the topic 'orders'
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// End by itself after so long, counted from the first order; else Ctrl-C ends it
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    lasts: Option<Duration>,
    /// Orders a second, on the average; they come in waves, and wait while a thousand are under way
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// Where the web page is: a port of loopback; 4700 unless it is taken
    #[arg(long, value_name = "ADDR", conflicts_with = "print")]
    listen: Option<String>,
    /// Leave the browser alone; else the web page opens in it, where a desktop is and the output is a terminal
    #[arg(long)]
    no_browser: bool,
    /// Print one JSON line per run on standard output at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: LogArgs,
    /// Print the demo's DAG file and do nothing else
    #[arg(long, conflicts_with_all = ["file", "lasts", "json"])]
    print: bool,
}

/// Runs until a signal or for as long as was asked.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.print {
        // Whoever read it may have left, as `head` does.
        io::stdout().lock().write_all(FILE.as_bytes()).ok();
        return Ok(());
    }
    let signalled = signals::catch()?;
    let place = tempfile::Builder::new().prefix("evermill-demo-").tempdir();
    let place = place.map_err(|cause| Failure::failed(format!("no temporary folder: {cause}")))?;
    let screen = Screen::with(config::log(&args.log)?);
    let outcome = live(args, &signalled, place.path(), &screen);
    let outcome = outcome.map_err(|failure| screen.last_word(failure));
    screen.finish();
    // What cannot be removed lies in the system's own temporary folder.
    place.close().ok();
    outcome
}

fn live(
    args: &Args,
    signalled: &Receiver<()>,
    place: &Path,
    screen: &Arc<Screen>,
) -> Result<(), Failure> {
    let data_dir = place.join("data");
    let sdk = sdk::folder(&data_dir)?;
    let file = dag_file(args, place)?;
    let files = files::load(std::slice::from_ref(&file), &sdk)?;
    let broker = DevKafka::start(&[(TOPIC, PARTITIONS)], None)
        .map_err(|error| Failure::failed(error.to_string()))?;
    let config = Config {
        data_dir: data_dir.clone(),
        connections: [(CONNECTION.to_owned(), broker.connection())].into(),
        ..Config::default()
    };
    let vault = Arc::new(Vault::open(&config)?);
    files.check_settings(&vault)?;
    let mut listening = match &args.listen {
        None => Listening::anywhere(&data_dir)?,
        Some(address) => Listening::open(Some(address), &Reached::default(), &data_dir)?,
    };
    introduce(screen, &file, &broker, &data_dir, listening.url());
    let mut view = View::new(screen, &files);
    let pools = pools(None, &files, &sdk);
    let engine = open(
        config.clone(),
        vault,
        lock(&config)?,
        pools,
        screen,
        view.log(),
    )?;
    let given = Setting {
        value: broker.connection(),
        origin: Origin::Flag("demo"),
    };
    let given = Given::from([(CONNECTION.to_owned(), given)]);
    let site = Site::new(
        Arc::new(engine.clone()),
        Some(engine.clone()),
        Some(Installed::of(given, &data_dir)),
        listening.take_face(),
    );
    let _control = Control::open(&data_dir, Arc::clone(&site))?;
    let page = listening.url().to_owned();
    listening.answer(site)?;
    if !args.no_browser && screen.is_terminal() {
        browser::show(&page);
    }
    let shop = Shop::new(&broker, args.rate)?;
    let outcome = start_all(&engine, &files)
        .and_then(|()| watch(args, &engine, signalled, shop, &mut view, screen));
    let drained = engine.drain(GRACE);
    let last = view.last(&engine);
    if args.json {
        print_lines(&last);
    }
    outcome?;
    drained.map_err(|_| Failure::failed("the engine has stopped by itself; see above"))?;
    verdict(&last)?;
    own_up(screen, &last);
    farewell(screen, args);
    Ok(())
}

fn dag_file(args: &Args, place: &Path) -> Result<PathBuf, Failure> {
    if let Some(own) = &args.file {
        return Ok(own.clone());
    }
    let path = place.join(NAME);
    let written = std::fs::write(&path, FILE);
    written.map_err(|cause| Failure::failed(format!("{}: {cause}", path.display())))?;
    Ok(path)
}

fn start_all(engine: &Handle, files: &Files) -> Result<(), Failure> {
    for (request, _) in files.requests(false, false) {
        engine
            .start(&request)
            .map_err(|error| Files::explain(&error))?;
    }
    Ok(())
}

/// Shows what happens until it is time to end, and then until everything has settled.
fn watch(
    args: &Args,
    engine: &Handle,
    signalled: &Receiver<()>,
    shop: Shop,
    view: &mut View,
    screen: &Arc<Screen>,
) -> Result<(), Failure> {
    let ticks = tick(SHOWN_EVERY[usize::from(!screen.is_terminal())]);
    let mut shop = Some(shop);
    let (mut open_since, mut signals) = (None, signalled.clone());
    let mut settled: Receiver<Idle> = never();
    loop {
        let mut is_over = false;
        select! {
            recv(signals) -> _ => is_over = true,
            recv(settled) -> end => return match end {
                Ok(Idle::Reached | Idle::Ended | Idle::TimedOut) => Ok(()),
                _ => Err(Failure::failed("the engine has stopped by itself; see above")),
            },
            recv(ticks) -> _ => {
                let now = view.show(engine);
                if let Some(shop) = &mut shop {
                    if open_since.is_none() && is_ready(&now) {
                        shop.open()?;
                        open_since = Some(Instant::now());
                    }
                    shop.hear_of_backlog(&now)?;
                }
            }
        }
        let lasted = open_since.map_or(Duration::ZERO, |since| since.elapsed());
        is_over |= args.lasts.is_some_and(|lasts| lasted >= lasts);
        if is_over && let Some(shop) = shop.take() {
            view.ends();
            shop.close()?;
            signals = never();
            settled = idle(engine.clone(), QUIET, Some(GRACE))?;
        }
    }
}

/// Every source listens and every worker waits: nobody is to measure how long starting takes.
fn is_ready(view: &EngineView) -> bool {
    let mut sources = view.runs.iter().flat_map(|run| &run.sources);
    sources.all(|source| source.ready) && view.workers.ready == view.workers.slots
}

fn introduce(screen: &Screen, file: &Path, broker: &DevKafka, data_dir: &Path, page: &str) {
    let text = format!(
        "watch it in a browser: {page}\n\
         Kafka in this process: {}, topic '{TOPIC}' with {PARTITIONS} partitions\n\
         the DAG: {}\nthe data: {}, gone at the end\n\n",
        broker.bootstrap(),
        file.display(),
        data_dir.display()
    );
    screen.say(&Fields::default(), &text);
}

/// Says what was cut off, if the DAG was too slow for the time there was at the end.
fn own_up(screen: &Screen, last: &EngineView) {
    let left: u64 = last.runs.iter().map(|run| run.in_flight).sum();
    if left > 0 {
        let grace = GRACE.as_secs();
        let text = format!("{left} orders were still under way after {grace} s and are given up\n");
        screen.say(&Fields::default(), &text);
    }
}

/// How to go on from here, in words that can be pasted.
fn farewell(screen: &Screen, args: &Args) {
    let program = std::env::args().next().unwrap_or_default();
    let text = match &args.file {
        Some(own) => format!(
            "\nOn your own Kafka:\n  {program} run {} --connection kafka=HOST:PORT\n",
            own.display()
        ),
        None => format!(
            "\nMake it yours: change the DAG, try it on these orders, then on your own Kafka.\n  \
             {program} demo --print > shop.py\n  \
             {program} demo shop.py\n  \
             {program} run shop.py --connection kafka=HOST:PORT\n"
        ),
    };
    screen.say(&Fields::default(), &text);
}
