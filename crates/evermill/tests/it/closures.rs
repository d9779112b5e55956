//! DAGs of closures, through the library.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermill::{Ctx, Dag, Engine, Event, Failure, Order, RunView, TriggerRule, files, kafka};

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

/// Runs a DAG until it has nothing to do any more.
fn drained(place: &Place, broker: &Mock, dag: Dag) -> RunView {
    let connection = broker.connection();
    let (_, address) = connection.split_once('=').unwrap();
    let running = Engine::local(place.data_dir())
        .connection("kafka_default", address)
        .workers(2)
        .start(dag)
        .unwrap();
    running.wait_idle(Duration::from_millis(200));
    running.drain(Duration::from_secs(10)).unwrap()
}

#[test]
fn state_is_read_within_its_key_with_what_the_attempt_itself_has_changed() {
    let place = Place::new();
    let broker = Mock::start(&place);
    broker.write(&[("ada", "1"), ("bob", "2"), ("ada", "3"), ("ada", "4")]);
    let notes = Notes::default();
    let noted = notes.clone();
    let dag = Dag::new("sums")
        .order(Order::Key)
        .source("wait", kafka::topic("t").from_earliest())
        .task("add", &["wait"], async move |event: Event, ctx: Ctx| {
            let state = ctx.state()?;
            let before: i64 = state.get("sum")?.unwrap_or(0);
            state.set("sum", &(before + event.json::<i64>()?))?;
            state.incr("seen", 1);
            state.set_add("values", &event.json::<i64>()?)?;
            if event.json::<i64>()? == 3 && ctx.try_number() == 1 {
                return Err(Failure::new(
                    "what a failed attempt has changed does not count",
                ));
            }
            let key = String::from_utf8_lossy(event.key().unwrap_or_default()).into_owned();
            let (sum, seen): (Option<i64>, Option<i64>) = (state.get("sum")?, state.get("seen")?);
            let values: Vec<i64> = state.get("values")?.unwrap_or_default();
            noted.note(format!("{key} {sum:?} {seen:?} {values:?}"));
            Ok(())
        })
        .retries(1)
        .retry_delay(Duration::from_millis(1))
        .state();
    let run = drained(&place, &broker, dag);
    assert_eq!((run.done, run.parked), (4, 0));
    let mut said = notes.taken();
    said.sort();
    assert_eq!(
        said,
        [
            "ada Some(1) Some(1) [1]",
            "ada Some(4) Some(2) [1, 3]",
            "ada Some(8) Some(3) [1, 3, 4]",
            "bob Some(2) Some(1) [2]",
        ]
    );
}

#[test]
fn state_is_refused_where_it_was_not_asked_for_or_nothing_is_in_order() {
    for (dag, said) in [
        (
            Dag::new("silent").task("work", &[], async |_: Event, ctx: Ctx| {
                ctx.state()?.incr("n", 1);
                Ok(())
            }),
            "does not say that it uses ctx.state()",
        ),
        (
            Dag::new("unordered")
                .task("work", &[], async |_: Event, ctx: Ctx| {
                    ctx.state()?.get::<u64>("n")
                })
                .state(),
            "needs events in order",
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
fn a_batch_of_a_source_is_one_activation_and_a_batch_task_takes_many_in_one_call() {
    let place = Place::new();
    let broker = Mock::start(&place);
    broker.write(&[("k", "0"), ("k", "1"), ("k", "2"), ("k", "3"), ("k", "4")]);
    let notes = Notes::default();
    let lists = notes.clone();
    let dag = Dag::new("lists")
        .source(
            "wait",
            kafka::topic("t")
                .from_earliest()
                .batch(3, Duration::from_millis(20)),
        )
        .task("sum", &["wait"], async move |_: Event, ctx: Ctx| {
            let events = ctx.events();
            let numbers = events.iter().map(Event::json::<u64>);
            let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
            lists.note(format!("{numbers:?}"));
            Ok(())
        });
    let run = drained(&place, &broker, dag);
    assert_eq!((run.taken_in, run.done, run.parked), (5, 5, 0));
    assert_eq!(notes.taken(), ["[0, 1, 2]", "[3, 4]"]);

    let other = Place::new();
    let after = notes.clone();
    let dag = Dag::new("calls")
        .source("wait", kafka::topic("t").from_earliest())
        .batch_task("halve", &["wait"], 4, async |items: Vec<(Event, Ctx)>| {
            let halve = |(event, ctx): (Event, Ctx)| {
                assert!(!ctx.effect_key().is_empty());
                let number: u64 = event.json()?;
                if number == 3 {
                    return Err(Failure::for_good("three is odd"));
                }
                Ok(number / 2)
            };
            items.into_iter().map(halve).collect()
        })
        .task("tell", &["halve"], async move |_: Event, ctx: Ctx| {
            after.note(format!("{:?}", ctx.result::<u64>("halve")?));
            Ok(())
        });
    let run = drained(&other, &broker, dag);
    assert_eq!((run.done, run.parked), (4, 1));
    let mut said = notes.taken();
    said.sort();
    assert_eq!(said, ["Some(0)", "Some(0)", "Some(1)", "Some(2)"]);
}

#[test]
fn a_closure_that_takes_too_long_has_failed_and_what_it_returns_later_is_refused() {
    let place = Place::new();
    let notes = Notes::default();
    let (slow, told) = (notes.clone(), notes.clone());
    let dag = Dag::new("slow")
        .task("work", &[], async move |_: Event, ctx: Ctx| {
            if ctx.try_number() == 1 {
                while !ctx.should_stop() {
                    std::thread::yield_now();
                }
                return Ok("late");
            }
            slow.note(format!("try {}", ctx.try_number()));
            Ok("in time")
        })
        .timeout(Duration::from_millis(20))
        .retries(1)
        .retry_delay(Duration::from_millis(1))
        .task("tell", &["work"], async move |_: Event, ctx: Ctx| {
            told.note(format!("{:?}", ctx.result::<String>("work")?));
            Ok(())
        });
    let run = block_on(Engine::local(place.data_dir()).workers(1).run(dag)).unwrap();
    assert_eq!((run.done, run.parked), (1, 0));
    assert_eq!(notes.taken(), ["try 2", "Some(\"in time\")"]);
}

#[test]
fn a_task_over_a_list_runs_once_per_item_and_gives_a_list() {
    let place = Place::new();
    let notes = Notes::default();
    let told = notes.clone();
    let dag = Dag::new("items")
        .task("list", &[], async |_: Event, _: Ctx| {
            Ok([("ada", 2), ("bob", 3)])
        })
        .expand(
            "times",
            "list",
            async |(name, n): (String, u64), ctx: Ctx| {
                Ok(format!("{name}{} {}", ctx.map_index(), n * 10))
            },
        )
        .task("tell", &["times"], async move |_: Event, ctx: Ctx| {
            let all: Option<Vec<String>> = ctx.result("times")?;
            told.note(format!("{all:?}"));
            Ok(())
        });
    let run = block_on(Engine::local(place.data_dir()).run(dag)).unwrap();
    assert_eq!((run.done, run.parked), (1, 0));
    assert_eq!(notes.taken(), [r#"Some(["ada0 20", "bob1 30"])"#]);
}

#[test]
fn a_branch_chooses_and_a_short_circuit_ends() {
    let place = Place::new();
    let notes = Notes::default();
    let (left, last) = (notes.clone(), notes.clone());
    let note = |notes: Notes, text: &'static str| {
        async move |_: Event, _: Ctx| {
            notes.note(text);
            Ok(())
        }
    };
    let dag = Dag::new("ways")
        .branch("which", &[], async |_: Event, _: Ctx| Ok(["left"]))
        .task("left", &["which"], note(left, "left"))
        .task("right", &["which"], async |_: Event, _: Ctx| {
            Err::<(), _>(Failure::new("not chosen"))
        })
        .short_circuit("enough", &["left"], async |_: Event, _: Ctx| Ok(false))
        .task("never", &["enough"], note(last, "never"));
    let run = block_on(Engine::local(place.data_dir()).run(dag)).unwrap();
    assert_eq!((run.taken_in, run.parked), (1, 0));
    assert_eq!(notes.taken(), ["left"]);
}

#[test]
fn what_is_no_dag_is_refused_with_what_is_wrong() {
    let place = Place::new();
    let dag = Dag::new("lost").task("work", &["nowhere"], async |_: Event, _: Ctx| Ok(()));
    let error = block_on(Engine::local(place.data_dir()).run(dag)).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn a_closure_hears_of_files() {
    let place = Place::new();
    let folder = place.data_dir().with_file_name("in");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.txt"), "one").unwrap();
    std::fs::write(folder.join("b.csv"), "other").unwrap();
    let notes = Notes::default();
    let seen = notes.clone();
    let dag = Dag::new("files")
        .source(
            "in",
            files::place(folder.to_str().unwrap()).pattern("*.txt"),
        )
        .task("look", &["in"], async move |event: Event, _: Ctx| {
            let said: serde_json::Value = event.json()?;
            let path = said["path"].as_str().unwrap_or_default();
            seen.note(path.rsplit('/').next().unwrap_or_default());
            Ok(())
        });
    let running = Engine::local(place.data_dir()).start(dag).unwrap();
    running.wait_idle(Duration::from_millis(300));
    let run = running.drain(Duration::from_secs(10)).unwrap();
    assert_eq!((run.taken_in, run.done), (1, 1));
    assert_eq!(notes.taken(), ["a.txt"]);
}
