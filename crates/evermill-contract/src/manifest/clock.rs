//! Sources that need nothing but time: schedules, intervals and loops.

use serde::{Deserialize, Serialize};

use super::is_default;

/// Instants that a cron expression names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronSource {
    /// Five fields, or six with seconds first; `L`, `W`, `#` and names as Vixie's cron and Quartz have
    /// them.
    pub expr: String,
    /// The IANA time zone whose wall clock the expression means.
    #[serde(default = "utc", skip_serializing_if = "is_utc")]
    pub timezone: String,
    /// What becomes of instants that passed while nobody listened.
    #[serde(default, skip_serializing_if = "is_default")]
    pub catchup: Catchup,
}

/// Instants at equal distances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EverySource {
    /// Distance of two instants; they are counted from the DAG's `start_date`, else from 1970.
    pub interval_ms: u64,
    /// What becomes of instants that passed while nobody listened.
    #[serde(default, skip_serializing_if = "is_default")]
    pub catchup: Catchup,
}

/// One lap after the other (W15).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopSource {
    /// Wait between the end of a lap and the beginning of the next.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delay_ms: u64,
    /// Id of the short-circuit task at the end of a lap whose true answer ends the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Go on after a failed lap, with growing pauses, at most so often in a row; without it a failed
    /// lap fails the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_consecutive_failures: Option<u32>,
}

/// What becomes of instants that passed while nobody listened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Catchup {
    /// They are passed over.
    #[default]
    None,
    /// The latest of them fires.
    Last,
    /// Each of them fires, in order.
    All,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn is_utc(zone: &str) -> bool {
    zone == "UTC"
}
