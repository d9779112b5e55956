//! Wall clocks of the world, with Python's `zoneinfo` as a second opinion.

use std::collections::BTreeMap;
use std::process::Command;

use evermill_connectors::clock::Instants;
use evermill_contract::manifest::{Catchup, CronSource};

const ZONES: [&str; 7] = [
    "America/New_York",
    "Europe/Warsaw",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "America/Sao_Paulo",
];

/// Instants in seconds since 1970, by zone and expression, from 2011 to 2031.
fn table() -> BTreeMap<(String, String), Vec<u64>> {
    let python = std::env::var_os("EVERMILL_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clock_table.py");
    let mut command = Command::new(&python);
    let done = command.arg(script).args(ZONES).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {said}", python.display());
    let lines = String::from_utf8(done.stdout).unwrap();
    let mut table = BTreeMap::new();
    for line in lines.lines() {
        let (zone, rest) = line.split_once('\t').unwrap();
        let (expr, instants) = rest.split_once('\t').unwrap();
        let instants = instants.split(' ').map(|text| text.parse().unwrap());
        let key = (zone.to_owned(), expr.to_owned());
        table.insert(key, instants.collect());
    }
    table
}

/// Row G04: half hours, a day that never was, rules that changed: twenty years of each zone.
#[test]
fn g04_twenty_years_of_seven_zones_fire_as_zoneinfo_says() {
    let table = table();
    assert_eq!(table.len(), ZONES.len() * 3);
    for ((zone, expr), expected) in table {
        let source = CronSource {
            expr: expr.clone(),
            timezone: zone.clone(),
            catchup: Catchup::None,
        };
        let instants = Instants::of_cron(&source).unwrap();
        let (mut at, mut found) = (1_293_926_400_000_000_000, Vec::new());
        while let Some(instant) = instants.from(at)
            && instant < 1_924_905_600_000_000_000
        {
            found.push(instant / 1_000_000_000);
            at = instant + 1;
        }
        let differ = found.iter().zip(&expected).find(|(a, b)| a != b);
        assert_eq!(differ, None, "{zone} {expr}");
        assert_eq!(found.len(), expected.len(), "{zone} {expr}");
    }
}
