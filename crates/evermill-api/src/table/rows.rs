//! The rows.

use evermill_engine::view::{EventView, PARK_REASONS, STATES};

use super::*;

/// What a server knows beside its engine.
fn elsewhere() -> Problem {
    let detail = "this is answered by a server that runs";
    Problem::new(409, "refused", "There is no server", detail)
}

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
            Parameter {
                name: "lane",
                about: "only of this lane",
                kind: Kind::Text,
            },
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
            told(
                &call
                    .engine
                    .switch_on(call.run(), &SwitchOn { conf, fresh })?,
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
            told(&call.engine.roll_back(call.run(), version.as_deref())?)
        },
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
        path: "/audit",
        id: "listAudit",
        about: "Who changed what: entries, newest first, and lines that somebody changed",
        role: Role::Admin,
        of: Of::Engine,
        query: &[CURSOR, LIMIT],
        body: Content::Nothing,
        answer: json_of::<AuditPage>(),
        act: |_| Err(elsewhere()),
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
        answer: Content::Events,
        act: |_| Err(elsewhere()),
    },
];
