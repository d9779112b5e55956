//! Who asks over TCP, and what he may do.
//!
//! As long as there is no file of tokens, whoever reaches our loopback is the owner, and only loopback is
//! listened on. With the file everybody shows a token, or the cookie of a session that was begun with one.
//! The file is looked at with every request, so that a token that was revoked is worth nothing at once.

mod rates;
mod tokens;
mod used;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sha2::{Digest as _, Sha256};

pub(crate) use self::rates::Rate;
use self::rates::Rates;
pub use self::tokens::{Token, TokenFault, Tokens, Wanted};
use crate::limits;
use crate::problem::Problem;
use crate::serve::Head;
use crate::table::Role;

/// The cookie of a session.
pub(crate) const COOKIE: &str = "evermill_session";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// For the record.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// DAGs that he may see and touch; `None`: all.
    pub dags: Option<Arc<BTreeSet<String>>>,
    /// The id of his token.
    pub(crate) token: Option<String>,
    /// What his session is kept under, if he shows a cookie in place of the token.
    session: Option<SessionKey>,
}

/// The hash of a cookie.
type SessionKey = [u8; 32];

impl Who {
    /// Whoever may read and write the data directory.
    #[must_use]
    pub fn owner(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            role: Role::Admin,
            dags: None,
            token: None,
            session: None,
        }
    }

    pub(crate) fn guest() -> Self {
        Self {
            role: Role::Guest,
            ..Self::owner("nobody")
        }
    }

    fn of(token: &Token) -> Self {
        Self {
            name: token.name.clone(),
            role: token.role,
            dags: token.dags.clone().map(Arc::new),
            token: Some(token.id.clone()),
            session: None,
        }
    }

    /// Whether he may see and touch this DAG.
    #[must_use]
    pub fn may_see(&self, dag: &str) -> bool {
        self.dags.as_ref().is_none_or(|dags| dags.contains(dag))
    }
}

/// Judges requests over TCP.
pub(crate) struct Access {
    tokens: Tokens,
    /// We can be reached from elsewhere.
    exposed: bool,
    sessions: Mutex<BTreeMap<SessionKey, Session>>,
    /// Wrong tokens, by address.
    failures: Rates,
    /// Requests of somebody who is known, by token.
    known: Rates,
    /// Requests of others, by address.
    strangers: Rates,
    /// Requests to sources, by address. Apart from those of tokens: nobody who sends from many addresses takes
    /// the room of somebody who is known.
    pushes: Rates,
}

struct Session {
    token: String,
    begun: Instant,
}

impl Access {
    pub(crate) fn new(data_dir: &Path, exposed: bool) -> Self {
        Self {
            tokens: Tokens::at(data_dir),
            exposed,
            sessions: Mutex::default(),
            failures: Rates::new(limits::FAILURES_PER_MINUTE),
            known: Rates::new(limits::REQUESTS_PER_SECOND),
            strangers: Rates::new(limits::STRANGERS_PER_SECOND),
            pushes: Rates::new(limits::REQUESTS_PER_SECOND),
        }
    }

    /// Whether everybody has to show a token.
    pub(crate) fn is_required(&self) -> bool {
        self.exposed || self.tokens.are_used()
    }

    pub(crate) const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Who sends this.
    pub(crate) fn who(&self, head: &Head, from: IpAddr) -> Result<Who, Problem> {
        if !self.is_required() {
            return Ok(Who::owner("local"));
        }
        let found = match (bearer(head), cookie(head)) {
            (Some(secret), _) => self.find(secret).map(|token| Who::of(&token)),
            (None, Some(secret)) => self.of_session(secret),
            (None, None) => {
                let address = rates::network(from);
                self.strangers.take(&address).map_err(too_often)?;
                return Ok(Who::guest());
            }
        };
        let who = found.ok_or_else(|| self.wrong(from))?;
        let token = who.token.as_deref().unwrap_or_default();
        self.known.take(token).map_err(too_often)?;
        self.tokens.mark_used(token);
        Ok(who)
    }

    /// How many requests to sources one address may bring, when anybody can.
    pub(crate) fn may_push(&self, from: IpAddr) -> Result<(), Problem> {
        if !self.exposed {
            return Ok(());
        }
        self.pushes.take(&rates::network(from)).map_err(too_often)
    }

    fn find(&self, secret: &str) -> Option<Token> {
        self.tokens.find(&Sha256::digest(secret.as_bytes()).into())
    }

    /// Counts a wrong token. A good one is let in all the same: behind a proxy everybody has one address, and
    /// one who guesses must not shut out the others. 256 bits are not guessed, however often somebody tries.
    fn wrong(&self, from: IpAddr) -> Problem {
        match self.failures.take(&rates::network(from)) {
            Ok(()) => Problem::not_known(),
            Err(_) => too_often("too many wrong tokens came from here"),
        }
    }

    fn of_session(&self, secret: &str) -> Option<Who> {
        let key: SessionKey = Sha256::digest(secret.as_bytes()).into();
        let id = self.token_of(&key)?;
        let token = self.tokens.with_id(&id)?;
        Some(Who {
            session: Some(key),
            ..Who::of(&token)
        })
    }

    /// The token that a session was begun with, while it lasts.
    fn token_of(&self, key: &SessionKey) -> Option<String> {
        let mut sessions = self.sessions();
        let session = sessions.get(key)?;
        if session.begun.elapsed() >= limits::SESSION_TIME {
            sessions.remove(key);
            return None;
        }
        Some(session.token.clone())
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<SessionKey, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session: what its cookie holds, and whose it is.
    pub(crate) fn log_in(&self, secret: &str, from: IpAddr) -> Result<(String, Who), Problem> {
        let token = self.find(secret).ok_or_else(|| self.wrong(from))?;
        self.tokens.mark_used(&token.id);
        let no_luck = |_| Problem::new(503, "busy", "Not now", "there is no randomness");
        let cookie = tokens::random().map_err(no_luck)?;
        let mut sessions = self.sessions();
        if sessions.len() >= limits::SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.begun);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                sessions.remove(&oldest);
            }
        }
        let session = Session {
            token: token.id.clone(),
            begun: Instant::now(),
        };
        sessions.insert(Sha256::digest(cookie.as_bytes()).into(), session);
        Ok((cookie, Who::of(&token)))
    }

    /// Ends the session of a request, if it has one.
    pub(crate) fn log_out(&self, head: &Head) {
        if let Some(secret) = cookie(head) {
            let key: SessionKey = Sha256::digest(secret.as_bytes()).into();
            self.sessions().remove(&key);
        }
    }

    /// Whether somebody who is listening may go on.
    pub(crate) fn still(&self, who: &Who) -> bool {
        let has_session = |key: &SessionKey| self.token_of(key).is_some();
        match &who.token {
            Some(id) => {
                who.session.as_ref().is_none_or(has_session) && self.tokens.with_id(id).is_some()
            }
            None => !self.is_required(),
        }
    }
}

fn too_often(detail: &str) -> Problem {
    Problem::new(
        429,
        "too_often",
        "Too many requests",
        format!("{detail}; wait a moment"),
    )
}

fn bearer(head: &Head) -> Option<&str> {
    let (scheme, secret) = head.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// Whether a request is sent by virtue of a cookie: then a page may have sent it that nobody trusts.
pub(crate) fn is_by_cookie(head: &Head) -> bool {
    bearer(head).is_none() && cookie(head).is_some()
}

fn cookie(head: &Head) -> Option<&str> {
    let mut cookies = head.header("cookie")?.split(';');
    cookies.find_map(|one| {
        let (name, value) = one.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}
