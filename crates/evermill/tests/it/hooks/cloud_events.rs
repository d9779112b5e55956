//! The official SDK of CloudEvents as a second opinion, at both ends: it writes and sends what comes in,
//! and reads what a task is given.

use std::collections::BTreeSet;
use std::process::Command;

use super::{start, stopped, way_in};
use crate::process::Place;

const READER: &str = "
import json
from urllib.parse import quote
import evermill
from cloud_events import line
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event

@evermill.task
def read(event):
    # A task is given attributes as they are; the SDK reads them as they travel.
    given = {name: value.decode() for name, value in event.headers}
    headers = {name: quote(value, safe='/+:') if name.startswith('ce-') else value for name, value in given.items()}
    read = from_binary_event(HTTPMessage(headers, event.value))
    assert event.key.decode() == read.get_attributes()['partitionkey']
    assert event.timestamp == read.get_attributes()['time']
    print('read', line(read))

@evermill.dag
def orders():
    read(evermill.webhook(name='in'))
";

#[test]
fn what_the_official_sdk_sends_is_what_it_reads_in_a_task_in_all_three_modes() {
    let client = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/hooks/cloud_events.py"
    );
    let place = Place::new();
    let text = std::fs::read_to_string(client).unwrap();
    place.file("cloud_events.py", &text);
    let running = start(&place, READER);
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut client_of_it = Command::new(&python);
    client_of_it.arg(client).arg(way_in(&running));
    let sent = client_of_it.output().unwrap();
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(
        sent.status.success(),
        "{} needs cloudevents (xtask/python/test.txt): {said}",
        python.display()
    );
    let sent = String::from_utf8(sent.stdout).unwrap();
    let sent: BTreeSet<&str> = sent.lines().collect();
    assert_eq!(sent.len(), 12);
    place.wait_for_run(|run| run["done"] == 12);
    let read = running.said();
    let read = read.iter().filter_map(|line| line.split_once(": read "));
    let read: BTreeSet<&str> = read.map(|(_, event)| event).collect();
    assert_eq!(read, sent);
    assert_eq!(stopped(running)["parked"], 0);
}
