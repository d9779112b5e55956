//! Who is slow, or sends without measure, over a real connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::process::PATIENCE;
use crate::served::Served;

/// Whether the other end has gone; waits for that as long as `pace`.
fn is_gone(stream: &mut TcpStream, pace: Duration) -> bool {
    stream.set_read_timeout(Some(pace)).unwrap();
    let mut taken = [0; 1024];
    loop {
        match stream.read(&mut taken) {
            Ok(0) => return true,
            // The answer that says why.
            Ok(_) => {}
            Err(error) => {
                use std::io::ErrorKind::{TimedOut, WouldBlock};
                return !matches!(error.kind(), TimedOut | WouldBlock);
            }
        }
    }
}

/// S12, K02: whoever says nothing, or a little from time to time, loses his connection, and others are answered
/// meanwhile.
#[test]
fn k02_who_drips_or_says_nothing_is_hung_up_on_and_holds_up_nobody() {
    let served = Served::new();
    let post = "POST /api/v1/runs/flow/pause HTTP/1.1\r\nhost: localhost\r\n";
    let (body, chunks) = (
        format!("{post}content-length: 100\r\n\r\n"),
        format!("{post}transfer-encoding: chunked\r\n\r\n"),
    );
    let kept = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    std::thread::scope(|scope| {
        for (what, begin, drop_of) in [
            ("nothing at all", "", ""),
            ("half a first line", "GET /hea", ""),
            (
                "a head that goes on",
                "GET /healthz HTTP/1.1\r\n",
                "x: y\r\n",
            ),
            ("half a body", &body, ""),
            ("half a chunk", &chunks, ""),
            ("nothing after an answer", kept, ""),
        ] {
            let served = &served;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(&served.address).unwrap();
                stream.write_all(begin.as_bytes()).unwrap();
                let deadline = Instant::now() + PATIENCE;
                while !is_gone(&mut stream, Duration::from_millis(500)) {
                    assert!(Instant::now() < deadline, "still there: {what}");
                    // Whoever has been hung up on hears of it when he reads.
                    stream.write_all(drop_of.as_bytes()).ok();
                    assert_eq!(served.ask("GET /healthz", &[], "").status, 200);
                }
            });
        }
    });
    assert_eq!(served.get("/api/v1/runs/flow")["state"], "running");
}

/// More than may be open at the same time.
const MANY: usize = 1_100;

/// S12, K02: any number of connections that say nothing keeps out nobody, nor does it use up the files that a process
/// may have open.
#[test]
fn k02_a_thousand_who_say_nothing_keep_out_nobody() {
    let served = Served::with_few_files(512);
    let mut stream = served.listen("", None);
    stream.next();
    let silent: Vec<_> = (0..MANY).map(|_| served.open("")).collect();
    for _ in 0..3 {
        assert_eq!(served.get("/api/v1/runs/flow")["state"], "running");
    }
    served.send("an order");
    stream.until(|event| event.data.to_string().contains("\"done\":1"));
    let held = silent.into_iter().filter_map(|stream| {
        let mut stream = stream.into_inner();
        (!is_gone(&mut stream, Duration::from_millis(1))).then_some(stream)
    });
    assert!(held.count() < MANY, "those who came first have gone");
}

/// S12: heads have a measure, and so has what is in bodies.
#[test]
fn heads_and_bodies_have_a_measure() {
    let served = Served::new();
    let large = "x".repeat(40 << 10);
    let statuses = [
        served.ask("GET /api/v1/runs", &[("x-large", &large)], ""),
        served.ask(&format!("GET /api/v1/runs?x={large}"), &[], ""),
        served.ask("GET /api/v1/runs", &[("x", "y"); 70], ""),
    ]
    .map(|answer| answer.status);
    assert_eq!(statuses, [431; 3]);
    let fits = "x".repeat(24 << 10);
    let fits = served.ask("GET /api/v1/runs", &[("x-large", &fits)], "");
    assert_eq!(fits.status, 200);

    let deep = |open: &str, close: &str| open.repeat(100_000) + "1" + &close.repeat(100_000);
    for body in [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("{{\"reason\": {}}}", deep("[", "]")),
    ] {
        let answer = served.ask("POST /api/v1/runs/flow/parked/retry", &[], &body);
        assert_eq!(answer.status, 400, "{}", answer.json());
    }
    let long = format!("{{\"reason\": \"{}\"}}", "x".repeat(2 << 20));
    let answer = served.ask("POST /api/v1/runs/flow/parked/retry", &[], &long);
    assert_eq!(answer.status, 413, "{}", answer.json());
    assert_eq!(served.get("/api/v1/runs/flow")["state"], "running");
}
