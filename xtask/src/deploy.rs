//! What others say of `deploy/`: promtool of the alert rules and of the dashboard's queries, systemd of the unit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::programs::{self, SYSTEMD_ANALYZE};
use crate::workspace::{self, Fault};

/// Where the unit says that the binary is.
const INSTALLED: &str = "/usr/local/bin/evermill";
/// The unit's exposure, in tenths, as systemd counts it; 17 of 100 when this was written.
const EXPOSURE_MAX: &str = "20";
/// What Grafana puts into a query, and something that it could be.
const GRAFANA: [(&str, &str); 4] = [
    ("$__rate_interval", "1m"),
    ("$job", "evermill"),
    ("$instance", "a:4700"),
    ("$dag", "orders"),
];

/// Checks the files with programs that know them; `folder` is for copies.
pub(crate) fn check(promtool: &Path, binary: &Path, folder: &Path) -> Result<(), Fault> {
    let deploy = workspace::root().join("deploy");
    let of_rules = |verb: &str, file: &Path| {
        let mut command = Command::new(promtool);
        workspace::output(command.args([verb, "rules"]).arg(file)).map(drop)
    };
    of_rules("check", &deploy.join("prometheus/evermill.rules.yml"))?;
    of_rules("test", &deploy.join("prometheus/evermill.test.yml"))?;
    let queries = queries_as_rules(&deploy.join("grafana/evermill.json"), folder)?;
    of_rules("check", &queries)?;
    unit(&deploy.join("systemd/evermill.service"), binary, folder)
}

/// A file of recording rules with every query of a dashboard: what promtool can read.
fn queries_as_rules(dashboard: &Path, folder: &Path) -> Result<PathBuf, Fault> {
    let shown = dashboard.display();
    let text = fs::read_to_string(dashboard).map_err(|error| format!("{shown}: {error}"))?;
    let parsed: Value = serde_json::from_str(&text).map_err(|error| format!("{shown}: {error}"))?;
    let mut rules = Vec::new();
    for panel in parsed["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap_or_default();
            let query = GRAFANA
                .iter()
                .fold(query.to_owned(), |query, (name, value)| {
                    query.replace(name, value)
                });
            let name = format!("panel_{}_{}", panel["id"], rules.len());
            rules.push(json!({ "record": name, "expr": query }));
        }
    }
    if rules.is_empty() {
        return Err(format!("{shown} has no queries"));
    }
    let path = folder.join("dashboard.rules.yml");
    // JSON is YAML.
    let file = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(&path, file.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// The unit with this binary: systemd knows every line of it, and it stays as closed as it was.
fn unit(unit: &Path, binary: &Path, folder: &Path) -> Result<(), Fault> {
    let systemd = programs::require(&SYSTEMD_ANALYZE)?;
    let text = fs::read_to_string(unit).map_err(|error| format!("{}: {error}", unit.display()))?;
    let copy = folder.join("evermill.service");
    let text = text.replace(INSTALLED, &binary.display().to_string());
    fs::write(&copy, text).map_err(|error| format!("{}: {error}", copy.display()))?;
    let mut command = Command::new(&systemd);
    let verified = command.args(["verify", "--man=no"]).arg(&copy).output();
    let verified = verified.map_err(|error| format!("{}: {error}", systemd.display()))?;
    let said = String::from_utf8_lossy(&verified.stderr);
    // What it does not know it says and passes over; what it says of other units is not ours.
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("evermill"))
        .collect();
    if !verified.status.success() || !ours.is_empty() {
        return Err(format!("systemd-analyze verify {}: {said}", unit.display()));
    }
    let mut command = Command::new(&systemd);
    command.args(["security", "--offline=true", "--no-pager"]);
    command.args(["--threshold", EXPOSURE_MAX]).arg(&copy);
    workspace::output(&mut command).map(drop)
}
