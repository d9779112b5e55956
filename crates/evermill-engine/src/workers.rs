//! What workers report, on its way to the machine.

use bytes::Bytes;
use evermill_contract::source::Severity;
use evermill_contract::worker::{
    Answer, Death, LogOrigin, OutcomeRun, Question, Slot, Token, WorkerEvent,
};
use evermill_core::MemberView;
use evermill_core::command::{Command, DispatchId, Fence, StateValue};

use crate::attempts::Stamp;
use crate::dispatch::json_list;
use crate::failpoint::fp;
use crate::groups::After;
use crate::open::LogLine;
use crate::outcome;
use crate::payload;
use crate::sabotage;
use crate::shard::Shard;
use crate::slots::unpack;

impl Shard {
    pub(crate) fn worker(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Ready { slot, pid } => {
                self.slots.started(slot, pid);
                self.unavailable = None;
                self.view_stale = true;
            }
            WorkerEvent::Outcomes { token, runs, .. } => self.outcomes(token, runs),
            WorkerEvent::Returned { token, from, .. } => self.returned(token, from),
            WorkerEvent::Finished { token, .. } => self.finished(token),
            WorkerEvent::Ask {
                slot,
                call,
                token,
                member,
                question,
            } => self.asked(slot, call, token, member, question),
            WorkerEvent::Log {
                slot,
                token,
                member,
                origin,
                text,
            } => self.log(slot, (token, member), origin, text),
            WorkerEvent::Progress {
                slot,
                token,
                member,
                value,
            } => self.log(
                slot,
                (Some(token), Some(member)),
                LogOrigin::Logging(20),
                progress(&value),
            ),
            WorkerEvent::Died {
                slot,
                cause,
                token,
                started,
                reported,
            } => self.died(slot, &cause, token, started.filter(|&at| at >= reported)),
            WorkerEvent::Unavailable { reason, .. } => {
                if self.unavailable.as_deref() != Some(&reason) {
                    self.notice(Severity::Error, &reason);
                }
                self.unavailable = Some(reason);
                self.view_stale = true;
            }
        }
    }

    fn outcomes(&mut self, token: Token, reported: Vec<OutcomeRun>) {
        fp!("shard.outcomes_received");
        self.measure(token, &reported);
        let members = reported.iter().map(|run| run.count).sum();
        self.slots.reported(token, members);
        if self.inquiries.knows(token) {
            return self.inquiries.heard(token, reported);
        }
        let Some((out, task)) = self.slots.of_task(token) else {
            return;
        };
        let stamps = Stamp::all(&reported);
        let mut runs = outcome::runs(reported, &out.dag, &out.outline, task);
        let out_of_batch = out.left_out;
        if runs.is_empty() {
            return;
        }
        let (dispatch, fence) = self.name(token);
        if fence == self.machine.fence() {
            if out_of_batch {
                self.split_off_rejected(dispatch, &mut runs);
            }
            self.tally(token, &runs);
            self.note_attempts(token, &runs, &stamps);
            self.spill(dispatch, &mut runs);
        }
        self.apply(Command::Outcomes {
            dispatch,
            fence,
            runs,
        });
        fp!("shard.outcomes_applied");
    }

    /// Members behind one that runs long come back. Those of an inquiry are asked again at its end.
    fn returned(&mut self, token: Token, from: u32) {
        self.slots.shrink(token, from);
        if self.inquiries.knows(token) {
            return;
        }
        let (dispatch, fence) = self.name(token);
        self.apply(Command::Returned {
            dispatch,
            fence,
            from,
        });
    }

    fn finished(&mut self, token: Token) {
        self.slots.over(token);
        if self.inquired(token, None) {
            return self.send_waiting();
        }
        let (dispatch, fence) = self.name(token);
        self.apply(Command::Finished { dispatch, fence });
        fp!("shard.finished_applied");
        self.send_waiting();
    }

    fn died(&mut self, slot: Slot, cause: &Death, token: Option<Token>, started: Option<u32>) {
        self.slots.set_ready(slot, false);
        self.view_stale = true;
        let Some(token) = token else { return };
        let out = self.slots.over(token);
        if self.is_ending() {
            // We ended it ourselves: the attempt left no trace and runs again at the next start.
            return;
        }
        let died = outcome::death(cause);
        if self.inquired(token, Some((started, &died))) {
            return self.send_waiting();
        }
        let (dispatch, fence) = self.name(token);
        if let (Some(out), Some(started), true) = (out, started, fence == self.machine.fence()) {
            self.note_cut_off(&out, dispatch, started, &died);
        }
        self.apply(Command::Died {
            dispatch,
            fence,
            started,
            error: outcome::error_bytes(&died),
        });
        fp!("shard.died_applied");
        self.send_waiting();
    }

    /// The dispatch and fence behind a token.
    fn name(&self, token: Token) -> (DispatchId, Fence) {
        let (id, fence) = unpack(token, self.machine.fence());
        (
            id,
            if sabotage::accept_second_result() {
                self.machine.fence()
            } else {
                fence
            },
        )
    }

    /// Counts arrival to callable for members whose first attempt this was.
    fn measure(&mut self, token: Token, reported: &[OutcomeRun]) {
        let Some(out) = self.slots.get(token) else {
            return;
        };
        if out.arrivals.is_empty() {
            return;
        }
        let ahead_us = self.ahead_us();
        let Some(run) = self.runs.get_mut(&out.run) else {
            return;
        };
        for report in reported {
            let wall = |ns: u64| ns / 1_000 + ahead_us;
            let (first, end) = (report.first, report.first + report.count);
            let step = (report.ended_ns - report.started_ns.min(report.ended_ns))
                / u64::from(report.count);
            let start_of = |member: u32| wall(report.started_ns + step * u64::from(member - first));
            for (index, &(from, arrived)) in out.arrivals.iter().enumerate() {
                let to = out
                    .arrivals
                    .get(index + 1)
                    .map_or(out.members, |next| next.0);
                let (from, to) = (from.max(first), to.min(end));
                if arrived > 0 && from < to {
                    let took = |member| start_of(member).saturating_sub(arrived);
                    run.latency
                        .record_spread(took(from), took(to - 1), u64::from(to - from));
                }
            }
        }
    }

    /// How far the clock is ahead of the monotonic one, on which workers stamp what they report.
    pub(crate) fn ahead_us(&self) -> u64 {
        let now_us = self.world.clock.now_us();
        now_us.saturating_sub(monotonic_ns() / 1_000)
    }

    fn asked(&mut self, slot: Slot, call: u32, token: Token, member: u32, question: Question) {
        if let Question::Judge { function, about } = question {
            return self.task_asks(slot, call, token, (&function, *about));
        }
        let question = &question;
        let answer = self.answer(token, member, question);
        if self.is_durable() {
            self.executor.answer(slot, call, answer);
        } else {
            // What it says may not be durable yet.
            self.after.push(After::Answer(slot, call, answer));
        }
    }

    fn answer(&self, token: Token, member: u32, question: &Question) -> Answer {
        let settings = &self.world.settings;
        let found = match question {
            Question::Ended { dag, at_ms } => return self.ended_elsewhere(dag, *at_ms),
            Question::Variable { name } => settings.variable(name),
            Question::Connection { conn_id } => {
                return self.outside(token, "connection", conn_id, |id| settings.connection(id));
            }
            Question::Secret { name } => {
                return self.outside(token, "secret", name, |name| settings.secret(name));
            }
            Question::Judge { .. } => None,
            Question::XcomPull { .. } | Question::StateGet { .. } => {
                let (id, fence) = unpack(token, self.machine.fence());
                let current = fence == self.machine.fence();
                let view = self.machine.dispatch(id).filter(|_| current);
                let Some(member) = view.and_then(|view| view.member(member)) else {
                    return Answer::Refused("this attempt is no longer wanted".to_owned());
                };
                self.look_up(token, &member, question)
            }
        };
        found.map_or(Answer::Missing, Answer::Value)
    }

    fn look_up(&self, token: Token, member: &MemberView<'_>, question: &Question) -> Option<Bytes> {
        match question {
            Question::XcomPull {
                task_id,
                key,
                map_index,
            } => {
                let out = self.slots.get(token)?;
                let task = out.outline.task(task_id)?;
                if out.dag.spec.tasks[usize::from(task)].mapped.is_none() {
                    return outcome::named_value(&self.whole(member.result(task)?), key);
                }
                let all = member.results(task);
                let named = |kept: Option<&Bytes>| outcome::named_value(&self.whole(kept?), key);
                match map_index {
                    Some(index) => named(*all.get(usize::try_from(*index).ok()?)?),
                    None => Some(json_list(all.into_iter().map(named))),
                }
            }
            Question::StateGet { name } => {
                let run = member.activation().lane.run;
                let state = self.machine.scope_state(run, &member.state_scope())?;
                state.get(name.as_bytes()).map(state_json)
            }
            Question::Variable { .. }
            | Question::Connection { .. }
            | Question::Ended { .. }
            | Question::Secret { .. }
            | Question::Judge { .. } => None,
        }
    }

    /// A task gets what it has declared, and nothing else of the installation.
    fn outside(
        &self,
        token: Token,
        sort: &str,
        name: &str,
        find: impl Fn(&str) -> Result<Option<String>, String>,
    ) -> Answer {
        // A function that judges what a source brings is no task, and declares nothing.
        let Some((out, task)) = self.slots.of_task(token) else {
            let why = format!("no task asks for the {sort} '{name}' here");
            return Answer::Refused(why);
        };
        let task = &out.outline.tasks[usize::from(task)];
        let declared = if sort == "secret" {
            &task.secrets
        } else {
            &task.connections
        };
        if !declared.iter().any(|declared| declared == name) {
            let id = &task.id;
            return Answer::Refused(format!(
                "task '{id}' does not declare the {sort} '{name}', so it does not get it: write \
                 {sort}s=[\"{name}\"] on the task, or on its DAG"
            ));
        }
        match find(name) {
            Ok(Some(value)) => {
                let json = serde_json::Value::from(value).to_string();
                Answer::Value(Bytes::from(json))
            }
            Ok(None) => Answer::Missing,
            Err(why) => Answer::Refused(why),
        }
    }

    fn log(
        &mut self,
        slot: Slot,
        (token, member): (Option<Token>, Option<u32>),
        origin: LogOrigin,
        text: Bytes,
    ) {
        let out = token.and_then(|token| self.slots.get(token));
        let mut line = LogLine {
            dag: out.map(|out| out.outline.dag.clone()),
            run: out.and_then(|out| Some(self.runs.get(&out.run)?.name.clone())),
            task: out.and_then(|out| Some(out.outline.tasks[usize::from(out.task?)].id.clone())),
            position: None,
            lane: None,
            key: None,
            try_number: 0,
            worker: Some(slot.0),
            origin,
            text,
        };
        if let (Some(token), Some(member)) = (token, member) {
            let (id, _) = unpack(token, self.machine.fence());
            if let Some(view) = self
                .machine
                .dispatch(id)
                .and_then(|view| view.member(member))
            {
                line.position = Some(view.activation().position);
                line.lane = Some(view.lane_name().into());
                line.key = view.events().first().and_then(payload::short_key);
                line.try_number = view.try_number();
            }
        }
        self.world.logger.write(line);
    }
}

fn progress(value: &Bytes) -> Bytes {
    Bytes::from([b"progress ", &value[..]].concat())
}

pub(crate) fn state_json(value: &StateValue) -> Bytes {
    match value {
        StateValue::Blob(json) => json.clone(),
        StateValue::Int(number) => Bytes::from(number.to_string().into_bytes()),
        StateValue::Set(elements) => json_list(elements.iter().cloned().map(Some)),
    }
}

/// The machine's monotonic clock, on which workers stamp what they report.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}
