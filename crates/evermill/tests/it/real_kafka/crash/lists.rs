//! The judge of the second DAG, whose activations are lists of messages (W8).

use std::collections::{BTreeMap, BTreeSet};

use super::effects::{Effect, RunSeen};
use super::judge::Ledger;

/// What the lists come to.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Different lists that ran.
    pub(super) lists: usize,
    /// In words; empty when every promise was kept.
    pub(super) faults: Vec<String>,
}

/// Every message is in one list, and a list is the same in every attempt, in whatever life.
/// `last`: what the engine said after its orderly end.
pub(super) fn judge(ledger: &Ledger, effects: &[Effect], last: Option<&RunSeen>) -> Verdict {
    let mut lists = BTreeMap::new();
    let mut faults = Vec::new();
    for effect in effects {
        let Some(positions) = &effect.positions else {
            continue;
        };
        let place = (effect.lane.as_str(), effect.position);
        let (before, key) = *lists.entry(place).or_insert((positions, &effect.key));
        if (before, key) != (positions, &effect.key) {
            faults.push(format!(
                "{place:?}: the list {before:?} with key {key} became {positions:?} with {}",
                effect.key
            ));
        }
    }
    let mut listed = BTreeSet::new();
    for ((lane, _), (positions, _)) in &lists {
        for position in *positions {
            if !listed.insert(((*lane).to_owned(), *position)) {
                faults.push(format!("{lane}@{position} is in two lists"));
            }
        }
    }
    let missing: Vec<_> = ledger.keys().filter(|at| !listed.contains(*at)).collect();
    let Some(last) = last else {
        faults.push("the run of lists was never seen".to_owned());
        return Verdict { lists: 0, faults };
    };
    if missing.len() as u64 > last.parked {
        faults.push(format!("in no list, {} parked: {missing:?}", last.parked));
    }
    if last.taken_in != ledger.len() as u64 || last.in_flight > 0 {
        let messages = ledger.len();
        faults.push(format!(
            "{messages} messages in lists, but the run says {last:?}"
        ));
    }
    Verdict {
        lists: lists.len(),
        faults,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(positions: &[u64], key: &str) -> Effect {
        Effect {
            life: 1,
            task: "list".to_owned(),
            lane: "t/0".to_owned(),
            position: positions[0],
            key: key.to_owned(),
            seq: None,
            token: None,
            n: None,
            positions: Some(positions.to_vec()),
        }
    }

    fn faults(effects: &[Effect]) -> Vec<String> {
        let ledger: Ledger = (0..4).map(|n| (("t/0".to_owned(), n), n)).collect();
        let last = RunSeen {
            taken_in: 4,
            done: 4,
            ..RunSeen::default()
        };
        judge(&ledger, effects, Some(&last)).faults
    }

    #[test]
    fn lists_that_change_overlap_or_leave_something_out_are_noticed() {
        let (first, second) = (list(&[0, 1], "a"), list(&[2, 3], "b"));
        assert_eq!(
            faults(&[first.clone(), second.clone(), first.clone()]),
            Vec::<String>::new()
        );
        let grown = faults(&[first.clone(), second.clone(), list(&[0, 1, 2], "a")]);
        assert!(grown[0].contains("became"), "{grown:?}");
        let other = faults(&[first.clone(), second.clone(), list(&[0, 1], "c")]);
        assert!(other[0].contains("became"), "{other:?}");
        let twice = faults(&[first.clone(), second, list(&[1, 2], "c")]);
        assert!(twice[0].contains("two lists"), "{twice:?}");
        let lost = faults(&[first]);
        assert!(lost[0].contains("in no list"), "{lost:?}");
    }
}
