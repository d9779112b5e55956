//! Rows in a real PostgreSQL, written by tasks through `evermill.inbox` while the engine is killed.
#![allow(clippy::print_stdout, reason = "a campaign says what it has done")]

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::mock::Mock;
use crate::process::{Place, Running, eventually};

const KILLS: u64 = 24;
const MESSAGES: u64 = 60;

const DAG: &str = r#"
import os
import pathlib
import time

import evermill
import psycopg

SCHEMA = os.environ["SHOP_SCHEMA"]
_conn = None


def shop():
    global _conn
    if _conn is None or _conn.closed:
        _conn = psycopg.connect(os.environ["SHOP"])
    return _conn


def inbox(ctx):
    return evermill.inbox(shop(), ctx, table=f"{SCHEMA}.evermill_inbox")


@evermill.task(retries=3, retry_delay="10ms")
def book(event, ctx):
    with inbox(ctx) as first:
        if first:
            insert = f"INSERT INTO {SCHEMA}.booking (seq) VALUES (%s) RETURNING id"
            first.keep(shop().execute(insert, [int(event.text())]).fetchone()[0])
        else:
            shop().execute(f"INSERT INTO {SCHEMA}.repeated VALUES (%s)", [int(event.text())])
    if event.text() == os.environ.get("HOLD"):
        pathlib.Path(os.environ["HELD"]).touch()
        time.sleep(600)
    return first.result


@evermill.task(retries=3, retry_delay="10ms")
def confirm(event, book, ctx):
    with inbox(ctx) as first:
        if first:
            shop().execute(f"INSERT INTO {SCHEMA}.confirmed VALUES (%s, %s)", [int(event.text()), book])


@evermill.dag
def bookings():
    source = evermill.kafka("t", auto_offset_reset="earliest")
    confirm(source, book(source))
"#;

/// The database that the tests run against.
fn address() -> String {
    std::env::var("EVERMILL_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "EVERMILL_TEST_POSTGRES is not set: this test needs a PostgreSQL. Run `cargo xtask test`, or \
             start one by `cargo xtask postgres` and export EVERMILL_TEST_POSTGRES=postgresql://..."
        )
    })
}

/// A schema that no other test has; it goes away with this.
struct Schema(String);

impl Schema {
    fn new(name: &str) -> Self {
        let schema = Self(format!("{name}_{}", std::process::id()));
        schema.sql("CREATE SCHEMA {s}");
        schema
    }

    /// Runs a statement, `{s}` being the schema, and returns the rows of the last one.
    fn sql(&self, text: &str) -> Vec<Value> {
        const SCRIPT: &str = "import json, os, psycopg\n\
            conn = psycopg.connect(os.environ['SHOP'], autocommit=True)\n\
            done = conn.execute(os.environ['SQL'])\n\
            print(json.dumps(done.fetchall() if done.description else []))";
        let python = std::env::var("EVERMILL_TEST_PYTHON")
            .expect("EVERMILL_TEST_PYTHON is not set: `cargo xtask test` sets it");
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]).env("SHOP", address());
        let output = command.env("SQL", text.replace("{s}", &self.0)).output();
        let output = output.expect("python starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}: {stderr}");
        serde_json::from_slice(&output.stdout).expect("rows as JSON")
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sql("DROP SCHEMA {s} CASCADE");
        }
    }
}

fn command(place: &Place, mock: &Mock, schema: &Schema) -> Command {
    let connection = mock.connection();
    let mut command = place.evermill(["run", "dag.py", "--json", "--connection", &connection]);
    command.env("SHOP", address()).env("SHOP_SCHEMA", &schema.0);
    command
}

/// The sink row "PostgreSQL table in the user's database" of the promises, and P4.
#[test]
fn a10_kill_9_again_and_again_leaves_every_row_once_and_the_result_that_was_kept() {
    let (place, schema) = (Place::new(), Schema::new("bookings"));
    let mock = Mock::start(&place);
    place.file("dag.py", DAG);
    schema.sql("CREATE TABLE {s}.booking (id serial PRIMARY KEY, seq int)");
    schema.sql("CREATE TABLE {s}.confirmed (seq int, booking int)");
    schema.sql("CREATE TABLE {s}.repeated (seq int)");
    schema.sql(
        "CREATE TABLE {s}.evermill_inbox (effect_key text PRIMARY KEY, at timestamptz NOT NULL \
         DEFAULT now(), result text)",
    );
    let mut written = 0;
    for kill in 0..KILLS {
        // In some lives an attempt stands still between its commit and ours, and is killed there.
        let held = (kill % 8 == 4).then(|| (place.folder().join(format!("held{kill}")), written));
        let running = match &held {
            Some((mark, message)) => {
                let mut command = command(&place, &mock, &schema);
                Running::start(command.env("HELD", mark).env("HOLD", message.to_string()))
            }
            None => Running::start(&mut command(&place, &mock, &schema)),
        };
        let numbers: Vec<_> = (written..written + MESSAGES)
            .map(|n| n.to_string())
            .collect();
        written += MESSAGES;
        let messages: Vec<_> = numbers.iter().map(|n| ("k", n.as_str())).collect();
        mock.write(&messages);
        // The first lives begin with positions to find; later ones are killed at every point of theirs.
        if kill % 3 == 0 {
            eventually("some are done in this life", || {
                let runs = place.finish(["ps", "--json"]).json();
                let count = |name: &str| runs.first()?[name].as_u64();
                // What is taken for the cause of the kills is parked, and counts.
                (count("done")? + count("parked")? + MESSAGES > written).then_some(())
            });
        }
        if let Some((mark, _)) = held {
            eventually("an attempt is held", || mark.exists().then_some(()));
        }
        std::thread::sleep(Duration::from_millis(kill * 7919 % 400));
        running.kill();
    }
    let to_the_end = || {
        let mut command = command(&place, &mock, &schema);
        Running::start(command.args(["--until-idle", "300ms"])).end()
    };
    let mut ended = to_the_end();
    if ended.only_run()["parked"] != 0 {
        // What was in flight at three kills in a row is taken for their cause (C6). Run again, it has
        // the keys that it had.
        let retried = place.finish(["parked", "retry", "--all"]);
        assert_eq!(retried.code(), 0, "{}", retried.stderr);
        ended = to_the_end();
    }
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.only_run()["done"], written, "{}", ended.stderr);

    let rows = schema.sql(
        "SELECT b.seq, count(*) FROM {s}.booking b JOIN {s}.confirmed c ON c.booking = b.id AND \
         c.seq = b.seq GROUP BY b.seq ORDER BY b.seq",
    );
    let wanted: Vec<Value> = (0..written).map(|n| serde_json::json!([n, 1])).collect();
    assert_eq!(rows, wanted, "each booked and confirmed once, as one");
    let counts = "SELECT (SELECT count(*) FROM {s}.booking), (SELECT count(*) FROM {s}.confirmed)";
    assert_eq!(schema.sql(counts), [serde_json::json!([written, written])]);
    let repeated = schema.sql("SELECT count(*) FROM {s}.repeated");
    assert!(
        repeated[0][0].as_u64() >= Some(KILLS / 8),
        "each attempt that was held had committed, and ran again: {repeated:?}"
    );
    println!(
        "{KILLS} kills, {written} events, {} repeats",
        repeated[0][0]
    );
}
