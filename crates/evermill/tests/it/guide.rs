//! The DAGs that the guides show are DAGs: each is loaded as a reader would.

use std::path::{Path, PathBuf};

use crate::process::Place;

/// The fenced blocks of a text that begin with this fence and hold all of these: an excerpt is no file.
fn blocks(text: &str, fence: &str, signs: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == fence {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push(block.join("\n") + "\n");
        }
    }
    found.retain(|block| signs.iter().all(|sign| block.contains(sign)));
    found
}

fn guides() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide");
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
    let mut paths: Vec<_> = paths.filter(is_page).collect();
    paths.sort();
    paths
}

#[test]
fn every_dag_that_a_guide_shows_is_one() {
    let mut checked = 0;
    let kinds: [(_, &[&str], _); 2] = [
        (
            "```python",
            &["import evermill\n", "@evermill.dag"],
            "flow.py",
        ),
        ("```yaml", &["dag:"], "flow.yaml"),
    ];
    for guide in guides() {
        let text = std::fs::read_to_string(&guide).unwrap();
        for (fence, signs, name) in kinds {
            for block in blocks(&text, fence, signs) {
                let place = Place::new();
                place.file(name, &block);
                let ended = place.finish(["check", name, "--connection", "kafka=127.0.0.1:9"]);
                let guide = guide.display();
                assert_eq!(ended.code(), 0, "{guide}:\n{block}\n{}", ended.stderr);
                checked += 1;
            }
        }
    }
    assert!(checked >= 3, "only {checked} were found");
}
