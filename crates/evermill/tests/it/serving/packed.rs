//! Packaged DAGs: a zip archive with DAG modules at its root.

use std::path::Path;
use std::process::Command;

use super::{Scene, end};

/// Makes an archive with Python's own tool.
fn pack(scene: &Scene, to: &Path, files: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let made = scene.place.folder().join("made.zip");
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command
        .current_dir(folder.path())
        .args(["-m", "zipfile", "-c"])
        .arg(&made);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        command.arg(entry.unwrap().file_name());
    }
    assert!(command.status().unwrap().success());
    std::fs::rename(made, to).unwrap();
}

const DAG: &str = "
import evermill
from inside.words import WORD

@evermill.task
def note(event):
    print('noted', WORD, event.json())

@evermill.dag
def packed():
    note(evermill.signal('go'))
";

#[test]
fn an_archive_is_served_checked_and_swapped_like_any_file() {
    let scene = Scene::new();
    let path = scene.path("pack.zip");
    let files = |word: &'static str| {
        [
            ("packed.py", DAG),
            ("inside/words.py", word),
            ("inside/__init__.py", ""),
        ]
    };
    pack(&scene, &path, &files("WORD = 'one'"));
    let drawn = scene.well(&["check", "dags"]);
    assert!(
        drawn.contains("packed  dags/pack.zip/packed.py:"),
        "{drawn}"
    );
    let running = scene.serve();
    running.wait_for_lines("dags/pack.zip: packed is on as packed-1", 1);
    scene.say("packed", "a");
    running.wait_for_lines("noted one a", 1);
    pack(&scene, &path, &files("WORD = 'two'"));
    running.wait_for_lines("packed goes over to version", 1);
    scene.say("packed", "b");
    running.wait_for_lines("noted two b", 1);
    end(running);
}
