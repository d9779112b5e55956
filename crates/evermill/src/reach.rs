//! Reaching what a data directory holds: through the engine that runs on it, else by taking its
//! lock. Both answer `/api/v1`, so a command need not know which it was.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_api::{Method, Problem, Request, Who, respond};
use evermill_engine::view::RunDetail;
use evermill_engine::{AtRest, Engine, SourceFactory, store_options};
use evermill_store::{DirLock, LockError, MemoryDisk, MemoryStore, SqliteStore, Store, StoreId};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::control;
use crate::failure::Failure;
use crate::on_record;
use crate::sources;
use crate::vault::Vault;

/// How long an engine may take from locking its directory to answering.
const STARTING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A data directory that answers.
pub(crate) struct Reach {
    data_dir: PathBuf,
    /// `None`: an engine runs.
    rest: Option<AtRest>,
}

impl Reach {
    /// Finds out who has the data directory. An engine that starts or ends is waited for.
    ///
    /// # Errors
    /// No such directory (2), its holder does not answer (4), the store cannot be read (1).
    pub(crate) fn open(data_dir: Option<PathBuf>) -> Result<Self, Failure> {
        Self::open_with(data_dir, &[])
    }

    /// The same, with connections through which sources can be looked at where no engine runs.
    ///
    /// # Errors
    /// As [`Reach::open`].
    pub(crate) fn open_with(
        data_dir: Option<PathBuf>,
        connections: &[String],
    ) -> Result<Self, Failure> {
        let config = Config::read(data_dir, connections)?;
        let data_dir = config.data_dir.clone();
        if !data_dir.is_dir() {
            return Err(Failure::usage(format!(
                "{}: there is no such data directory; `evermill run` makes it, --data-dir names another",
                data_dir.display()
            )));
        }
        let deadline = Instant::now() + STARTING;
        loop {
            let held = match DirLock::take(&data_dir) {
                Ok(lock) => return Self::at_rest(data_dir, lock, config),
                Err(held @ LockError::Held { .. }) => Failure::locked(held.to_string()),
                Err(error) => return Err(Failure::failed(error.to_string())),
            };
            match control::ask(&data_dir, &get("runs"), false) {
                Ok(_) => {
                    return Ok(Self {
                        data_dir,
                        rest: None,
                    });
                }
                Err(error) if not_there(&error) && Instant::now() < deadline => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(error) if not_there(&error) => return Err(held),
                Err(error) => return Err(silent(&error)),
            }
        }
    }

    /// Opens the store without leaving a trace, unless something is changed.
    fn at_rest(data_dir: PathBuf, lock: DirLock, config: Config) -> Result<Self, Failure> {
        let refused = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
        let store: Box<dyn Store> = if data_dir.join(SqliteStore::FILE).exists() {
            let store = SqliteStore::open(lock, store_options());
            Box::new(store.map_err(|error| refused(&error))?)
        } else {
            Box::new(MemoryStore::open(&MemoryDisk::new(StoreId([0; 16]))))
        };
        let rest = Engine::at_rest(&data_dir, store).map_err(|error| refused(&error))?;
        let pools = config.pools.clone();
        Ok(Self {
            data_dir,
            rest: Some(rest.with_pools(pools).with_sources(when_needed(config))),
        })
    }

    /// Whether an engine runs on it.
    pub(crate) const fn is_live(&self) -> bool {
        self.rest.is_none()
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// What the other side says: 2 for what does not exist, else 1.
    pub(crate) fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        self.ask_for(request, false)
    }

    /// Asks for what may take minutes.
    ///
    /// # Errors
    /// As [`Reach::ask`].
    pub(crate) fn ask_long<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        self.ask_for(request, true)
    }

    fn ask_for<T: DeserializeOwned>(
        &self,
        request: &Request,
        takes_long: bool,
    ) -> Result<T, Failure> {
        let (status, body) = match &self.rest {
            Some(rest) => {
                let response = respond(rest, request);
                if request.method != Method::Get {
                    let (method, target) = (request.method.name(), &request.target);
                    on_record::add_with(&self.data_dir, method, target, response.status);
                }
                (response.status, response.body)
            }
            None => {
                control::ask(&self.data_dir, request, takes_long).map_err(|error| silent(&error))?
            }
        };
        if status == 200 {
            return serde_json::from_slice(&body).map_err(|error| {
                Failure::failed(format!("the engine's answer is not understood: {error}"))
            });
        }
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if matches!(status, 400 | 404) => Failure::usage(problem.detail),
            Ok(problem) => Failure::failed(problem.detail),
            Err(_) => Failure::failed(format!("the engine answered with status {status}")),
        })
    }

    /// One run.
    ///
    /// # Errors
    /// As [`Reach::ask`].
    pub(crate) fn run(&self, run: &str) -> Result<RunDetail, Failure> {
        self.ask(&get(&format!("runs/{}", part(run))))
    }

    /// Lets go of the store, if it was opened.
    ///
    /// # Errors
    /// When it cannot be closed.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let closed = self.rest.map_or(Ok(()), AtRest::close);
        closed.map_err(|error| Failure::failed(error.to_string()))
    }
}

/// A question for what lies at a path below `/api/v1/`.
pub(crate) fn get(path: &str) -> Request {
    request(Method::Get, path, Bytes::new())
}

/// Anything else that can be asked.
pub(crate) fn request(method: Method, path: &str, body: Bytes) -> Request {
    Request {
        method,
        target: format!("/api/v1/{path}"),
        body,
        who: Who::owner("owner"),
        if_match: None,
        idempotency_key: None,
    }
}

/// A name as a part of a path.
pub(crate) fn part(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn not_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn silent(error: &io::Error) -> Failure {
    if matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ) {
        return Failure::failed(
            "the engine has not answered for 30 s; what was asked may still be done. `evermill ps` \
             says whether it can write",
        );
    }
    Failure::failed(format!("the engine does not answer: {error}"))
}

/// Sources for who asks for one: most commands ask for none, and work without the key of the secrets.
fn when_needed(config: Config) -> SourceFactory {
    Arc::new(move |request| {
        let vault = Vault::open(&config).map_err(|failure| failure.to_string())?;
        sources::factory(Arc::new(vault))(request)
    })
}
