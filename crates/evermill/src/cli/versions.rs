//! `evermill versions ls|diff`: versions that a DAG had, and what is different between two of them.

use std::fmt::Write as _;
use std::path::PathBuf;

use evermill_engine::Why;
use evermill_engine::view::{
    Change, EdgeChange, FileChange, NodeChange, OptionChange, VersionDiff, VersionState,
    VersionView,
};
use serde_json::{Value, json};

use super::parked::age;
use super::start::short;
use crate::failure::Failure;
use crate::reach::{Reach, get, part};
use crate::table::{print, table};

/// What can be typed behind `versions`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// List the versions that a DAG had, and when it went over to each, the newest first
    Ls {
        /// A DAG id or a run id
        #[arg(value_name = "DAG")]
        dag: String,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Say what is different between two versions: options, sources, tasks, edges, files
    Diff {
        /// A DAG id or a run id
        #[arg(value_name = "DAG")]
        dag: String,
        /// The beginning of a version; the one before TO when absent
        #[arg(value_name = "FROM")]
        from: Option<String>,
        /// The beginning of a version; the one that the DAG has now when absent
        #[arg(value_name = "TO")]
        to: Option<String>,
        /// And what is different in the files, line by line
        #[arg(long)]
        text: bool,
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Columns from here on hold numbers.
const NUMBERS: usize = 5;

/// Lists, or compares.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let done = match args {
        Args::Ls { dag, json } => list(&reach, dag, *json),
        Args::Diff {
            dag,
            from,
            to,
            text,
            json,
        } => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(from.iter().map(|from| ("from", from)));
            query.extend_pairs(to.iter().map(|to| ("to", to)));
            compare(&reach, dag, &query.finish(), *text, *json)
        }
    };
    let closed = reach.close();
    done.and(closed)
}

fn list(reach: &Reach, dag: &str, as_json: bool) -> Result<(), Failure> {
    let versions: Vec<VersionView> = reach.ask(&get(&format!("runs/{}/versions", part(dag))))?;
    if as_json {
        let lines = versions.iter().map(|one| format!("{}\n", json!(one)));
        return print(&lines.collect::<String>());
    }
    print(&versions_table(&versions))
}

/// Versions as a table; also in `show`.
pub(super) fn versions_table(versions: &[VersionView]) -> String {
    let head = ["VERSION", "SINCE", "WHY", "BY", "", "IN FLIGHT"];
    table(head, versions.iter().map(row).collect(), NUMBERS)
}

fn row(version: &VersionView) -> [String; 6] {
    let why = match version.why {
        Why::Start => "start",
        Why::Swap => "swap",
        Why::Rollback => "rollback",
    };
    let standing = match (version.state, &version.instead_of) {
        (VersionState::Current, Some(away)) if version.current => {
            format!("current, in place of {}", short(away))
        }
        (VersionState::Current, _) if version.current => "current".to_owned(),
        // A time before it came back: the row of the present one says so.
        (VersionState::Current, _) => String::new(),
        (VersionState::PutAway, _) => "put away until its file changes".to_owned(),
        (VersionState::Ending, _) => "ending".to_owned(),
        (VersionState::Kept, _) => String::new(),
        (VersionState::Forgotten, _) => "forgotten".to_owned(),
    };
    [
        short(&version.version).to_owned(),
        version.since_ms.map_or_else(|| "-".to_owned(), age),
        why.to_owned(),
        version.by.clone().unwrap_or_else(|| "-".to_owned()),
        standing,
        version.in_flight.to_string(),
    ]
}

fn compare(
    reach: &Reach,
    dag: &str,
    query: &str,
    with_text: bool,
    as_json: bool,
) -> Result<(), Failure> {
    let path = |what: &str| get(&format!("runs/{}/versions/{what}?{query}", part(dag)));
    let mut diff: VersionDiff = reach.ask(&path("diff"))?;
    if with_text {
        diff.files = reach.ask(&path("files"))?;
    }
    if as_json {
        return print(&format!("{}\n", json!(diff)));
    }
    print(&text(&diff))?;
    let is_text_left = diff.files.iter().any(|file| file.lines_added.is_some());
    if is_text_left && !with_text {
        eprintln!("--text says what is different in the files");
    }
    Ok(())
}

fn text(diff: &VersionDiff) -> String {
    let mut out = format!(
        "{}  {} -> {}\n",
        diff.dag,
        short(&diff.from),
        short(&diff.to)
    );
    if diff.from == diff.to {
        out.push_str("they are the same version\n");
        return out;
    }
    let mut section = |title: &str, body: String| {
        if !body.is_empty() {
            write!(out, "\n{title}\n{body}").expect("a String takes everything");
        }
    };
    section("Options of the DAG", options(&diff.options, 2));
    section("Sources", nodes(&diff.sources));
    section("Tasks", nodes(&diff.tasks));
    section("Edges", diff.edges.iter().map(edge).collect());
    section("Files", diff.files.iter().map(file).collect());
    for file in &diff.files {
        if let Some(text) = &file.text {
            let (before, after) = match file.change {
                Change::Added => ("/dev/null", &*file.path),
                Change::Removed => (&*file.path, "/dev/null"),
                Change::Changed => (&*file.path, &*file.path),
            };
            write!(out, "\n--- {before}\n+++ {after}\n{text}").expect("a String takes everything");
        }
    }
    if diff.left_out > 0 {
        writeln!(out, "\n{} more options are different", diff.left_out)
            .expect("a String takes everything");
    }
    out
}

const fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
    }
}

fn nodes(nodes: &[NodeChange]) -> String {
    let mut text = String::new();
    for node in nodes {
        let what = match node.change {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed => "changed",
        };
        writeln!(text, "  {} {}  {what}", sign(node.change), node.id)
            .expect("a String takes everything");
        // Of one that is gone its id says enough.
        if node.change != Change::Removed {
            text.push_str(&options(&node.options, 6));
        }
    }
    text
}

fn options(options: &[OptionChange], indent: usize) -> String {
    let width = options.iter().map(|one| one.option.chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for one in options {
        let values = match (one.hidden, one.change) {
            (true, _) => "value not shown: passwords may be in it".to_owned(),
            (false, Change::Added) => value(one.after.as_ref()),
            (false, _) => format!(
                "{} -> {}",
                value(one.before.as_ref()),
                value(one.after.as_ref())
            ),
        };
        writeln!(
            text,
            "{:indent$}{} {:<width$}  {values}",
            "",
            sign(one.change),
            one.option
        )
        .expect("a String takes everything");
    }
    text
}

/// An option that is left out has its default, which a manifest does not say.
fn value(value: Option<&Value>) -> String {
    match value {
        None => "default".to_owned(),
        Some(Value::String(text)) if !text.contains(['\n', '"']) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn edge(edge: &EdgeChange) -> String {
    let what = match (edge.change, edge.reads_result) {
        (Change::Changed, true) => "  its result is read now",
        (Change::Changed, false) => "  its result is not read any more",
        _ => "",
    };
    format!(
        "  {} {} -> {}{what}\n",
        sign(edge.change),
        edge.from,
        edge.to
    )
}

fn file(file: &FileChange) -> String {
    let mut text = format!("  {} {}", sign(file.change), file.path);
    if let (Some(added), Some(removed)) = (file.lines_added, file.lines_removed) {
        write!(text, "  +{added} -{removed}").expect("a String takes everything");
    }
    if let Some(note) = &file.note {
        write!(text, "  {note}").expect("a String takes everything");
    }
    text.push('\n');
    text
}
