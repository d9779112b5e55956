//! `evermill pools ls|set|reset`: slots that tasks of all DAGs share. What is set lasts over restarts.

use std::path::PathBuf;

use bytes::Bytes;
use evermill_api::Method;
use evermill_engine::view::{PoolTaskView, PoolView, PoolWord};
use serde_json::json;

use crate::failure::Failure;
use crate::reach::{self, Reach, get, part};
use crate::table::{print, table};

/// What can be typed behind `pools`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// List the pools: slots, how many are used, what waits for them
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Give a pool so many slots, from now on and over restarts; with 0 its tasks start nothing
    Set {
        /// The pool, as a task or evermill.toml names it
        #[arg(value_name = "NAME")]
        name: String,
        /// Executions there may be at a time
        #[arg(value_name = "SLOTS")]
        slots: u32,
        /// The pool afterwards, as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forget what was set: the pool has the slots that evermill.toml gives it
    Reset {
        /// The pool
        #[arg(value_name = "NAME")]
        name: String,
        /// The pool afterwards, as a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Lists, or changes one.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let done = match args {
        Args::Ls { json } => list(&reach, *json),
        Args::Set { name, slots, json } => set(&reach, name, Some(*slots), *json),
        Args::Reset { name, json } => set(&reach, name, None, *json),
    };
    let closed = reach.close();
    done.and(closed)
}

fn list(reach: &Reach, as_json: bool) -> Result<(), Failure> {
    let pools: Vec<PoolView> = reach.ask(&get("pools"))?;
    if as_json {
        let lines = pools.iter().map(|pool| format!("{}\n", json!(pool)));
        return print(&lines.collect::<String>());
    }
    print(&pools_table(&pools))?;
    if pools.is_empty() {
        eprintln!("no task names a pool, and evermill.toml gives none a size");
    } else if !reach.is_live() {
        eprintln!("no engine runs on this data directory: nothing is used");
    }
    Ok(())
}

const HEAD: [&str; 6] = ["POOL", "SET BY", "TASKS", "SLOTS", "USED", "WAITING"];
/// Columns from here on hold numbers.
const NUMBERS: usize = 3;
/// Tasks that are named; of more it is said how many there are.
const TASKS_SHOWN: usize = 3;

fn pools_table(pools: &[PoolView]) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let row = |pool: &PoolView| {
        [
            pool.name.clone(),
            set_by(pool.set_by).to_owned(),
            tasks(&pool.tasks),
            pool.slots.to_string(),
            number(pool.used.map(u64::from)),
            number(pool.waiting),
        ]
    };
    table(HEAD, pools.iter().map(row).collect(), NUMBERS)
}

const fn set_by(word: PoolWord) -> &'static str {
    match word {
        PoolWord::Set => "pools set",
        PoolWord::File => "evermill.toml",
        PoolWord::Default => "default",
    }
}

/// Those that have most of it first.
fn tasks(tasks: &[PoolTaskView]) -> String {
    let mut tasks: Vec<&PoolTaskView> = tasks.iter().collect();
    tasks.sort_by_key(|task| std::cmp::Reverse((task.used, task.waiting)));
    let named = tasks.iter().take(TASKS_SHOWN);
    let named = named.map(|task| format!("{}.{}", task.dag, task.task));
    let more = tasks.len().saturating_sub(TASKS_SHOWN);
    let more = (more > 0).then(|| format!("and {more} more"));
    let all: Vec<String> = named.chain(more).collect();
    if all.is_empty() {
        "-".to_owned()
    } else {
        all.join(", ")
    }
}

fn set(reach: &Reach, name: &str, slots: Option<u32>, as_json: bool) -> Result<(), Failure> {
    let path = format!("pools/{}", part(name));
    let body = Bytes::from(json!({ "slots": slots }).to_string());
    let pool: PoolView = reach.ask(&reach::request(Method::Put, &path, body))?;
    if as_json {
        return print(&format!("{}\n", json!(pool)));
    }
    let set_by = set_by(pool.set_by);
    let said = match (pool.slots, pool.used, reach.is_live()) {
        (0, _, true) => "nothing more of its tasks is started until it has slots again".to_owned(),
        (0, ..) => "the next engine starts nothing of its tasks".to_owned(),
        (slots, Some(used), _) if used > slots => {
            format!("{used} are used, and nothing is started until fewer are")
        }
        (_, _, true) => "from now on".to_owned(),
        _ => "no engine runs; from the next `evermill run` on".to_owned(),
    };
    let count = match pool.slots {
        1 => "1 slot".to_owned(),
        slots => format!("{slots} slots"),
    };
    print(&format!("pool '{name}' has {count} ({set_by}): {said}\n"))
}
