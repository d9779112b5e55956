//! Named places at which a campaign may stop, delay or fail the process: `kill -9` at every step
//! of an event's way. Compiled in under the feature `failpoints`, armed by the environment:
//!
//! ```text
//! EVERMILL_FAILPOINT=name:hit:action     action = abort | sleep:MILLISECONDS | error
//! ```
//!
//! `hit` counts from 1. `abort` is SIGKILL to ourselves, so that nothing is flushed or unwound.
//! `error` makes the step fail where it can fail by itself; elsewhere it panics its thread, which
//! ends the process. The store's steps are armed by the same variable through [`store_hook`].

use evermill_store::Step;

/// The engine's own places, in the order of an event's way.
pub const ENGINE: [&str; 54] = [
    "open.store_opened",
    "open.claimed",
    "open.loaded",
    "open.resumed",
    "open.resume_committed",
    "start.prepared",
    "start.applied",
    "start.committed",
    "swap.prepared",
    "swap.applied",
    "swap.committed",
    "swap.listening",
    "ingest.polled",
    "ingest.resolved",
    "ingest.lane_started",
    "ingest.packed",
    "ingest.sent",
    "ingest.ack",
    "receive.delivered",
    "receive.kept",
    "inbox.accepted",
    "inbox.kept",
    "inbox.fed",
    "inquiry.sent",
    "inquiry.answered",
    "hearing.passed_on",
    "shard.lane_found",
    "shard.batch_received",
    "shard.batch_applied",
    "shard.caught_up",
    "shard.outcomes_received",
    "shard.outcomes_applied",
    "shard.finished_applied",
    "shard.died_applied",
    "dispatch.speculative",
    "dispatch.built",
    "dispatch.sent",
    "commit.before_seal",
    "commit.sealed",
    "commit.submitted",
    "commit.answered",
    "effects.begin",
    "effects.dispatch",
    "effects.ack",
    "effects.lane_open",
    "effects.done",
    "timer.fired",
    "alert.committed",
    "alert.handed",
    "answer.sent",
    "drain.begun",
    "drain.settled",
    "drain.workers_ended",
    "drain.store_closed",
];

/// Every place there is, the store's included.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ENGINE
        .into_iter()
        .chain(Step::ALL.into_iter().map(Step::name))
        .collect()
}

/// Marks a place. With a second argument, that is what happens under the action `error`.
#[cfg(feature = "failpoints")]
macro_rules! fp {
    ($name:literal) => {
        if $crate::failpoint::hit($name) {
            panic!("failpoint {} fails", $name);
        }
    };
    ($name:literal, $error:expr) => {
        if $crate::failpoint::hit($name) {
            $error
        }
    };
}

#[cfg(not(feature = "failpoints"))]
macro_rules! fp {
    ($name:literal) => {};
    ($name:literal, $error:expr) => {};
}

pub(crate) use fp;

/// The hook for the store's steps; none in a product build.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn hook() -> Option<evermill_store::StepHook> {
    Some(store_hook())
}

/// The hook for the store's steps; none in a product build.
#[cfg(not(feature = "failpoints"))]
#[must_use]
pub const fn hook() -> Option<evermill_store::StepHook> {
    None
}

#[cfg(feature = "failpoints")]
pub(crate) use armed::hit;
#[cfg(feature = "failpoints")]
pub use armed::store_hook;

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use evermill_store::StepHook;

    struct Armed {
        name: String,
        hit: u64,
        action: Action,
        hits: AtomicU64,
    }

    enum Action {
        Abort,
        Sleep(Duration),
        Error,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    /// Passes a place; true when it has to fail.
    pub(crate) fn hit(name: &str) -> bool {
        let Some(armed) = ARMED.get_or_init(read) else {
            return false;
        };
        if armed.name != name || armed.hits.fetch_add(1, Ordering::Relaxed) + 1 != armed.hit {
            return false;
        }
        match armed.action {
            Action::Abort => die(),
            Action::Sleep(time) => {
                std::thread::sleep(time);
                false
            }
            Action::Error => true,
        }
    }

    /// The same places inside the store, for its options.
    #[must_use]
    pub fn store_hook() -> StepHook {
        Arc::new(|step| assert!(!hit(step.name()), "failpoint {} fails", step.name()))
    }

    fn die() -> ! {
        // Nothing is flushed and no destructor runs; the loop only satisfies the type.
        let killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        assert!(killed.is_ok(), "the system refused SIGKILL to ourselves");
        loop {
            std::thread::park();
        }
    }

    fn read() -> Option<Armed> {
        let text = std::env::var("EVERMILL_FAILPOINT").ok()?;
        let armed = parse(&text);
        assert!(
            armed.is_some(),
            "EVERMILL_FAILPOINT={text}: want name:hit:abort, name:hit:sleep:MS or name:hit:error \
             with a name of failpoint::names()"
        );
        armed
    }

    fn parse(text: &str) -> Option<Armed> {
        let mut parts = text.split(':');
        let (name, hit) = (parts.next()?, parts.next()?.parse().ok()?);
        let action = match (parts.next()?, parts.next()) {
            ("abort", None) => Action::Abort,
            ("error", None) => Action::Error,
            ("sleep", Some(ms)) => Action::Sleep(Duration::from_millis(ms.parse().ok()?)),
            _ => return None,
        };
        let known = super::names().contains(&name) && parts.next().is_none();
        known.then(|| Armed {
            name: name.to_owned(),
            hit,
            action,
            hits: AtomicU64::new(0),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::parse;

        #[test]
        fn what_is_armed_is_understood_or_refused() {
            assert!(parse("commit.sealed:3:abort").is_some());
            assert!(parse("store.commit.durable:1:sleep:20").is_some());
            for wrong in [
                "",
                "commit.sealed",
                "commit.sealed:x:abort",
                "nowhere:1:abort",
                "commit.sealed:1:nap",
            ] {
                assert!(parse(wrong).is_none(), "{wrong}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::ENGINE;

    /// Every name in the sources, found as text: a place that is not listed would never be hit by
    /// a campaign, and a listed one without a place never reached.
    #[test]
    fn the_list_is_exactly_what_the_sources_mark() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut marked, mut folders) = (Vec::new(), vec![src]);
        while let Some(folder) = folders.pop() {
            files_of(&folder, &mut folders, &mut marked);
        }
        marked.sort();
        let mut listed: Vec<String> = ENGINE.map(str::to_owned).to_vec();
        listed.sort();
        marked.dedup();
        assert_eq!(marked, listed);
    }

    fn files_of(folder: &Path, folders: &mut Vec<PathBuf>, marked: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("failpoint.rs") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let quoted = |rest: &str| {
                rest.trim_start()
                    .strip_prefix('"')?
                    .split('"')
                    .next()
                    .map(str::to_owned)
            };
            let places = text.split("fp!(").skip(1).filter_map(quoted);
            marked.extend(places);
        }
    }
}
