//! What needs no broker: usage, faults of DAG files, the lock, DAGs that are triggered once.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::process::{Place, Running};

const CHAIN: &str = r#"
import evermill

@evermill.task
def first():
    return 20

@evermill.task
def second(first):
    print("the answer is", first + 22)

@evermill.dag
def chain():
    second(first())
"#;

const FAILS: &str = r#"
import evermill

@evermill.task
def breaks():
    raise ValueError("no luck")

@evermill.dag
def unlucky():
    breaks()
"#;

const SLOW: &str = r#"
import evermill, time

@evermill.task
def wait(ctx):
    print("waiting")
    while not ctx.should_stop():
        time.sleep(0.01)

@evermill.dag
def slow():
    wait()
"#;

const LISTENS: &str = r#"
import evermill

@evermill.task
def take(event):
    pass

@evermill.dag
def listens():
    take(evermill.kafka("a-topic"))
"#;

#[test]
fn a_dag_without_source_is_triggered_once_and_the_command_ends_by_itself() {
    let place = Place::new();
    let file = place.file("chain.py", CHAIN);
    let ended = place.finish(["run".as_ref(), file.as_os_str(), "--json".as_ref()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the answer is 42"),
        "{}",
        ended.stderr
    );
    let run = ended.only_run();
    assert_eq!(
        (&run["dag"], &run["in"], &run["done"]),
        (&"chain".into(), &1.into(), &1.into()),
        "{run}"
    );
    assert_eq!(run["in_flight"], 0, "{run}");
    assert!(
        run["latency_ms"]["p50"].is_number() && run["commit_ms"]["p99"].is_number(),
        "{run}"
    );
}

#[test]
fn an_activation_that_fails_is_parked_and_the_command_says_so_with_exit_code_1() {
    let place = Place::new();
    let file = place.file("unlucky.py", FAILS);
    let ended = place.finish(["run".as_ref(), file.as_os_str(), "--json".as_ref()]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(ended.only_run()["parked"], 1);
    assert!(
        ended.stderr.contains("unlucky: 1 parked"),
        "{}",
        ended.stderr
    );
    let stored = place.ps();
    assert_eq!(
        (stored.len(), &stored[0]["parked"]),
        (1, &1.into()),
        "{stored:?}"
    );
}

#[test]
fn every_fault_of_every_file_is_said_with_its_line_before_anything_runs() {
    let place = Place::new();
    let broken = place.file("broken.py", "import evermill\n\ndef oops(:\n");
    let empty = place.file("empty.py", "import evermill\n");
    let ended = place.finish([
        "run".as_ref(),
        broken.as_os_str(),
        empty.as_os_str(),
        "missing.py".as_ref(),
    ]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    for part in ["broken.py:3", "[syntax_error]", "[no_dag]", "missing.py"] {
        assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
    }
    assert!(!place.data_dir().join("store.db").exists());
}

#[test]
fn one_id_in_two_files_is_a_fault_of_both() {
    let place = Place::new();
    let (one, two) = (place.file("one.py", CHAIN), place.file("two.py", CHAIN));
    let ended = place.finish(["run".as_ref(), one.as_os_str(), two.as_os_str()]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("one.py") && ended.stderr.contains("two.py:"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_source_without_an_address_is_named_with_its_connection_and_the_cure() {
    let place = Place::new();
    let file = place.file("listens.py", LISTENS);
    let ended = place.finish(["run".as_ref(), file.as_os_str()]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    for part in [
        "listens",
        "kafka",
        "kafka_default",
        "--connection",
        "EVERMILL_CONNECTION_KAFKA_DEFAULT",
    ] {
        assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
    }
}

#[test]
fn usage_that_is_not_understood_ends_with_exit_code_2() {
    let place = Place::new();
    for arguments in [
        vec!["run"],
        vec!["run", "x.py", "--until-idle", "5"],
        vec!["run", "x.py", "--connection", "kafka"],
        vec!["dev", "kafka", "--topic", "t:0"],
        vec!["dance"],
    ] {
        assert_eq!(place.finish(&arguments).code(), 2, "{arguments:?}");
    }
}

#[test]
fn a_locked_data_directory_ends_with_exit_code_4_and_names_the_holder() {
    let place = Place::new();
    let (slow, chain) = (place.file("slow.py", SLOW), place.file("chain.py", CHAIN));
    let holder = Running::start(&mut place.evermill(["run".as_ref(), slow.as_os_str()]));
    holder.wait_for_lines("waiting", 1);
    let ended = place.finish(["run".as_ref(), chain.as_os_str()]);
    assert_eq!(ended.code(), 4, "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&format!("process {}", holder.pid())),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("--data-dir DIR"), "{}", ended.stderr);
}

#[test]
fn ps_asks_the_running_engine_through_a_socket_of_its_owner_alone() {
    let place = Place::new();
    let file = place.file("slow.py", SLOW);
    let running = Running::start(&mut place.evermill(["run".as_ref(), file.as_os_str()]));
    running.wait_for_lines("waiting", 1);
    let socket = place.data_dir().join("control.sock");
    assert_eq!(
        socket.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let folder = place.data_dir().metadata().unwrap();
    assert_eq!(
        folder.permissions().mode() & 0o777,
        0o700,
        "its owner's alone"
    );
    let run = place.wait_for_run(|run| run["in"] == 1);
    assert_eq!(
        (&run["dag"], &run["state"]),
        (&"slow".into(), &"running".into()),
        "{run}"
    );
    let table = place.finish(["ps"]);
    assert!(
        table.stdout.starts_with("DAG") && table.stdout.contains("slow"),
        "{}",
        table.stdout
    );
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(!socket.exists());
}

#[test]
fn ps_reads_the_store_when_no_engine_runs() {
    let place = Place::new();
    let file = place.file("chain.py", CHAIN);
    assert_eq!(place.finish(["run".as_ref(), file.as_os_str()]).code(), 0);
    for _ in 0..2 {
        let runs = place.ps();
        assert_eq!(
            (runs.len(), &runs[0]["dag"], &runs[0]["done"]),
            (1, &"chain".into(), &1.into())
        );
    }
}

#[test]
fn ps_of_no_data_directory_is_told_so() {
    let ended = Place::new().finish(["ps"]);
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.contains("--data-dir"), "{}", ended.stderr);
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let place = Place::new();
    let stubborn = SLOW.replace("not ctx.should_stop()", "True");
    let file = place.file("slow.py", &stubborn);
    let arguments = [
        "run".as_ref(),
        file.as_os_str(),
        "--grace".as_ref(),
        "10m".as_ref(),
    ];
    let running = Running::start(&mut place.evermill(arguments));
    running.wait_for_lines("waiting", 1);
    running.signal(Signal::INT);
    place.wait_for_run(|run| run["state"] == "draining");
    running.signal(Signal::INT);
    assert_eq!(running.end().code(), 130);
}

#[test]
fn the_development_broker_prints_its_address_and_ends_on_a_signal() {
    let place = Place::new();
    let broker = Running::start(&mut place.evermill(["dev", "kafka", "--topic", "a-topic:2"]));
    let address = broker.first_line();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    broker.signal(Signal::TERM);
    assert_eq!(broker.end().code(), 0);
}
