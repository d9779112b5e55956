//! What cases may contain, each switchable, and how often the campaign exercised it.

use std::fmt::Write as _;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

named! {
    /// Something a generated case may contain.
    Feature {
        /// Retries with short backoffs.
        Retry = "retry",
        /// Backoffs over a second: the activation materialises (W2).
        LongBackoff = "long_backoff",
        /// Every trigger rule.
        Rules = "rules",
        /// Branching tasks.
        Branch = "branch",
        /// Short circuits of both kinds.
        ShortCircuit = "short_circuit",
        /// No-ops.
        Noop = "noop",
        /// Delays: sensors without a worker.
        Delay = "delay",
        /// Sensors that workers are asked about.
        Poke = "poke",
        /// Setup and teardown marks.
        Teardown = "teardown",
        /// Attempts that skip themselves.
        Skip = "skip",
        /// Policies other than park.
        Policy = "policy",
        /// `stop` as policy.
        Stop = "stop",
        /// Redrive and discard.
        Redrive = "redrive",
        /// Orders other than none.
        Order = "order",
        /// `ctx.state`.
        State = "state",
        /// Names of `ctx.state` shared by unrelated tasks under serial (W5).
        SharedState = "shared_state",
        /// Tasks that read results.
        Results = "results",
        /// Several lanes of one source.
        Lanes = "lanes",
        /// Holes in the positions of a lane.
        Gaps = "gaps",
        /// Roots that are not sources (W7).
        Roots = "roots",
        /// `concurrency=`.
        Concurrency = "concurrency",
        /// Pools.
        Pool = "pool",
        /// `@task(batch=N)`.
        Vector = "vector",
        /// Source batches.
        Batch = "batch",
        /// Mapped tasks.
        Map = "map",
        /// Joins.
        Join = "join",
        /// `on_interrupt="fail"`.
        Interrupt = "interrupt",
        /// Workers that die.
        Death = "death",
        /// Attempts that kill their worker whenever they run.
        Poison = "poison",
        /// Late, repeated and foreign reports.
        Stale = "stale",
        /// Unclean stops.
        Crash = "crash",
        /// Clean stops.
        CleanStop = "clean_stop",
        /// Pause and resume.
        Pause = "pause",
        /// Re-reads from below the asked position.
        Reread = "reread",
        /// Deadlines.
        Deadline = "deadline",
        /// Signals.
        Signal = "signal",
        /// `max_active_runs`.
        ActiveMax = "active_max",
        /// Rate limits.
        Rate = "rate",
        /// Swaps of the version under way.
        Swap = "swap",
        /// Replays.
        Replay = "replay",
        /// Loops.
        Loop = "loop",
    }
}

/// A set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);

    /// All, except those that the core does not have yet.
    #[must_use]
    pub fn all() -> Self {
        let missing = [Feature::SharedState];
        let built = Feature::ALL.iter().filter(|f| !missing.contains(f));
        built.fold(Self::NONE, |set, &f| set.with(f))
    }

    /// With this one.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u64)
    }

    /// Without this one.
    #[must_use]
    pub const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u64))
    }

    /// Whether this one is in it.
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u64) != 0
    }

    /// Reads `all`, `none`, `name`, `-name`, separated by commas, from left to right.
    ///
    /// # Errors
    /// Names the unknown word and lists the known ones.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut set = if text.starts_with('-') {
            Self::all()
        } else {
            Self::NONE
        };
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let (name, on) = word
                .strip_prefix('-')
                .map_or((word, true), |name| (name, false));
            if name == "all" {
                set = Self::all();
                continue;
            }
            if name == "none" {
                set = Self::NONE;
                continue;
            }
            let Some(&feature) = Feature::ALL.iter().find(|f| f.name() == name) else {
                let known: Vec<&str> = Feature::ALL.iter().map(|f| f.name()).collect();
                return Err(format!(
                    "unknown feature '{name}'; known: {}",
                    known.join(", ")
                ));
            };
            set = if on {
                set.with(feature)
            } else {
                set.without(feature)
            };
        }
        Ok(set)
    }
}

named! {
    /// Something that must have happened often enough for a campaign to mean anything.
    Mark {
        /// Cases with it.
        Event = "event settled",
        /// Counted in tasks.
        RuleAllSuccess = "rule all_success",
        /// Counted in tasks.
        RuleAllFailed = "rule all_failed",
        /// Counted in tasks.
        RuleAllDone = "rule all_done",
        /// Counted in tasks.
        RuleAllSkipped = "rule all_skipped",
        /// Counted in tasks.
        RuleOneSuccess = "rule one_success",
        /// Counted in tasks.
        RuleOneFailed = "rule one_failed",
        /// Counted in tasks.
        RuleOneDone = "rule one_done",
        /// Counted in tasks.
        RuleNoneFailed = "rule none_failed",
        /// Counted in tasks.
        RuleNoneFailedMinOneSuccess = "rule none_failed_min_one_success",
        /// Counted in tasks.
        RuleNoneSkipped = "rule none_skipped",
        /// Counted in tasks.
        RuleAlways = "rule always",
        /// Counted in tasks.
        RuleAllDoneMinOneSuccess = "rule all_done_min_one_success",
        /// Counted in tasks.
        RuleAllDoneSetupSuccess = "rule all_done_setup_success",
        /// A task ran in an earlier moment than its last upstream ended.
        EarlyVerdict = "early verdict to run",
        /// W4.
        OrderNone = "order none",
        /// W4.
        OrderKey = "order key",
        /// W4.
        OrderPartition = "order partition",
        /// W4.
        OrderSerial = "order serial",
        /// A branch chose.
        Branch = "branch chose",
        /// A short circuit said no, for all below.
        ShortCircuitAll = "short circuit, all below",
        /// A short circuit said no, for direct children.
        ShortCircuitDirect = "short circuit, direct",
        /// A no-op.
        Noop = "noop",
        /// A delay.
        Delay = "delay",
        /// A sensor said *not yet*.
        Poke = "sensor asked again",
        /// A sensor's time was over.
        PokeLate = "sensor out of time",
        /// A task skipped itself.
        SelfSkip = "self skip",
        /// A try failed and another one followed.
        Retry = "retry",
        /// A try failed for good with tries left.
        Fatal = "failure not retryable",
        /// W2.
        Materialise = "activation materialised",
        /// W2: the body of one that waited came back from the store.
        Brought = "waiting body brought back",
        /// W10.
        Done = "settled done",
        /// W10.
        Skipped = "settled skipped",
        /// W10.
        Parked = "settled parked",
        /// W10.
        Blocked = "settled blocked",
        /// W10.
        Dropped = "settled dropped",
        /// W10.
        Stopped = "run stopped by policy",
        /// W10.
        Redrive = "redrive",
        /// W10.
        Discard = "discard",
        /// W5.
        StateWrite = "state written",
        /// W5.
        StateRead = "state read",
        /// W11.
        ResultRead = "result read",
        /// C3.
        Speculative = "dispatch before its commit",
        /// C3.
        Careful = "dispatch after its commit",
        /// W1.
        ManyMembers = "dispatch of several members",
        /// W1.
        ManyLanes = "dispatch over several lanes",
        /// W3.
        Tail = "tail returned",
        /// A worker gave back what it had not started, and went on.
        Rest = "rest returned by a busy worker",
        /// W3.
        Recall = "recall",
        /// W3.
        Death = "worker died",
        /// W3.
        DeathAlone = "worker died of a lone member",
        /// C4.
        InterruptFail = "interrupted, on_interrupt=fail",
        /// C5.
        StaleRefused = "stale report refused",
        /// C5.
        DuplicateRefused = "second report refused",
        /// Decide, commit, perform.
        Crash = "unclean stop",
        /// Events ingested again in other groups.
        Regroup = "event read again after a stop",
        /// S7.
        CleanStop = "clean stop",
        /// C6.
        Probation = "suspect rows",
        /// C6.
        SuspectParked = "parked as suspect_crash",
        /// C2.
        Reread = "re-read below the position",
        /// C2.
        Gap = "hole in the positions",
        /// Credit.
        CreditStop = "credit stopped",
        /// Pause.
        Pause = "pause and resume",
        /// W19.
        Concurrency = "concurrency limit",
        /// W19.
        Pool = "pool limit",
        /// W8.
        Vector = "vectorised dispatch",
        /// W8.
        Batch = "source batch of several events",
        /// W8.
        BatchLinger = "source batch closed short",
        /// W9.
        Map = "mapped instances",
        /// W9.
        MapEmpty = "mapped over nothing",
        /// W6.
        Join = "join bound",
        /// W7.
        Root = "root that is no source",
        /// W13.
        Deadline = "deadline missed",
        /// W14.
        Signal = "signal consumed",
        /// W15.
        Loop = "loop iteration",
        /// W16.
        Swap = "version swapped",
        /// W18.
        Replay = "replayed event",
        /// W19.
        ActiveMax = "max_active_runs",
        /// W19.
        Rate = "rate limit",
        /// W19.
        KeyRate = "rate limit of a key",
        /// W19.
        Parallel = "pool slots of a dispatch that runs several members at once",
    }
}

/// How often each mark was hit.
#[derive(Debug, Clone)]
pub struct Coverage(Vec<u64>);

impl Default for Coverage {
    fn default() -> Self {
        Self(vec![0; Mark::ALL.len()])
    }
}

impl Coverage {
    /// Counts one hit.
    pub fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// Hits so far.
    #[must_use]
    pub fn of(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds another's hits.
    pub fn add(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Marks that these features should have hit and did not.
    #[must_use]
    pub fn missing(&self, features: Features) -> Vec<&'static str> {
        let owed = |mark: Mark| owner(mark).iter().all(|&f| features.has(f));
        let unhit = Mark::ALL.iter().filter(|&&m| owed(m) && self.of(m) == 0);
        unhit.map(|m| m.name()).collect()
    }

    /// The table that a campaign prints.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for pair in Mark::ALL.chunks(2) {
            for mark in pair {
                write!(text, "  {:<34}{:>12}", mark.name(), self.of(*mark)).unwrap_or_default();
            }
            text.push('\n');
        }
        text
    }
}

/// The features without which a mark cannot be hit.
const fn owner(mark: Mark) -> &'static [Feature] {
    use Feature as F;
    match mark {
        Mark::RuleAllFailed
        | Mark::RuleAllDone
        | Mark::RuleAllSkipped
        | Mark::RuleOneSuccess
        | Mark::RuleOneFailed
        | Mark::RuleOneDone
        | Mark::RuleNoneFailed
        | Mark::RuleNoneFailedMinOneSuccess
        | Mark::RuleNoneSkipped
        | Mark::RuleAlways
        | Mark::RuleAllDoneMinOneSuccess
        | Mark::EarlyVerdict => &[F::Rules],
        Mark::RuleAllDoneSetupSuccess => &[F::Rules, F::Teardown],
        Mark::OrderKey | Mark::OrderPartition | Mark::OrderSerial => &[F::Order],
        Mark::Branch => &[F::Branch],
        Mark::ShortCircuitAll | Mark::ShortCircuitDirect => &[F::ShortCircuit],
        Mark::Noop => &[F::Noop],
        Mark::Delay => &[F::Delay],
        Mark::Poke | Mark::PokeLate => &[F::Poke],
        Mark::SelfSkip => &[F::Skip],
        Mark::Retry | Mark::Fatal => &[F::Retry],
        Mark::Materialise => &[F::Retry, F::LongBackoff],
        Mark::Brought => &[F::Delay],
        Mark::Skipped => &[F::Branch],
        Mark::Blocked => &[F::Policy, F::Order],
        Mark::Dropped => &[F::Policy],
        Mark::Stopped => &[F::Stop],
        Mark::Redrive | Mark::Discard => &[F::Redrive],
        Mark::StateWrite => &[F::State],
        Mark::StateRead => &[F::State, F::Order],
        Mark::ResultRead => &[F::Results],
        Mark::ManyLanes => &[F::Lanes],
        Mark::Death => &[F::Death],
        Mark::DeathAlone => &[F::Poison],
        Mark::InterruptFail => &[F::Interrupt, F::Crash],
        Mark::StaleRefused => &[F::Stale, F::Crash],
        Mark::DuplicateRefused => &[F::Stale],
        Mark::Crash | Mark::Regroup | Mark::Probation | Mark::SuspectParked => &[F::Crash],
        Mark::CleanStop => &[F::CleanStop],
        Mark::Reread => &[F::Reread],
        Mark::Gap => &[F::Gaps],
        Mark::Pause => &[F::Pause],
        Mark::Concurrency => &[F::Concurrency],
        Mark::Pool => &[F::Pool],
        Mark::Vector => &[F::Vector],
        Mark::Batch | Mark::BatchLinger => &[F::Batch],
        Mark::Map | Mark::MapEmpty => &[F::Map],
        Mark::Join => &[F::Join],
        Mark::Root => &[F::Roots],
        Mark::Deadline => &[F::Deadline],
        Mark::Signal => &[F::Signal],
        Mark::Loop => &[F::Loop],
        Mark::Swap => &[F::Swap],
        Mark::Replay => &[F::Replay],
        Mark::ActiveMax => &[F::ActiveMax],
        Mark::Rate | Mark::KeyRate => &[F::Rate],
        Mark::Parallel => &[F::Pool],
        // Credit stops at thousands of events, recalls need several runs: scenarios show those.
        Mark::CreditStop | Mark::Recall => &[F::SharedState],
        Mark::Event
        | Mark::RuleAllSuccess
        | Mark::OrderNone
        | Mark::Done
        | Mark::Parked
        | Mark::Speculative
        | Mark::Careful
        | Mark::ManyMembers
        | Mark::Tail
        | Mark::Rest => &[],
    }
}
