//! Our seat in a consumer group: which partitions the group gives us, and commits as its member.
//!
//! It is a client of its own that reads nothing, so that the reading client can be made anew without
//! leaving the group. librdkafka tells of a change on the polling thread and then waits, for
//! minutes if need be, until it is answered: so a change is only noted there, and answered when
//! what follows from it is done.
//!
//! ```text
//! given:  answered at once; nothing is delivered before the engine starts the lane
//! taken:  the engine settles what it began -> commit, answered by the broker -> answered
//! lost:   answered at once; the group went on without us
//! ```
//!
//! Commits are made on a thread of their own that waits for the answer: the wrapped library tells
//! nothing of a commit that nobody waits for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evermill_contract::source::{DiagnosticSink, Severity};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::client::{Signal, raise};
use super::config::Connection;
use crate::limits;

/// A member of a group.
pub(super) struct Member {
    client: Arc<BaseConsumer<GroupTalk>>,
    /// Ends with its channel.
    teller: Option<(SyncSender<TopicPartitionList>, JoinHandle<()>)>,
    topic: String,
    /// Partitions that are ours to read.
    ours: BTreeSet<i32>,
    handing_on: Option<HandingOn>,
    /// Sent to the group and not answered.
    telling: Option<BTreeMap<i32, u64>>,
    /// What the group has against us, until it gives us something.
    trouble: Option<String>,
}

/// Partitions on their way to other members.
struct HandingOn {
    partitions: BTreeSet<i32>,
    /// Of them, those of which something is still under way here.
    settling: BTreeSet<i32>,
    /// Then they go all the same.
    until: Instant,
}

/// What the group has decided.
#[derive(Debug)]
pub(super) enum Change {
    /// These are ours now.
    Given(BTreeSet<i32>),
    /// These are to go to others.
    Taken(BTreeSet<i32>),
    /// These may have gone to others already.
    Lost(BTreeSet<i32>),
}

/// How a commit of positions ended.
pub(super) enum Told {
    /// The broker has them.
    Kept(BTreeMap<i32, u64>),
    /// It does not.
    Refused(BTreeMap<i32, u64>),
}

impl Member {
    /// Joins `group` for `topic`; what comes of it is told by [`Member::attend`].
    pub(super) fn join(
        connection: &Connection,
        group: &str,
        topic: &str,
        diagnostics: &DiagnosticSink,
        signal: &Arc<Signal>,
    ) -> KafkaResult<Self> {
        let talk = GroupTalk {
            topic: topic.to_owned(),
            diagnostics: Arc::clone(diagnostics),
            leaving: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            heard: Mutex::default(),
        };
        let mut client: BaseConsumer<GroupTalk> =
            connection.member(group).create_with_context(talk)?;
        client.set_nonempty_callback(raise(signal));
        client.subscribe(&[topic])?;
        let client = Arc::new(client);
        Ok(Self {
            teller: teller(&client, signal),
            client,
            topic: topic.to_owned(),
            ours: BTreeSet::new(),
            handing_on: None,
            telling: None,
            trouble: None,
        })
    }

    /// Serves the client; returns what the group has decided, in order.
    pub(super) fn attend(&mut self) -> VecDeque<Change> {
        loop {
            let before = self.client.context().calls.load(Ordering::Relaxed);
            match self.client.poll(Duration::ZERO) {
                None if self.client.context().calls.load(Ordering::Relaxed) == before => break,
                Some(Err(error)) => self.heard_error(&error),
                // It reads nothing.
                None | Some(Ok(_)) => {}
            }
        }
        std::mem::take(&mut self.client.context().heard().changes)
    }

    /// Partitions were given: they are ours from now on.
    pub(super) fn take(&mut self, partitions: &BTreeSet<i32>) {
        self.trouble = None;
        self.ours.extend(partitions);
        // What is read is not this client's affair, so it is assigned nothing.
        self.answered(self.client.incremental_assign(&TopicPartitionList::new()));
    }

    /// Partitions go to others: they are no longer ours, and are handed on once `settling` are
    /// released.
    pub(super) fn give(&mut self, partitions: BTreeSet<i32>, settling: BTreeSet<i32>) {
        self.ours
            .retain(|partition| !partitions.contains(partition));
        let handing_on = self.handing_on.get_or_insert_with(|| HandingOn {
            partitions: BTreeSet::new(),
            settling: BTreeSet::new(),
            until: Instant::now() + limits::KAFKA_HAND_ON_WAIT,
        });
        handing_on.partitions.extend(partitions);
        handing_on.settling.extend(settling);
    }

    /// Partitions are lost: nothing more can be said of them.
    pub(super) fn lose(&mut self, partitions: &BTreeSet<i32>) {
        self.ours
            .retain(|partition| !partitions.contains(partition));
        self.handing_on = None;
        self.let_go();
    }

    /// Nothing of a partition is under way here any more. Returns whether that was waited for.
    pub(super) fn release(&mut self, partition: i32) -> bool {
        let handing_on = self.handing_on.as_mut();
        handing_on.is_some_and(|it| it.settling.remove(&partition))
    }

    /// What is to be handed on, when all of it is settled.
    pub(super) fn settled(&self) -> Option<&BTreeSet<i32>> {
        let handing_on = self.handing_on.as_ref()?;
        handing_on
            .settling
            .is_empty()
            .then_some(&handing_on.partitions)
    }

    /// Whether what is to be handed on has had its time.
    pub(super) fn is_late(&self) -> bool {
        let late = |it: &HandingOn| it.until <= Instant::now();
        self.handing_on.as_ref().is_some_and(late)
    }

    /// Lets the group have what is to be handed on; returns what was still under way.
    pub(super) fn hand_on(&mut self) -> BTreeSet<i32> {
        let late = self.handing_on.take().map(|it| it.settling);
        self.let_go();
        late.unwrap_or_default()
    }

    fn let_go(&self) {
        self.answered(self.client.incremental_unassign(&TopicPartitionList::new()));
    }

    pub(super) fn is_ours(&self, partition: i32) -> bool {
        self.ours.contains(&partition)
    }

    pub(super) fn has_none(&self) -> bool {
        self.ours.is_empty()
    }

    /// Whether the group still takes our word on a partition.
    pub(super) fn may_tell(&self, partition: i32) -> bool {
        let mut handing_on = self.handing_on.iter();
        self.is_ours(partition) || handing_on.any(|it| it.partitions.contains(&partition))
    }

    /// Whether a commit is under way.
    pub(super) const fn is_telling(&self) -> bool {
        self.telling.is_some()
    }

    /// Whether a commit of this partition's position is under way.
    pub(super) fn is_telling_of(&self, partition: i32) -> bool {
        let mut telling = self.telling.iter();
        telling.any(|positions| positions.contains_key(&partition))
    }

    /// Sends positions to the group. Not while [telling](Self::is_telling).
    pub(super) fn tell(&mut self, positions: BTreeMap<i32, u64>) {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, position) in &positions {
            let offset = Offset::Offset(i64::try_from(*position).unwrap_or(i64::MAX));
            let added = list.add_partition_offset(&self.topic, *partition, offset);
            debug_assert!(added.is_ok(), "any number is an offset");
        }
        let sent = self.teller.as_ref().map(|(to, _)| to.try_send(list));
        if !matches!(sent, Some(Ok(()))) {
            self.client.context().heard().kept = Some(false);
        }
        self.telling = Some(positions);
    }

    /// How the commit under way ended, if it did.
    pub(super) fn told(&mut self) -> Option<Told> {
        self.telling.as_ref()?;
        let kept = self.client.context().heard().kept.take()?;
        let positions = self.telling.take()?;
        Some(match kept {
            true => Told::Kept(positions),
            false => Told::Refused(positions),
        })
    }

    /// What the group has against us.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// From now on the client lets go of everything by itself: its end waits for that.
    pub(super) fn leave(&self) {
        self.client.context().leaving.store(true, Ordering::Release);
    }

    fn heard_error(&mut self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        self.trouble = match error.rdkafka_error_code() {
            Some(Code::InconsistentGroupProtocol) => Some(
                "the group's other members share partitions in another way than \
                 cooperative-sticky; give them the same partition.assignment.strategy, or this \
                 source another group_id"
                    .to_owned(),
            ),
            Some(Code::GroupAuthorizationFailed) => {
                Some("the brokers do not let us join the group; allow READ on it".to_owned())
            }
            Some(Code::InvalidSessionTimeout) => Some(
                "the brokers do not take our session.timeout.ms; theirs are bounded by \
                 group.min.session.timeout.ms and group.max.session.timeout.ms"
                    .to_owned(),
            ),
            _ => return,
        };
    }

    fn answered(&self, answer: KafkaResult<()>) {
        if let Err(error) = answer {
            let talk = self.client.context();
            (talk.diagnostics)(Severity::Warning, &format!("group: not answered: {error}"));
        }
    }
}

/// Listens to what librdkafka tells of the group; called on the polling thread.
struct GroupTalk {
    topic: String,
    diagnostics: DiagnosticSink,
    leaving: AtomicBool,
    calls: AtomicU64,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    changes: VecDeque<Change>,
    /// Whether the last commit was kept.
    kept: Option<bool>,
}

impl GroupTalk {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for GroupTalk {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.called();
        let severity = match level {
            RDKafkaLogLevel::Debug => return,
            // The reading client has the same troubles, and tells of them.
            _ => Severity::Debug,
        };
        (self.diagnostics)(severity, &format!("librdkafka group {facility}: {message}"));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.called();
        (self.diagnostics)(Severity::Debug, &format!("group: {error}: {reason}"));
    }
}

impl ConsumerContext for GroupTalk {
    fn rebalance(
        &self,
        client: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        self.called();
        let given = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let none = TopicPartitionList::new();
            // The client ends: nobody is left to tell.
            drop(match given {
                true => client.incremental_assign(&none),
                false => client.incremental_unassign(&none),
            });
            return;
        }
        let partitions: BTreeSet<i32> = partitions
            .elements_for_topic(&self.topic)
            .iter()
            .map(|element| element.partition())
            .collect();
        let change = match given {
            true => Change::Given(partitions),
            false if client.assignment_lost() => Change::Lost(partitions),
            false => Change::Taken(partitions),
        };
        (self.diagnostics)(Severity::Debug, &format!("group: {change:?}"));
        self.heard().changes.push_back(change);
    }
}

impl Drop for Member {
    /// May wait for the brokers: not for the polling thread.
    fn drop(&mut self) {
        if let Some((commits, thread)) = self.teller.take() {
            drop(commits);
            // Should it have panicked, the client ends all the same.
            drop(thread.join());
        }
    }
}

/// The thread that commits. Without it, which only a system short of threads refuses, no commit is
/// ever kept.
fn teller(
    client: &Arc<BaseConsumer<GroupTalk>>,
    signal: &Arc<Signal>,
) -> Option<(SyncSender<TopicPartitionList>, JoinHandle<()>)> {
    let (to, commits) = mpsc::sync_channel::<TopicPartitionList>(1);
    let (client, signal) = (Arc::clone(client), Arc::clone(signal));
    let tell = move || {
        for positions in commits {
            let talk = client.context();
            let answer = client.commit(&positions, CommitMode::Sync);
            if let Err(error) = &answer {
                (talk.diagnostics)(Severity::Debug, &format!("group: no commit: {error}"));
            }
            talk.heard().kept = Some(answer.is_ok());
            signal.something_waits();
        }
    };
    let thread = std::thread::Builder::new().name("kafka-commit".to_owned());
    Some((to, thread.spawn(tell).ok()?))
}
