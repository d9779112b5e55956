//! DAGs in YAML: from a file and a topic to commands, with what a process and a shell can do.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::mock::Mock;
use crate::process::{Place, Running, eventually};

const COMMANDS: &str = r#"
dag: commands
tasks:
  list: { run: 'echo "[1, 2, 3]"' }
  text: { run: 'printf "%s\nlast" "$WORD"', after: list, env: { WORD: héllo } }
  back: { run: 'printf "<%s>" "$(cat)" >&2', after: text, stdin: text }
  whole: { run: 'cat >&2', after: list, stdin: list }
  skips: { run: 'exit 99' }
  after_skips: { run: 'echo never >&2', after: skips }
  joined: { after: [back, skips], trigger_rule: none_failed }
"#;

fn attempts(run: &Value, task: &str) -> [u64; 3] {
    let tasks = run["tasks"].as_array().unwrap();
    let found = tasks.iter().find(|found| found["id"] == task);
    let found = found.unwrap_or_else(|| panic!("no {task} in {run}"));
    ["succeeded", "skipped", "failed"].map(|field| found[field].as_u64().unwrap())
}

fn run(place: &Place, text: &str, more: &[&str]) -> crate::process::Ended {
    let file = place.file("flow.yaml", text);
    let arguments = ["run", file.to_str().unwrap(), "--json"];
    let mut command = place.evermill(arguments.iter().chain(more));
    // No file asks for Python, so nobody may start one.
    command.env("EVERMILL_PYTHON", "no-such-python");
    Running::start(&mut command).end()
}

#[test]
fn each_run_of_a_dag_without_sources_is_triggered_once() {
    let place = Place::new();
    for round in 1..=3 {
        let ended = run(
            &place,
            "dag: once\ntasks: { say: { run: echo said >&2 } }\n",
            &[],
        );
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let said = ended.stderr.lines().filter(|line| line.ends_with(": said"));
        assert_eq!(said.count(), 1, "round {round}: {}", ended.stderr);
    }
    let again = run(
        &place,
        "dag: once\ntasks: { say: { run: echo said >&2 } }\n",
        &["--fresh"],
    );
    assert_eq!(again.code(), 0, "{}", again.stderr);
}

#[test]
fn commands_pass_results_on_and_exit_code_99_skips() {
    let place = Place::new();
    let ended = run(&place, COMMANDS, &[]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for said in [
        "back manual@0: <héllo",
        "back manual@0: last>",
        "whole manual@0: [1, 2, 3]",
    ] {
        assert!(
            ended.stderr.contains(said),
            "no {said:?} in {}",
            ended.stderr
        );
    }
    let run = ended.only_run();
    assert_eq!((&run["in"], &run["done"]), (&1.into(), &1.into()), "{run}");
    assert_eq!(attempts(&run, "skips"), [0, 1, 0]);
    assert_eq!(attempts(&run, "after_skips"), [0, 0, 0]);
}

#[test]
fn a_failure_is_tried_again_and_says_its_exit_code_and_what_it_wrote_last() {
    let place = Place::new();
    let text = "
dag: fails
tasks:
  breaks: { run: 'echo first line >&2; echo last line >&2; exit 3', retries: 2, retry_delay: 1ms }
";
    let ended = run(&place, text, &[]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let run = ended.only_run();
    assert_eq!(attempts(&run, "breaks"), [0, 0, 3]);
    let parked = place.finish(["parked", "show", "fails-1/manual/manual/0"]);
    assert!(
        parked.stdout.contains("exit code 3") && parked.stdout.contains("last line"),
        "{}{}",
        parked.stdout,
        parked.stderr
    );
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_everything_it_started() {
    let place = Place::new();
    let text = "
dag: slow
tasks:
  hangs: { run: 'sleep 600 & echo $! > child; wait', timeout: 200ms }
";
    let ended = run(&place, text, &[]);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(attempts(&ended.only_run(), "hangs"), [0, 0, 1]);
    let written = find(&place.data_dir(), "child").expect("the command wrote it into its bundle");
    let pid: i32 = std::fs::read_to_string(written)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    eventually("the child is gone", || {
        rustix::process::test_kill_process(pid)
            .is_err()
            .then_some(())
    });
}

fn find(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.map_while(Result::ok);
    let mut paths = entries.map(|entry| entry.path());
    paths.find_map(|path| {
        if path.is_dir() {
            return find(&path, name);
        }
        (path.file_name()? == name).then_some(path)
    })
}

#[test]
fn messages_are_on_standard_input_and_their_names_in_the_environment() {
    let place = Place::new();
    let broker = Mock::start(&place);
    broker.write(&[("a", "one"), ("b", ""), ("c", "three")]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/checksums.yaml");
    let text = std::fs::read_to_string(example).unwrap();
    let text = text.replace("topic: uploads", "topic: t");
    let more = format!("--connection={}", broker.connection());
    let ended = run(&place, &text, &[&more, "--until-idle", "300ms"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    // SHA-256 of `one` and of `three`; the empty message has none.
    for (position, checksum) in [
        (
            0,
            "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        ),
        (
            2,
            "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f",
        ),
    ] {
        let said = format!("t/0@{position} has the checksum {checksum}");
        assert!(
            ended.stderr.contains(&said),
            "no {said:?} in {}",
            ended.stderr
        );
    }
    let run = ended.only_run();
    let count = |field: &str| run[field].as_u64().unwrap();
    assert_eq!(
        (count("in"), count("done"), count("skipped")),
        (3, 2, 1),
        "{run}"
    );
    assert_eq!(attempts(&run, "has_content"), [2, 1, 0]);
}

#[test]
fn a_command_that_a_drain_cut_off_runs_again_at_the_next_start() {
    let place = Place::new();
    let marks = place.folder().join("marks");
    let text = format!(
        "dag: long\ntasks:\n  work: {{ run: 'echo started >> {0}; test -e {0}.go || sleep 600' }}\n",
        marks.display()
    );
    let file = place.file("flow.yaml", &text);
    let arguments = ["run", file.to_str().unwrap(), "--grace", "100ms"];
    let first = Running::start(&mut place.evermill(arguments));
    eventually("the command runs", || marks.exists().then_some(()));
    first.signal(Signal::TERM);
    assert_eq!(first.end().code(), 0);
    std::fs::write(place.folder().join("marks.go"), "").unwrap();
    let again = place.finish(arguments);
    assert_eq!(again.code(), 0, "{}", again.stderr);
    assert_eq!(
        std::fs::read_to_string(&marks).unwrap(),
        "started\nstarted\n"
    );
    assert_eq!(place.ps()[0]["done"], 1);
}

#[test]
fn a_file_in_python_and_one_in_yaml_run_side_by_side_and_bring_their_files_along() {
    let place = Place::new();
    place.file("greet", "echo \"hello from $EVERMILL_DAG\" >&2\n");
    let yaml = "dag: shell\nfiles: [greet]\ntasks: { greet: { run: sh greet } }\n";
    let python = "import evermill\n\n@evermill.task\ndef greet():\n    print('hello from python')\n\n\
                  @evermill.dag\ndef snake():\n    greet()\n";
    let (yaml, python) = (place.file("a.yaml", yaml), place.file("b.py", python));
    let ended = place.finish(["run".as_ref(), yaml.as_os_str(), python.as_os_str()]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for said in ["hello from shell", "hello from python"] {
        assert!(
            ended.stderr.contains(said),
            "no {said:?} in {}",
            ended.stderr
        );
    }
}

#[test]
fn faults_are_said_as_those_of_python_files_are() {
    let place = Place::new();
    let text = "\
dag: flow
sources:
  in: { kafka: { topic: orders, group: x } }
tasks:
  load: { after: in, run: load-one, retires: 3 }
  tell: { after: [lod], run: tell-one }
";
    place.file("flow.yaml", text);
    place.file(
        "loop.yml",
        "dag: loop\ntasks:\n  a: { run: x, after: b }\n  b: { run: x, after: a }\n",
    );
    place.file("compose.yaml", "services: {}\n");
    let ended = place.finish(["check", "."]);
    assert_eq!(ended.code(), 3, "{}", ended.stderr);
    let expected = "\
flow.yaml:3:33: error: kafka of source 'in' has no option 'group' [unknown_option]
    3 |   in: { kafka: { topic: orders, group: x } }
      = did you mean 'group_id'?
flow.yaml:5:37: error: task 'load' has no option 'retires' [unknown_option]
    5 |   load: { after: in, run: load-one, retires: 3 }
      = did you mean 'retries'?
flow.yaml:6:19: error: task 'tell' comes after 'lod', which is no task or source of DAG 'flow' [unknown_upstream]
    6 |   tell: { after: [lod], run: tell-one }
      = did you mean 'load'?
";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("loop.yml:") && ended.stderr.contains("[cycle]"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("compose.yaml"), "{}", ended.stderr);
}

#[test]
fn the_schema_for_editors_is_printed() {
    let ended = Place::new().finish(["check", "--schema"]);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let schema: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(schema["required"], serde_json::json!(["dag", "tasks"]));
}
