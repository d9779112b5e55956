//! Two topics, one task: each parameter gets the event of its own source (W6).

use rustix::process::Signal;

use crate::process::{Place, Running};
use crate::topic::{self, Topic};

fn flow(orders: &str, prices: &str) -> String {
    format!(
        r#"
import evermill

@evermill.task
def early(event):
    print(f"early {{event.text()}}", flush=True)

@evermill.task
def price(order, at, events, ctx):
    sources = [event.source for event in events]
    print(f"price {{order.text()}} {{at.text()}} {{sources}} {{ctx.event.text()}} {{order.lane != at.lane}}", flush=True)

@evermill.task
def late(prices, seen):
    print(f"late {{prices.text()}} {{[event.text() for event in seen]}}", flush=True)

@evermill.dag
def flow():
    orders = evermill.kafka("{orders}", name="orders", auto_offset_reset="earliest")
    prices = evermill.kafka("{prices}", name="prices", auto_offset_reset="earliest")
    early(orders)
    price(order=orders, at=prices) >> late(seen=[prices, orders])
"#
    )
}

#[test]
fn a_task_behind_two_topics_gets_a_message_of_each() {
    let (orders, prices) = (Topic::new(1), Topic::new(1));
    let place = Place::new();
    let file = place.file("flow.py", &flow(&orders.name, &prices.name));
    let connection = format!("kafka={}", topic::address());
    let arguments = [
        "run".as_ref(),
        file.as_os_str(),
        "--json".as_ref(),
        "--connection".as_ref(),
        connection.as_ref(),
    ];
    let running = Running::start(&mut place.evermill(arguments));
    prices.write(0, ["p1"]);
    place.wait_for_run(|run| run["in"] == 1);
    orders.write(0, ["o1", "o2"]);
    running.wait_for_lines("late p1 ['p1', 'o1']", 1);
    place.wait_for_run(|run| run["done"] == 2 && run["in_flight"] == 1);
    prices.write(0, ["p2"]);
    running.wait_for_lines("late p2 ['p2', 'o2']", 1);
    place.wait_for_run(|run| run["done"] == 4);
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    for said in [
        "early o1",
        "early o2",
        "price o1 p1 ['orders', 'prices'] o1 True",
        "price o2 p2 ['orders', 'prices'] o2 True",
    ] {
        assert_eq!(
            ended.stderr.matches(said).count(),
            1,
            "{said}: {}",
            ended.stderr
        );
    }
}
