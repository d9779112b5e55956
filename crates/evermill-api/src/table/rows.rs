//! The rows.

use evermill_engine::view::{
    AttemptView, EventView, FileChange, PARK_REASONS, STATES, VersionDiff, VersionView,
};

use super::*;
use crate::beside::{self, Address, ConnectionView, Tested, TokenMade, TokenView, TokenWanted};

const OF_TASK: Parameter = Parameter {
    name: "task",
    about: "only of this task",
    kind: Kind::Text,
};
const OF_LANE: Parameter = Parameter {
    name: "lane",
    about: "only of this lane",
    kind: Kind::Text,
};
const OF_EVENT: Parameter = Parameter {
    name: "position",
    about: "only of the event at this position",
    kind: Kind::Number(u64::MAX),
};

/// Which lines of a log are wanted, and what else is asked for.
macro_rules! lines {
    ($($more:expr),+ $(,)?) => {
        &[
            OF_TASK,
            OF_LANE,
            OF_EVENT,
            Parameter {
                name: "key",
                about: "only of events with this key",
                kind: Kind::Text,
            },
            Parameter {
                name: "try",
                about: "only of this try, from 1",
                kind: Kind::Number(u32::MAX as u64),
            },
            Parameter {
                name: "level",
                about: "only so bad or worse; what is printed counts as info",
                kind: Kind::Word(&LOG_LEVELS),
            },
            Parameter {
                name: "text",
                about: "only lines with this text",
                kind: Kind::Text,
            },
            $($more),+
        ]
    };
}

/// A page of a log.
const LOG_PAGE: &[Parameter] = lines![
    Parameter {
        name: "since_ms",
        about: "only what came then or later",
        kind: Kind::Milliseconds,
    },
    Parameter {
        name: "until_ms",
        about: "only what came before",
        kind: Kind::Milliseconds,
    },
    Parameter {
        name: "order",
        about: "from which end: the newest first unless said, backwards from the cursor; `oldest`: on from there",
        kind: Kind::Word(&LOG_ORDERS),
    },
    CURSOR,
    LIMIT,
];

/// Which versions are compared.
const VERSIONS: &[Parameter] = &[
    Parameter {
        name: "from",
        about: "the beginning of a version's hash; the version before the other one, unless said",
        kind: Kind::Text,
    },
    Parameter {
        name: "to",
        about: "likewise; the version that the run has, unless said",
        kind: Kind::Text,
    },
];

/// How activations end.
const ENDS: [&str; 4] = ["done", "skipped", "parked", "dropped"];

/// Every resource.
pub(crate) static ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/runs",
        id: "listRuns",
        about: "The engine and its runs",
        role: Role::Viewer,
        of: Of::Listed,
        query: &[
            Parameter {
                name: "state",
                about: "only runs in this state",
                kind: Kind::Word(&STATES),
            },
            Parameter {
                name: "dag",
                about: "only runs of this DAG",
                kind: Kind::Text,
            },
            CURSOR,
            LIMIT,
        ],
        body: Content::Nothing,
        answer: json_of::<Runs>(),
        act: runs,
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}",
        id: "getRun",
        about: "One run, with its graph and what is where in it",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<RunDetail>(),
        act: |call| told(&call.engine.detail(call.run())?),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/pause",
        id: "pauseRun",
        about: "Take no new work; it lasts over restarts",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<RunDetail>(),
        act: |call| order(call, Order::Pause),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/resume",
        id: "resumeRun",
        about: "Go on after a pause",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<RunDetail>(),
        act: |call| order(call, Order::Resume),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/drain",
        id: "drainRun",
        about: "Read nothing more, settle what was read, then rest",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<RunDetail>(),
        act: |call| order(call, Order::Drain),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/stop",
        id: "stopRun",
        about: "End the run for good",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<RunDetail>(),
        act: |call| order(call, Order::Stop),
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/activations",
        id: "listActivations",
        about: "Activations that have settled, newest first; `kept` of `settled` says what is sampled",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[
            OF_LANE,
            Parameter {
                name: "position",
                about: "only the activation of the event at this position",
                kind: Kind::Number(u64::MAX),
            },
            Parameter {
                name: "state",
                about: "only those that ended so",
                kind: Kind::Word(&ENDS),
            },
            Parameter {
                name: "problems",
                about: "only those that were parked or dropped",
                kind: Kind::Flag,
            },
            Parameter {
                name: "task",
                about: "only those where this task failed",
                kind: Kind::Text,
            },
            Parameter {
                name: "key",
                about: "only those with an event of this key",
                kind: Kind::Text,
            },
            Parameter {
                name: "text",
                about: "only those with this text in an event, an error or a result",
                kind: Kind::Text,
            },
            Parameter {
                name: "since_ms",
                about: "only those that settled then or later",
                kind: Kind::Milliseconds,
            },
            Parameter {
                name: "until_ms",
                about: "only those that settled before",
                kind: Kind::Milliseconds,
            },
            PAYLOAD,
            CURSOR,
            LIMIT,
        ],
        body: Content::Nothing,
        answer: json_of::<PastView>(),
        act: |call| told(&call.engine.past(call.run(), &read_past(call.query)?)?),
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/attempts",
        id: "listAttempts",
        about: "Attempts that are with workers, and the latest that failed or came after one that did: which worker, since when, what came of it. Newest first, since the engine opened",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[OF_TASK, OF_LANE, OF_EVENT, LIMIT],
        body: Content::Nothing,
        answer: json_of::<Vec<AttemptView>>(),
        act: |call| {
            told(
                &call
                    .engine
                    .attempts(call.run(), &read_attempts(call.query)?)?,
            )
        },
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/logs",
        id: "listLogs",
        about: "What the tasks of a run printed, from either end; a page may have few lines and still a next one",
        role: Role::Viewer,
        of: Of::Dag,
        query: LOG_PAGE,
        body: Content::Nothing,
        answer: json_of::<LogPage>(),
        act: logs,
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/logs/tail",
        id: "tailLogs",
        about: "What the tasks of a run print, as they print it: server-sent events. The id of the last one is where to go on",
        role: Role::Viewer,
        of: Of::Dag,
        query: lines![Parameter {
            name: "cursor",
            about: "where to begin: `after` of a page; with what is printed from now on, unless said",
            kind: Kind::Text,
        },],
        body: Content::Nothing,
        answer: Content::Events("TailEvents", tail::shapes),
        act: |_| Err(elsewhere()),
    },
    Route {
        method: Method::Get,
        path: "/workers/logs",
        id: "listWorkerLogs",
        about: "What workers print outside any run, such as threads and child processes that outlive their task; as the log of a run",
        role: Role::Operator,
        of: Of::Engine,
        query: LOG_PAGE,
        body: Content::Nothing,
        answer: json_of::<LogPage>(),
        act: worker_logs,
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/parked",
        id: "listParked",
        about: "Activations that gave up, by reason and task and one by one",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[
            Parameter {
                name: "id",
                about: "only these",
                kind: Kind::Texts,
            },
            Parameter {
                name: "reason",
                about: "only those parked for this reason",
                kind: Kind::Word(&PARK_REASONS),
            },
            Parameter {
                name: "task",
                about: "only those where this task failed",
                kind: Kind::Text,
            },
            Parameter {
                name: "key",
                about: "only those with this key",
                kind: Kind::Text,
            },
            Parameter {
                name: "since_ms",
                about: "only those that arrived then or later",
                kind: Kind::Milliseconds,
            },
            PAYLOAD,
            CURSOR,
            LIMIT,
        ],
        body: Content::Nothing,
        answer: json_of::<ParkedPage>(),
        act: |call| {
            let (which, page) = read_query(call.query)?;
            told(&call.engine.parked(call.run(), &which, page)?)
        },
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/parked/retry",
        id: "retryParked",
        about: "Run parked activations again",
        role: Role::Operator,
        of: Of::Dag,
        query: &[DRY_RUN],
        body: json_of::<ParkedFilter>(),
        answer: json_of::<Count>(),
        act: |call| resolve(call, Resolve::Retry),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/parked/drop",
        id: "dropParked",
        about: "Give parked activations up",
        role: Role::Operator,
        of: Of::Dag,
        query: &[DRY_RUN],
        body: json_of::<ParkedFilter>(),
        answer: json_of::<Count>(),
        act: |call| resolve(call, Resolve::Drop),
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/parked/payload",
        id: "getPayload",
        about: "An event of a parked activation, with the ETag that changing it may ask for",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[
            Parameter {
                name: "id",
                about: "which activation",
                kind: Kind::Text,
            },
            Parameter {
                name: "event",
                about: "which of its events, from 0",
                kind: Kind::Number(u32::MAX as u64),
            },
        ],
        body: Content::Nothing,
        answer: json_of::<EventView>(),
        act: |call| {
            let (id, event) = read_place(call.query)?;
            told_with_tag(&payload(call, &id, event)?)
        },
    },
    Route {
        method: Method::Put,
        path: "/runs/{run}/parked/payload",
        id: "putPayload",
        about: "Give an event of a parked activation another value; it stays parked",
        role: Role::Operator,
        of: Of::Dag,
        query: &[
            Parameter {
                name: "id",
                about: "which activation",
                kind: Kind::Text,
            },
            Parameter {
                name: "event",
                about: "which of its events, from 0",
                kind: Kind::Number(u32::MAX as u64),
            },
        ],
        body: Content::Bytes,
        answer: json_of::<Count>(),
        act: amend,
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/trigger",
        id: "triggerRun",
        about: "Give a DAG without sources one activation; durable with the answer",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::JsonOrNothing(shape::<serde_json::Map<String, serde_json::Value>>()),
        answer: json_of::<Triggered>(),
        act: trigger,
    },
    Route {
        method: Method::Post,
        path: "/dags/{dag}/trigger",
        id: "triggerDag",
        about: "The same, by the DAG",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::JsonOrNothing(shape::<serde_json::Map<String, serde_json::Value>>()),
        answer: json_of::<Triggered>(),
        act: trigger,
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/signals/{name}",
        id: "sendSignal",
        about: "Send a run a message; durable with the answer",
        role: Role::Operator,
        of: Of::Dag,
        query: &[
            Parameter {
                name: "id",
                about: "the same id counts once",
                kind: Kind::Text,
            },
            Parameter {
                name: "key",
                about: "the key of the event",
                kind: Kind::Text,
            },
            Parameter {
                name: "all",
                about: "for each task that waits",
                kind: Kind::Flag,
            },
            Parameter {
                name: "to",
                about: "only for this activation, by its id among what waits; refused when it does not wait",
                kind: Kind::Text,
            },
            Parameter {
                name: "ttl_ms",
                about: "for how long a task may still come to wait for it",
                kind: Kind::Milliseconds,
            },
        ],
        body: Content::JsonOrNothing(shape::<serde_json::Value>()),
        answer: json_of::<Signalled>(),
        act: |call| {
            let mut signal = read_signal(call.part(1), call.query, call.body())?;
            signal.id = signal.id.or_else(|| call.request.idempotency_key.clone());
            let pushed = call.engine.signal(call.run(), signal)?;
            told(&Signalled {
                kept: pushed.kept,
                repeated: pushed.repeated,
            })
        },
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/waits",
        id: "listWaits",
        about: "What waits for a signal, such as somebody's answer: by signal, and of each the oldest first",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[
            Parameter {
                name: "signal",
                about: "only what waits for the signal of this name",
                kind: Kind::Text,
            },
            PAYLOAD,
            CURSOR,
            LIMIT,
        ],
        body: Content::Nothing,
        answer: json_of::<WaitPage>(),
        act: |call| {
            let (signal, page) = read_waits(call.query)?;
            told(&call.engine.waits(call.run(), signal.as_deref(), page)?)
        },
    },
    Route {
        method: Method::Get,
        path: "/alerts",
        id: "listAlerts",
        about: "The latest alerts, newest first",
        role: Role::Viewer,
        of: Of::Listed,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<Alert>>(),
        act: alerts,
    },
    Route {
        method: Method::Get,
        path: "/pools",
        id: "listPools",
        about: "Every pool: slots, used, waiting, tasks",
        role: Role::Viewer,
        of: Of::Listed,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<PoolView>>(),
        act: pools,
    },
    Route {
        method: Method::Get,
        path: "/pools/{name}",
        id: "getPool",
        about: "One pool, with the ETag that changing it may ask for",
        role: Role::Viewer,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<PoolView>(),
        act: |call| {
            let pool = pool(call)?;
            Ok(Answer {
                tag: Some(size_tag(&pool)),
                body: json(&pool),
            })
        },
    },
    Route {
        method: Method::Put,
        path: "/pools/{name}",
        id: "putPool",
        about: "Give a pool so many slots, over restarts; the pool afterwards",
        role: Role::Operator,
        of: Of::Engine,
        query: &[],
        body: json_of::<Slots>(),
        answer: json_of::<PoolView>(),
        act: set_pool,
    },
    Route {
        method: Method::Post,
        path: "/dags/{dag}/start",
        id: "startDag",
        about: "Switch a DAG on",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::JsonOrNothing(shape::<Start>()),
        answer: json_of::<Started>(),
        act: |call| {
            let Start { conf, fresh } = read_order(call.body())?;
            let conf = conf.map(|conf| Bytes::from(json(&conf)));
            let by = Some(call.request.who.name.clone());
            told(
                &call
                    .engine
                    .switch_on(call.run(), &SwitchOn { conf, fresh, by })?,
            )
        },
    },
    Route {
        method: Method::Post,
        path: "/dags/{dag}/rollback",
        id: "rollBackDag",
        about: "Go back to an earlier version",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::JsonOrNothing(shape::<Rollback>()),
        answer: json_of::<Started>(),
        act: |call| {
            let Rollback { version } = read_order(call.body())?;
            let by = &call.request.who.name;
            told(&call.engine.roll_back(call.run(), version.as_deref(), by)?)
        },
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/versions",
        id: "listVersions",
        about: "Versions that the run's DAG had, and when it went over to each, the newest first",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<VersionView>>(),
        act: |call| told(&call.engine.detail(call.run())?.versions),
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/versions/diff",
        id: "compareVersions",
        about: "What is different between two versions: options, sources, tasks, edges, and which files",
        role: Role::Viewer,
        of: Of::Dag,
        query: VERSIONS,
        body: Content::Nothing,
        answer: json_of::<VersionDiff>(),
        act: |call| {
            let mut found = compare(call)?;
            found.files.iter_mut().for_each(|file| file.text = None);
            told(&found)
        },
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/versions/files",
        id: "compareFiles",
        about: "The files that are different between two versions, and what is different in them line by line",
        role: Role::Operator,
        of: Of::Dag,
        query: VERSIONS,
        body: Content::Nothing,
        answer: json_of::<Vec<FileChange>>(),
        act: |call| told(&compare(call)?.files),
    },
    Route {
        method: Method::Get,
        path: "/runs/{run}/replays",
        id: "listReplays",
        about: "Every replay and backfill on record",
        role: Role::Viewer,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<ReplayView>>(),
        act: |call| told(&call.engine.replays(call.run())?),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/replays",
        id: "startReplay",
        about: "Read a stretch again beside the live run",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: json_of::<ReplayAsk>(),
        answer: json_of::<ReplayAnswer>(),
        act: |call| {
            told(
                &call
                    .engine
                    .replay(call.run(), &read_wanted::<ReplayAsk>(call.body())?)?,
            )
        },
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/backfill",
        id: "startBackfill",
        about: "Run the instants of a clock that it has passed over",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: json_of::<BackfillAsk>(),
        answer: json_of::<ReplayAnswer>(),
        act: |call| {
            told(
                &call
                    .engine
                    .backfill(call.run(), &read_wanted::<BackfillAsk>(call.body())?)?,
            )
        },
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/replays/{number}/pause",
        id: "pauseReplay",
        about: "Read no further for now",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<ReplayView>>(),
        act: |call| steer_replay(call, ReplayOrder::Pause),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/replays/{number}/resume",
        id: "resumeReplay",
        about: "Go on reading",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<ReplayView>>(),
        act: |call| steer_replay(call, ReplayOrder::Resume),
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/replays/{number}/stop",
        id: "stopReplay",
        about: "End it: what was begun settles",
        role: Role::Operator,
        of: Of::Dag,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<ReplayView>>(),
        act: |call| steer_replay(call, ReplayOrder::Stop),
    },
    Route {
        method: Method::Delete,
        path: "/runs/{run}/sources/{source}",
        id: "forgetSource",
        about: "Let go of what is kept for a source that the run's version has not; how much that was",
        role: Role::Admin,
        of: Of::Dag,
        query: &[DRY_RUN],
        body: Content::Nothing,
        answer: json_of::<LeftView>(),
        act: forget_source,
    },
    Route {
        method: Method::Post,
        path: "/runs/{run}/reset",
        id: "resetPositions",
        about: "Move the live position of lanes, for the record",
        role: Role::Admin,
        of: Of::Dag,
        query: &[],
        body: json_of::<ResetAsk>(),
        answer: json_of::<ResetAnswer>(),
        act: |call| {
            told(
                &call
                    .engine
                    .reset(call.run(), &read_wanted::<ResetAsk>(call.body())?)?,
            )
        },
    },
    Route {
        method: Method::Post,
        path: "/backup",
        id: "makeBackup",
        about: "Copy what is committed into a file, and check the copy",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: json_of::<Backup>(),
        answer: json_of::<Checked>(),
        act: |call| {
            let Backup { to } = read_wanted(call.body())?;
            if !to.is_absolute() {
                let detail = format!("{}: want a path from the root", to.display());
                return Err(Problem::bad_request(detail));
            }
            told(&call.engine.backup(&to)?)
        },
    },
    Route {
        method: Method::Post,
        path: "/verify",
        id: "verifyStore",
        about: "Check everything that can be checked",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Checked>(),
        act: |call| told(&call.engine.verify()?),
    },
    Route {
        method: Method::Get,
        path: "/connections",
        id: "listConnections",
        about: "Every connection that has an address, without passwords",
        role: Role::Viewer,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<ConnectionView>>(),
        act: beside::list_connections,
    },
    Route {
        method: Method::Get,
        path: "/connections/{id}",
        id: "getConnection",
        about: "One connection, with the ETag that changing it may ask for",
        role: Role::Viewer,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<ConnectionView>(),
        act: beside::get_connection,
    },
    Route {
        method: Method::Put,
        path: "/connections/{id}",
        id: "putConnection",
        about: "Keep an address, sealed; it is never shown again. Every connection afterwards",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: json_of::<Address>(),
        answer: json_of::<Vec<ConnectionView>>(),
        act: beside::put_connection,
    },
    Route {
        method: Method::Delete,
        path: "/connections/{id}",
        id: "deleteConnection",
        about: "Forget an address that was kept; every connection afterwards",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<ConnectionView>>(),
        act: beside::delete_connection,
    },
    Route {
        method: Method::Post,
        path: "/connections/{id}/test",
        id: "testConnection",
        about: "Look whether somebody answers there",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Tested>(),
        act: beside::test_connection,
    },
    Route {
        method: Method::Get,
        path: "/tokens",
        id: "listTokens",
        about: "Every token, not what it is",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<TokenView>>(),
        act: beside::list_tokens,
    },
    Route {
        method: Method::Post,
        path: "/tokens",
        id: "createToken",
        about: "Make a token; it is shown this once. From the first one on everybody needs one",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: json_of::<TokenWanted>(),
        answer: json_of::<TokenMade>(),
        act: beside::create_token,
    },
    Route {
        method: Method::Delete,
        path: "/tokens/{id}",
        id: "revokeToken",
        about: "Take a token back, by its id or name; every token afterwards",
        role: Role::Admin,
        of: Of::Engine,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Vec<TokenView>>(),
        act: beside::revoke_token,
    },
    Route {
        method: Method::Get,
        path: "/audit",
        id: "listAudit",
        about: "Who changed what: entries, newest first, and lines that somebody changed",
        role: Role::Admin,
        of: Of::Engine,
        query: &[
            Parameter {
                name: "who",
                about: "only what this one did: the name of a token, `local`, or `uid N`",
                kind: Kind::Text,
            },
            Parameter {
                name: "what",
                about: "only where this stands in method and target",
                kind: Kind::Text,
            },
            Parameter {
                name: "refused",
                about: "only what was refused or failed",
                kind: Kind::Flag,
            },
            Parameter {
                name: "since_ms",
                about: "only what was done then or later",
                kind: Kind::Milliseconds,
            },
            Parameter {
                name: "until_ms",
                about: "only what was done before",
                kind: Kind::Milliseconds,
            },
            CURSOR,
            LIMIT,
        ],
        body: Content::Nothing,
        answer: json_of::<AuditPage>(),
        act: beside::list_audit,
    },
    Route {
        method: Method::Get,
        path: "/session",
        id: "getSession",
        about: "Who asks, and what he may do",
        role: Role::Guest,
        of: Of::Listed,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Session>(),
        act: |_| Err(elsewhere()),
    },
    Route {
        method: Method::Post,
        path: "/session",
        id: "logIn",
        about: "Begin a session with a token; the answer sets its cookie",
        role: Role::Guest,
        of: Of::Listed,
        query: &[],
        body: json_of::<LogIn>(),
        answer: json_of::<Session>(),
        act: |_| Err(elsewhere()),
    },
    Route {
        method: Method::Delete,
        path: "/session",
        id: "logOut",
        about: "End the session of the cookie",
        role: Role::Guest,
        of: Of::Listed,
        query: &[],
        body: Content::Nothing,
        answer: json_of::<Session>(),
        act: |_| Err(elsewhere()),
    },
    Route {
        method: Method::Get,
        path: "/openapi.json",
        id: "getDescription",
        about: "This description",
        role: Role::Viewer,
        of: Of::Listed,
        query: &[],
        body: Content::Nothing,
        answer: Content::Json(shape::<serde_json::Value>()),
        act: |_| told(&openapi::document()),
    },
    Route {
        method: Method::Get,
        path: "/stream",
        id: "stream",
        about: "What changes, as it changes: server-sent events",
        role: Role::Viewer,
        of: Of::Listed,
        query: &[
            Parameter {
                name: "run",
                about: "also tell everything of these runs, not only their counters",
                kind: Kind::Texts,
            },
            Parameter {
                name: "pools",
                about: "also tell of pools",
                kind: Kind::Flag,
            },
        ],
        body: Content::Nothing,
        answer: Content::Events("StreamEvents", crate::feed::shapes),
        act: |_| Err(elsewhere()),
    },
];
