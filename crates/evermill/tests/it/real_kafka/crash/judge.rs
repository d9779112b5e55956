//! The judge: from what went in, what came out and what was seen, every broken promise.
//!
//! It knows nothing of the engine. Each rule that it holds against a run names what was promised.

use std::collections::{BTreeMap, BTreeSet};

use super::effects::{Effect, Seen};

/// Every message that the broker has acknowledged: (lane, position) and its sequence number.
pub(super) type Ledger = BTreeMap<(String, u64), u64>;

/// What a judgement comes to.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Acknowledged messages.
    pub(super) messages: usize,
    /// Messages without the effect of their last task, beyond those that are parked.
    pub(super) lost: usize,
    /// Messages that changed state twice, or whose task had two accepted results.
    pub(super) doubled: usize,
    /// Effects that were repeated, all by attempts whose outcome was not committed.
    pub(super) repeats: usize,
    /// Events set aside because they were in flight at three unclean stops.
    pub(super) parked: u64,
    /// In words; empty when every promise was kept.
    pub(super) faults: Vec<String>,
}

/// An event's place.
type Place<'a> = (&'a str, u64);

/// Judges a round after its last, orderly end.
pub(super) fn judge(ledger: &Ledger, effects: &[Effect], seen: &[Seen]) -> Verdict {
    let mut verdict = Verdict {
        messages: ledger.len(),
        ..Verdict::default()
    };
    let by_place = by_place(effects);
    inputs(ledger, &by_place, seen, &mut verdict);
    state(&by_place, &mut verdict);
    results(&by_place, &mut verdict);
    keys(effects, &mut verdict);
    repeats(&by_place, seen, &mut verdict);
    views(seen, &mut verdict);
    verdict
}

/// Each effect with its index in the file, by the event it belongs to.
fn by_place(effects: &[Effect]) -> BTreeMap<Place<'_>, Vec<(usize, &Effect)>> {
    let mut places = BTreeMap::<_, Vec<_>>::new();
    for (index, effect) in effects.iter().enumerate() {
        places
            .entry((effect.lane.as_str(), effect.position))
            .or_default()
            .push((index, effect));
    }
    places
}

type Places<'a> = BTreeMap<Place<'a>, Vec<(usize, &'a Effect)>>;

fn closed(effects: &[(usize, &Effect)]) -> bool {
    effects.iter().any(|(_, effect)| effect.task == "close")
}

/// P1: nothing acknowledged is lost, and each input is what was written.
fn inputs(ledger: &Ledger, places: &Places<'_>, seen: &[Seen], verdict: &mut Verdict) {
    let mut open = Vec::new();
    for ((lane, position), seq) in ledger {
        let effects = places
            .get(&(lane.as_str(), *position))
            .map_or(&[][..], Vec::as_slice);
        if !closed(effects) {
            open.push(format!("{lane}@{position} (message {seq})"));
        }
        let other = effects
            .iter()
            .filter_map(|(_, effect)| effect.seq)
            .find(|read| read != seq);
        if let Some(other) = other {
            verdict.faults.push(format!(
                "{lane}@{position}: message {seq} was read as {other}"
            ));
        }
    }
    let last = seen.iter().rev().find_map(|seen| match seen {
        Seen::Run { run, .. } => Some(run),
        Seen::Hints(_) => None,
    });
    let Some(last) = last else {
        verdict.faults.push("the engine was never seen".to_owned());
        return;
    };
    verdict.parked = last.parked;
    let parked = usize::try_from(last.parked).unwrap_or(usize::MAX);
    verdict.lost = open.len().saturating_sub(parked);
    if verdict.lost > 0 {
        verdict
            .faults
            .push(format!("lost, with {parked} parked: {}", open.join(", ")));
    }
    let taken_in = usize::try_from(last.taken_in).unwrap_or(usize::MAX);
    if taken_in != ledger.len() || last.in_flight > 0 {
        let (messages, in_flight) = (ledger.len(), last.in_flight);
        let what = format!(
            "{messages} messages, but {taken_in} taken in and {in_flight} in flight at the end"
        );
        verdict.faults.push(what);
    }
}

/// P2: an input changes state once. `count` counts its partition's events in order, so every
/// attempt at one event has to find the same number, one more than at the event before.
fn state(places: &Places<'_>, verdict: &mut Verdict) {
    let mut lane_before = "";
    let mut expected = 1;
    // A parked event may have been counted before it was set aside, or not.
    let mut unsure = 0;
    for ((lane, position), effects) in places {
        if *lane != lane_before {
            (lane_before, expected, unsure) = (*lane, 1, 0);
        }
        if !closed(effects) {
            unsure += 1;
            continue;
        }
        let found: BTreeSet<u64> = effects.iter().filter_map(|(_, effect)| effect.n).collect();
        let first = found.first().copied().unwrap_or(0);
        if found.len() != 1 || !(expected..=expected + unsure).contains(&first) {
            verdict.doubled += 1;
            verdict.faults.push(format!(
                "{lane}@{position}: counted as {found:?}, expected {expected}"
            ));
        }
        (expected, unsure) = (first + 1, 0);
    }
}

/// P3: one result is accepted. Whoever reads the result of `check`, in whatever life, reads the
/// same one, and an attempt has made it.
fn results(places: &Places<'_>, verdict: &mut Verdict) {
    for ((lane, position), effects) in places {
        let tokens = |made: bool| -> BTreeSet<&str> {
            let of_kind = effects
                .iter()
                .filter(|(_, effect)| (effect.task == "check") == made);
            of_kind
                .filter_map(|(_, effect)| effect.token.as_deref())
                .collect()
        };
        let (made, read) = (tokens(true), tokens(false));
        if read.len() > 1 || !read.is_subset(&made) {
            verdict.doubled += 1;
            verdict.faults.push(format!(
                "{lane}@{position}: results {read:?} were accepted of {made:?}"
            ));
        }
    }
}

/// P4: the effect key is the same in every attempt, and no other task or event has it.
fn keys(effects: &[Effect], verdict: &mut Verdict) {
    let mut key_of = BTreeMap::new();
    let mut owner_of = BTreeMap::new();
    for effect in effects {
        let owner = (effect.task.as_str(), effect.lane.as_str(), effect.position);
        let key = effect.key.as_str();
        if *key_of.entry(owner).or_insert(key) != key
            || *owner_of.entry(key).or_insert(owner) != owner
        {
            verdict
                .faults
                .push(format!("{owner:?}: effect key {key} is not its own"));
        }
    }
}

/// C9: a crash repeats only attempts whose outcome was not committed. A later task that has run
/// proves its inputs' outcomes committed, and a position proves it of all below. An attempt
/// that belongs to the life of the proof, or an earlier one, may have begun before it.
fn repeats(places: &Places<'_>, seen: &[Seen], verdict: &mut Verdict) {
    let settled = settled(seen);
    for ((lane, position), effects) in places {
        for task in ["check", "count", "act", "close"] {
            let of_task: Vec<_> = effects
                .iter()
                .filter(|(_, effect)| effect.task == task)
                .collect();
            verdict.repeats += of_task.len().saturating_sub(1);
            let proof = |effect: &Effect| match task {
                "check" => matches!(effect.task.as_str(), "count" | "act" | "close"),
                "count" | "act" => effect.task == "close",
                _ => false,
            };
            let proven = effects.iter().filter(|(_, effect)| proof(effect));
            let proven = proven
                .map(|(index, effect)| (effect.life, Some(*index)))
                .min();
            let passed = settled.get(lane).and_then(|lives| {
                lives
                    .iter()
                    .find(|(_, low)| low > position)
                    .map(|(life, _)| (*life, None))
            });
            for (index, effect) in of_task {
                let late = |(life, at): (u32, Option<usize>)| {
                    effect.life > life || effect.life == life && at.is_some_and(|at| at < *index)
                };
                if proven.is_some_and(late) || passed.is_some_and(late) {
                    let life = effect.life;
                    verdict.faults.push(format!(
                        "{lane}@{position}: {task} ran again in life {life} after its commit"
                    ));
                }
            }
        }
    }
}

/// Positions while nothing was in flight, by lane: (life, next to read), in time. A position alone
/// proves less: what it has passed may be set aside in a row of its own and still have to run.
fn settled(seen: &[Seen]) -> BTreeMap<&str, Vec<(u32, u64)>> {
    let mut lanes = BTreeMap::<&str, Vec<(u32, u64)>>::new();
    for seen in seen {
        if let Seen::Run { life, run } = seen
            && run.in_flight == 0
        {
            for (lane, position) in run.positions() {
                lanes.entry(lane).or_default().push((*life, position));
            }
        }
    }
    lanes
}

/// Counters are conserved, positions never go back, and the broker is never told more than is
/// committed.
fn views(seen: &[Seen], verdict: &mut Verdict) {
    let mut positions = BTreeMap::<String, u64>::new();
    let mut hints = BTreeMap::<String, u64>::new();
    for seen in seen {
        match seen {
            Seen::Hints(told) => hints.clone_from(told),
            Seen::Run { life, run } => {
                let sum = run.done + run.skipped + run.parked + run.dropped + run.in_flight;
                if run.taken_in != sum {
                    verdict
                        .faults
                        .push(format!("life {life}: counters are not conserved: {run:?}"));
                }
                for (lane, position) in run.positions() {
                    let before = positions.insert(lane.to_owned(), position).unwrap_or(0);
                    let hint = hints.get(lane).copied().unwrap_or(0);
                    if position < before {
                        verdict.faults.push(format!(
                            "life {life}: {lane} went back from {before} to {position}"
                        ));
                    }
                    if position < hint {
                        verdict.faults.push(format!(
                            "life {life}: {lane} is at {position}, but the broker was told {hint}"
                        ));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::effects::{LaneSeen, RunSeen, SourceSeen};
    use super::*;

    fn effect(life: u32, task: &str, position: u64) -> Effect {
        Effect {
            life,
            task: task.to_owned(),
            lane: "t/0".to_owned(),
            position,
            key: format!("{task}-{position}"),
            seq: (task == "check").then_some(position),
            token: matches!(task, "check" | "count" | "act").then(|| format!("token-{position}")),
            n: (task == "count").then_some(position + 1),
            positions: None,
        }
    }

    fn all_of(life: u32, position: u64) -> Vec<Effect> {
        ["check", "count", "act", "close"]
            .map(|task| effect(life, task, position))
            .into()
    }

    fn at(life: u32, taken_in: u64, position: u64) -> Seen {
        let lanes = vec![LaneSeen {
            name: "t/0".to_owned(),
            position: Some(position),
        }];
        let run = RunSeen {
            taken_in,
            done: taken_in,
            sources: vec![SourceSeen { lanes }],
            ..RunSeen::default()
        };
        Seen::Run { life, run }
    }

    fn good() -> (Ledger, Vec<Effect>, Vec<Seen>) {
        let ledger = (0..3).map(|n| (("t/0".to_owned(), n), n)).collect();
        let effects = [all_of(1, 0), all_of(1, 1), all_of(2, 2)].concat();
        (ledger, effects, vec![at(1, 2, 2), at(2, 3, 3)])
    }

    fn faults(change: impl FnOnce(&mut Ledger, &mut Vec<Effect>, &mut Vec<Seen>)) -> Vec<String> {
        let (mut ledger, mut effects, mut seen) = good();
        change(&mut ledger, &mut effects, &mut seen);
        judge(&ledger, &effects, &seen).faults
    }

    #[test]
    fn a_good_run_has_no_fault_and_a_repeat_before_the_commit_is_counted() {
        assert_eq!(faults(|_, _, _| {}), Vec::<String>::new());
        let (ledger, mut effects, seen) = good();
        effects.insert(8, effect(1, "check", 2));
        effects[8].token = Some("lost with its attempt".to_owned());
        let verdict = judge(&ledger, &effects, &seen);
        assert_eq!((verdict.faults.as_slice(), verdict.repeats), (&[][..], 1));
    }

    #[test]
    fn every_broken_promise_is_noticed() {
        let lost = faults(|_, effects, _| effects.truncate(11));
        assert!(
            lost[0].contains("lost") && lost[0].contains("t/0@2"),
            "{lost:?}"
        );
        let twice = faults(|_, effects, _| effects[9].n = Some(4));
        assert!(twice[0].contains("counted as {4}"), "{twice:?}");
        let second = faults(|_, effects, _| effects[10].token = Some("another".to_owned()));
        assert!(second[0].contains("were accepted"), "{second:?}");
        let key = faults(|_, effects, _| effects[3].key = "check-0".to_owned());
        assert!(key[0].contains("not its own"), "{key:?}");
        let again = faults(|_, effects, _| effects.push(effect(2, "act", 2)));
        assert!(again[0].contains("act ran again"), "{again:?}");
        let passed = faults(|_, effects, _| effects.push(effect(2, "close", 1)));
        assert!(
            passed[0].contains("close ran again in life 2"),
            "{passed:?}"
        );
        let back = faults(|_, _, seen| seen.insert(1, at(2, 2, 1)));
        assert!(
            back.iter().any(|fault| fault.contains("went back")),
            "{back:?}"
        );
        let told = faults(|_, _, seen| seen.insert(0, Seen::Hints([("t/0".to_owned(), 3)].into())));
        assert!(told[0].contains("the broker was told 3"), "{told:?}");
        let counters = faults(|_, _, seen| {
            let Seen::Run { run, .. } = &mut seen[0] else {
                unreachable!("it is a run")
            };
            run.done = 1;
        });
        assert!(counters[0].contains("not conserved"), "{counters:?}");
        let read = faults(|ledger, _, _| {
            ledger.insert(("t/0".to_owned(), 1), 9);
        });
        assert!(read[0].contains("message 9 was read as 1"), "{read:?}");
    }
}
