//! `evermill dev kafka`: a broker to try things with, without Java.

use std::net::SocketAddr;

use evermill_connectors::kafka::DevKafka;

use crate::failure::Failure;
use crate::signals;

/// What can be typed behind `dev kafka`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where it listens, on this machine; a free port when absent
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A topic and its number of partitions, such as my-topic:3; may be given again
    #[arg(long = "topic", value_name = "NAME:PARTITIONS", value_parser = topic)]
    topics: Vec<(String, u32)>,
}

/// Prints the address and serves until a signal.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let ended = signals::catch()?;
    let topics: Vec<_> = args
        .topics
        .iter()
        .map(|(name, n)| (name.as_str(), *n))
        .collect();
    let broker = DevKafka::start(&topics, args.listen)
        .map_err(|error| Failure::failed(error.to_string()))?;
    println!("{}", broker.bootstrap());
    eprintln!(
        "a broker in memory; it forgets everything when it ends. Try: \
         evermill run FILE --connection kafka={}",
        broker.bootstrap()
    );
    ended
        .recv()
        .map_err(|_| Failure::failed("signals are no longer heard"))
}

fn topic(text: &str) -> Result<(String, u32), String> {
    let parts = text
        .rsplit_once(':')
        .map(|(name, partitions)| (name, partitions.parse()));
    match parts {
        Some((name, Ok(partitions @ 1..))) if !name.is_empty() => Ok((name.to_owned(), partitions)),
        _ => Err("want NAME:PARTITIONS with at least one partition, such as my-topic:3".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::topic;

    #[test]
    fn a_topic_needs_a_name_and_at_least_one_partition() {
        assert_eq!(topic("my-topic:3").unwrap(), ("my-topic".to_owned(), 3));
        for text in ["", "t", "t:", "t:0", ":1", "t:-1", "t:x"] {
            assert!(
                topic(text).unwrap_err().contains("NAME:PARTITIONS"),
                "{text}"
            );
        }
    }
}
