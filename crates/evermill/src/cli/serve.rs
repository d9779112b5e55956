//! `evermill serve`: a server with every DAG of a folder, which follows the folder as it changes.

mod catalogue;
mod face;
mod keeper;
mod stable;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded, never, select, tick};
use evermill_api::Site;

use self::face::Face;
use self::keeper::Keeper;
use self::watch::{LOOK_EVERY, Watch, until_quiet};
use super::check::Loading;
use super::run::{self, Workers, progress};
use crate::config::{Explained, Flags, Level, LogArgs};
use crate::connections::Installed;
use crate::control::Control;
use crate::failure::Failure;
use crate::listen::{Listening, Reached};
use crate::screen::{Fields, Screen};
use crate::vault::Vault;
use crate::{duration, sdk, signals};

/// The longest a DAG file may take to load.
const LOAD_LIMIT: Duration = Duration::from_secs(30);
/// The most that loading one may allocate.
const LOAD_BYTES_MAX: u64 = 2 << 30;
/// How soon something that could not be done yet is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often the status line is looked at: on a terminal, and elsewhere.
const STATUS_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(60)];

/// What can be typed behind `serve`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The folder of DAG files; it may be empty, and is followed as it changes
    #[arg(long, value_name = "DIR", default_value = "dags")]
    dags: PathBuf,
    /// Where requests over HTTP are answered
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4700")]
    listen: String,
    #[command(flatten)]
    reached: Reached,
    /// Where a connection leads, such as kafka=127.0.0.1:9092; also EVERMILL_CONNECTION_<ID>
    #[arg(long = "connection", value_name = "ID=URL|HOST:PORT,...")]
    connections: Vec<String>,
    /// Print one JSON line per run on standard output at the end
    #[arg(long)]
    json: bool,
    /// How long what is in flight may take to settle after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    grace: Duration,
    /// How much history to keep, such as 7d, 10GB or 7d,10GB [default: 1GiB]
    #[arg(long, value_name = "AGE|SIZE")]
    retain: Option<String>,
    /// How much to keep of what tasks print, of all runs together, such as 7d, 2GB or 7d,2GB [default: 30d,1GiB]
    #[arg(long, value_name = "AGE|SIZE")]
    retain_logs: Option<String>,
    /// Where traces go: a collector of OpenTelemetry, over HTTP, such as http://127.0.0.1:4318
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    log: LogArgs,
    /// Worker processes for each interpreter; the number of processors when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

/// Serves until a signal.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let flags = Flags {
        data_dir,
        retain: args.retain.as_deref(),
        retain_logs: args.retain_logs.as_deref(),
        log: Some(&args.log),
        connections: &args.connections,
        otlp_endpoint: args.otlp_endpoint.as_deref(),
    };
    run::with_screen(flags, |settings, screen| go(args, settings, screen))
}

fn go(args: &Args, settings: Explained, screen: &Arc<Screen>) -> Result<(), Failure> {
    let given = settings.connections.clone();
    let config = settings.settled();
    let signalled = signals::catch()?;
    let hung_up = signals::catch_hang_up()?;
    check_folder(&args.dags)?;
    let lock = run::lock(&config)?;
    let data_dir = lock.dir().to_owned();
    run::warn_of_root(screen, &data_dir);
    let mut listening = Listening::open(Some(&args.listen), &args.reached, &data_dir)?;
    let sdk = sdk::folder(&config.data_dir)?;
    let workers = Workers::for_any(args.workers, &sdk);
    let log = run::log_lines(screen, true);
    let vault = Arc::new(Vault::open(&config)?);
    let engine = run::open(config, Arc::clone(&vault), lock, workers, screen, log)?;
    let mut loading = Loading::new(sdk);
    loading.leave_no_trace(LOAD_LIMIT);
    loading.limit_memory(LOAD_BYTES_MAX);
    let (url, warning) = (listening.url().to_owned(), listening.warning());
    let keeper = Arc::new(Keeper::new(
        args.dags.clone(),
        loading,
        vault,
        engine.clone(),
        Arc::clone(screen),
        url.clone(),
    ));
    let site = Site::new(
        Arc::new(Face(Arc::clone(&keeper))),
        Some(engine.clone()),
        Some(Installed::of(given, &data_dir)),
        listening.take_face(),
    );
    let _control = Control::open(&data_dir, Arc::clone(&site))?;
    listening.answer(site)?;
    let text = format!(
        "serving {} on {url}; data in {}",
        args.dags.display(),
        data_dir.display()
    );
    screen.say(&Fields::default(), &text);
    if let Some(warning) = warning {
        screen.tell(Level::Warning, &Fields::default(), warning);
    }
    let (stop, stopped) = bounded::<()>(0);
    let follower = follow(keeper, hung_up, stopped)?;
    wait(&engine, &signalled, screen);
    // Nothing is started any more; what is being loaded is waited for.
    drop(stop);
    drop(follower.join());
    let drained = run::drain(&engine, args.grace, screen);
    let view = engine.view();
    if args.json {
        run::print_lines(&view);
    }
    drained.map_err(|_| Failure::failed("the engine has stopped by itself; see above"))?;
    Ok(())
}

fn check_folder(folder: &Path) -> Result<(), Failure> {
    if folder.is_dir() {
        return Ok(());
    }
    let (what, shown) = (
        if folder.exists() {
            "no folder"
        } else {
            "not there"
        },
        folder.display(),
    );
    Err(Failure::usage(format!(
        "--dags {shown}: it is {what}; make it, `mkdir {shown}`, or name another folder. It may be empty"
    )))
}

/// Follows the folder on a thread of its own.
fn follow(
    keeper: Arc<Keeper>,
    hung_up: Receiver<()>,
    stopped: Receiver<()>,
) -> Result<std::thread::JoinHandle<()>, Failure> {
    let body = move || {
        let (mut watch, news) = Watch::new();
        let mut again = keeper.look(&mut watch);
        keeper.say_all();
        loop {
            let soon = if again { after(TRY_AGAIN) } else { never() };
            let every = after(LOOK_EVERY[usize::from(!watch.is_told())]);
            select! {
                recv(stopped) -> _ => return,
                recv(hung_up) -> _ => {}
                recv(news) -> _ => until_quiet(&news),
                recv(soon) -> _ => {}
                recv(every) -> _ => {}
            }
            again = keeper.look(&mut watch);
        }
    };
    let thread = std::thread::Builder::new().name("dags".into()).spawn(body);
    thread.map_err(|error| Failure::failed(format!("no thread: {error}")))
}

fn wait(engine: &evermill_engine::Handle, signalled: &Receiver<()>, screen: &Screen) {
    let status = tick(STATUS_EVERY[usize::from(!screen.is_terminal())]);
    loop {
        select! {
            recv(signalled) -> _ => return,
            recv(status) -> _ => screen.status(&progress::line(&engine.view())),
        }
    }
}
