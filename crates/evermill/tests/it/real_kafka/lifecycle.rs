//! Starting positions, ends and restarts.

use rustix::process::Signal;

use crate::process::{Place, Running};
use crate::topic::{self, Topic};

fn dag(topic: &Topic, reset: &str, body: &str) -> String {
    format!(
        r#"
import evermill, time

@evermill.task
def take(event, ctx):
    {body}

@evermill.dag
def pipeline():
    take(evermill.kafka({:?}, auto_offset_reset={reset:?}))
"#,
        topic.name
    )
}

fn start(place: &Place, further: &[&str]) -> Running {
    let connection = format!("kafka={}", topic::address());
    let mut command = place.evermill(["run", "dag.py", "--json", "--connection", &connection]);
    Running::start(command.args(further))
}

#[test]
fn earliest_reads_what_is_there_and_until_idle_ends_well_after_it() {
    let (place, topic) = (Place::new(), Topic::new(2));
    topic.write(0, ["a", "b"]);
    topic.write(1, ["c"]);
    place.file(
        "dag.py",
        &dag(&topic, "earliest", "print('took', event.text())"),
    );
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 3);
    for message in ["took a", "took b", "took c"] {
        assert_eq!(ended.stderr.matches(message).count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn latest_passes_over_what_is_there_and_until_idle_ends_at_once() {
    let (place, topic) = (Place::new(), Topic::new(1));
    topic.write(0, ["old"]);
    place.file(
        "dag.py",
        &dag(&topic, "latest", "print('took', event.text())"),
    );
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(
        (ended.code(), &ended.only_run()["in"]),
        (0, &0.into()),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_restart_goes_on_where_the_last_run_ended_whatever_the_file_says_of_first_starts() {
    let (place, topic) = (Place::new(), Topic::new(1));
    place.file(
        "dag.py",
        &dag(&topic, "latest", "print('took', event.text())"),
    );
    assert_eq!(start(&place, &["--until-idle", "100ms"]).end().code(), 0);
    topic.write(0, ["in between"]);
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(
        ended.stderr.matches("took in between").count(),
        1,
        "{}",
        ended.stderr
    );
}

#[test]
fn c09_a_partition_that_was_added_while_nobody_listened_is_read_from_its_first_message() {
    let (place, topic) = (Place::new(), Topic::new(1));
    place.file(
        "dag.py",
        &dag(&topic, "latest", "print('took', event.text())"),
    );
    assert_eq!(start(&place, &["--until-idle", "100ms"]).end().code(), 0);
    topic.grow(2);
    topic.write(1, ["on the new one"]);
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let taken = ended.stderr.matches("took on the new one").count();
    assert_eq!(taken, 1, "{}", ended.stderr);
}

#[test]
fn sigterm_lets_what_runs_settle_and_reads_no_more() {
    let (place, topic) = (Place::new(), Topic::new(1));
    let body = "print('began', event.text()); time.sleep(0.3); print('ended', event.text())";
    place.file("dag.py", &dag(&topic, "earliest", body));
    topic.write(0, ["x"]);
    let running = start(&place, &[]);
    running.wait_for_lines("began x", 1);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("ended x"), "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (&run["done"], &run["in_flight"]),
        (&1.into(), &0.into()),
        "{run}"
    );
}

#[test]
fn what_grace_cuts_off_runs_again_at_the_next_start() {
    let (place, topic) = (Place::new(), Topic::new(1));
    let hangs = "print('began'); time.sleep(0 if __import__('os').environ.get('QUICK') else 600)";
    place.file("dag.py", &dag(&topic, "earliest", hangs));
    topic.write(0, ["x"]);
    let running = start(&place, &["--grace", "100ms"]);
    running.wait_for_lines("began", 1);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["in_flight"], 1);
    let connection = format!("kafka={}", topic::address());
    let again = [
        "run",
        "dag.py",
        "--json",
        "--until-idle",
        "200ms",
        "--connection",
        &connection,
    ];
    let ended = Running::start(place.evermill(again).env("QUICK", "1")).end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], 1);
}

#[test]
fn c14_a_poison_message_is_parked_and_does_not_hold_up_the_others() {
    let (place, topic) = (Place::new(), Topic::new(1));
    topic.write(0, ["1", "oops", "3"]);
    place.file("dag.py", &dag(&topic, "earliest", "int(event.text())"));
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(
        (&run["done"], &run["parked"]),
        (&2.into(), &1.into()),
        "{run}"
    );
}

#[test]
fn every_message_gets_its_own_key_position_and_lane() {
    let (place, topic) = (Place::new(), Topic::new(1));
    topic.write(0, ["x", "y"]);
    let body = "print('at', event.lane, event.position, event.source, ctx.try_number)";
    place.file("dag.py", &dag(&topic, "earliest", body));
    let ended = start(&place, &["--until-idle", "200ms"]).end();
    for position in [0, 1] {
        let line = format!("at {}/0 {position} kafka 1", topic.name);
        assert!(
            ended.stderr.contains(&line),
            "no {line:?} in {}",
            ended.stderr
        );
    }
}

#[test]
fn c01_a_broker_that_is_away_is_waited_for_and_said() {
    let (place, topic) = (Place::new(), Topic::new(1));
    place.file("dag.py", &dag(&topic, "earliest", "pass"));
    // Nobody listens on the discard port of this machine.
    let arguments = ["run", "dag.py", "--connection", "kafka=127.0.0.1:9"];
    let running = Running::start(&mut place.evermill(arguments));
    running.wait_for_lines("127.0.0.1:9", 1);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 0);
}
