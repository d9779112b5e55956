use evermill_engine::view::NoteKind;

use super::*;

fn run(dag: &str, done: u64) -> RunView {
    RunView {
        dag: dag.to_owned(),
        run: format!("{dag}-1"),
        version: String::new(),
        state: "running",
        taken_in: done,
        done,
        skipped: 0,
        parked: 0,
        dropped: 0,
        in_flight: 0,
        latency_ms: Percentiles::default(),
        commit_ms: Percentiles::default(),
        deadlines_missed: 0,
        awaiting: 0,
        waiting: 0,
        longest: None,
        tasks: Arc::default(),
        sources: Vec::new(),
        replays: Vec::new(),
    }
}

fn looked(runs: &[(&str, u64)]) -> Looked {
    Looked {
        view: Arc::new(EngineView {
            runs: runs.iter().map(|(dag, done)| run(dag, *done)).collect(),
            ..EngineView::default()
        }),
        details: BTreeMap::new(),
        pools: None,
    }
}

/// Tells as a feed does, without listeners; what was told.
fn tick(state: &mut State, runs: &[(&str, u64)]) -> String {
    let pieces = state.differences(&looked(runs));
    state.number += 1;
    let told = pieces.iter().map(|piece| text(&piece.bytes)).collect();
    state.keep(Arc::new(Tick {
        number: state.number,
        pieces,
    }));
    told
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn only(dag: &str) -> Wants {
    Wants {
        dags: Some(Arc::new(BTreeSet::from([dag.to_owned()]))),
        ..Wants::default()
    }
}

#[test]
fn what_stays_the_same_is_not_told_again() {
    let mut state = State::default();
    let first = tick(&mut state, &[("a", 1), ("b", 1)]);
    assert_eq!(first.matches("event: run\n").count(), 2);
    let second = tick(&mut state, &[("a", 1), ("b", 2)]);
    assert_eq!(second.matches("event: run\n").count(), 1);
    assert!(second.contains("\"dag\":\"b\""), "{second}");
    assert_eq!(tick(&mut state, &[("a", 1), ("b", 2)]), "");
    let gone = tick(&mut state, &[("b", 2)]);
    assert_eq!(
        gone,
        "event: gone\ndata: {\"dag\":\"a\",\"run\":\"a-1\"}\n\n"
    );
}

#[test]
fn who_comes_back_hears_every_tick_since_or_is_known_to_be_too_late() {
    let mut state = State::default();
    let ticks = limits::TICKS_KEPT as u64 + 5;
    for done in 1..=ticks {
        tick(&mut state, &[("a", done)]);
    }
    assert!(state.remembers(ticks), "nothing was missed");
    assert_eq!(state.missed(ticks, &Wants::default()).len(), 0);
    let missed = state.missed(ticks - 3, &Wants::default());
    let done: Vec<String> = missed.iter().map(text).collect();
    assert_eq!(done.len(), 3);
    assert!(done[2].contains(&format!("\"done\":{ticks},")), "{done:?}");
    assert!(
        state.remembers(5),
        "the next one is the oldest that is kept"
    );
    assert!(!state.remembers(4));
    assert!(!state.remembers(ticks + 1), "that is not ours");
}

#[test]
fn who_may_see_some_dags_hears_of_no_others() {
    let mut state = State::default();
    let mut looked = looked(&[("a", 1), ("b", 1)]);
    let notes = vec![NoteView {
        kind: NoteKind::FileInError,
        text: "dags/b.py is broken".to_owned(),
    }];
    Arc::get_mut(&mut looked.view).unwrap().notes = notes;
    let pieces = state.differences(&looked);
    let wants = only("a");
    let heard = text(&wants.of(&Tick { number: 1, pieces }));
    assert!(
        heard.contains("\"dag\":\"a\"") && !heard.contains("\"b\""),
        "{heard}"
    );
    assert!(!heard.contains("b.py"), "{heard}");
    let whole = text(&state.snapshot(&wants));
    assert!(
        whole.contains("\"dag\":\"a\"") && !whole.contains("\"b\""),
        "{whole}"
    );
    assert!(!whole.contains("b.py"), "{whole}");
    assert!(text(&state.snapshot(&Wants::default())).contains("b.py"));
}
