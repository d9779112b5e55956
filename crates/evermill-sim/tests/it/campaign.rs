use evermill_sim::campaign::{play, run};
use evermill_sim::feature::Features;
use evermill_sim::generate::generate;

/// `EVERMILL_SIM_CASES` plays fewer or more.
fn cases() -> u64 {
    std::env::var("EVERMILL_SIM_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000)
}

#[test]
fn waves_are_invisible_in_20000_random_histories() {
    let cases = cases();
    let found = run(1, cases, 2, Features::all(), usize::MAX);
    let flaws = &found.flaws;
    assert!(flaws.is_empty(), "replay with --only SEED: {flaws:#?}");
    if cases >= 20_000 {
        let missing = found.coverage.missing(Features::all());
        assert!(missing.is_empty(), "never exercised: {missing:?}");
    }
}

#[test]
fn a_seed_replays_step_by_step() {
    for seed in [3, 17, 99] {
        let case = generate(seed, Features::all());
        let (first, second) = (play(&case, true), play(&case, true));
        assert!(!first.trace.is_empty());
        assert_eq!(first.trace, second.trace);
    }
}
