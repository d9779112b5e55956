use std::path::Path;

use evermill_sim::stage::check;

#[test]
fn every_scenario_holds_for_machine_and_oracle() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    names.sort();
    let mut broken = Vec::new();
    for path in &names {
        if let Err(error) = check(&std::fs::read_to_string(path).unwrap()) {
            broken.push(format!(
                "{}: {error}",
                path.file_name().unwrap().to_string_lossy()
            ));
        }
    }
    assert!(names.len() > 20, "only {} scenarios", names.len());
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}
