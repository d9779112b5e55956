//! The first DAG file, as its author wrote it, on a real topic.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::process::{Place, Running};
use crate::topic::{self, Topic};

/// What the file's one task prints.
const SAID: &str = "Message Received and Processed";
/// The topic that the file names.
const TOPIC: &str = "my-topic";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/continuous_kafka_pipeline.py")
}

fn start(place: &Place) -> Running {
    let connection = format!("kafka={}", topic::address());
    let file = file();
    let arguments = [
        "run".as_ref(),
        file.as_os_str(),
        "--json".as_ref(),
        "--connection".as_ref(),
        connection.as_ref(),
    ];
    Running::start(&mut place.evermill(arguments))
}

/// Positions of `my-topic` are shared by all tests here, so this is one test with many steps.
#[test]
fn the_first_file_runs_its_callable_once_per_message_and_loses_none_to_kill_9() {
    let topic = Topic::named(TOPIC, 3);
    topic.write(0, ["from before the first start: `latest` passes it over"]);
    let place = Place::new();

    let running = start(&place);
    place.wait_until_ready();
    assert_eq!(running.count(SAID), 0, "nothing runs without data");

    topic.write(1, ["one"]);
    running.wait_for_lines(SAID, 1);
    let burst: Vec<String> = (0..100).map(|n| format!("burst {n}")).collect();
    for (n, message) in burst.iter().enumerate() {
        topic.write(i32::try_from(n % 3).unwrap(), [message]);
    }
    running.wait_for_lines(SAID, 101);
    let counted = place.wait_for_run(|run| run["done"] == 101);
    assert_eq!(
        (&counted["in"], &counted["in_flight"]),
        (&101.into(), &0.into()),
        "{counted}"
    );
    running.kill();

    topic.write(2, ["while it was dead"]);
    let running = start(&place);
    running.wait_for_lines(SAID, 1);
    place.wait_for_run(|run| run["done"] == 102);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (&run["in"], &run["done"]),
        (&102.into(), &102.into()),
        "{run}"
    );
    assert_eq!(
        ended.stderr.matches(SAID).count(),
        1,
        "once, and what was done is not done again"
    );
}
