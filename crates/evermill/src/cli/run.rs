//! `evermill run`: loads DAG files, runs them in the foreground, drains when asked to end.

pub(super) mod files;
pub(super) mod progress;

use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select, tick};
use evermill_api::{Face, Site};
use evermill_connectors::alerts::Hooks;
use evermill_connectors::traces::Exporter;
use evermill_contract::source::{DiagnosticSink, Severity};
use evermill_contract::trace::TraceTaker;
use evermill_contract::worker::{Events, Executor, LogOrigin};
use evermill_engine::view::EngineView;
use evermill_engine::{
    Clock, Drained, Engine, EngineError, Handle, Idle, LogLine, LogSink, Notice, NoticeSink,
    OpenError, OpenOptions, Settings,
};
use evermill_store::{DirLock, LockError};
use evermill_worker::{DeclaredConfig, Growth, Places, PoolConfig, Pools, Shadow, Sinks};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC as ALL, utf8_percent_encode};

use self::files::Files;
use crate::config::{self, Config, Explained, Flags, Level, Log, LogArgs};
use crate::connections::Installed;
use crate::control::{self, Control};
use crate::failure::Failure;
use crate::listen::{Listening, Reached};
use crate::screen::{Fields, Screen};
use crate::vault::Vault;
use crate::{duration, python, sdk, signals, sources, store};

/// What stands in a URL's path as it is.
const NON_ALPHANUMERIC: &AsciiSet = &ALL.remove(b'-').remove(b'_').remove(b'.');
/// How often the status line is looked at: on a terminal, and elsewhere.
const STATUS_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// With `--until-idle`, how long a service may be away before we give up.
const SERVICE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a command that took the data directory in between may keep it.
const BORROWED: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Longer than any run: for a wait that only an end of all runs is to end.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What can be typed behind `run`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// DAG files; every DAG in them starts
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where a connection leads, such as kafka=127.0.0.1:9092; also EVERMILL_CONNECTION_<ID>
    #[arg(long = "connection", value_name = "ID=URL|HOST:PORT,...")]
    connections: Vec<String>,
    /// Print one JSON line per run on standard output at the end
    #[arg(long)]
    json: bool,
    /// End well once every source was read to its end and nothing happened for this long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    until_idle: Option<Duration>,
    /// How long what is in flight may take to settle after SIGTERM or SIGINT
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    grace: Duration,
    /// Begin where the sources say, not where the stopped run before ended
    #[arg(long)]
    fresh: bool,
    /// Go on behind messages that the broker has no longer; without it their partition stands still
    #[arg(long)]
    pass_gaps: bool,
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
    /// Where requests over HTTP are answered, on this machine alone; 127.0.0.1:4700 when a DAG takes
    /// requests, else nowhere
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    #[command(flatten)]
    reached: Reached,
    /// Worker processes; the number of processors when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
}

/// Runs until a signal, until idle, or until every run has ended by itself.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let flags = Flags {
        data_dir,
        retain: args.retain.as_deref(),
        retain_logs: args.retain_logs.as_deref(),
        log: Some(&args.log),
        connections: &args.connections,
        otlp_endpoint: args.otlp_endpoint.as_deref(),
    };
    with_screen(flags, |settings, screen| go(args, settings, screen))
}

/// Reads the settings, and says on the screen that they ask for how it ends.
pub(super) fn with_screen(
    flags: Flags<'_>,
    work: impl FnOnce(Explained, &Arc<Screen>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // What is wrong with the file is said as flag and environment want it.
    let first = flags.log.map_or(Ok(Log::default()), config::log)?;
    let settings =
        Explained::read(flags).map_err(|failure| Screen::with(first).last_word(failure))?;
    let screen = Screen::with(settings.log());
    let outcome = work(settings, &screen).map_err(|failure| screen.last_word(failure));
    screen.finish();
    outcome
}

fn go(args: &Args, settings: Explained, screen: &Arc<Screen>) -> Result<(), Failure> {
    let given = settings.connections.clone();
    let config = settings.settled();
    let signalled = signals::catch()?;
    let sdk = sdk::folder(&config.data_dir)?;
    let files = files::load(&args.files, &sdk)?;
    let vault = Arc::new(Vault::open(&config)?);
    files.check_settings(&vault)?;
    super::check::warn(screen, &files.warnings());
    if args.until_idle.is_some() {
        files.check_end()?;
    }
    let wanted = args.listen.is_some() || files.ways_in().next().is_some();
    let mut listening = wanted
        .then(|| Listening::open(args.listen.as_deref(), &args.reached, &config.data_dir))
        .transpose()?;
    let lock = lock(&config)?;
    let data_dir = lock.dir().to_owned();
    warn_of_root(screen, &data_dir);
    let log = log_lines(screen, files.dags().count() > 1);
    let pools = pools(args.workers, &files, &sdk);
    let engine = open(config, vault, lock, pools, screen, log)?;
    let face = listening.as_mut().map(Listening::take_face);
    let face = face.unwrap_or_else(|| Face::local(data_dir.clone()));
    let site = Site::new(
        Arc::new(engine.clone()),
        Some(engine.clone()),
        Some(Installed::of(given, &data_dir)),
        face,
    );
    let _control = Control::open(&data_dir, Arc::clone(&site))?;
    let outcome = start_all(args, &engine, &files, screen)
        .and_then(|()| listening.map_or(Ok(()), |open| answer(open, site, &files, screen)))
        .and_then(|()| wait(args, &engine, &signalled, screen));
    // Whatever has happened: what was read settles and is committed, and the last word is printed.
    let drained = drain(&engine, args.grace, screen);
    let view = engine.view();
    if args.json {
        print_lines(&view);
    }
    outcome?;
    drained.map_err(|_| Failure::failed("the engine has stopped by itself; see above"))?;
    verdict(&view)
}

/// Answers requests from now on, and says where.
fn answer(
    listening: Listening,
    site: Arc<Site>,
    files: &Files,
    screen: &Screen,
) -> Result<(), Failure> {
    let (url, warning) = (listening.url().to_owned(), listening.warning());
    listening.answer(site)?;
    screen.say(&Fields::default(), &format!("listening on {url}"));
    if let Some(warning) = warning {
        screen.tell(Level::Warning, &Fields::default(), warning);
    }
    for (dag, source) in files.ways_in() {
        say_way_in(screen, &url, dag, source);
    }
    Ok(())
}

/// Says where a source takes requests.
pub(super) fn say_way_in(screen: &Screen, url: &str, dag: &str, source: &str) {
    let fields = Fields {
        dag: Some(dag),
        source: Some(source),
        ..Fields::default()
    };
    let [dag, source] = [dag, source].map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC));
    let text = format!("requests are taken at {url}/hooks/{dag}/{source}");
    screen.say(&fields, &text);
}

/// Lets what was read settle while grace lasts, and leaves the last word standing.
pub(super) fn drain(
    engine: &Handle,
    grace: Duration,
    screen: &Screen,
) -> Result<Drained, EngineError> {
    let in_flight = |view: &EngineView| view.runs.iter().map(|run| run.in_flight).sum::<u64>();
    let waited_for = in_flight(&engine.view());
    if waited_for > 0 {
        screen.news(&format!(
            "draining: {waited_for} in flight, {grace:?} at most; a second signal ends it at once"
        ));
    }
    let drained = engine.drain(grace);
    let view = engine.view();
    screen.news(&progress::line(&view));
    screen.keep();
    if let Ok(Drained::CutOff) = drained {
        let cut = in_flight(&view);
        let text = match cut {
            1 => "grace is over: 1 event was in flight and runs at the next start".to_owned(),
            _ => format!("grace is over: {cut} events were in flight and run at the next start"),
        };
        screen.lines(Level::Warning, &Fields::default(), "", text.as_bytes());
    }
    drained
}

/// Says that what this engine keeps will be root's, in a place where another user is at home.
pub(super) fn warn_of_root(screen: &Screen, data_dir: &Path) {
    let owner = std::fs::metadata(data_dir).map(|found| found.uid());
    if let Ok(owner) = owner
        && owner != 0
        && rustix::process::geteuid().is_root()
    {
        let text = format!(
            "{} belongs to the user {owner}, and root runs this engine: logs and bundles will be root's, and an engine \
             of that user cannot write there. Run it as that user: `setpriv --reuid {owner} --clear-groups evermill ...`",
            data_dir.display()
        );
        screen.tell(Level::Warning, &Fields::default(), &text);
    }
}

/// Takes the data directory for this process alone. A command that only looks gives it back soon.
pub(super) fn lock(config: &Config) -> Result<DirLock, Failure> {
    let deadline = Instant::now() + BORROWED;
    loop {
        let held = match DirLock::take(&config.data_dir) {
            Ok(lock) => return Ok(lock),
            Err(held @ LockError::Held { .. }) => held.to_string(),
            Err(error @ LockError::Io { .. }) => return Err(Failure::failed(error.to_string())),
        };
        if control::is_answered(&config.data_dir) {
            return Err(Failure::locked(format!(
                "{held}: an engine runs there. What it runs shows `evermill ps`. A server takes DAGs from its folder: \
                 put the file there, then `evermill start DAG`. To run beside it, give this one a place of \
                 its own: --data-dir DIR"
            )));
        }
        if Instant::now() >= deadline {
            return Err(Failure::locked(held));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Opens an engine that says what it has to say on `screen`, and hands `log` what tasks print.
pub(super) fn open(
    config: Config,
    vault: Arc<Vault>,
    lock: DirLock,
    workers: Workers,
    screen: &Arc<Screen>,
    log: LogSink,
) -> Result<Handle, Failure> {
    let data_dir = std::path::absolute(lock.dir())
        .map_err(|error| Failure::failed(format!("{}: {error}", lock.dir().display())))?;
    let notices = notices(screen);
    let slots = config.pools.clone();
    let hooks = config::hooks(&config.alerts, &vault)?;
    let settings: Arc<dyn Settings> = Arc::clone(&vault) as Arc<dyn Settings>;
    let told = evermill_engine::diagnostics(&settings, &notices);
    let hooks = Hooks::start(hooks, &told);
    let hooks = hooks.map_err(|refused| Failure::usage(refused.to_string()))?;
    let traces = tracer(&config, &vault, &told)?;
    let of_workers = Arc::clone(&settings);
    let handle = Engine::open(OpenOptions {
        data_dir,
        store: store::factory(lock, config.retain),
        executor: Box::new(move |events| workers.start(of_workers, told, events)),
        sources: sources::factory(Arc::clone(&settings)),
        settings,
        pools: slots,
        clock: Clock::system(),
        log,
        retain_logs: config.retain_logs.0,
        notices,
        alerts: Arc::new(hooks),
        traces,
    });
    handle.map_err(|error| match error {
        OpenError::Lock(LockError::Held { .. }) => Failure::locked(error.to_string()),
        error => Failure::failed(error.to_string()),
    })
}

/// Tells the collector that somebody named, if somebody did.
fn tracer(
    config: &Config,
    vault: &Vault,
    notices: &DiagnosticSink,
) -> Result<Option<Arc<dyn TraceTaker>>, Failure> {
    let Some(traces) = &config.traces else {
        return Ok(None);
    };
    let exporter = Exporter::start(traces.read(vault)?, notices);
    let wrong = |refused| Failure::usage(format!("{}: {refused}", traces.from));
    Ok(Some(Arc::new(exporter.map_err(wrong)?)))
}

/// Shows every line of a task's output as it comes.
pub(super) fn log_lines(screen: &Arc<Screen>, with_dag: bool) -> LogSink {
    let screen = Arc::clone(screen);
    Box::new(move |line: LogLine| {
        let (level, stream) = level(line.origin);
        let fields = Fields {
            dag: line.dag.as_deref(),
            run: line.run.as_deref(),
            lane: line.lane.as_deref(),
            task: line.task.as_deref(),
            position: line.position,
            try_number: (line.try_number > 0).then_some(line.try_number),
            worker: line.worker,
            stream,
            ..Fields::default()
        };
        let prefix = task_prefix(&line, with_dag);
        if stream.is_none() || !screen.is_json() {
            return screen.printed(level, &fields, &prefix, &line.text);
        }
        // What was printed comes in pieces of several lines; a record of `logging` is one of its own.
        let text = line.text.strip_suffix(b"\n").unwrap_or(&line.text);
        for text in text.split(|byte| *byte == b'\n') {
            screen.printed(level, &fields, &prefix, text);
        }
    })
}

/// What runs the tasks of some files.
pub(super) struct Workers {
    /// Per interpreter, with the ids of its DAGs.
    python: Vec<(PoolConfig, Vec<String>)>,
    /// No slots unless a file is in YAML.
    declared: DeclaredConfig,
    /// Some task gives its value to a place outside.
    has_sinks: bool,
    /// Some sensor asks a place outside.
    has_places: bool,
    /// What a pool of an interpreter is like that is met later.
    grows: Option<PoolConfig>,

    /// In place of those places.
    sinks: Option<Sinks>,
}

impl Workers {
    /// For DAGs that come and go: of each kind as many as there are processors unless somebody says.
    pub(super) fn for_any(workers: Option<u16>, sdk: &Path) -> Self {
        let workers = workers.unwrap_or_else(cores);
        let mut usual = PoolConfig::new(python::interpreter(None), workers);
        usual.sdk = Some(sdk.to_owned());
        Self {
            python: vec![(usual.clone(), Vec::new())],
            declared: DeclaredConfig {
                shell_slots: workers,
                grows: true,
                ..DeclaredConfig::default()
            },
            has_sinks: true,
            has_places: true,
            sinks: None,
            grows: Some(usual),
        }
    }

    /// Those of a shadow: nothing is given to places outside but to `sinks`, no request is made but
    /// `shadow` hears of it, and commands and tasks in Python can tell.
    pub(super) fn in_shadow(mut self, sinks: Sinks, shadow: Shadow) -> Self {
        for (pool, _) in &mut self.python {
            pool.env.push(("EVERMILL_SHADOW".into(), "1".into()));
        }
        self.declared.shadow = Some(shadow);
        self.without_sending(sinks)
    }

    /// What tasks send goes to `sinks`, and to no place outside.
    pub(super) fn without_sending(mut self, sinks: Sinks) -> Self {
        self.sinks = Some(sinks);
        self
    }

    pub(super) fn start(
        self,
        settings: Arc<dyn Settings>,
        notices: DiagnosticSink,
        events: Events,
    ) -> Result<Box<dyn Executor>, String> {
        let addresses = Arc::clone(&settings);
        let sinks = self.sinks.clone();
        let sinks = self.has_sinks.then(|| {
            sinks.unwrap_or_else(|| {
                Sinks::new(move |config| {
                    sources::with_addresses(&*addresses, |address| {
                        evermill_connectors::open_sink(config, address, Arc::clone(&notices))
                    })
                })
            })
        });
        let addresses = Arc::clone(&settings);
        let places = self.has_places.then(|| {
            Places::new(move |config| {
                sources::with_addresses(&*addresses, |address| {
                    evermill_connectors::open_place(config, address)
                })
            })
        });
        let declared = DeclaredConfig {
            settings,
            sinks,
            places,
            ..self.declared
        };
        let pools = Pools::start(self.python, declared, events)?;
        Ok(match self.grows {
            Some(template) => Box::new(pools.growing(Growth {
                template,
                interpreter: Box::new(python::interpreter),
            })),
            None => Box::new(pools),
        })
    }
}

/// Workers for the tasks of these files: of each kind as many as there are processors unless
/// somebody says.
pub(super) fn pools(workers: Option<u16>, files: &Files, sdk: &Path) -> Workers {
    let workers = workers.unwrap_or_else(cores);
    let pool = |(interpreter, dags)| {
        let mut pool = PoolConfig::new(interpreter, workers);
        pool.sdk = Some(sdk.to_owned());
        (pool, dags)
    };
    Workers {
        python: files.interpreters().into_iter().map(pool).collect(),
        has_sinks: files.have_sinks(),
        has_places: files.have_places(),
        grows: None,
        sinks: None,
        declared: DeclaredConfig {
            shell_slots: if files.have_commands() { workers } else { 0 },
            requests: files.http_tasks(),
            ..DeclaredConfig::default()
        },
    }
}

fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(u16::MAX)
}

/// Where the engine's notices go.
pub(super) fn notices(screen: &Arc<Screen>) -> NoticeSink {
    let screen = Arc::clone(screen);
    Arc::new(move |notice: &Notice<'_>| {
        let level = match notice.severity {
            Severity::Debug => Level::Debug,
            Severity::Info => Level::Info,
            Severity::Warning => Level::Warning,
            Severity::Error => Level::Error,
        };
        let subject = notice.subject;
        let fields = Fields {
            dag: subject.dag.as_deref(),
            run: subject.run.as_deref(),
            source: subject.source.as_deref(),
            lane: subject.lane.as_deref(),
            task: subject.task.as_deref(),
            position: subject.position,
            try_number: subject.try_number,
            ..Fields::default()
        };
        screen.tell(level, &fields, notice.text);
    })
}

/// What a line of a task's output belongs to, and how grave it is: `load orders/3@1207: warning: `.
pub(super) fn task_prefix(line: &LogLine, with_dag: bool) -> String {
    let Some(task) = &line.task else {
        return "worker: ".to_owned();
    };
    let dag = line.dag.as_ref().filter(|_| with_dag);
    let dag = dag.map_or_else(String::new, |dag| format!("{dag}."));
    let level = match level(line.origin) {
        (Level::Info, _) => String::new(),
        (level, _) => format!("{level}: "),
    };
    match (&line.lane, line.position) {
        (Some(lane), Some(position)) => format!("{dag}{task} {lane}@{position}: {level}"),
        _ => format!("{dag}{task}: {level}"),
    }
}

/// How grave a line of a task is, by the levels of Python's `logging`, whose numbers are 10 apart, and the stream
/// of what was printed.
const fn level(origin: LogOrigin) -> (Level, Option<&'static str>) {
    match origin {
        LogOrigin::Logging(50..) => (Level::Critical, None),
        LogOrigin::Logging(40..) => (Level::Error, None),
        LogOrigin::Logging(30..) => (Level::Warning, None),
        LogOrigin::Logging(..20) => (Level::Debug, None),
        LogOrigin::Logging(_) => (Level::Info, None),
        LogOrigin::Stdout => (Level::Info, Some("stdout")),
        LogOrigin::Stderr => (Level::Info, Some("stderr")),
        LogOrigin::Descriptor => (Level::Info, Some("fd")),
    }
}

/// Starts every DAG. One without source or schedule gets its one activation, unless an earlier
/// process gave it already.
fn start_all(args: &Args, engine: &Handle, files: &Files, screen: &Screen) -> Result<(), Failure> {
    let view = engine.view();
    let is_known = |id: &str| view.runs.iter().any(|run| run.dag == id);
    for (dag, source, text) in files.unheard(is_known) {
        let fields = Fields {
            dag: Some(&dag),
            source: Some(&source),
            ..Fields::default()
        };
        screen.tell(Level::Warning, &fields, &text);
    }
    for (request, dag) in files.requests(args.fresh, args.pass_gaps) {
        let started = engine
            .start(&request)
            .map_err(|error| Files::explain(&error))?;
        mention_pause(args, engine, (&dag.id, &started.run), screen)?;
        if dag.sources.is_empty() {
            engine
                .trigger_once(&started.run)
                .map_err(|error| Files::explain(&error))?;
        }
    }
    Ok(())
}

/// A pause lasts over restarts, and nobody likes to wonder why nothing happens.
fn mention_pause(
    args: &Args,
    engine: &Handle,
    (dag, run): (&str, &str),
    screen: &Screen,
) -> Result<(), Failure> {
    let view = engine.fresh_view().unwrap_or_else(|_| engine.view());
    if view.run(run).is_none_or(|run| run.state != "paused") {
        return Ok(());
    }
    if args.until_idle.is_some() {
        return Err(Failure::usage(format!(
            "run '{run}' is paused and would never be idle; first `evermill resume {run}`"
        )));
    }
    let fields = Fields {
        dag: Some(dag),
        run: Some(run),
        ..Fields::default()
    };
    let text = format!("run '{run}' is paused: nothing is started until `evermill resume {run}`");
    screen.lines(Level::Warning, &fields, "", text.as_bytes());
    Ok(())
}

/// Shows progress until it is time to end.
fn wait(
    args: &Args,
    engine: &Handle,
    signalled: &Receiver<()>,
    screen: &Screen,
) -> Result<(), Failure> {
    let idle = idle(engine.clone(), args.until_idle.unwrap_or(FOR_EVER), None)?;
    let status = tick(STATUS_EVERY[usize::from(!screen.is_terminal())]);
    let begun = Instant::now();
    loop {
        select! {
            recv(signalled) -> _ => return Ok(()),
            recv(idle) -> end => return match end {
                Ok(Idle::Reached | Idle::Ended) => Ok(()),
                _ => Err(Failure::failed("the engine has stopped by itself; see above")),
            },
            recv(status) -> _ => {
                let view = engine.view();
                screen.status(&progress::line(&view));
                if args.until_idle.is_some() && begun.elapsed() > SERVICE_PATIENCE {
                    give_up_on_services(&view)?;
                }
            }
        }
    }
}

/// Waits for idleness, or for the end of every run, on a thread of its own.
pub(super) fn idle(
    engine: Handle,
    quiet: Duration,
    timeout: Option<Duration>,
) -> Result<Receiver<Idle>, Failure> {
    let (tell, told) = bounded(1);
    let wait = move || drop(tell.send(engine.wait_idle(quiet, timeout)));
    let thread = std::thread::Builder::new().name("idle".into()).spawn(wait);
    thread.map_err(|error| Failure::failed(format!("no thread: {error}")))?;
    Ok(told)
}

/// Who waits for the end of the input must hear that the input cannot be had.
fn give_up_on_services(view: &EngineView) -> Result<(), Failure> {
    let sources = view.runs.iter().flat_map(|run| &run.sources);
    let away = sources.filter(|source| !source.ready);
    let reasons: Vec<_> = away
        .filter_map(|source| Some((&source.id, source.degraded.as_ref()?)))
        .collect();
    let Some((id, reason)) = reasons.first() else {
        return Ok(());
    };
    Err(Failure::unreachable(format!("source '{id}': {reason}")))
}

/// One JSON line per run on standard output.
pub(super) fn print_lines(view: &EngineView) {
    let mut out = io::stdout().lock();
    for run in &view.runs {
        let line = serde_json::to_string(run).expect("a view has string keys only");
        if writeln!(out, "{line}").is_err() {
            // Whoever read them has left, as `head` does.
            return;
        }
    }
}

/// Exit code 1 when something failed or parked, a source gave up, or a partition stands still.
pub(super) fn verdict(view: &EngineView) -> Result<(), Failure> {
    let bad = view
        .runs
        .iter()
        .filter(|run| run.state == "failed" || run.parked > 0);
    let said = bad.map(|run| match run.parked {
        0 => format!("{}: the run failed", run.dag),
        parked => format!("{}: {parked} parked after failure", run.dag),
    });
    let sources = || view.runs.iter().flat_map(|run| &run.sources);
    let gave_up = sources().filter_map(|source| {
        let why = source.ended.as_ref()?;
        Some(format!("source '{}' has ended: {why}", source.id))
    });
    let lanes = sources().flat_map(|source| &source.lanes);
    let stopped = lanes.filter_map(|lane| lane.stopped.clone());
    let said: Vec<_> = said.chain(gave_up).chain(stopped).collect();
    if said.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(said.join("\n")))
    }
}
