//! What one DAG hears of another: ends of its activations (`evermill.after`), and what its tasks emit
//! (`evermill.topic`).
//!
//! ```text
//! core: news --same decision--> arrivals in the inbox of each source that listens --one commit--> fed
//! ```
//! What is heard is kept in the very commit that settles what it tells of, so that no crash loses or
//! doubles any. Who listens follows from the store alone: the sources of runs that are not over, whether
//! they are switched on or not. When an inbox has no room, the runs that fill it take nothing in.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use evermill_contract::manifest::End;
use evermill_contract::source::{Arrival, Severity};
use evermill_core::Machine;
use evermill_core::command::{ActivationKey, Command, LaneId, News, RunIx};
use evermill_core::history::Ended;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::books::name_of;
use crate::failpoint::fp;
use crate::inbox::{Bringer, Inboxes, Shelved};
use crate::limits;
use crate::manifest::Hears;
use crate::outcome::Said;
use crate::payload::Parts;
use crate::requests::is_over;
use crate::shard::{Shard, Version};

/// Who listens to what inside.
#[derive(Default)]
pub(crate) struct Hearers {
    /// By the id of the DAG whose ends are heard.
    after: BTreeMap<String, Vec<Hearer>>,
    /// By the topic's name.
    topics: BTreeMap<String, Vec<Hearer>>,
}

/// A source that listens.
struct Hearer {
    inbox: u32,
    dag: String,
    /// Which ends it wants to hear of.
    ends: BTreeSet<End>,
}

/// What is heard, for one inbox.
#[derive(Default)]
struct Heard {
    arrivals: Vec<Arrival>,
    /// Runs it came from.
    from: BTreeSet<RunIx>,
}

/// All that is heard of some news.
#[derive(Default)]
pub(crate) struct Word {
    by_inbox: BTreeMap<u32, Heard>,
    /// What was said where nobody listens, by topic.
    unheard: BTreeMap<String, u64>,
}

impl Hearers {
    /// As runs and versions say.
    pub(crate) fn find(
        machine: &Machine,
        versions: &BTreeMap<String, Version>,
        inboxes: &mut Inboxes,
    ) -> Self {
        let mut found = Self::default();
        for run in machine.runs().filter(|run| !is_over(run.state)) {
            let outline = versions.get(&run.version).map(|known| &known.outline);
            for source in outline.iter().flat_map(|outline| &outline.sources) {
                let (heard, ends) = match &source.hears {
                    None => continue,
                    Some(Hears::Ends { dag, ends }) => {
                        (found.after.entry(dag.clone()), ends.clone())
                    }
                    Some(Hears::Topic(name)) => (found.topics.entry(name.clone()), BTreeSet::new()),
                };
                heard.or_default().push(Hearer {
                    inbox: inboxes.number(&run.dag, &source.id),
                    dag: run.dag.clone(),
                    ends,
                });
            }
        }
        found
    }

    /// DAGs whose ends somebody wants to hear of.
    fn announced(&self) -> BTreeSet<String> {
        self.after.keys().cloned().collect()
    }

    /// Whether anybody hears of an inbox's events still.
    fn has(&self, inbox: u32) -> bool {
        let mut all = self.after.values().chain(self.topics.values()).flatten();
        all.any(|hearer| hearer.inbox == inbox)
    }

    /// The DAG whose source has this inbox.
    fn dag_of(&self, inbox: u32) -> Option<&str> {
        let mut all = self.after.values().chain(self.topics.values()).flatten();
        let found = all.find(|hearer| hearer.inbox == inbox);
        found.map(|hearer| hearer.dag.as_str())
    }

    /// News as events of those who hear of them, in order.
    fn word(&self, news: Vec<News>, names: &mut Names<'_>, now_ms: u64) -> Word {
        let mut word = Word::default();
        for one in news {
            match one {
                News::Ended { activation, .. } => {
                    let Some(dag) = names.dag(activation.lane) else {
                        continue;
                    };
                    let Some(hearers) = self.after.get(&dag) else {
                        continue;
                    };
                    let (end, arrival) = end_of(&one, names, now_ms);
                    let wanted = hearers.iter().filter(|hearer| hearer.ends.contains(&end));
                    for hearer in wanted {
                        word.tell(hearer, activation.lane.run, arrival.clone());
                    }
                }
                News::Said {
                    activation,
                    ref task,
                    map_index,
                    said,
                } => {
                    for (number, said) in said.iter().enumerate() {
                        let Some(said) = Said::read(said) else {
                            continue;
                        };
                        let Some(hearers) = self.topics.get(&said.topic) else {
                            *word.unheard.entry(said.topic).or_default() += 1;
                            continue;
                        };
                        let id = names.id(activation, task, map_index, number);
                        let from = names.name(activation);
                        let arrival = arrival_of(&said, id, &from, now_ms);
                        for hearer in hearers {
                            word.tell(hearer, activation.lane.run, arrival.clone());
                        }
                    }
                }
            }
        }
        word
    }
}

impl Word {
    fn tell(&mut self, hearer: &Hearer, from: RunIx, arrival: Arrival) {
        let heard = self.by_inbox.entry(hearer.inbox).or_default();
        heard.arrivals.push(arrival);
        heard.from.insert(from);
    }
}

/// An end of an activation as an event.
fn end_of(news: &News, names: &mut Names<'_>, now_ms: u64) -> (End, Arrival) {
    let News::Ended {
        activation,
        round,
        ended,
        event,
        events,
    } = news
    else {
        unreachable!("only ends are asked for");
    };
    let end = match ended {
        Ended::Done => End::Done,
        Ended::Skipped => End::Skipped,
        Ended::Parked | Ended::Dropped => End::Failed,
    };
    let lane = names.lane(activation.lane);
    let mut content = json!({
        "dag": lane.dag,
        "run": lane.run,
        "state": end.word(),
        "activation": name_of(&lane.run, &lane.source, &lane.lane, *activation),
        "source": lane.source,
        "lane": lane.lane,
        "position": activation.position,
        "round": round,
        "events": events,
    });
    let parts = Parts::read(&event.body);
    let key = parts.key.map(|(start, len)| {
        let start = start as usize;
        event.body.slice(start..start + len as usize)
    });
    if let Some(key) = key.as_ref().and_then(|key| std::str::from_utf8(key).ok()) {
        content["key"] = json!(key);
    }
    let arrival = Arrival {
        timestamp_ms: Some(now_ms as i64),
        key,
        headers: vec![json_header()],
        value: Some(Bytes::from(content.to_string())),
        id: None,
        rejected: None,
    };
    (end, arrival)
}

/// What a task said, as an event.
fn arrival_of(said: &Said, id: Bytes, from: &str, now_ms: u64) -> Arrival {
    Arrival {
        timestamp_ms: Some(now_ms as i64),
        key: said.key.clone(),
        headers: vec![
            json_header(),
            (
                Bytes::from_static(b"evermill-from"),
                Bytes::copy_from_slice(from.as_bytes()),
            ),
        ],
        value: Some(said.value.clone()),
        id: Some(id),
        rejected: None,
    }
}

fn json_header() -> (Bytes, Bytes) {
    let name = Bytes::from_static(b"content-type");
    (name, Bytes::from_static(b"application/json"))
}

/// What lanes are called; each is looked up once.
struct Names<'a> {
    machine: &'a Machine,
    lanes: BTreeMap<LaneId, LaneNames>,
}

#[derive(Clone, Default)]
struct LaneNames {
    dag: String,
    run: String,
    source: String,
    lane: String,
    /// What tells it from another lane of the same name.
    incarnation: String,
    generation: u32,
}

impl<'a> Names<'a> {
    const fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            lanes: BTreeMap::new(),
        }
    }

    fn dag(&mut self, lane: LaneId) -> Option<String> {
        let names = self.lane(lane);
        (!names.dag.is_empty()).then(|| names.dag.clone())
    }

    fn lane(&mut self, id: LaneId) -> &LaneNames {
        let machine = self.machine;
        self.lanes.entry(id).or_insert_with(|| {
            let Some(run) = machine.run(id.run) else {
                return LaneNames::default();
            };
            let mut lanes = machine.lanes(id.run);
            let Some(lane) = lanes.find(|lane| lane.lane == id) else {
                return LaneNames::default();
            };
            LaneNames {
                dag: run.dag,
                run: run.name,
                source: match lane.source_id {
                    none if none.is_empty() => crate::MANUAL.to_owned(),
                    id => id,
                },
                lane: lane.name,
                incarnation: lane.incarnation,
                generation: lane.generation,
            }
        })
    }

    fn name(&mut self, activation: ActivationKey) -> String {
        let lane = self.lane(activation.lane);
        name_of(&lane.run, &lane.source, &lane.lane, activation)
    }

    /// The same for every attempt, and after a redrive: what makes a message the same message (P2).
    fn id(
        &mut self,
        activation: ActivationKey,
        task: &str,
        map_index: i32,
        number: usize,
    ) -> Bytes {
        let lane = self.lane(activation.lane);
        let mut digest = Sha256::new();
        for part in [&lane.run, &lane.source, &lane.lane, &lane.incarnation] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        digest.update(lane.generation.to_be_bytes());
        digest.update(activation.position.to_be_bytes());
        digest.update(activation.child.to_be_bytes());
        digest.update(task.as_bytes());
        digest.update(map_index.to_be_bytes());
        digest.update((number as u64).to_be_bytes());
        Bytes::copy_from_slice(&digest.finalize())
    }
}

/// Puts news into the inboxes of those who listen, in the writes that go with what they tell of. For
/// who has no shard: at open, and at rest. Nothing of it counts as kept before it is shelved.
pub(crate) fn pass_on(
    machine: &Machine,
    versions: &BTreeMap<String, Version>,
    inboxes: &mut Inboxes,
    news: Vec<News>,
    now_us: u64,
    writes: &mut Vec<evermill_core::row::Write>,
) -> Vec<(u32, Shelved)> {
    let hearers = Hearers::find(machine, versions, inboxes);
    let mut names = Names::new(machine);
    let word = hearers.word(news, &mut names, now_us / 1_000);
    let mut kept = Vec::new();
    for (number, heard) in word.by_inbox {
        for part in parts(&heard.arrivals) {
            let Some(inbox) = inboxes.get_mut(number) else {
                continue;
            };
            // What cannot be kept is longer than anything that a task may say.
            let accepted = inbox.accept(part, None, now_us, Bringer::LetIn, writes);
            kept.extend(
                accepted
                    .ok()
                    .and_then(|accepted| accepted.shelved)
                    .map(|shelved| (number, shelved)),
            );
        }
    }
    kept
}

/// So many at once as one row of an inbox may hold.
fn parts(arrivals: &[Arrival]) -> impl Iterator<Item = &[Arrival]> {
    let mut rest = arrivals;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |arrival: &&Arrival| {
            bytes += crate::inbox::size(arrival);
            bytes <= limits::DELIVERY_BYTES
        };
        let count = rest
            .iter()
            .take(limits::BATCH_EVENTS)
            .take_while(fits)
            .count();
        if rest.is_empty() {
            return None;
        }
        let (part, after) = rest.split_at(count.max(1));
        rest = after;
        Some(part)
    })
}

/// Who is held up by whom.
#[derive(Default)]
pub(crate) struct HoldUps {
    /// Runs that filled an inbox, by its number.
    fill: BTreeMap<u32, BTreeSet<RunIx>>,
    /// Inboxes without room that hold a run up.
    held: BTreeMap<RunIx, BTreeSet<u32>>,
    /// Topics of which it was said that nobody listens.
    told: BTreeSet<String>,
}

impl Shard {
    /// Runs or their versions have changed: finds out who listens to what.
    pub(crate) fn find_hearers(&mut self) {
        self.hearers = Hearers::find(&self.machine, &self.versions, &mut self.inboxes);
        self.apply(Command::Announce {
            dags: self.hearers.announced(),
        });
        self.tell_unknown();
        let unheard: Vec<u32> = self.hold_ups.fill.keys().copied().collect();
        for number in unheard {
            if !self.hearers.has(number) {
                self.let_go_of(number);
                self.hold_ups.fill.remove(&number);
            }
        }
    }

    /// What was just decided, for those who listen, in the same commit.
    pub(crate) fn pass_news_on(&mut self) {
        let news = std::mem::take(&mut self.decision.news);
        let mut names = Names::new(&self.machine);
        let now_ms = self.world.clock.now_ms();
        let word = self.hearers.word(news, &mut names, now_ms);
        for (number, heard) in word.by_inbox {
            for part in parts(&heard.arrivals) {
                if let Err(refusal) = self.take_in(number, part, None, Bringer::LetIn) {
                    self.notice(
                        Severity::Error,
                        &format!("what a DAG said is lost: {refusal}"),
                    );
                }
            }
            fp!("hearing.passed_on");
            let fill = self.hold_ups.fill.entry(number).or_default();
            fill.extend(heard.from);
            self.hold_up(number);
        }
        for (topic, count) in word.unheard {
            if self.hold_ups.told.insert(topic.clone()) {
                let text = format!(
                    "topic '{topic}': nobody listens, and what is emitted to it is dropped ({count} so far)"
                );
                self.notice(Severity::Warning, &text);
            }
        }
    }

    /// Runs that fill an inbox without room take nothing more in.
    fn hold_up(&mut self, number: u32) {
        if self
            .inboxes
            .get(number)
            .is_none_or(|inbox| inbox.has_room())
        {
            return;
        }
        let fill = self.hold_ups.fill.get(&number).cloned();
        for run in fill.into_iter().flatten() {
            let holders = self.hold_ups.held.entry(run).or_default();
            let is_first = holders.is_empty();
            if holders.insert(number) && is_first {
                self.apply(Command::HoldUp { run, on: true });
                let dag = self.hearers.dag_of(number).unwrap_or_default().to_owned();
                self.tell_hold_up(run, Some(&dag));
            }
        }
    }

    /// An inbox has room again.
    pub(crate) fn let_go_of(&mut self, number: u32) {
        let held = self.hold_ups.held.iter_mut();
        let free = held.filter_map(|(run, holders)| {
            (holders.remove(&number) && holders.is_empty()).then_some(*run)
        });
        let free: Vec<RunIx> = free.collect();
        for run in free {
            self.hold_ups.held.remove(&run);
            self.apply(Command::HoldUp { run, on: false });
            self.tell_hold_up(run, None);
        }
    }

    /// Whether anybody is held up by an inbox.
    pub(crate) fn holds_up(&self, number: u32) -> bool {
        let mut held = self.hold_ups.held.values();
        held.any(|holders| holders.contains(&number))
    }

    fn tell_hold_up(&mut self, run: RunIx, by: Option<&str>) {
        let Some(name) = self
            .runs
            .get(&run)
            .map(|run| std::sync::Arc::clone(&run.name))
        else {
            return;
        };
        let reason = by.map(|dag| {
            let mut runs = self.runs.values();
            let is_on = runs.any(|slot| *slot.dag == *dag && slot.started && !is_over(slot.state));
            let cure = if is_on {
                "it goes on as soon as that has worked some off"
            } else {
                "start that DAG, or stop its run for good"
            };
            format!("held up: too much waits for DAG '{dag}', which listens to it; {cure}")
        });
        for (key, listening) in &mut self.listening {
            if key.run == run {
                listening.held_up.clone_from(&reason);
            }
        }
        self.view_stale = true;
        let subject = self.run_subject(run);
        match reason {
            Some(reason) => {
                self.notice_of(Severity::Warning, &subject, &format!("{name}: {reason}"));
            }
            None => {
                let text = format!("{name}: it is no longer held up");
                self.notice_of(Severity::Info, &subject, &text);
            }
        }
    }

    /// After a reload nothing is held up, and it is found out anew who is.
    pub(crate) fn forget_hold_ups(&mut self) {
        self.hold_ups.fill.clear();
        self.hold_ups.held.clear();
        for listening in self.listening.values_mut() {
            listening.held_up = None;
        }
    }

    /// Why a DAG may not listen to these: it would hear of itself, round and round.
    pub(crate) fn circle(&self, dag: &str, listens_to: &[String]) -> Option<String> {
        let mut path: Vec<Vec<&str>> = listens_to.iter().map(|to| vec![dag, to]).collect();
        let mut seen = BTreeSet::new();
        while let Some(way) = path.pop() {
            let at = *way.last()?;
            if at == dag {
                return Some(way.join("' listens to '"));
            }
            if !seen.insert(at) {
                continue;
            }
            let open = self
                .machine
                .runs()
                .find(|run| run.dag == at && !is_over(run.state));
            let outline = open.and_then(|run| self.versions.get(&run.version));
            for source in outline.iter().flat_map(|known| &known.outline.sources) {
                if let Some(Hears::Ends { dag: next, .. }) = &source.hears {
                    let mut longer = way.clone();
                    longer.push(next);
                    path.push(longer);
                }
            }
        }
        None
    }

    /// A source whose DAG was never here says so.
    pub(crate) fn tell_unknown(&mut self) {
        let keys: Vec<_> = self.listening.keys().copied().collect();
        for key in keys {
            let outline = self.outline_of(key.run);
            let place = self.place_of(key);
            let source = outline.and_then(|outline| outline.sources.get(usize::from(place?)));
            let Some(Hears::Ends { dag, .. }) = source.and_then(|source| source.hears.as_ref())
            else {
                continue;
            };
            let is_known = self.machine.runs().any(|run| run.dag == *dag);
            let reason = (!is_known).then(|| format!("DAG '{dag}' was never started here"));
            if let Some(listening) = self.listening.get_mut(&key) {
                listening.degraded = reason;
            }
        }
    }
}
