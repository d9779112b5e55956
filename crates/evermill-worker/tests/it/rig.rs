//! A pool, a DAG file with one task per case, and the events as they come.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use evermill_contract::identity::{IdKind, LaneIdentity};
use evermill_contract::worker::{
    Death, Dispatch, Event, Executor as _, LaneRef, Member, OrderMode, Outcome, OutcomeRun, Range,
    Slot, TaskRef, Token, WorkerEvent,
};
use evermill_worker::{PoolConfig, PythonPool};

/// The longest that anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Rig {
    pub(crate) pool: PythonPool,
    pub(crate) events: Receiver<WorkerEvent>,
    pub(crate) folder: tempfile::TempDir,
    next_token: u64,
}

pub(crate) fn python() -> PathBuf {
    std::env::var_os("EVERMILL_TEST_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

pub(crate) fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python")
}

pub(crate) fn config(slots: u16) -> PoolConfig {
    let mut config = PoolConfig::new(python(), slots);
    config.sdk = Some(sdk());
    config.kill_grace = Duration::from_millis(200);
    config
}

/// Waits for a condition outside of our events.
pub(crate) fn wait_for<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Rig {
    pub(crate) fn new(slots: u16) -> Self {
        Self::with(config(slots))
    }

    pub(crate) fn with(config: PoolConfig) -> Self {
        let mut rig = Self::cold(config);
        for slot in 0..rig.pool.slots() {
            rig.until(|event| matches!(event, WorkerEvent::Ready { .. }).then_some(slot));
        }
        rig
    }

    /// Without waiting for workers.
    pub(crate) fn cold(config: PoolConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cases.py"), include_str!("cases.py")).unwrap();
        let (to, events) = bounded(1024);
        let deliver = move |event| {
            // A rig that is dropped no longer listens.
            if to.send(event).is_err() {}
        };
        let pool = PythonPool::start(config, Box::new(deliver)).unwrap();
        Self {
            pool,
            events,
            folder,
            next_token: 0,
        }
    }

    pub(crate) fn entry(&self) -> String {
        self.folder
            .path()
            .join("cases.py")
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token << 32)
    }

    /// Members whose values are their index as JSON, and whose keys are `k` and index modulo 3.
    pub(crate) fn members(&mut self, task: &str, count: u32) -> Dispatch {
        let values: Vec<Vec<u8>> = (0..count)
            .map(|index| index.to_string().into_bytes())
            .collect();
        self.values(task, &values)
    }

    pub(crate) fn values(&mut self, task: &str, values: &[Vec<u8>]) -> Dispatch {
        let mut buffer = Vec::new();
        let mut members = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let key = format!("k{}", index % 3).into_bytes();
            let mut place = |part: &[u8]| {
                let start = u32::try_from(buffer.len()).unwrap();
                buffer.extend_from_slice(part);
                Some(Range {
                    buffer: 0,
                    start,
                    len: u32::try_from(part.len()).unwrap(),
                })
            };
            members.push(Member {
                event: Event {
                    lane: 0,
                    position: 1000 + index as u64,
                    id: None,
                    timestamp_ms: Some(1_700_000_000_000),
                    key: place(&key),
                    value: place(value),
                    headers: None,
                },
                has_event: true,
                batch: None,
                joined: None,
                try_number: 1,
                map_index: -1,
                scope: u32::try_from(index % 3).unwrap() + 1,
                state: None,
            });
        }
        Dispatch {
            token: self.token(),
            task: TaskRef {
                entry: self.entry(),
                folder: None,
                dag: "cases".into(),
                run: "cases-1".into(),
                task: task.into(),
                sink: None,
                polls: None,
            },
            order: OrderMode::Independent,
            vectorised: false,
            // Long enough that a slow machine returns no tail where a test expects none.
            slice: PATIENCE,
            timeout: None,
            cwd: None,
            nice: 0,
            traced: false,
            lanes: vec![LaneRef {
                identity: Bytes::copy_from_slice(
                    LaneIdentity::new("cases-1", "kafka", "t-1/0").as_bytes(),
                ),
                kind: IdKind::Position,
                generation: 0,
                source: "kafka".into(),
                lane: "t/0".into(),
            }],
            upstream: Vec::new(),
            members,
            events: Vec::new(),
            results: Vec::new(),
            buffers: vec![buffer.into()],
        }
    }

    /// Waits for the first event that `wanted` takes; those before it are dropped.
    pub(crate) fn until<T>(&mut self, mut wanted: impl FnMut(&WorkerEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let Ok(event) = self.events.recv_deadline(deadline) else {
                for event in &seen {
                    eprintln!("{event:?}");
                }
                panic!("the event did not come; seen were the {} above", seen.len());
            };
            if let Some(found) = wanted(&event) {
                return found;
            }
            seen.push(event);
        }
    }

    /// A process id that a case noted beside its file.
    pub(crate) fn noted(&self, name: &str) -> u32 {
        let path = self.folder.path().join(name);
        wait_for(name, || {
            std::fs::read_to_string(&path)
                .ok()?
                .strip_suffix('.')?
                .parse()
                .ok()
        })
    }

    /// Runs a dispatch in slot 0 to its end.
    pub(crate) fn run(&mut self, dispatch: Dispatch) -> Report {
        let token = dispatch.token;
        self.pool.dispatch(Slot(0), dispatch);
        self.report(token)
    }

    pub(crate) fn report(&mut self, token: Token) -> Report {
        let [report] = self.reports([token]);
        report
    }

    /// All that is heard of some dispatches, until each is over.
    pub(crate) fn reports<const N: usize>(&mut self, tokens: [Token; N]) -> [Report; N] {
        let mut reports = std::array::from_fn(|_| Report::default());
        self.until(|event| {
            let each = tokens.iter().zip(&mut reports);
            each.for_each(|(token, report)| report.take(*token, event));
            reports.iter().all(Report::over).then_some(())
        });
        reports
    }
}

/// All that was heard of one dispatch.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: Vec<OutcomeRun>,
    pub(crate) tail: Option<u32>,
    /// The first member that came back before the end.
    pub(crate) end: Option<u32>,
    pub(crate) death: Option<(Death, Option<u32>, u32)>,
    pub(crate) log: Vec<(Option<u32>, String)>,
    pub(crate) log_bytes: usize,
}

impl Report {
    fn take(&mut self, of: Token, event: &WorkerEvent) {
        match event {
            WorkerEvent::Outcomes { token, runs, .. } if *token == of => {
                self.runs.extend_from_slice(runs)
            }
            WorkerEvent::Finished { token, tail, .. } if *token == of => self.tail = Some(*tail),
            WorkerEvent::Returned { token, from, .. } if *token == of => self.end = Some(*from),
            WorkerEvent::Died {
                token,
                cause,
                started,
                reported,
                ..
            } if *token == Some(of) => {
                self.death = Some((cause.clone(), *started, *reported));
            }
            WorkerEvent::Log { member, text, .. } => {
                self.log_bytes += text.len();
                if self.log.len() < 100 {
                    self.log
                        .push((*member, String::from_utf8_lossy(text).into_owned()));
                }
            }
            _ => {}
        }
    }

    fn over(&self) -> bool {
        self.tail.is_some() || self.death.is_some()
    }

    /// The outcome of each member, runs spread out.
    pub(crate) fn outcomes(&self) -> Vec<(u32, &Outcome)> {
        self.runs
            .iter()
            .flat_map(|run| (run.first..run.first + run.count).map(move |m| (m, &run.outcome)))
            .collect()
    }

    /// One letter a member: `.` success, `F` failed, `S` skipped, `H` held, `W` waiting.
    pub(crate) fn letters(&self) -> String {
        let letter = |(_, outcome): &(u32, &Outcome)| match outcome {
            Outcome::Success(_) => '.',
            Outcome::Failed(_) => 'F',
            Outcome::Skipped => 'S',
            Outcome::Held => 'H',
            Outcome::Waiting(_) => 'W',
        };
        self.outcomes().iter().map(letter).collect()
    }

    pub(crate) fn error(&self, member: u32) -> &evermill_contract::worker::TaskError {
        match self
            .outcomes()
            .into_iter()
            .find(|(index, _)| *index == member)
        {
            Some((_, Outcome::Failed(error))) => error,
            other => panic!("member {member} did not fail: {other:?} in {self:?}"),
        }
    }

    pub(crate) fn result(&self, member: u32) -> String {
        match self
            .outcomes()
            .into_iter()
            .find(|(index, _)| *index == member)
        {
            Some((_, Outcome::Success(Some(success)))) => {
                String::from_utf8(success.result.clone().unwrap_or_default().to_vec()).unwrap()
            }
            other => panic!("member {member} has no result: {other:?} in {self:?}"),
        }
    }
}
