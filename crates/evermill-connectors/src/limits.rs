//! Every bound of the connectors in one place, with the relations between them.

use std::time::Duration;

/// Largest `batch_bytes` a source takes: spans inside a batch count in 32 bits, and the last event
/// may pass the bound.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// One Kafka lane's share of the prefetch budget is kept within these, in bytes.
pub const KAFKA_LANE_PREFETCH_MIN: usize = 128 << 10;
/// See [`KAFKA_LANE_PREFETCH_MIN`].
pub const KAFKA_LANE_PREFETCH_MAX: usize = 32 << 20;

/// Largest part of a lane's share that one fetch asks for, in bytes.
pub const KAFKA_FETCH_MAX: usize = 1 << 20;

/// librdkafka spends a few hundred bytes on each queued message; counting at least this much for
/// each keeps lanes of tiny messages within the budget.
pub const KAFKA_QUEUED_MESSAGE_BYTES: usize = 256;

/// How long a broker may hold a fetch that finds nothing. New messages end the wait at once; this
/// bounds how long a newly started lane waits for the fetch in flight, and how soon an idle lane
/// is reported as caught up.
pub const KAFKA_FETCH_WAIT: Duration = Duration::from_millis(200);

/// How soon a full prefetch queue is looked at again; librdkafka's own second would leave the
/// engine without events.
pub const KAFKA_QUEUE_BACKOFF: Duration = Duration::from_millis(10);

/// How often the topic's description is read again: bounds how late added partitions are found.
pub const KAFKA_DISCOVERY: Duration = Duration::from_secs(10);

/// How long a topic may be missing before librdkafka believes that it is gone. Brokers tell each
/// other of a new topic within this time.
pub const KAFKA_PROPAGATION: Duration = Duration::from_secs(3);

/// How often librdkafka reports its state: bounds how late trouble and lag are seen.
pub const KAFKA_STATISTICS: Duration = Duration::from_secs(1);

/// How often acknowledged positions are told to the broker.
pub const KAFKA_ACK_INTERVAL: Duration = Duration::from_secs(1);

/// The same for partitions shared with other members of a group: what was settled since the last
/// time runs again elsewhere when we are killed.
pub const KAFKA_SHARED_ACK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a partition that the group gives to another member may take to settle here before it is
/// handed on all the same. The group goes on meanwhile; only this partition waits.
pub const KAFKA_HAND_ON_WAIT: Duration = Duration::from_secs(60);

/// One question to the brokers blocks for at most this long. Short, since every lane of the
/// source waits meanwhile.
pub const KAFKA_ASK: Duration = Duration::from_secs(2);

/// The same while the topic is not found yet: then nothing else can be done, but whoever wants to
/// stop must not wait for long.
pub const KAFKA_DISCOVERY_ASK: Duration = Duration::from_millis(500);

/// So long these questions may go unanswered before that is called trouble: a first connection
/// takes its time, and brokers are slow to say that a password is wrong.
pub const KAFKA_DISCOVERY_PATIENCE: Duration = Duration::from_secs(3);

/// How soon it is asked again meanwhile.
pub const KAFKA_ASK_AGAIN_SOON: Duration = Duration::from_millis(50);

/// How long after an unanswered question it is asked again.
pub const KAFKA_ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long a closing source waits for its last acknowledgement, and then for librdkafka.
pub const KAFKA_LAST_ACK: Duration = Duration::from_secs(1);
/// See [`KAFKA_LAST_ACK`].
pub const KAFKA_SHUTDOWN: Duration = Duration::from_secs(3);

/// How long librdkafka tries to deliver a message that it was given to send.
pub const KAFKA_DELIVERY: Duration = Duration::from_secs(300);

/// Partitions a topic may have.
pub const KAFKA_LANES_MAX: usize = 10_000;

/// Partitions of one topic of the development broker.
pub const DEV_KAFKA_PARTITIONS_MAX: u32 = 1000;

const _: () = {
    use evermill_contract::source::{CLOSE_WAIT, RESOLVE_WAIT};
    assert!(BATCH_BYTES_MAX <= u32::MAX as usize / 2);
    assert!(KAFKA_LANE_PREFETCH_MIN <= KAFKA_LANE_PREFETCH_MAX);
    assert!(
        KAFKA_LANE_PREFETCH_MAX < 2_097_151 << 10,
        "librdkafka's own bound"
    );
    assert!(2 * KAFKA_ASK.as_millis() <= RESOLVE_WAIT.as_millis());
    assert!(
        KAFKA_HAND_ON_WAIT.as_secs() < 300,
        "librdkafka's max.poll.interval.ms, after which the group goes on without us"
    );
    assert!(KAFKA_LAST_ACK.as_millis() + KAFKA_SHUTDOWN.as_millis() <= CLOSE_WAIT.as_millis());
};

/// Messages a [`crate::kafka::DevProducer`] holds that the broker has not acknowledged.
pub const DEV_PRODUCER_MESSAGES: usize = 10_000;

/// The longest body of an answer to a poll, after decompression, in bytes.
pub const HTTP_BODY_BYTES_MAX: usize = 4 << 20;

/// No place is asked more often, unless it has more of a list to give.
pub const HTTP_POKE_MIN: Duration = Duration::from_millis(50);

/// The longest wait between two polls, whatever a server or a DAG file asks for.
pub const HTTP_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// After an answer that says nothing, the next question comes sooner than usual: first after this
/// long, then after twice as long each time, until it is the usual wait.
pub const HTTP_AGAIN: Duration = Duration::from_secs(1);

/// Requests of one call of a sink that are under way at a time.
pub const HTTP_SENDS: usize = 16;

/// The longest body that is sent, in bytes.
pub const HTTP_SEND_BYTES_MAX: usize = 16 << 20;

/// Of what comes back as much is read: enough to say why it was not taken.
pub const HTTP_ANSWER_BYTES: usize = 16 << 10;

/// A place that is away is sent to again after so long, then after twice as long each time ...
pub const HTTP_AWAY: Duration = Duration::from_millis(250);

/// ... up to this.
pub const HTTP_AWAY_MAX: Duration = Duration::from_secs(10);

/// A poll comes up to this part of the wait too early, so that many sources do not ask in step.
pub const JITTER_PERCENT: u32 = 10;

const _: () = {
    assert!(HTTP_POKE_MIN.as_millis() < HTTP_AGAIN.as_millis());
    assert!(JITTER_PERCENT < 100);
    assert!(HTTP_AWAY.as_millis() < HTTP_AWAY_MAX.as_millis());
};

/// No function of a root sensor is asked more often.
pub const POLL_POKE_MIN: Duration = Duration::from_millis(50);

/// Wait between two questions to it, where nobody says.
pub const POLL_POKE: Duration = Duration::from_secs(60);

/// The longest wait between two questions, whatever a DAG file asks for.
pub const POLL_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// After a word that says nothing, the next question comes sooner than usual: first after this long, then
/// after twice as long each time, until it is the usual wait.
pub const POLL_AGAIN: Duration = Duration::from_secs(1);

/// The largest body of a request to a webhook, in bytes.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 4 << 20;

/// CloudEvents in one batch.
pub const WEBHOOK_BATCH_EVENTS: usize = 1000;

/// How far the time of a signature may be from our clock, either way.
pub const WEBHOOK_TIME_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Secrets that are active at once: the old one and the new one.
pub const WEBHOOK_SECRETS_MAX: usize = 2;

/// Instants that are counted for who asks how many lie in a stretch of time.
pub const CLOCK_COUNT_MAX: u64 = 1_000_000;

/// Signatures of one request that are looked at.
pub const WEBHOOK_SIGNATURES_MAX: usize = 8;

/// Files of one place that are looked at; in a place with more of them nothing fires.
pub const FILES_MAX: usize = 1_000_000;

/// Files that are gone and remembered all the same: one that comes back as it was is no event.
pub const FILES_GONE_REMEMBERED: usize = 100_000;

/// Records in one page of what is remembered.
pub const FILES_PAGE_RECORDS: usize = 4_096;

/// No place is listed more often.
pub const FILES_POKE_MIN: Duration = Duration::from_millis(20);

/// The longest wait between two looks, and the longest settle time, whatever a DAG file asks for.
pub const FILES_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Folders within folders that are looked into.
pub const FILES_DEPTH_MAX: usize = 64;
/// The longest answer of a service of AWS, in bytes: ten messages of the largest size, each character
/// escaped.
pub const AWS_ANSWER_BYTES_MAX: usize = 64 << 20;

/// Credentials are renewed when they hold for no longer than this.
pub const AWS_RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Profiles of which each takes its credentials from the next.
pub const AWS_PROFILES_IN_A_ROW: usize = 5;

/// How long an address of the machine's own may take to answer. Where there is none, nothing answers.
pub const AWS_METADATA_WAIT: Duration = Duration::from_secs(2);

/// Entries of one request to SQS, and messages of one answer.
pub const SQS_BATCH: usize = 10;

/// How long SQS may hold a receive that finds nothing; the longest it allows.
pub const SQS_WAIT: Duration = Duration::from_secs(20);

/// The same after there was something: how soon an empty queue is known to be empty. Longer than
/// nothing, since only a receive that waits looks on all of SQS' servers.
pub const SQS_WAIT_AFTER_SOME: Duration = Duration::from_secs(1);

/// A call beyond what it waits for.
pub const SQS_CALL: Duration = Duration::from_secs(15);

/// For how long a message is hidden from others at a time. After a crash it comes again this late at
/// most.
pub const SQS_LEASE: Duration = Duration::from_secs(60);

/// A lease is renewed when this much of it is left.
pub const SQS_LEASE_LEFT: Duration = Duration::from_secs(35);

/// How often leases are looked at, at most.
pub const SQS_LOOK: Duration = Duration::from_secs(1);

/// The longest that SQS lets a message be hidden, from when it was received.
pub const SQS_LEASE_MAX: Duration = Duration::from_secs(12 * 3600);

/// Receives under way at a time, while there is much to receive.
pub const SQS_RECEIVES: usize = 4;

/// Deletions under way at a time, and threads that renew leases.
pub const SQS_KEEPS: usize = 4;

/// Messages that were received and not deleted, at which no more are asked for. SQS itself stops at
/// 120,000 of a queue, at 20,000 if it is FIFO.
pub const SQS_HELD_MAX: usize = 10_000;

/// How long a deletion waits for company.
pub const SQS_GATHER: Duration = Duration::from_millis(20);

/// The first wait after a call that failed; it doubles each time, up to the other one.
pub const SQS_AGAIN: Duration = Duration::from_millis(500);
/// See [`SQS_AGAIN`].
pub const SQS_AGAIN_MAX: Duration = Duration::from_secs(20);

/// How long a closing source takes to delete what is kept and to let go of the rest.
pub const SQS_CLOSE: Duration = Duration::from_secs(3);

/// Bytes of bodies in one request to send, unless one message alone has more. Some queues take no
/// more.
pub const SQS_SEND_BYTES: usize = 256 * 1024;

/// A message that comes so often is told: a redrive policy may move it away before long.
pub const SQS_TIMES_SAID: u32 = 3;

/// Files of one call of a sink that are written at a time: their syncs to the disk meet.
pub const FILES_WRITTEN: usize = 16;

/// How long one object may take to be written; the whole is bounded by the call's own time.
pub const S3_PUT: Duration = Duration::from_secs(60);

/// Requests to send that are under way at a time for one call of a sink.
pub const SQS_SENDS: usize = 4;

const _: () = {
    use evermill_contract::source::CLOSE_WAIT;
    assert!(SQS_CLOSE.as_millis() < CLOSE_WAIT.as_millis());
    assert!(SQS_LEASE_LEFT.as_secs() < SQS_LEASE.as_secs());
    assert!(
        SQS_WAIT.as_secs() + SQS_CALL.as_secs() + 10 < SQS_LEASE.as_secs(),
        "a lease counts from before its receive, and lasts until it is looked at twice"
    );
    assert!(SQS_HELD_MAX < 20_000);
};

/// Alerts that wait for one hook; more are counted only.
pub const ALERTS_QUEUED: usize = 1_000;

/// Alerts that go whole with one delivery; of more it is said how many they are.
pub const ALERTS_PER_DELIVERY: usize = 100;

/// Alerts that the text of a delivery names.
pub const ALERTS_IN_TEXT: usize = 10;

/// How long the first alert waits for others to go with it.
pub const ALERTS_GATHER: Duration = Duration::from_secs(1);

/// The shortest time between two deliveries to a hook that says nothing else.
pub const ALERTS_EVERY: Duration = Duration::from_secs(60);

/// The longest that a POST or a command may take.
pub const ALERT_TIMEOUT: Duration = Duration::from_secs(30);

/// The first pause after a delivery that failed; it doubles up to the longest.
pub const ALERTS_RETRY: Duration = Duration::from_secs(1);
/// See [`ALERTS_RETRY`].
pub const ALERTS_RETRY_MAX: Duration = Duration::from_secs(5 * 60);

/// How often it is looked whether a command has ended.
pub const ALERT_LOOK: Duration = Duration::from_millis(20);

/// What is read of an answer to an alert, in bytes.
pub const ALERT_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Lists and objects inside each other in a JSON document that a codec lets in.
pub const JSON_DEPTH_MAX: usize = 64;

/// Bytes of JSON that one value may become.
pub const DECODED_BYTES_MAX: usize = 4 << 20;

/// Records, lists and maps inside each other in an Avro value.
pub const AVRO_DEPTH_MAX: usize = JSON_DEPTH_MAX;

/// Messages inside each other in a Protobuf value; its own library stops at as many.
pub const PROTOBUF_DEPTH_MAX: usize = 100;

/// Types in one Avro schema, named ones once.
pub const AVRO_TYPES_MAX: usize = 10_000;

/// Schemas of one registry that are remembered; the one that was used longest ago goes.
pub const REGISTRY_SCHEMAS_MAX: usize = 1_000;

/// Schemas that one schema refers to, in all.
pub const REGISTRY_REFERENCES_MAX: usize = 100;

/// The longest answer of a registry, in bytes.
pub const REGISTRY_BODY_BYTES_MAX: usize = 4 << 20;

/// How long one schema is asked for, with all that it refers to.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(4);

/// For how long it is believed that a registry does not know an id.
pub const REGISTRY_ASKED_AGAIN: Duration = Duration::from_secs(5);

const _: () = {
    use evermill_contract::source::JUDGE_WAIT;
    assert!(REGISTRY_WAIT.as_millis() < JUDGE_WAIT.as_millis());
    assert!(DECODED_BYTES_MAX < BATCH_BYTES_MAX);
};

/// How long one look at a whole folder or bucket may take before it is overdue.
pub const FILES_LOOK_MAX: Duration = Duration::from_secs(10 * 60);

/// How long requests to a queue may take, one after the other, before they are overdue; their own limits
/// are shorter.
pub const SQS_OVERDUE: Duration = Duration::from_secs(5 * 60);

/// How much longer than its own limit a request may take before it is overdue: names are looked up
/// without one.
pub const HTTP_OVERDUE: Duration = Duration::from_secs(30);

/// Portions of activations that wait for a collector of traces; what comes then is left out and counted.
pub const TRACES_QUEUED: usize = 64;

/// Activations at which a request to a collector goes at once; it has a few spans of each.
pub const TRACES_PER_REQUEST: usize = 500;

/// How long the first one waits for others to go with it.
pub const TRACES_GATHER: Duration = Duration::from_secs(1);

/// The longest that a request to a collector may take.
pub const TRACES_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read of its answer, in bytes.
pub const TRACES_ANSWER_BYTES_MAX: usize = 64 << 10;
