//! Who may import whom. The rooms stay apart because this table says so, not because everyone
//! remembers it.

use serde_json::Value;

use crate::workspace::Fault;

/// Every crate of the workspace and the crates of ours it may depend on, its tests included: a test
/// that needs another room is a test of the room above both.
const MAY_IMPORT: [(&str, &[&str]); 12] = [
    ("evermill-core", &[]),
    ("evermill-contract", &[]),
    ("evermill-store", &["evermill-core"]),
    (
        "evermill-engine",
        &["evermill-core", "evermill-contract", "evermill-store"],
    ),
    (
        "evermill-connectors",
        &["evermill-contract", "evermill-http"],
    ),
    ("evermill-worker", &["evermill-contract", "evermill-http"]),
    ("evermill-http", &[]),
    ("evermill-secrets", &[]),
    ("evermill-api", &["evermill-core", "evermill-engine"]),
    (
        "evermill",
        &[
            "evermill-core",
            "evermill-contract",
            "evermill-store",
            "evermill-engine",
            "evermill-connectors",
            "evermill-worker",
            "evermill-http",
            "evermill-secrets",
            "evermill-api",
        ],
    ),
    (
        "evermill-sim",
        &[
            "evermill-core",
            "evermill-contract",
            "evermill-store",
            "evermill-engine",
        ],
    ),
    ("xtask", &[]),
];

pub(crate) fn check(metadata: &Value) -> Vec<Fault> {
    let packages = metadata["packages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if packages.is_empty() {
        return vec!["cargo metadata lists no package".into()];
    }
    packages.iter().flat_map(faults_of_package).collect()
}

fn faults_of_package(package: &Value) -> Vec<Fault> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| *known == name) else {
        return vec![format!(
            "crate {name} has no row in xtask/src/tidy/imports.rs: say who may import whom"
        )];
    };
    let dependencies = package["dependencies"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    dependencies
        .iter()
        .filter_map(|dependency| dependency["name"].as_str())
        .filter(|dependency| is_ours(dependency) && !allowed.contains(dependency))
        .map(|dependency| {
            format!(
                "crate {name} imports {dependency}, which its room may not: see ARCHITECTURE.md"
            )
        })
        .collect()
}

fn is_ours(name: &str) -> bool {
    MAY_IMPORT.iter().any(|(known, _)| *known == name) || name.starts_with("evermill")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(name: &str, dependency: &str) -> Vec<Fault> {
        check(&json!({"packages": [{"name": name, "dependencies": [{"name": dependency}]}]}))
    }

    #[test]
    fn a_forbidden_import_is_named() {
        let faults = faults("evermill-core", "evermill-store");
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("evermill-core imports evermill-store"));
    }

    #[test]
    fn a_product_crate_never_imports_the_simulator() {
        assert_eq!(faults("evermill", "evermill-sim").len(), 1);
    }

    #[test]
    fn allowed_and_outside_imports_pass() {
        assert!(faults("evermill-store", "evermill-core").is_empty());
        assert!(faults("evermill-core", "serde").is_empty());
    }

    #[test]
    fn a_crate_without_a_row_is_a_fault() {
        assert_eq!(faults("evermill-extra", "serde").len(), 1);
    }
}
