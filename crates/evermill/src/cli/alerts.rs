//! `evermill alerts ls|test`: what was told, and whether it arrives.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use evermill_connectors::alerts::Delivery;
use evermill_contract::alert::{Alert, AlertKind};
use serde_json::json;

use super::parked::age;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::reach::{Reach, get};
use crate::table::{first_line, print, table};
use crate::vault::Vault;

/// What can be typed behind `alerts`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// The latest alerts of the running engine, newest first
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Send a test alert to every hook of evermill.toml, at once
    Test,
}

/// Characters of an alert that are shown.
const TEXT_WIDTH: usize = 100;

/// Lists, or tries the hooks.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    match args {
        Args::Ls { json } => list(*json, data_dir),
        Args::Test => test(data_dir),
    }
}

fn list(as_json: bool, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let alerts: Result<Vec<Alert>, _> = reach.ask(&get("alerts"));
    let live = reach.is_live();
    reach.close()?;
    let alerts = alerts?;
    if as_json {
        let lines = alerts.iter().map(|alert| format!("{}\n", json!(alert)));
        return print(&lines.collect::<String>());
    }
    let row = |alert: &Alert| {
        [
            age(alert.at_ms),
            alert.kind.to_string(),
            first_line(&alert.text, TEXT_WIDTH),
        ]
    };
    print(&table(
        ["WHEN", "KIND", "ALERT"],
        alerts.iter().map(row).collect(),
        3,
    ))?;
    if !live {
        eprintln!(
            "no engine runs on this data directory: what is listed has not been told to every hook, and the next one tells it"
        );
    }
    Ok(())
}

/// Sends from here: it shows what the file says, whether an engine runs or not.
fn test(data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let config = Config::read(data_dir, &[])?;
    if config.alerts.is_empty() {
        let text = "evermill.toml has no [[alerts]]; write one with post = \"https://...\", smtp = \"smtps://...\" or command = \"...\"";
        return Err(Failure::usage(text.to_owned()));
    }
    let places: Vec<String> = config.alerts.iter().map(config::Hook::place).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at_ms = now.map_or(0, |since| since.as_millis() as u64);
    let alert = Alert {
        id: format!("test-{at_ms}"),
        kind: AlertKind::Test,
        at_ms,
        dag: "test".to_owned(),
        run: "test".to_owned(),
        source: None,
        lane: None,
        position: None,
        task: None,
        count: 1,
        text: "this is a test of evermill's alerts: nothing is wrong".to_owned(),
    };
    let mut failed = 0;
    for (hook, place) in config::hooks(&config.alerts, &Vault::open(&config)?)?
        .iter()
        .zip(places)
    {
        let tried = Delivery::open(&hook.to).map_err(|cause| cause.to_string());
        match tried.and_then(|delivery| delivery.test(&alert)) {
            Ok(()) => print(&format!("{} ({place}): delivered\n", hook.name))?,
            Err(why) => {
                failed += 1;
                print(&format!("{} ({place}): {why}\n", hook.name))?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::failed("1 hook did not take the alert".to_owned())),
        many => Err(Failure::failed(format!(
            "{many} hooks did not take the alert"
        ))),
    }
}
