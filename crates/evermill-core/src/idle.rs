//! Waits that cost little: the body of an activation that only waits lies in the store alone, and is brought
//! back when its wait ends.
//!
//! ```text
//! given a row --commit--> committed: the body is let go --due--> owed --fetched--> released
//! ```
//!
//! It is a matter of memory and of nothing else: nothing is decided by it. A body is let go only once the
//! commit that holds it is durable, so whoever reads it reads what it was.

use bytes::Bytes;

use crate::activation::{Held, Snapshot};
use crate::command::{ActivationKey, Command};
use crate::dag::Order;
use crate::machine::Machine;
use crate::run::Run;
use crate::signal::Whom;

impl Machine {
    /// How many decisions were sealed. Who commits one notes it, for [`Machine::committed`].
    #[must_use]
    pub const fn sealed(&self) -> u64 {
        self.sealed
    }

    /// All decisions up to this one are durable: what only waits needs no body here any more.
    pub fn committed(&mut self, sealed: u64) {
        while let Some((at, _)) = self.begun_waits.front()
            && *at <= sealed
        {
            let (_, keys) = self.begun_waits.pop_front().expect("just looked at");
            for key in keys {
                let run = self.runs.get_mut(&key.lane.run);
                let run = run.filter(|run| !run.may_end_by_itself());
                if let Some(held) = run.and_then(|run| run.materialised.get_mut(&key))
                    && held.held == Held::Waiting
                    && held.written <= sealed
                {
                    held.let_go();
                }
            }
        }
    }

    /// Activations whose bodies have to be brought ([`Command::Fetched`]) before this command is applied.
    #[must_use]
    pub fn wanted(&self, command: &Command) -> Vec<ActivationKey> {
        let (run, who) = match command {
            Command::Stop { run } => (run, Who::All),
            // From now on the run may end by itself, and with it everything that waits.
            Command::Swap { run, dag, .. } if dag.ends_by_itself => (run, Who::All),
            Command::Start { dag, .. } if dag.ends_by_itself => {
                let open = |run: &&Run| run.row.dag == dag.spec.id && !run.is_over();
                return self
                    .runs
                    .values()
                    .filter(open)
                    .flat_map(Run::let_go)
                    .collect();
            }
            Command::Signal {
                run,
                name,
                key,
                all,
                to,
                ..
            } => (run, Who::Waits(name, *key, Whom { all: *all, to: *to })),
            _ => return Vec::new(),
        };
        let Some(run) = self.runs.get(run) else {
            return Vec::new();
        };
        match who {
            Who::All => run.let_go().collect(),
            Who::Waits(name, key, whom) => {
                let waiting = run.waiting_for(name, key, whom);
                let keys = waiting.into_iter().map(|(_, key, _)| key);
                keys.filter(|key| run.is_let_go(key)).collect()
            }
        }
    }

    /// Some of the activations that go on as soon as their bodies are here, at most so many. Each is named
    /// once.
    pub fn owed(&mut self, most: usize) -> Vec<ActivationKey> {
        let mut owed = Vec::new();
        while owed.len() < most
            && let Some(key) = self.owed.pop_first()
        {
            // Something else may have brought it meanwhile, and ended it.
            let run = self.runs.get(&key.lane.run);
            if run.is_some_and(|run| run.is_let_go(&key)) {
                self.fetching.insert(key);
                owed.push(key);
            }
        }
        owed
    }

    /// Bodies are here: those of activations that are due go on.
    pub(crate) fn fetched(&mut self, bodies: Vec<(ActivationKey, Bytes)>) {
        for (key, body) in bodies {
            let run = self.runs.get_mut(&key.lane.run);
            let Some(held) = run.and_then(|run| run.materialised.get_mut(&key)) else {
                continue;
            };
            if held.body().is_none() {
                held.bring(body);
                // It may turn out that it waits on.
                self.fresh_waits.push(key);
                if self.fetching.remove(&key) {
                    self.release_if_due(key);
                }
            }
        }
    }

    /// An activation without a body cannot go on yet.
    pub(crate) fn owe(&mut self, key: ActivationKey) {
        self.owed.insert(key);
    }

    /// Notes one that begins to wait, if its body may be let go.
    pub(crate) fn note_wait(&mut self, snapshot: &Snapshot, held: Held) {
        let run = self.runs.get(&snapshot.key.lane.run);
        if held == Held::Waiting && run.is_some_and(|run| run.may_let_go(snapshot)) {
            self.fresh_waits.push(snapshot.key);
        }
    }

    /// A decision is sealed.
    pub(crate) fn seal_waits(&mut self) {
        self.sealed += 1;
        if !self.fresh_waits.is_empty() {
            let keys = std::mem::take(&mut self.fresh_waits);
            self.begun_waits.push_back((self.sealed, keys));
        }
    }
}

/// Whose bodies a command is about.
enum Who<'a> {
    All,
    /// Those that wait for a signal of this name and key: the first, or all.
    Waits(&'a str, u128, Whom),
}

impl Run {
    /// Whether nothing but the end of its wait needs the body: no order, no join, no deadline, no end of
    /// the run that comes from within.
    fn may_let_go(&self, snapshot: &Snapshot) -> bool {
        let dag = &self.dags[usize::from(snapshot.version)];
        let source = self.source_in(snapshot.version, snapshot.key.lane.lane);
        let plan = source.map(|source| dag.plan_of_source[usize::from(source)]);
        let joins = plan.is_none_or(|plan| dag.plans[usize::from(plan)].is_join);
        dag.spec.order == Order::None
            && !joins
            && snapshot.deadline(dag).is_none()
            && !self.may_end_by_itself()
    }

    fn may_end_by_itself(&self) -> bool {
        self.dags.iter().any(|dag| dag.ends_by_itself)
    }

    fn let_go(&self) -> impl Iterator<Item = ActivationKey> {
        let without = |(_, held): &(_, &crate::run::Materialised)| held.body().is_none();
        self.materialised
            .iter()
            .filter(without)
            .map(|(key, _)| *key)
    }

    fn is_let_go(&self, key: &ActivationKey) -> bool {
        let held = self.materialised.get(key);
        held.is_some_and(|held| held.body().is_none())
    }
}
