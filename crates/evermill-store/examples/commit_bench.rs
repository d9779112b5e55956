//! The hot commit, side by side with a raw loop on the same SQLite in the same run:
//! `commit_bench [--commits N] [--rounds R] [--dir DIR]`.
//!
//! One commit is 100 records of 300 B into `outcome`, each by a key larger than those before, and
//! one `lane` row that is replaced; it returns after its fsync. The raw loop does just that on one
//! table per kind, with the same page size and log settings, and nothing else: no checksum, no
//! tally, no fence, no sequence number. Rounds alternate, each on a new directory; a shape with
//! 50 records into `outcome` and 50 history rows of 300 B follows.
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_core::row::{HistoryRow, Key, Row, Table, Write};
use evermill_store::{DirLock, Options, SqliteStore, Store};
use rusqlite::{Connection, params};

const RECORDS: u64 = 100;
const RECORD_BYTES: usize = 300;
/// Commits after which both sides checkpoint, as the committer would when idle.
const CHECKPOINT_EVERY: u64 = 64;

struct Arguments {
    commits: u64,
    rounds: usize,
    dir: PathBuf,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        commits: 2_000,
        rounds: 7,
        dir: std::env::current_dir().unwrap_or_default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word.as_str() {
            "--commits" => arguments.commits = value.parse().expect("a number"),
            "--rounds" => arguments.rounds = value.parse().expect("a number"),
            "--dir" => arguments.dir = PathBuf::from(value),
            _ => panic!("`{word}` is none of --commits, --rounds, --dir"),
        }
    }
    arguments
}

/// Records for a whole round, made before the clock runs: half of each is noise.
fn bodies(count: u64) -> Vec<Bytes> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut body = |_| {
        let mut bytes = vec![b'x'; RECORD_BYTES];
        for chunk in bytes[RECORD_BYTES / 2..].chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
        }
        Bytes::from(bytes)
    };
    (0..count).map(&mut body).collect()
}

/// What a round took.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    cpu: Duration,
    median: Duration,
}

fn timed(commits: u64, mut commit: impl FnMut(u64)) -> Took {
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut each: Vec<Duration> = (0..commits)
        .map(|n| {
            let start = Instant::now();
            commit(n);
            start.elapsed()
        })
        .collect();
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
    each.sort_unstable();
    Took {
        wall,
        cpu,
        median: each[each.len() / 2],
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// How many of the 100 records are history.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    history: u64,
}

fn raw(dir: &Path, commits: u64, bodies: &[Bytes], shape: Shape) -> Took {
    let connection = Connection::open(dir.join("raw.db")).expect("file");
    connection
        .execute_batch(
            "PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=1024;
             CREATE TABLE outcome(run INTEGER, lane INTEGER, id BLOB, body BLOB,
                 PRIMARY KEY(run, lane, id)) WITHOUT ROWID;
             CREATE TABLE lane(run INTEGER, lane INTEGER, id BLOB, body BLOB,
                 PRIMARY KEY(run, lane, id)) WITHOUT ROWID;
             CREATE TABLE history(id INTEGER PRIMARY KEY, run INTEGER, lane INTEGER,
                 settled_ms INTEGER, first INTEGER, last INTEGER, done INTEGER, body BLOB)",
        )
        .expect("tables");
    timed(commits, |n| {
        let write = || -> rusqlite::Result<()> {
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let mut outcome =
                connection.prepare_cached("INSERT INTO outcome VALUES(?1, ?2, ?3, ?4)")?;
            for part in shape.history..RECORDS {
                let id = [n.to_be_bytes(), part.to_be_bytes()].concat();
                outcome.execute(params![1, 1, id, &bodies[part as usize][..]])?;
            }
            let mut history = connection
                .prepare_cached("INSERT INTO history VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
            for part in 0..shape.history {
                let at = (n * RECORDS + part).cast_signed();
                history.execute(params![at, 1, 1, at, at, at, 1, &bodies[part as usize][..]])?;
            }
            connection
                .prepare_cached("INSERT OR REPLACE INTO lane VALUES(?1, ?2, ?3, ?4)")?
                .execute(params![1, 1, &b""[..], &bodies[0][..100]])?;
            connection.prepare_cached("COMMIT")?.execute([])?;
            if n.is_multiple_of(CHECKPOINT_EVERY) {
                connection
                    .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
                    .query_row([], |_| Ok(()))?;
            }
            Ok(())
        };
        write().expect("commit");
    })
}

fn ours(dir: &Path, commits: u64, bodies: &[Bytes], shape: Shape) -> Took {
    let lock = DirLock::take(dir).expect("lock");
    // Checkpoints come with `tend(true)` below and not otherwise.
    let options = Options {
        checkpoint_frames_idle: 0,
        ..Options::default()
    };
    let mut store: Box<dyn Store> = Box::new(SqliteStore::open(lock, options).expect("store"));
    let fence = store.claim(0).expect("claim");
    let took = timed(commits, |n| {
        let outcome = (shape.history..RECORDS).map(|part| {
            Write::Put(Row {
                table: Table::Outcome,
                key: Key::numbered(1, 1, &[n, part]),
                body: bodies[part as usize].clone(),
            })
        });
        let history = (0..shape.history).map(|part| {
            Write::History(HistoryRow {
                run: 1,
                lane: 1,
                settled_ms: n.cast_signed(),
                first: n,
                last: n,
                done: 1,
                skipped: 0,
                parked: 0,
                dropped: 0,
                body: bodies[part as usize].clone(),
            })
        });
        let lane = Write::Put(Row {
            table: Table::Lane,
            key: Key::numbered(1, 1, &[]),
            body: bodies[0].slice(..100),
        });
        let writes = outcome.chain(history).chain([lane]).collect();
        store.commit_one(fence, writes).expect("commit");
        if n.is_multiple_of(CHECKPOINT_EVERY) {
            store.tend(true).expect("tend");
        }
    });
    store.close_clean().expect("close");
    took
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

fn report(name: &str, took: &[Took], commits: u64) -> (f64, f64) {
    let records = (commits * RECORDS) as f64;
    let wall = records / median(took.iter().map(|took| took.wall).collect()).as_secs_f64();
    let cpu = records / median(took.iter().map(|took| took.cpu).collect()).as_secs_f64();
    let commit = median(took.iter().map(|took| took.median).collect());
    println!("  {name}: {wall:>9.0} records/s, {cpu:>9.0} records/CPU s, commit p50 {commit:?}");
    (wall, cpu)
}

fn main() {
    let Arguments {
        commits,
        rounds,
        dir,
    } = arguments();
    let bodies = bodies(RECORDS);
    let shapes = [
        Shape {
            name: "100 outcome rows + 1 lane row",
            history: 0,
        },
        Shape {
            name: "50 outcome rows + 50 history rows + 1 lane row",
            history: 50,
        },
    ];
    for shape in shapes {
        println!(
            "{} a commit, {commits} commits a round, {rounds} alternating rounds",
            shape.name
        );
        let (mut raws, mut oursa) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let fresh = || tempfile::tempdir_in(&dir).expect("directory");
            raws.push(raw(fresh().path(), commits, &bodies, shape));
            oursa.push(ours(fresh().path(), commits, &bodies, shape));
        }
        let raw = report("raw rusqlite", &raws, commits);
        let ours = report("evermill    ", &oursa, commits);
        println!(
            "  ratio: {:.2} on the wall, {:.2} per CPU second",
            ours.0 / raw.0,
            ours.1 / raw.1
        );
    }
}
