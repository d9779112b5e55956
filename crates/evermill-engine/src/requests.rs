//! What handles ask for, on its way to the machine. Every answer follows the commit.

use bytes::Bytes;
use evermill_core::command::{Command, Limited, RunIx, RunState, Selection};
use evermill_core::row::{Key, Row, Table, Write};

use crate::books::Books;
use crate::failpoint::fp;
use crate::groups::After;
use crate::handle::{EngineError, Started};
use crate::input::{Reply, Request, Steer};
use crate::operate::{self, Order, Resolve};
use crate::prepare::{Prepared, PreparedSource};
use crate::shard::{Flow, Shard, Version};
use crate::view::{ParkedFilter, RunDetail};

impl Shard {
    pub(crate) fn request(&mut self, request: Request) -> Flow {
        match request {
            Request::Start { prepared, reply } => self.start(prepared, reply),
            Request::Trigger {
                run,
                conf,
                id,
                once,
                reply,
            } => match self.trigger(&run, conf, id, once) {
                Ok(id) => self.reply_after_commit(reply, Ok(id)),
                refused => answer(&reply, refused),
            },
            Request::Signal { run, signal, reply } => match self.signal(&run, &signal) {
                Ok(pushed) => self.reply_after_commit(reply, Ok(pushed)),
                refused => answer(&reply, refused),
            },
            Request::Push {
                key,
                arrivals,
                reply,
            } => match self.push(key, &arrivals) {
                Ok(pushed) => self.reply_after_commit(reply, Ok(pushed)),
                refused => answer(&reply, refused),
            },
            Request::Steer { run, steer, reply } => match self.steer(&run, steer) {
                Ok(()) => self.reply_after_commit(reply, Ok(())),
                refused => answer(&reply, refused),
            },
            Request::Detail { run, reply } => answer(&reply, self.detail(&run)),
            Request::Names { run, reply } => answer(&reply, self.books().names(&run)),
            Request::Parked {
                run,
                which,
                page,
                reply,
            } => answer(&reply, self.books().parked(&run, &which, page)),
            Request::Resolve {
                run,
                which,
                how,
                reply,
            } => match self.resolve(&run, &which, how) {
                Ok(count) => self.reply_after_commit(reply, Ok(count)),
                refused => answer(&reply, refused),
            },
            Request::Amend {
                run,
                id,
                event,
                value,
                reply,
            } => match self.books().amend(&run, &id, event, &value) {
                Ok(command) => {
                    self.apply(command);
                    self.reply_after_commit(reply, Ok(()));
                }
                Err(refused) => answer(&reply, Err(refused)),
            },
            Request::Alerts { reply } => answer(&reply, Ok(self.alerts.all())),
            Request::Pools { reply } => answer(&reply, Ok(self.list_pools())),
            Request::SetPool { name, slots, reply } => self.set_pool(&name, slots, reply),
            // Queued behind whatever is being committed, so that it shows that too.
            Request::View { reply } => self.after.push(After::View(reply)),
            Request::Drain { grace, reply } => self.drain(grace, reply),
            Request::Halt => return Flow::End,
            Request::Poke => self.view_stale = true,
        }
        Flow::Go
    }

    pub(crate) fn reply_after_commit<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        result: Result<T, EngineError>,
    ) {
        self.after
            .push(After::Do(Box::new(move |_| answer(&reply, result))));
    }

    fn start(&mut self, prepared: Prepared, reply: Reply<Started>) {
        fp!("start.prepared");
        if let Err(refused) = self.may_start(&prepared) {
            return answer(&reply, Err(refused));
        }
        let dag = &prepared.outline.dag;
        let open = self
            .machine
            .runs()
            .find(|run| *run.dag == **dag && !is_over(run.state));
        let resumed = open.is_some();
        let (run, name) = open.map_or_else(|| self.new_run(dag), |open| (open.run, open.name));
        self.warm_up(&prepared.outline, &name);
        self.remember(&prepared);
        self.tell_pools();
        self.apply(Command::Start {
            run,
            name,
            dag: std::sync::Arc::clone(&prepared.dag),
            fresh: prepared.fresh,
        });
        fp!("start.applied");
        let Some(view) = self.machine.run(run) else {
            let refused = EngineError::Refused(format!("{dag}: the run could not be started"));
            return answer(&reply, Err(refused));
        };
        self.note_run(&view);
        if let Some(slot) = self.runs.get_mut(&run) {
            slot.started = true;
        }
        self.tell_rates(run);
        self.find_hearers();
        let started = Started {
            run: view.name,
            version: prepared.outline.version.clone(),
            resumed,
        };
        let (sources, passes_gaps) = (prepared.sources, prepared.pass_gaps);
        self.after.push(After::Do(Box::new(move |shard| {
            shard.started(run, sources, passes_gaps, started, &reply);
        })));
    }

    fn may_start(&self, prepared: &Prepared) -> Result<(), EngineError> {
        let dag = &prepared.outline.dag;
        let refuse = |text: String| Err(EngineError::Refused(text));
        if self.draining.is_some() {
            return Err(EngineError::Closed);
        }
        let listens = |slot: &&crate::shard::RunSlot| {
            slot.started
                && slot.dag == *dag
                && matches!(slot.state, RunState::Running | RunState::Paused)
        };
        if let Some(slot) = self.runs.values().find(listens) {
            return refuse(format!(
                "DAG '{dag}' is running already, as run '{}'",
                slot.name
            ));
        }
        let mut sources = self.listening.iter();
        let closing = sources.find(|(key, listening)| {
            let of_dag = self.runs.get(&key.run).is_some_and(|run| run.dag == *dag);
            of_dag && listening.ended.is_none()
        });
        if closing.is_some() {
            return refuse(format!(
                "DAG '{dag}' is still letting go of its sources; start it again"
            ));
        }
        let listens_to: Vec<String> = prepared.outline.heard_dags().collect();
        if let Some(circle) = self.circle(dag, &listens_to) {
            return refuse(format!(
                "DAG '{circle}': they would never come to rest; leave one evermill.after out"
            ));
        }
        let mut runs = self.machine.runs();
        let open = runs.find(|run| *run.dag == **dag && !is_over(run.state));
        if let Some(open) = open.filter(|_| prepared.fresh) {
            return refuse(format!(
                "DAG '{dag}' has the open run '{}', which goes on where it is; --fresh is for the \
                 time after a stop. Leave it out, or use another data directory",
                open.name
            ));
        }
        Ok(())
    }

    /// The start is durable: listen.
    fn started(
        &mut self,
        run: RunIx,
        sources: Vec<PreparedSource>,
        passes_gaps: bool,
        started: Started,
        reply: &Reply<Started>,
    ) {
        fp!("start.committed");
        let manual = sources.is_empty();
        self.listen(run, sources, passes_gaps);
        self.tell_unknown();
        if manual {
            self.open_manual_lane(run);
        }
        answer(reply, Ok(started));
    }

    fn new_run(&self, dag: &str) -> (RunIx, String) {
        let run = self.machine.runs().map(|run| run.run).max().unwrap_or(0) + 1;
        (run, format!("{dag}-{run}"))
    }

    /// Keeps version and bundle, in the commit that starts the run (W16).
    fn remember(&mut self, prepared: &Prepared) {
        let version = &prepared.outline.version;
        if !self.versions.contains_key(version) {
            self.keep(Table::Version, version, prepared.stored.clone());
            let known = Version {
                dag: std::sync::Arc::clone(&prepared.dag),
                outline: std::sync::Arc::clone(&prepared.outline),
            };
            self.versions.insert(version.clone(), known);
        }
        for file in &prepared.files {
            if self.stored_files.insert(file.sha256.clone()) {
                self.keep(Table::Bundle, &file.sha256, file.content.clone());
            }
        }
    }

    fn keep(&mut self, table: Table, hash: &str, body: Bytes) {
        let key = Key {
            run: 0,
            lane: 0,
            id: Bytes::copy_from_slice(hash.as_bytes()),
        };
        self.decision
            .writes
            .push(Write::Put(Row { table, key, body }));
        self.unseal();
    }

    /// How much of what may start in which time (W19); a machine forgets it when it is dropped.
    pub(crate) fn tell_rates(&mut self, run: RunIx) {
        let Some(outline) = self.outline_of(run) else {
            return;
        };
        let tasks = (0..).zip(&outline.tasks);
        let of_tasks = tasks.flat_map(|(task, outline)| {
            let rate = outline.rate.map(|rate| (Limited::Task(task), rate));
            let of_keys = outline.key_rate.map(|rate| (Limited::Key(task), rate));
            rate.into_iter().chain(of_keys)
        });
        let sources = (0..).zip(&outline.sources);
        let of_sources =
            sources.filter_map(|(source, outline)| Some((Limited::Source(source), outline.rate?)));
        let limited: Vec<_> = of_tasks.chain(of_sources).collect();
        for (of, rate) in limited {
            self.apply(Command::RateLimit {
                run,
                of,
                members: rate.members,
                interval_ms: rate.interval_ms,
            });
        }
    }

    fn steer(&mut self, run: &str, steer: Steer) -> Result<(), EngineError> {
        let found = self.books().find(run)?;
        let run = found.run;
        let order = |order| operate::changes(order, &found.name, found.state, true);
        let (changes, command) = match steer {
            Steer::Pause => (order(Order::Pause)?, Command::Pause { run }),
            Steer::Resume => (order(Order::Resume)?, Command::Resume { run }),
            Steer::Drain => (order(Order::Drain)?, Command::Drain { run }),
            Steer::Stop => (order(Order::Stop)?, Command::Stop { run }),
            Steer::Redrive(selection) => (true, Command::Redrive { run, selection }),
            Steer::Discard(selection) => (true, Command::Discard { run, selection }),
        };
        if changes {
            self.apply(command);
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        run: &str,
        which: &ParkedFilter,
        how: Resolve,
    ) -> Result<u64, EngineError> {
        let books = self.books();
        let found = books.find(run)?;
        operate::may_resolve(&books, &found, how)?;
        let keys = books.chosen(run, which)?;
        let count = keys.len() as u64;
        let (run, selection) = (found.run, Selection::Keys(keys));
        self.apply(match how {
            Resolve::Retry => Command::Redrive { run, selection },
            Resolve::Drop => Command::Discard { run, selection },
        });
        Ok(count)
    }

    fn detail(&self, run: &str) -> Result<RunDetail, EngineError> {
        let found = self.books().find(run)?;
        let slot = self.runs.get(&found.run);
        let slot = slot.ok_or_else(|| EngineError::UnknownRun {
            name: run.to_owned(),
            nearest: None,
        })?;
        Ok(RunDetail {
            run: self.run_view(found.run, slot),
            stalled: self.stalled.clone(),
            waiting: found.waiting as u64,
            misses: slot.misses.iter().rev().cloned().collect(),
            alerts: self.alerts.of_run(&found.name),
            parked_by: self.books().parked_by(run)?,
            failures: slot.failures.iter().rev().cloned().collect(),
            graph: self.books().graph(&found.version),
        })
    }

    pub(crate) fn books(&self) -> Books<'_> {
        Books {
            machine: &self.machine,
            versions: &self.versions,
        }
    }
}

pub(crate) const fn is_over(state: RunState) -> bool {
    matches!(
        state,
        RunState::Stopped | RunState::Finished | RunState::Failed
    )
}

pub(crate) fn answer<T>(reply: &Reply<T>, result: Result<T, EngineError>) {
    // Nobody listens any more when the asker has given up.
    drop(reply.try_send(result));
}
