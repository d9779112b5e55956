//! Every resource under `/api/v1`, a row for each: how it is named, who may use it, what goes in and out,
//! what is done. Requests are answered by this table, the OpenAPI file is made of it, and access is decided
//! by it, so that no resource can be without one of these.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use evermill_engine::Alert;
use evermill_engine::view::{
    EngineView, ParkedFilter, ParkedPage, PastView, PoolView, ReplayView, RunDetail, RunView,
    VersionDiff, WaitPage,
};
use evermill_engine::{
    BackfillAsk, Checked, LOG_LEVELS, LeftView, LogPage, Operations, Order, ReplayAnswer,
    ReplayAsk, ReplayOrder, ResetAnswer, ResetAsk, Resolve, Started, SwitchOn,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::access::Who;
use crate::audit::Entry;
use crate::beside::Beside;
use crate::openapi;
use crate::problem::Problem;
use crate::reading::{
    LOG_ORDERS, cursor, number, read_attempts, read_conf, read_dry_run, read_lines, read_order,
    read_past, read_place, read_query, read_signal, read_versions, read_waits, read_wanted,
};
use crate::routes::{Method, Request, etag, json};
use crate::tail;

/// Who may do something; each may do what those before may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Anybody, known or not.
    Guest,
    /// Looks.
    Viewer,
    /// Looks after runs.
    Operator,
    /// Looks after the engine.
    Admin,
}

/// What a resource belongs to, for those who may see some DAGs only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// A run or a DAG, the first name of its path.
    Dag,
    /// All of the engine: not for those who may see some DAGs only.
    Engine,
    /// Lists what belongs to DAGs: everybody sees his own.
    Listed,
}

/// A resource and what is done to it.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Below `/api/v1`, with names in braces.
    pub(crate) path: &'static str,
    /// Its name in clients.
    pub(crate) id: &'static str,
    /// What it is for, one line.
    pub(crate) about: &'static str,
    pub(crate) role: Role,
    pub(crate) of: Of,
    pub(crate) query: &'static [Parameter],
    pub(crate) body: Content,
    pub(crate) answer: Content,
    pub(crate) act: fn(&Call<'_>) -> Result<Answer, Problem>,
}

/// What may stand in a query.
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
}

/// What a parameter is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Text,
    /// Of these words.
    Word(&'static [&'static str]),
    /// A text that may be given several times.
    Texts,
    /// From 0 to a limit.
    Number(u64),
    Milliseconds,
    Flag,
}

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    Nothing,
    /// JSON of this shape.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// The same, and it may be left out.
    JsonOrNothing(fn(&mut SchemaGenerator) -> Schema),
    /// Bytes as they are.
    Bytes,
    /// Events as they come: the name of their shapes, and what makes these.
    Events(&'static str, fn(&mut SchemaGenerator) -> serde_json::Value),
}

/// A request to a resource.
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a dyn Operations,
    pub(crate) beside: Option<&'a Beside<'a>>,
    /// What stands in the path in place of names.
    pub(crate) parts: Vec<String>,
    pub(crate) query: &'a str,
    pub(crate) request: &'a Request,
}

/// What is answered.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    /// Its ETag, for those who change it next.
    pub(crate) tag: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Triggered {
    /// Its name, unless it came before.
    activation: Option<String>,
    /// 1 when it came before under the same key.
    repeated: u64,
}

#[derive(Serialize, JsonSchema)]
struct Signalled {
    /// Messages that are durable now.
    kept: u64,
    /// Messages that came before under the same id.
    repeated: u64,
}

#[derive(Serialize, JsonSchema)]
struct Count {
    /// Activations it was done to.
    count: u64,
}

/// Runs, a page of them, and the engine.
#[derive(Serialize, JsonSchema)]
struct Runs {
    #[serde(flatten)]
    engine: EngineView,
    /// Where the next page begins; absent after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Who changed what.
#[derive(Serialize, JsonSchema)]
pub(crate) struct AuditPage {
    /// Newest first.
    pub(crate) entries: Vec<Entry>,
    /// Lines of the file that somebody has changed, or that follow one that is gone.
    pub(crate) broken: Vec<usize>,
    /// Where the next page begins; `None` after the last.
    pub(crate) next: Option<usize>,
}

/// Who asks.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Session {
    /// The name of the token; `local` where none is needed, `nobody` without one.
    pub(crate) name: String,
    /// What he may do.
    pub(crate) role: Role,
    /// DAGs that he may see; null: all.
    pub(crate) dags: Option<Vec<String>>,
    /// A token is needed here.
    pub(crate) required: bool,
}

/// What a session is begun with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogIn {
    /// A token.
    pub(crate) token: String,
}

/// How large a pool is to be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Slots {
    /// Executions at a time; null: as `evermill.toml` says.
    slots: Option<u32>,
}

/// How a DAG is to be switched on.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Start {
    /// What its tasks find in `params` and `dag_run.conf`.
    conf: Option<serde_json::Map<String, serde_json::Value>>,
    /// Do not go on behind the positions of the stopped run before.
    fresh: bool,
}

/// Which version to go back to.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Rollback {
    /// The beginning of its hash; the version before, unless said.
    version: Option<String>,
}

/// What a backup needs to know.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Backup {
    /// A file that is not there yet, as the engine sees it, from the root.
    to: PathBuf,
}

const fn shape<T: JsonSchema>() -> fn(&mut SchemaGenerator) -> Schema {
    SchemaGenerator::subschema_for::<T>
}

const fn json_of<T: JsonSchema>() -> Content {
    Content::Json(shape::<T>())
}

const LIMIT: Parameter = Parameter {
    name: "limit",
    about: "at most so many entries",
    kind: Kind::Number(1_000),
};
const CURSOR: Parameter = Parameter {
    name: "cursor",
    about: "where to go on: `next` of the page before",
    kind: Kind::Text,
};
const DRY_RUN: Parameter = Parameter {
    name: "dry_run",
    about: "count them, and change nothing",
    kind: Kind::Flag,
};

const PAYLOAD: Parameter = Parameter {
    name: "payload",
    about: "with the events themselves, and with results",
    kind: Kind::Flag,
};

/// Runs of a page when nothing else is asked for: all of them.
const RUNS_ENTRIES: usize = usize::MAX;
/// Changes under a condition are one at a time: what was compared is what is changed.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Nobody else changes anything under a condition while this is held.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) use self::rows::ROUTES;

impl Route {
    /// Refuses whoever may not do this; of DAGs that he may not see he hears that they are not there.
    pub(crate) fn check(
        &self,
        engine: &dyn Operations,
        who: &Who,
        parts: &[String],
    ) -> Result<(), Problem> {
        if who.role < self.role {
            return Err(match who.role {
                Role::Guest => Problem::not_known(),
                _ => {
                    let wanted = format!("{:?}", self.role).to_lowercase();
                    let detail =
                        format!("'{}' may not do this: it takes the role {wanted}", who.name);
                    Problem::new(403, "not_allowed", "This is not for you", detail)
                }
            });
        }
        if who.dags.is_none() {
            return Ok(());
        }
        match self.of {
            Of::Listed => Ok(()),
            Of::Engine => {
                let detail = format!("'{}' may see some DAGs, and this is about all", who.name);
                Err(Problem::new(
                    403,
                    "not_allowed",
                    "This is not for you",
                    detail,
                ))
            }
            Of::Dag => {
                let name = parts.first().map_or("", String::as_str);
                // As the engine understands it: a run id goes before a DAG id.
                let dag = match (self.path.starts_with("/runs/"), engine.detail(name)) {
                    (true, Ok(detail)) => detail.run.dag,
                    // What it is like would name what he may not see.
                    (true, Err(_)) => String::new(),
                    (false, Ok(detail)) if !who.may_see(&detail.run.dag) => detail.run.dag,
                    (false, _) => name.to_owned(),
                };
                if who.may_see(&dag) {
                    return Ok(());
                }
                let detail = format!("there is no run '{name}'");
                Err(Problem::new(404, "unknown_run", "No such run", detail))
            }
        }
    }
}

impl<'a> Call<'a> {
    fn run(&self) -> &str {
        &self.parts[0]
    }

    pub(crate) fn part(&self, at: usize) -> &str {
        &self.parts[at]
    }

    /// What a server knows beside its engine.
    pub(crate) fn beside(&self) -> Result<&'a Beside<'a>, Problem> {
        self.beside.ok_or_else(elsewhere)
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.request.body
    }
}

/// What only a server answers.
pub(crate) fn elsewhere() -> Problem {
    let detail = "this is answered by a server that runs";
    Problem::new(409, "refused", "There is no server", detail)
}

pub(crate) fn told<T: Serialize>(value: &T) -> Result<Answer, Problem> {
    Ok(Answer {
        body: json(value),
        tag: None,
    })
}

/// The same for what can be changed under a condition.
fn told_with_tag<T: Serialize>(value: &T) -> Result<Answer, Problem> {
    let body = json(value);
    Ok(Answer {
        tag: Some(etag(&body)),
        body,
    })
}

fn order(call: &Call<'_>, order: Order) -> Result<Answer, Problem> {
    call.engine.order(call.run(), order)?;
    told(&call.engine.detail(call.run())?)
}

fn resolve(call: &Call<'_>, how: Resolve) -> Result<Answer, Problem> {
    let which: ParkedFilter = serde_json::from_slice(call.body())
        .map_err(|cause| Problem::bad_request(format!("the filter: {cause}")))?;
    let dry_run = read_dry_run(call.query)?;
    let count = call.engine.resolve(call.run(), &which, how, dry_run)?;
    told(&Count { count })
}

fn forget_source(call: &Call<'_>) -> Result<Answer, Problem> {
    let dry_run = read_dry_run(call.query)?;
    told(
        &call
            .engine
            .forget_source(call.run(), call.part(1), dry_run)?,
    )
}

fn trigger(call: &Call<'_>) -> Result<Answer, Problem> {
    let conf = read_conf(call.body())?;
    let activation = match &call.request.idempotency_key {
        None => Some(call.engine.trigger(call.run(), conf)?),
        Some(key) => call.engine.trigger_as(call.run(), conf, key.clone())?,
    };
    let repeated = u64::from(activation.is_none());
    told(&Triggered {
        activation,
        repeated,
    })
}

fn logs(call: &Call<'_>) -> Result<Answer, Problem> {
    let wanted = read_lines(call.query)?;
    told(&tail::page(&call.engine.logs(call.run())?, &wanted)?)
}

fn compare(call: &Call<'_>) -> Result<VersionDiff, Problem> {
    let (from, to) = read_versions(call.query)?;
    Ok(call
        .engine
        .compare(call.run(), from.as_deref(), to.as_deref())?)
}

fn worker_logs(call: &Call<'_>) -> Result<Answer, Problem> {
    let wanted = read_lines(call.query)?;
    told(&tail::page(&call.engine.worker_logs()?, &wanted)?)
}

fn steer_replay(call: &Call<'_>, order: ReplayOrder) -> Result<Answer, Problem> {
    let number = number("replay", call.part(1))?;
    call.engine.steer_replay(call.run(), number, order)?;
    told(&call.engine.replays(call.run())?)
}

fn runs(call: &Call<'_>) -> Result<Answer, Problem> {
    let (mut limit, mut skip, mut state, mut dag) = (RUNS_ENTRIES, 0_usize, None, None);
    for (name, value) in form_urlencoded::parse(call.query.as_bytes()) {
        match &*name {
            "limit" => limit = number(&name, &value)?,
            "cursor" => skip = cursor(&value)?,
            "state" => state = Some(value.into_owned()),
            "dag" => dag = Some(value.into_owned()),
            _ => return Err(crate::reading::unknown_parameter(&name)),
        }
    }
    let view = call.engine.overview()?;
    let is_wanted = |run: &&RunView| {
        call.request.who.may_see(&run.dag)
            && state.as_deref().is_none_or(|state| state == run.state)
            && dag.as_deref().is_none_or(|dag| dag == run.dag)
    };
    let mut wanted = view.runs.iter().filter(is_wanted).skip(skip);
    let page: Vec<RunView> = wanted.by_ref().take(limit).cloned().collect();
    let next = wanted
        .next()
        .map(|_| skip.saturating_add(limit).to_string());
    let engine = EngineView {
        runs: page,
        workers: view.workers.clone(),
        stalled: view.stalled.clone(),
        // They name files of other DAGs, too.
        notes: match call.request.who.dags {
            None => view.notes.clone(),
            Some(_) => Vec::new(),
        },
        log_lines_lost: view.log_lines_lost,
        traces_left_out: view.traces_left_out,
        traces_lost: view.traces_lost,
        refused_reports: view.refused_reports,
        reloads: view.reloads,
    };
    told(&Runs { engine, next })
}

fn alerts(call: &Call<'_>) -> Result<Answer, Problem> {
    let mut alerts = call.engine.alerts()?;
    alerts.retain(|alert| call.request.who.may_see(&alert.dag));
    told(&alerts)
}

/// Who may see some DAGs only sees their pools, and in them their tasks.
fn pools(call: &Call<'_>) -> Result<Answer, Problem> {
    let mut pools = call.engine.pools()?;
    if call.request.who.dags.is_some() {
        for pool in &mut pools {
            pool.tasks
                .retain(|task| call.request.who.may_see(&task.dag));
        }
        pools.retain(|pool| !pool.tasks.is_empty());
    }
    told(&pools)
}

fn pool(call: &Call<'_>) -> Result<PoolView, Problem> {
    let name = call.part(0);
    let pools = call.engine.pools()?;
    let found = pools.into_iter().find(|pool| pool.name == name);
    found.ok_or_else(|| {
        let detail = format!("there is no pool '{name}'; /api/v1/pools lists them");
        Problem::new(404, "unknown_pool", "No such pool", detail)
    })
}

/// What of a pool somebody can change: how it is used changes by itself.
fn size_tag(pool: &PoolView) -> String {
    etag(format!("{} {:?}", pool.slots, pool.set_by).as_bytes())
}

fn set_pool(call: &Call<'_>) -> Result<Answer, Problem> {
    let Slots { slots } = serde_json::from_slice(call.body())
        .map_err(|cause| Problem::bad_request(format!("the slots: {cause}")))?;
    let _one = one_at_a_time();
    if call.request.if_match.is_some() {
        unchanged(call, &size_tag(&pool(call)?))?;
    }
    told(&call.engine.set_pool(call.part(0), slots)?)
}

/// Refuses when it is not any more what the asker has seen.
pub(crate) fn unchanged(call: &Call<'_>, now: &str) -> Result<(), Problem> {
    let Some(wanted) = &call.request.if_match else {
        return Ok(());
    };
    let mut tags = wanted.split(',').map(str::trim);
    if wanted == "*" || tags.any(|tag| tag == now) {
        return Ok(());
    }
    let detail = format!("it is {now} now; look at it again, and then decide");
    Err(Problem::new(
        412,
        "changed",
        "It has changed meanwhile",
        detail,
    ))
}

/// The event of a parked activation that somebody wants to look at, or to change.
fn payload(
    call: &Call<'_>,
    id: &str,
    event: u32,
) -> Result<evermill_engine::view::EventView, Problem> {
    let which = ParkedFilter {
        ids: vec![id.to_owned()],
        ..ParkedFilter::default()
    };
    let page = evermill_engine::Page {
        skip: 0,
        limit: 1,
        payload: true,
    };
    let found = call.engine.parked(call.run(), &which, page)?;
    let parked = found.entries.into_iter().next();
    let mut payload = parked.map(|parked| parked.payload).unwrap_or_default();
    let at = event as usize;
    if at < payload.len() {
        return Ok(payload.swap_remove(at));
    }
    let detail = format!(
        "'{id}' has {} events, counted from 0; there is no {event}",
        payload.len()
    );
    Err(Problem::new(404, "unknown_event", "No such event", detail))
}

fn amend(call: &Call<'_>) -> Result<Answer, Problem> {
    let (id, event) = read_place(call.query)?;
    let _one = one_at_a_time();
    if call.request.if_match.is_some() {
        unchanged(call, &etag(&json(&payload(call, &id, event)?)))?;
    }
    call.engine
        .amend(call.run(), &id, event, call.body().clone())?;
    told(&Count { count: 1 })
}

mod rows;
