//! A Kafka broker for development inside this process: librdkafka's mock cluster.
//!
//! It speaks the real protocol on a loopback address, keeps the last 5 MB of each partition in
//! memory, and forgets all when it is dropped. It chooses its own port and advertises that one, so
//! a fixed address can only be a second door: connections to it are carried over to the real port,
//! where clients then go by themselves. Both doors are on this machine only.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::limits;

/// A running broker; it ends when dropped.
pub struct DevKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    bootstrap: String,
    _door: Option<Door>,
}

/// Why no development broker could be started.
#[derive(Debug, thiserror::Error)]
pub enum DevKafkaError {
    /// The broker or one of its topics was refused.
    #[error("{what}: {why}")]
    Broker {
        /// What was being done.
        what: String,
        /// librdkafka's reason.
        why: KafkaError,
    },
    /// Kafka would not take such a topic.
    #[error("topic {name:?} with {partitions} partitions: {why}")]
    Topic {
        /// Its name.
        name: String,
        /// How many partitions were asked for.
        partitions: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// The address is not on this machine.
    #[error(
        "cannot listen on {0}: the development broker serves this machine only, use 127.0.0.1:PORT"
    )]
    NotLoopback(SocketAddr),
    /// The address is taken, or otherwise of no use.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The system's reason.
        why: io::Error,
    },
}

impl DevKafka {
    /// Starts a broker with these topics, each with its number of partitions. With `listen` it is
    /// also reached at that address.
    ///
    /// # Errors
    /// When a topic is refused or `listen` cannot be had.
    pub fn start(
        topics: &[(&str, u32)],
        listen: Option<SocketAddr>,
    ) -> Result<Self, DevKafkaError> {
        let broker = |what: String| move |why| DevKafkaError::Broker { what, why };
        let cluster = MockCluster::new(1).map_err(broker("no development broker".to_owned()))?;
        for (topic, partitions) in topics {
            check(topic, *partitions)?;
            let count = i32::try_from(*partitions).unwrap_or(i32::MAX);
            cluster
                .create_topic(topic, count, 1)
                .map_err(broker(format!(
                    "topic {topic:?} with {partitions} partitions"
                )))?;
        }
        let behind = cluster.bootstrap_servers();
        let door = listen
            .map(|address| Door::open(address, &behind))
            .transpose()?;
        let bootstrap = door
            .as_ref()
            .map_or(behind, |door| door.address.to_string());
        Ok(Self {
            cluster,
            bootstrap,
            _door: door,
        })
    }

    /// The address for `--connection kafka=...` and for any other client.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The same with the one setting that suits this broker: unlike a real one it lets a waiting
    /// fetch sit out its wait, which is therefore kept short.
    #[must_use]
    pub fn connection(&self) -> String {
        format!("kafka://{}?fetch.wait.max.ms=20", self.bootstrap)
    }

    /// The cluster, for tests that let brokers fail.
    #[must_use]
    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.cluster
    }
}

/// Kafka's own rules for names, and a bound that a process on one machine can carry.
fn check(topic: &str, partitions: u32) -> Result<(), DevKafkaError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let why = if !(1..=249).contains(&topic.len()) || !topic.bytes().all(legal) {
        "a name has 1 to 249 letters, digits, dots, underscores or hyphens"
    } else if !(1..=limits::DEV_KAFKA_PARTITIONS_MAX).contains(&partitions) {
        "the number of partitions is not between 1 and 1000"
    } else {
        return Ok(());
    };
    let name = topic.to_owned();
    Err(DevKafkaError::Topic {
        name,
        partitions,
        why,
    })
}

/// A second address of the broker.
struct Door {
    address: SocketAddr,
    closing: Arc<AtomicBool>,
    doorman: Option<JoinHandle<()>>,
}

impl Door {
    fn open(address: SocketAddr, behind: &str) -> Result<Self, DevKafkaError> {
        if !address.ip().is_loopback() {
            return Err(DevKafkaError::NotLoopback(address));
        }
        let failed = |why| DevKafkaError::Listen { address, why };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let closing = Arc::<AtomicBool>::default();
        let (told, behind) = (Arc::clone(&closing), behind.to_owned());
        let doorman = std::thread::Builder::new()
            .name("dev-kafka".to_owned())
            .spawn(move || welcome(&listener, &behind, &told))
            .map_err(failed)?;
        Ok(Self {
            address,
            closing,
            doorman: Some(doorman),
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // One last visitor, so that the doorman looks up.
        drop(TcpStream::connect(self.address));
        if let Some(doorman) = self.doorman.take() {
            drop(doorman.join());
        }
    }
}

fn welcome(listener: &TcpListener, behind: &str, closing: &AtomicBool) {
    for visitor in listener.incoming() {
        if closing.load(Ordering::Acquire) {
            return;
        }
        let Ok(visitor) = visitor else { continue };
        let Ok(broker) = TcpStream::connect(behind) else {
            continue;
        };
        let (Ok(visitor_back), Ok(broker_back)) = (visitor.try_clone(), broker.try_clone()) else {
            continue;
        };
        std::thread::spawn(move || carry(visitor, broker));
        std::thread::spawn(move || carry(broker_back, visitor_back));
    }
}

/// Carries bytes one way until either side ends, then ends both.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    // A broken connection ends like a finished one: the client will come again.
    drop(io::copy(&mut from, &mut to));
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_served() {
        let Err(error) = DevKafka::start(&[], Some(([0, 0, 0, 0], 0).into())) else {
            panic!("0.0.0.0 was accepted");
        };
        assert!(error.to_string().contains("127.0.0.1:PORT"), "{error}");
    }

    #[test]
    fn a_bad_topic_is_named() {
        for (topic, partitions) in [("orders", 0), ("orders", 1001), ("a b", 1), ("", 1)] {
            let Err(error) = DevKafka::start(&[(topic, partitions)], None) else {
                panic!("{topic:?} with {partitions} partitions was accepted");
            };
            let named = format!("{topic:?} with {partitions} partitions");
            assert!(error.to_string().contains(&named), "{error}");
        }
    }
}
