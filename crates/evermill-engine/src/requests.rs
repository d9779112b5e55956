//! What handles ask for, on its way to the machine. Every answer follows the commit.

use bytes::Bytes;
use evermill_core::command::{Command, Limited, RunIx, RunState, Selection};
use evermill_core::row::{Key, Row, Table, Write};

use crate::MANUAL;
use crate::books::Books;
use crate::failpoint::fp;
use crate::groups::After;
use crate::handle::{EngineError, Started};
use crate::input::{Reply, Request, Steer};
use crate::manifest::Outline;
use crate::operate::{self, Order, Resolve};
use crate::prepare::{Prepared, PreparedSource, Stored};
use crate::record::{Record, Why};
use crate::shard::{Flow, Shard, Version};
use crate::swap::version_views;
use crate::view::{NoteKind, NoteView, ParkedFilter, RunDetail};

impl Shard {
    pub(crate) fn request(&mut self, request: Request) -> Flow {
        match request {
            Request::Start { prepared, reply } => self.start(prepared, reply),
            Request::Standing { dag, reply } => drop(reply.try_send(self.standing(&dag))),
            Request::Stored {
                dag,
                version,
                reply,
            } => answer(&reply, self.stored(&dag, version.as_deref())),
            Request::Pair {
                run,
                from,
                to,
                reply,
            } => {
                let found = self.books().find(&run);
                let pair = found.and_then(|run| {
                    let record = self.records.get(&run.dag);
                    self.books()
                        .pair(record, &run, from.as_deref(), to.as_deref())
                });
                answer(&reply, pair);
            }
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
            Request::Waits {
                run,
                signal,
                page,
                reply,
            } => answer(&reply, self.books().waits(&run, signal.as_deref(), page)),
            Request::Push {
                key,
                arrivals,
                reply,
            } => match self.push(key, &arrivals) {
                Ok(pushed) => self.reply_after_commit(reply, Ok(pushed)),
                refused => answer(&reply, refused),
            },
            Request::Ground { run, source, reply } => {
                answer(&reply, self.books().ground(&run, source.as_deref()));
            }
            Request::Replay { again, reply } => match self.may_replay(&again) {
                Ok((command, replay)) => {
                    self.apply(command);
                    self.reply_after_commit(reply, Ok(replay));
                }
                Err(refused) => answer(&reply, Err(refused)),
            },
            // Whoever asked may have given up.
            Request::Unread { ix, stretch, reply } => {
                drop(reply.try_send(self.machine.unread(ix, stretch)));
            }
            Request::SteerReplay {
                run,
                replay,
                steer,
                reply,
            } => match self.steer_replay(&run, replay, steer) {
                Ok(()) => self.reply_after_commit(reply, Ok(())),
                refused => answer(&reply, refused),
            },
            Request::Replays { run, reply } => {
                let found = self.books().find(&run);
                answer(&reply, found.map(|run| self.books().replays(&run, true)));
            }
            Request::ForgetSource {
                run,
                source,
                dry_run,
                reply,
            } => self.forget_source(&run, &source, dry_run, reply),
            Request::Reset {
                run,
                moves,
                by,
                reply,
            } => match self.reset(&run, &moves, &by) {
                Ok(()) => self.reply_after_commit(reply, Ok(())),
                refused => answer(&reply, refused),
            },
            Request::Steer { run, steer, reply } => match self.steer(&run, steer) {
                Ok(()) => self.reply_after_commit(reply, Ok(())),
                refused => answer(&reply, refused),
            },
            Request::Detail { run, reply } => answer(&reply, self.detail(&run)),
            Request::Attempts { run, wanted, reply } => {
                answer(&reply, self.attempts(&run, &wanted));
            }
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
                dry_run,
                reply,
            } => match self.resolve(&run, &which, how, dry_run) {
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
            Request::View { reply } => self.look(reply),
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

    fn start(&mut self, prepared: Prepared, reply: Reply<Option<Started>>) {
        fp!("start.prepared");
        let listening = self.listening_run(&prepared.outline.dag);
        let has = listening.and_then(|run| self.runs.get(&run));
        match (listening, has) {
            (Some(run), Some(slot)) if self.draining.is_none() => {
                if slot.version == prepared.outline.version {
                    let version = slot.version.clone();
                    let started = Started {
                        run: slot.name.to_string(),
                        version: version.clone(),
                        resumed: true,
                        before: Some(version.clone()),
                    };
                    if prepared.why != Why::Rollback {
                        let dag = prepared.outline.dag.to_string();
                        self.note_change(run, &dag, &version, &prepared);
                    }
                    return self.reply_after_commit(reply, Ok(Some(started)));
                }
                if prepared.base.as_ref() != Some(&slot.version) {
                    return answer(&reply, Ok(None));
                }
                return match refuse_fresh(&prepared, &slot.name) {
                    Ok(()) => self.swap(run, prepared, reply),
                    Err(refused) => answer(&reply, Err(refused)),
                };
            }
            // What it was to take the place of rests by now, and so do its sources.
            _ if prepared.base.is_some() => return answer(&reply, Ok(None)),
            _ => {}
        }
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
        self.warm_up(&prepared.outline, &prepared.manifest, &name);
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
        let version = prepared.outline.version.clone();
        self.note_change(run, &view.dag, &version, &prepared);
        let started = Started {
            run: view.name,
            version,
            resumed,
            before: None,
        };
        let (sources, passes_gaps) = (prepared.sources, prepared.pass_gaps);
        self.after.push(After::Do(Box::new(move |shard| {
            shard.started(run, sources, passes_gaps, started, &reply);
        })));
    }

    fn may_start(&self, prepared: &Prepared) -> Result<(), EngineError> {
        let dag = &prepared.outline.dag;
        if self.draining.is_some() {
            return Err(EngineError::Closed);
        }
        let mut sources = self.listening.iter();
        let closing = sources.find(|(key, listening)| {
            let of_dag = self.runs.get(&key.run).is_some_and(|run| run.dag == *dag);
            of_dag && listening.ended.is_none()
        });
        if closing.is_some() {
            return Err(EngineError::Busy(format!(
                "DAG '{dag}' is still letting go of its sources; start it again"
            )));
        }
        let listens_to: Vec<String> = prepared.outline.heard_dags().collect();
        if let Some(circle) = self.circle(dag, &listens_to) {
            return Err(EngineError::Refused(format!(
                "DAG '{circle}': they would never come to rest; leave one evermill.after out"
            )));
        }
        let mut runs = self.machine.runs();
        let open = runs.find(|run| *run.dag == **dag && !is_over(run.state));
        open.map_or(Ok(()), |open| refuse_fresh(prepared, &open.name))
    }

    /// A version of a DAG that the store has.
    fn stored(&self, dag: &str, version: Option<&str>) -> Result<Stored, EngineError> {
        let refuse = |text: String| Err(EngineError::Refused(text));
        let mut runs: Vec<_> = self.machine.runs().filter(|run| run.dag == *dag).collect();
        let Some(last) = runs.pop() else {
            return Err(EngineError::UnknownDag(dag.to_owned()));
        };
        let record = self.records.get(dag);
        let kept: Vec<&str> = record.map(Record::kept).unwrap_or_default();
        let kept = kept
            .into_iter()
            .filter(|hash| self.versions.contains_key(*hash));
        let kept: Vec<&str> = kept.collect();
        let list = || {
            let others = kept.iter().filter(|hash| **hash != last.version);
            let others: Vec<&str> = others.map(|hash| &hash[..hash.len().min(12)]).collect();
            if others.is_empty() {
                format!("DAG '{dag}' has had no other version that is kept")
            } else {
                format!("kept are {}, the latest first", others.join(", "))
            }
        };
        let hash = match version {
            None => last.version.as_str(),
            Some("") => match kept.iter().find(|hash| **hash != last.version) {
                Some(before) => before,
                None => return refuse(list()),
            },
            Some(wanted) => {
                let fits: Vec<_> = kept
                    .iter()
                    .filter(|hash| hash.starts_with(wanted))
                    .collect();
                match fits[..] {
                    [one] => one,
                    [] => return refuse(format!("no version begins with '{wanted}': {}", list())),
                    _ => {
                        let many = "several versions begin with";
                        return refuse(format!("{many} '{wanted}': {}", list()));
                    }
                }
            }
        };
        let Some(known) = self.versions.get(hash) else {
            return refuse(format!("version {hash} is not kept any more"));
        };
        Ok(Stored {
            version: hash.to_owned(),
            manifest: std::sync::Arc::clone(&known.manifest),
            put_away: record.and_then(Record::put_away).map(str::to_owned),
            current: last.version.clone(),
            standing: self.standing(dag),
        })
    }

    /// The start is durable: listen.
    fn started(
        &mut self,
        run: RunIx,
        sources: Vec<PreparedSource>,
        passes_gaps: bool,
        started: Started,
        reply: &Reply<Option<Started>>,
    ) {
        fp!("start.committed");
        let manual = sources.is_empty();
        self.listen(run, sources, passes_gaps);
        self.tell_unknown();
        if manual {
            self.open_manual_lane(run);
        }
        answer(reply, Ok(Some(started)));
    }

    fn new_run(&self, dag: &str) -> (RunIx, String) {
        let run = self.machine.runs().map(|run| run.run).max().unwrap_or(0) + 1;
        (run, format!("{dag}-{run}"))
    }

    /// Keeps version and bundle, in the commit that starts the run (W16).
    pub(crate) fn remember(&mut self, prepared: &Prepared) {
        let version = &prepared.outline.version;
        if !self.versions.contains_key(version) {
            let stored = serde_json::to_vec(&*prepared.manifest);
            let stored = stored.expect("a manifest has string keys only");
            self.keep(Table::Version, version, Bytes::from(stored));
            let known = Version {
                dag: std::sync::Arc::clone(&prepared.dag),
                outline: std::sync::Arc::clone(&prepared.outline),
                manifest: std::sync::Arc::clone(&prepared.manifest),
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
        for (of, members, interval_ms) in rates(outline) {
            self.apply(Command::RateLimit {
                run,
                of,
                members,
                interval_ms,
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
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        let books = self.books();
        let found = books.find(run)?;
        operate::may_resolve(&books, &found, how)?;
        let keys = books.chosen(run, which)?;
        let count = keys.len() as u64;
        if dry_run {
            return Ok(count);
        }
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
            misses: slot.misses.iter().rev().cloned().collect(),
            alerts: self.alerts.of_run(&found.name),
            parked_by: self.books().parked_by(run)?,
            failures: self.failures(found.run, slot),
            graph: self.books().graph(&found),
            versions: version_views(
                self.records.get(&found.dag),
                &found.version,
                &self.machine.in_flight_by_version(found.run),
                |version| self.versions.contains_key(version),
            ),
            notes: self.left_behind(found.run),
            resets: self.books().resets(&found),
        })
    }

    /// Events that wait for a source which the run's version has not (W16).
    pub(crate) fn left_behind(&self, run: RunIx) -> Vec<NoteView> {
        let (Some(slot), Some(outline)) = (self.runs.get(&run), self.outline_of(run)) else {
            return Vec::new();
        };
        let known =
            |id: &str| id == MANUAL || outline.sources.iter().any(|source| *source.id == *id);
        let left = self.inboxes.left_behind(&slot.dag, known);
        left.map(|(source, events)| {
            let (events, are) = match events {
                1 => ("1 event".to_owned(), "is"),
                more => (format!("{more} events"), "are"),
            };
            let text = format!(
                "{}: {events} of source '{source}' {are} kept, and {are} taken up when a version has it again; \
                 `evermill sources forget {} {source}` lets go of them",
                slot.name, slot.dag
            );
            NoteView {
                kind: NoteKind::EventsLeft,
                text,
            }
        })
        .collect()
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

/// A run that is open goes on where it is.
fn refuse_fresh(prepared: &Prepared, open: &str) -> Result<(), EngineError> {
    if !prepared.fresh {
        return Ok(());
    }
    Err(EngineError::Refused(format!(
        "DAG '{}' has the open run '{open}', which goes on where it is; --fresh is for the time after \
         a stop. Leave it out, or use another data directory",
        prepared.outline.dag
    )))
}

pub(crate) fn answer<T>(reply: &Reply<T>, result: Result<T, EngineError>) {
    // Nobody listens any more when the asker has given up.
    drop(reply.try_send(result));
}

/// What a version limits, by its places.
pub(crate) fn rates(outline: &Outline) -> Vec<(Limited, u32, u64)> {
    let tasks = (0..).zip(&outline.tasks);
    let of_tasks = tasks.flat_map(|(task, outline)| {
        let rate = outline.rate.map(|rate| (Limited::Task(task), rate));
        let of_keys = outline.key_rate.map(|rate| (Limited::Key(task), rate));
        rate.into_iter().chain(of_keys)
    });
    let sources = (0..).zip(&outline.sources);
    let of_sources =
        sources.filter_map(|(source, outline)| Some((Limited::Source(source), outline.rate?)));
    let all = of_tasks.chain(of_sources);
    all.map(|(of, rate)| (of, rate.members, rate.interval_ms))
        .collect()
}
