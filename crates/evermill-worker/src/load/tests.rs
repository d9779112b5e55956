//! Against the real loader, with the interpreter of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evermill_contract::manifest::{Code, Fault, Manifest, SourceConfig};

use super::Loader;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn loader() -> Loader {
    Loader {
        sdk: Some(root().join("python")),
        ..Loader::new(std::env::var_os("EVERMILL_PYTHON").unwrap_or_else(|| "python3".into()))
    }
}

fn load(loader: &Loader, text: &str) -> Result<Manifest, Vec<Fault>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("flow.py");
    fs::write(&file, text).expect("a DAG file");
    loader.load(&file, Some(folder.path()))
}

fn only_fault(loader: &Loader, text: &str) -> Fault {
    let mut faults = load(loader, text).expect_err("a fault");
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.remove(0)
}

#[test]
fn the_first_pipeline_loads_as_it_is_written() {
    let file = root().join("examples/continuous_kafka_pipeline.py");
    let manifest = loader().load(&file, None).expect("a manifest");
    let SourceConfig::Kafka(kafka) = &manifest.dags[0].sources[0].config else {
        panic!("no topic")
    };
    assert_eq!(kafka.topic, "my-topic");
    assert_eq!(manifest.dags[0].tasks[0].id, "process_message_data");
}

#[test]
fn faults_arrive_with_line_column_and_cure() {
    let fault = only_fault(
        &loader(),
        "import evermill\n@evermill.task(retires=1)\ndef a(): pass\n",
    );
    assert_eq!((fault.line, fault.code), (2, Code::UnknownOption));
    assert_eq!(fault.cure, "did you mean 'retries'?");
    assert!(fault.to_string().contains("flow.py:2:16: "), "{fault}");
}

#[test]
fn a_file_that_hangs_is_ended_with_its_children() {
    let loader = Loader {
        timeout: Duration::from_secs(5),
        ..loader()
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("flow.py");
    let text = "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n\
                open(__file__ + '.pid', 'w').write(str(child.pid))\ntime.sleep(600)\n";
    fs::write(&file, text).expect("a DAG file");
    let faults = loader.load(&file, None).expect_err("a fault");
    assert_eq!(faults[0].code, Code::LoaderTimeout);
    let pid = fs::read_to_string(folder.path().join("flow.py.pid")).expect("the child's id");
    // A signal that was sent is heard when the child next gets a processor.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            break;
        }
        let late = std::time::Instant::now() > deadline;
        assert!(!late, "the child lives on: {stat}");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_that_takes_the_process_down_is_a_fault_with_what_it_said() {
    let fault = only_fault(
        &loader(),
        "import os, sys\nprint('last words')\nsys.stdout.flush()\nos._exit(7)\n",
    );
    assert_eq!(fault.code, Code::LoaderDied);
    assert!(
        fault.message.contains("exit status: 7") && fault.message.contains("last words"),
        "{fault}"
    );
}

#[test]
fn a_file_that_prints_much_loads_all_the_same() {
    let text = "import evermill\nfor _ in range(3000): print('x' * 1000)\n@evermill.task\ndef a(): pass\n\
                @evermill.dag\ndef flow(): a()\n";
    assert_eq!(
        load(&loader(), text).expect("a manifest").dags[0].id,
        "flow"
    );
}

#[test]
fn a_thread_that_a_file_leaves_behind_holds_nothing_up() {
    let text = "import evermill, threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n\
                @evermill.task\ndef a(): pass\n@evermill.dag\ndef flow(): a()\n";
    assert!(load(&loader(), text).is_ok());
}

#[test]
fn an_interpreter_that_is_not_there_is_a_fault() {
    let fault = only_fault(&Loader::new("no-such-python"), "");
    assert_eq!(fault.code, Code::Interpreter);
    assert!(fault.message.contains("no-such-python"), "{fault}");
}

#[test]
fn the_order_of_a_set_does_not_change_the_version() {
    let text = "import evermill\n@evermill.task\ndef a(): pass\n@evermill.dag\ndef flow():\n\
                \x20   for name in {'a', 'b', 'c', 'd', 'e'}: a.override(name=name)()\n";
    let version = || {
        let manifest = load(&loader(), text).expect("a manifest");
        manifest.version(&manifest.dags[0])
    };
    assert_eq!(version(), version());
}
