//! DAGs of closures, through the library.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermill::{Ctx, Dag, Engine, Event, Failure, TriggerRule, kafka};

use crate::mock::Mock;
use crate::process::Place;
use crate::topic::block_on;

/// What closures noted.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn results_pass_on_tries_are_counted_and_a_skip_is_no_failure() {
    let place = Place::new();
    let notes = Notes::default();
    let (first, last) = (notes.clone(), notes.clone());
    let dag = Dag::new("steps")
        .task("numbers", &[], async move |_event: Event, ctx: Ctx| {
            first.note(format!("try {} {}", ctx.try_number(), ctx.effect_key()));
            if ctx.try_number() < 3 {
                return Err(Failure::new("not yet"));
            }
            Ok(vec![1, 2, 3])
        })
        .retries(2)
        .retry_delay(Duration::from_millis(1))
        .task("nothing", &[], async |_: Event, _: Ctx| -> Result<(), _> {
            Err(Failure::skip())
        })
        .task(
            "sum",
            &["numbers", "nothing"],
            async move |_: Event, ctx: Ctx| {
                let numbers: Vec<u64> = ctx.result("numbers")?.unwrap_or_default();
                let nothing: Option<u64> = ctx.result("nothing")?;
                last.note(format!("{} {nothing:?}", numbers.iter().sum::<u64>()));
                Ok(())
            },
        )
        .trigger_rule(TriggerRule::NoneFailed);
    let run = block_on(Engine::local(place.data_dir()).run(dag)).unwrap();
    assert_eq!((run.taken_in, run.done, run.parked), (1, 1, 0));
    let said = notes.taken();
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(said[3], "6 None");
    let keys: Vec<_> = said[..3]
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert!(
        keys[0] == keys[1] && keys[1] == keys[2] && keys[0].len() == 32,
        "{said:?}"
    );
    assert_eq!(place.ps()[0]["done"], 1);
}

#[test]
fn a_panic_and_an_error_park_the_activation_with_their_words() {
    for (dag, said) in [
        (
            Dag::new("panics").task("work", &[], async |event: Event, _: Ctx| {
                assert!(event.value().is_some(), "no value at all");
                Ok(())
            }),
            "panicked: no value at all",
        ),
        (
            Dag::new("fails").task("work", &[], async |event: Event, _: Ctx| {
                event.json::<u64>()?;
                Ok(())
            }),
            "no value (a tombstone)",
        ),
    ] {
        let place = Place::new();
        let run = block_on(Engine::local(place.data_dir()).run(dag)).unwrap();
        assert_eq!((run.taken_in, run.parked), (1, 1));
        let listed = place.finish(["parked", "ls"]);
        assert!(
            listed.stdout.contains(said),
            "no {said:?} in {}",
            listed.stdout
        );
    }
}

#[test]
fn events_of_a_topic_are_taken_once_each_over_a_drain_and_a_new_start() {
    let place = Place::new();
    let broker = Mock::start(&place);
    let notes = Notes::default();
    let dag = |notes: Notes| {
        Dag::new("orders")
            .source("wait", kafka::topic("t").from_earliest())
            .task("load", &["wait"], async move |event: Event, _: Ctx| {
                let order: BTreeMap<String, u64> = event.json()?;
                let key = String::from_utf8_lossy(event.key().unwrap_or_default()).into_owned();
                notes.note(format!(
                    "{key} {} {}@{}",
                    order["total"],
                    event.lane(),
                    event.position()
                ));
                Ok(())
            })
    };
    let (_, address) = broker
        .connection()
        .split_once('=')
        .map(|(id, to)| (id.to_owned(), to.to_owned()))
        .unwrap();
    for (round, expected) in [(0, "ada 0 t/0@0"), (1, "ada 1 t/0@1")] {
        broker.write(&[("ada", &format!("{{\"total\": {round}}}"))]);
        let running = Engine::local(place.data_dir())
            .connection("kafka_default", &address)
            .workers(2)
            .start(dag(notes.clone()))
            .unwrap();
        running.wait_idle(Duration::from_millis(100));
        let run = running.drain(Duration::from_secs(10)).unwrap();
        assert_eq!((run.done, run.parked), (round + 1, 0));
        assert_eq!(notes.taken(), [expected]);
    }
}

#[test]
fn what_is_no_dag_is_refused_with_what_is_wrong() {
    let place = Place::new();
    let dag = Dag::new("lost").task("work", &["nowhere"], async |_: Event, _: Ctx| Ok(()));
    let error = block_on(Engine::local(place.data_dir()).run(dag)).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}
