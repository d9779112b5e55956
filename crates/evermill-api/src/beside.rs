//! What a server knows beside its engine: connections, tokens, and the record of who changed what.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::{Access, Token, TokenFault, Wanted};
use crate::audit::Audit;
use crate::problem::Problem;
use crate::routes::{etag, json};
use crate::table::{Answer, AuditPage, Call, Role, told, unchanged};

/// Where connections of an installation lead. Addresses go in and never come out: what is told of them hides
/// their secrets.
pub trait Connections: Send + Sync {
    /// Every connection that has an address.
    ///
    /// # Errors
    /// When what is kept cannot be read.
    fn list(&self) -> Result<Vec<ConnectionView>, ConnectionFault>;

    /// Keeps an address, sealed; it counts from the next time that somebody needs it.
    ///
    /// # Errors
    /// An id or an address that cannot be, or it cannot be written.
    fn set(&self, id: &str, address: &str) -> Result<(), ConnectionFault>;

    /// Forgets an address that was kept; whether there was one.
    ///
    /// # Errors
    /// When it cannot be written.
    fn forget(&self, id: &str) -> Result<bool, ConnectionFault>;

    /// Asks the place for a sign of life.
    ///
    /// # Errors
    /// There is no such connection.
    fn test(&self, id: &str) -> Result<Tested, ConnectionFault>;
}

/// Why something was not done to a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionFault {
    /// No such connection.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be so; with the cure.
    #[error("{0}")]
    Refused(String),
}

/// A connection, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ConnectionView {
    /// The id that tasks, sources and sinks use.
    pub id: String,
    /// Where it leads, without what is secret.
    pub address: String,
    /// Who says so: `--connection`, a variable, `evermill.toml`, or `connections set`.
    pub from: String,
    /// When an address was kept for it by `connections set` or over the API, milliseconds since the Unix
    /// epoch; null: none is kept. What `from` says otherwise goes first.
    pub set_ms: Option<u64>,
}

/// What a place said for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tested {
    /// Somebody answers there, and lets us in as far as that was looked at.
    pub well: bool,
    /// What was seen, or what is wrong; without secrets.
    pub said: String,
}

/// Where a connection is to lead.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Address {
    /// With its password, if it has one; it is never shown again.
    pub(crate) address: String,
}

/// A token, without what it is.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TokenView {
    /// Names it; no secret.
    id: String,
    /// Whose it is.
    name: String,
    /// What it is good for.
    role: Role,
    /// DAGs that it is good for; null: all.
    dags: Option<Vec<String>>,
    /// Milliseconds since the Unix epoch.
    created_ms: u64,
    /// When it ends, likewise; null: never.
    expires_ms: Option<u64>,
    /// It has ended.
    expired: bool,
    /// When it was used last, to the minute, milliseconds since the Unix epoch; null: never.
    last_used_ms: Option<u64>,
}

/// A token that is wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenWanted {
    /// Whose it will be, such as ci or anna; no other token has this name.
    name: String,
    /// `viewer`, `operator` or `admin`.
    // Written out: what is read shares no name with what is sent.
    #[schemars(with = "String", extend("enum" = ["viewer", "operator", "admin"]))]
    role: Role,
    /// DAGs that it will be good for; null: all.
    #[serde(default)]
    dags: Option<Vec<String>>,
    /// When it will end, milliseconds since the Unix epoch; null: never.
    #[serde(default)]
    expires_ms: Option<u64>,
}

/// A token that was made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TokenMade {
    /// What is known of it.
    token: TokenView,
    /// The token itself: it is shown this once.
    secret: String,
}

/// See the module.
pub(crate) struct Beside<'a> {
    pub(crate) connections: Option<&'a dyn Connections>,
    pub(crate) access: &'a Access,
    pub(crate) audit: &'a Audit,
}

impl From<ConnectionFault> for Problem {
    fn from(fault: ConnectionFault) -> Self {
        let (status, code, title) = match fault {
            ConnectionFault::Unknown(_) => (404, "unknown_connection", "No such connection"),
            ConnectionFault::Refused(_) => (409, "refused", "It cannot be so"),
        };
        Self::new(status, code, title, fault.to_string())
    }
}

impl From<TokenFault> for Problem {
    fn from(fault: TokenFault) -> Self {
        let (status, code, title) = match &fault {
            TokenFault::Unknown(_) => (404, "unknown_token", "No such token"),
            TokenFault::Taken(_) => (409, "taken", "The name is taken"),
            _ => (409, "refused", "The tokens cannot be changed"),
        };
        Self::new(status, code, title, fault.to_string())
    }
}

impl TokenView {
    fn of(token: Token, used: &BTreeMap<String, u64>) -> Self {
        Self {
            expired: token.is_over(),
            last_used_ms: used.get(&token.id).copied(),
            id: token.id,
            name: token.name,
            role: token.role,
            dags: token.dags.map(|dags| dags.into_iter().collect()),
            created_ms: token.created_ms,
            expires_ms: token.expires_ms,
        }
    }
}

fn connections<'a>(call: &Call<'a>) -> Result<&'a dyn Connections, Problem> {
    let beside = call.beside()?;
    beside.connections.ok_or_else(|| {
        let detail = "this server has no connections of its own";
        Problem::new(409, "refused", "There are no connections", detail)
    })
}

fn connection(call: &Call<'_>) -> Result<ConnectionView, Problem> {
    let id = call.part(0);
    let found = connections(call)?
        .list()?
        .into_iter()
        .find(|one| one.id == id);
    found.ok_or_else(|| {
        ConnectionFault::Unknown(format!("no connection '{id}' has an address")).into()
    })
}

pub(crate) fn list_connections(call: &Call<'_>) -> Result<Answer, Problem> {
    told(&connections(call)?.list()?)
}

pub(crate) fn get_connection(call: &Call<'_>) -> Result<Answer, Problem> {
    let body = json(&connection(call)?);
    Ok(Answer {
        tag: Some(etag(&body)),
        body,
    })
}

pub(crate) fn put_connection(call: &Call<'_>) -> Result<Answer, Problem> {
    let Address { address } = crate::reading::read_wanted(call.body())?;
    let _one = crate::table::one_at_a_time();
    if call.request.if_match.is_some() {
        unchanged(call, &etag(&json(&connection(call)?)))?;
    }
    connections(call)?.set(call.part(0), &address)?;
    told(&connections(call)?.list()?)
}

pub(crate) fn delete_connection(call: &Call<'_>) -> Result<Answer, Problem> {
    let id = call.part(0);
    let _one = crate::table::one_at_a_time();
    if call.request.if_match.is_some() {
        unchanged(call, &etag(&json(&connection(call)?)))?;
    }
    if !connections(call)?.forget(id)? {
        let detail = format!("no address is kept for the connection '{id}'");
        return Err(ConnectionFault::Unknown(detail).into());
    }
    told(&connections(call)?.list()?)
}

pub(crate) fn test_connection(call: &Call<'_>) -> Result<Answer, Problem> {
    told(&connections(call)?.test(call.part(0))?)
}

fn tokens(call: &Call<'_>) -> Result<Vec<TokenView>, Problem> {
    let tokens = call.beside()?.access.tokens();
    let used = tokens.last_used();
    let view = |token| TokenView::of(token, &used);
    Ok(tokens.list()?.into_iter().map(view).collect())
}

pub(crate) fn list_tokens(call: &Call<'_>) -> Result<Answer, Problem> {
    told(&tokens(call)?)
}

pub(crate) fn create_token(call: &Call<'_>) -> Result<Answer, Problem> {
    let wanted: TokenWanted = crate::reading::read_wanted(call.body())?;
    let name = wanted.name.trim();
    if name.is_empty()
        || name.len() > crate::limits::TOKEN_NAME_BYTES_MAX
        || name.contains(char::is_control)
    {
        let most = crate::limits::TOKEN_NAME_BYTES_MAX;
        let detail = format!(
            "name: {:?}: want a name such as ci or anna, of at most {most} bytes",
            wanted.name
        );
        return Err(Problem::bad_request(detail));
    }
    if wanted.role == Role::Guest {
        let detail = "role: guest: want viewer, operator or admin; who has no token is a guest";
        return Err(Problem::bad_request(detail));
    }
    let made = call.beside()?.access.tokens().create(Wanted {
        name: name.to_owned(),
        role: wanted.role,
        dags: wanted.dags.map(|dags| dags.into_iter().collect()),
        expires_ms: wanted.expires_ms,
    });
    let (token, secret) = made?;
    told(&TokenMade {
        token: TokenView::of(token, &BTreeMap::new()),
        secret,
    })
}

pub(crate) fn revoke_token(call: &Call<'_>) -> Result<Answer, Problem> {
    call.beside()?.access.tokens().revoke(call.part(0))?;
    told(&tokens(call)?)
}

/// A page of what is on record, newest first.
pub(crate) fn list_audit(call: &Call<'_>) -> Result<Answer, Problem> {
    let wanted = crate::reading::read_audit(call.query)?;
    let found = call.beside()?.audit.read().map_err(|cause| {
        let detail = format!("the record cannot be read: {}", cause.kind());
        Problem::new(409, "refused", "The record cannot be read", detail)
    })?;
    // Counted from the oldest, so that a page stays where it is while others are added.
    let mut newest = found.entries.into_iter().enumerate().rev();
    let mut page = AuditPage {
        entries: Vec::new(),
        broken: found.broken,
        next: None,
    };
    let is_before = |at: usize| wanted.before.is_none_or(|before| at < before);
    for (at, entry) in newest.by_ref().filter(|(at, _)| is_before(*at)) {
        if !wanted.sought.fits(&entry) {
            continue;
        }
        if page.entries.len() >= wanted.limit {
            page.next = Some(at + 1);
            break;
        }
        page.entries.push(entry);
    }
    told(&page)
}
