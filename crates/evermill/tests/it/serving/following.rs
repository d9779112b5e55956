//! What a change of the folder does.

use rustix::process::Signal;

use super::{Scene, end, noting};
use crate::process::eventually;

#[test]
fn j01_a_broken_file_never_replaces_a_good_version_and_is_shown_until_it_is_mended() {
    let scene = Scene::new();
    scene.put("orders.yaml", &noting("orders", "one"));
    scene.put("other.yaml", &noting("other", "other"));
    let running = scene.serve();
    running.wait_for_lines("2 DAGs", 1);
    scene.put(
        "orders.yaml",
        "dag: orders\ntasks:\n  note: { run: 7, colour: red }\n",
    );
    running.wait_for_lines(
        "dags/orders.yaml is in error; orders goes on with version ",
        1,
    );
    let listed = scene.place.finish(["ps"]);
    assert!(
        listed.stderr.contains("dags/orders.yaml: in error ("),
        "{}",
        listed.stderr
    );
    assert!(listed.stderr.contains("line 3: "), "{}", listed.stderr);
    let shown = scene.well(&["show", "orders"]);
    assert!(shown.contains("orders goes on with version"), "{shown}");
    let other = scene.well(&["show", "other"]);
    assert!(!other.contains("in error"), "{other}");
    scene.say("orders", "a");
    scene.wait_for_notes(&["one a"]);
    scene.put("orders.yaml", &noting("orders", "two"));
    running.wait_for_lines("dags/orders.yaml: all is well again", 1);
    running.wait_for_lines("orders goes over to version", 1);
    scene.say("orders", "b");
    scene.wait_for_notes(&["one a", "two b"]);
    assert!(!scene.place.finish(["ps"]).stderr.contains("in error"));
    end(running);
}

#[test]
fn j03_of_two_files_with_one_dag_the_first_by_path_has_it_and_both_are_named() {
    let scene = Scene::new();
    scene.put("b.yaml", &noting("orders", "b"));
    scene.put("a.yaml", &noting("orders", "a"));
    let running = scene.serve();
    running.wait_for_lines(
        "dags/b.yaml:1: error: dags/a.yaml declares the DAG 'orders' as well",
        1,
    );
    running.wait_for_lines("dags/a.yaml: orders is on", 1);
    scene.say("orders", "1");
    scene.wait_for_notes(&["a 1"]);
    let listed = scene.place.finish(["ps"]).stderr;
    assert!(
        listed.contains("dags/b.yaml") && listed.contains("dags/a.yaml"),
        "{listed}"
    );
    end(running);
}

#[test]
fn j04_a_file_that_never_ends_hurts_nobody_else() {
    let scene = Scene::new();
    scene.put("orders.yaml", &noting("orders", "one"));
    let running = scene.serve();
    running.wait_for_lines("1 DAG", 1);
    scene.put(
        "hungry.py",
        "import evermill\nx = [bytearray(1 << 20) for _ in range(1 << 20)]\n",
    );
    running.wait_for_lines("loading needs more memory than a DAG file may have", 1);
    scene.say("orders", "a");
    scene.wait_for_notes(&["one a"]);
    end(running);
}

#[test]
fn j05_a_link_that_is_set_elsewhere_is_followed() {
    let scene = Scene::new();
    let link = |release: &str| {
        let next = scene.path("..next");
        std::os::unix::fs::symlink(release, &next).unwrap();
        std::fs::rename(next, scene.path("..data")).unwrap();
    };
    for release in ["..one", "..two"] {
        std::fs::create_dir(scene.path(release)).unwrap();
        let text = noting("orders", &release[2..]);
        std::fs::write(scene.path(release).join("orders.yaml"), text).unwrap();
    }
    link("..one");
    std::os::unix::fs::symlink("..data/orders.yaml", scene.path("orders.yaml")).unwrap();
    let running = scene.serve();
    running.wait_for_lines("orders is on", 1);
    link("..two");
    running.wait_for_lines("orders goes over to version", 1);
    scene.say("orders", "a");
    scene.wait_for_notes(&["two a"]);
    end(running);
}

#[test]
fn j07_a_dag_whose_file_is_gone_is_retired_and_comes_back_with_it() {
    let scene = Scene::new();
    let text = noting("orders", "one");
    scene.put("orders.yaml", &text);
    let running = scene.serve();
    running.wait_for_lines("1 DAG", 1);
    scene.say("orders", "a");
    scene.wait_for_notes(&["one a"]);
    std::fs::remove_file(scene.path("orders.yaml")).unwrap();
    running.wait_for_lines("orders is retired, its file is gone", 1);
    scene.wait_for_state("orders", "drained");
    let shown = scene.well(&["show", "orders"]);
    assert!(
        shown.contains("orders: retired: its file is gone"),
        "{shown}"
    );
    let refused = scene.badly(&["start", "orders"], 1);
    assert!(refused.contains("put it back"), "{refused}");
    assert!(
        scene.well(&["show", "orders", "--recent"]).contains("note"),
        "history stays"
    );
    scene.put("orders.yaml", &text);
    running.wait_for_lines("orders goes on as orders-1", 1);
    scene.say("orders", "b");
    scene.wait_for_notes(&["one a", "one b"]);
    end(running);
}

#[test]
fn j08_many_files_that_change_at_once_are_each_served_once() {
    let scene = Scene::new();
    for number in 0..60 {
        scene.put(
            &format!("d{number:02}.yaml"),
            &noting(&format!("d{number:02}"), "one"),
        );
    }
    let running = scene.serve();
    running.wait_for_lines("60 DAGs", 1);
    for number in 0..30 {
        scene.put(
            &format!("d{number:02}.yaml"),
            &noting(&format!("d{number:02}"), "two"),
        );
    }
    running.wait_for_lines("goes over to version", 30);
    scene.say("d00", "a");
    scene.say("d59", "b");
    scene.wait_for_notes(&["two a", "one b"]);
    assert_eq!(running.count("goes over to version"), 30);
    end(running);
}

#[test]
fn j09_a_file_that_declares_something_else_each_time_is_refused_with_the_difference() {
    let scene = Scene::new();
    let text = |retries: &str| {
        format!(
            "import time, evermill\n\n@evermill.task(retries={retries})\ndef t(event):\n    pass\n\n@evermill.dag\ndef chance():\n    t(evermill.signal('go'))\n"
        )
    };
    scene.put("chance.py", &text("1"));
    let running = scene.serve();
    running.wait_for_lines("chance is on", 1);
    scene.put("chance.py", &text("time.time_ns() % 1_000_000"));
    running.wait_for_lines(
        "read twice, it declares different DAGs: dags[0].tasks[0].retries is ",
        1,
    );
    running.wait_for_lines("chance goes on with version", 1);
    end(running);
}

#[test]
fn j10_a_link_out_of_the_folder_is_refused() {
    let scene = Scene::new();
    let outside = scene.place.file("orders.yaml", &noting("orders", "one"));
    std::os::unix::fs::symlink(&outside, scene.path("orders.yaml")).unwrap();
    let running = scene.serve();
    running.wait_for_lines("it leads out of the DAG folder, to ", 1);
    end(running);
}

#[test]
fn a_helper_that_changes_reloads_whoever_imports_it() {
    let scene = Scene::new();
    scene.put("helper.py", "WORD = 'one'\n");
    scene.put(
        "orders.py",
        "import helper\nimport evermill\n\n@evermill.task\ndef note(event):\n    print('noted', helper.WORD, event.json())\n\n@evermill.dag\ndef orders():\n    note(evermill.signal('go'))\n",
    );
    let running = scene.serve();
    running.wait_for_lines("orders is on", 1);
    scene.say("orders", "a");
    running.wait_for_lines("noted one a", 1);
    scene.put("helper.py", "WORD = 'two'\n");
    running.wait_for_lines("orders goes over to version", 1);
    scene.say("orders", "b");
    running.wait_for_lines("noted two b", 1);
    end(running);
}

#[test]
fn what_the_ignore_file_names_is_not_served_until_it_no_longer_does() {
    let scene = Scene::new();
    scene.put(".evermillignore", "draft_*\n");
    scene.put("draft_orders.yaml", &noting("orders", "one"));
    let running = scene.serve();
    running.wait_for_lines("no DAG yet", 1);
    std::fs::remove_file(scene.path(".evermillignore")).unwrap();
    running.wait_for_lines("orders is on", 1);
    end(running);
}

#[test]
fn a_folder_that_is_away_for_a_while_retires_nothing() {
    let scene = Scene::new();
    scene.put("orders.yaml", &noting("orders", "one"));
    let running = scene.serve();
    running.wait_for_lines("1 DAG", 1);
    let away = scene.place.folder().join("away");
    std::fs::rename(scene.place.folder().join("dags"), &away).unwrap();
    running.signal(rustix::process::Signal::HUP);
    running.wait_for_lines("what runs goes on as it is until the folder is back", 1);
    scene.say("orders", "a");
    scene.wait_for_notes(&["one a"]);
    std::fs::rename(&away, scene.place.folder().join("dags")).unwrap();
    running.signal(rustix::process::Signal::HUP);
    scene.put("second.yaml", &noting("second", "x"));
    running.signal(rustix::process::Signal::HUP);
    running.wait_for_lines("second is on", 1);
    eventually("still on", || {
        (scene.state("orders") == "running").then_some(())
    });
    assert_eq!(running.count("retired"), 0);
    end(running);
}

/// What is missing beside a file is no fault of the file: nobody has to change it.
#[test]
fn a_dag_that_lacks_a_secret_starts_once_somebody_has_set_it() {
    let scene = Scene::new();
    let needy = noting("orders", "one").replace("note: {", "note: { secrets: [api_key],");
    scene.put("orders.yaml", &needy);
    let running = scene.serve();
    let lacks = "orders: task 'note' needs the secret 'api_key'";
    running.wait_for_lines(&format!("dags/orders.yaml: {lacks}"), 1);
    // The folder is looked at again, and what is known is not said again.
    scene.put("other.yaml", &noting("other", "other"));
    running.wait_for_lines("other is on", 1);
    let listed = scene.place.finish(["ps"]).stderr;
    assert!(
        listed.contains("orders: the file's version is not served: task 'note' needs the secret"),
        "{listed}"
    );
    crate::secrets::set(&scene.place, "api_key", "tulips-in-spring");
    running.signal(Signal::HUP);
    running.wait_for_lines("dags/orders.yaml: orders is on as orders-", 1);
    scene.say("orders", "a");
    scene.wait_for_notes(&["one a"]);
    let listed = scene.place.finish(["ps"]).stderr;
    assert!(!listed.contains("is not served"), "{listed}");
    let said = end(running).stderr;
    assert_eq!(said.matches(lacks).count(), 1, "{said}");
}
