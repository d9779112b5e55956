//! `evermill logs RUN [-f]`: what the tasks of a run printed.
//!
//! It lies in files of the data directory that are only ever appended to, so it is read as it is,
//! whether an engine runs or not.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use evermill_engine::{LogEntry, LogReader};

use super::parked::time;
use crate::failure::Failure;
use crate::reach::Reach;
use crate::table::print;

/// How often a follower looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What can be typed behind `logs`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    run: String,
    /// Go on with what is printed from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last N lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: usize,
    /// Begin with the oldest line that is kept
    #[arg(long, conflicts_with = "lines")]
    all: bool,
    /// Only of this task
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Only of the event at this position; LANE@POSITION names one of several lanes
    #[arg(long, value_name = "[LANE@]POSITION", value_parser = parse_event)]
    event: Option<Event>,
    /// Each line as a JSON object
    #[arg(long)]
    json: bool,
}

/// Which event's output is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) lane: Option<String>,
    pub(super) position: u64,
}

pub(super) fn parse_event(text: &str) -> Result<Event, String> {
    let (lane, position) = match text.rsplit_once('@') {
        Some((lane, position)) => (Some(lane.to_owned()), position),
        None => (None, text),
    };
    let position = position.parse();
    position
        .map(|position| Event { lane, position })
        .map_err(|_| {
            "want a position such as 1207, or a lane and a position such as orders/3@1207"
                .to_owned()
        })
}

impl Args {
    fn wants(&self, entry: &LogEntry) -> bool {
        let of_event = |event: &Event| {
            entry.position == Some(event.position)
                && (event.lane.is_none() || event.lane == entry.lane)
        };
        (self.task.is_none() || self.task == entry.task) && self.event.as_ref().is_none_or(of_event)
    }
}

/// Prints them.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let run = reach.run(&args.run)?.run.run;
    let mut reader = LogReader::new(reach.data_dir(), &run);
    reach.close()?;
    let refused = |cause| Failure::failed(format!("the log of '{run}': {cause}"));
    let count = if args.all { usize::MAX } else { args.lines };
    let last = reader
        .last(count, |entry| args.wants(entry))
        .map_err(refused)?;
    if last.is_empty() && !args.follow {
        eprintln!(
            "nothing that was printed is kept of '{run}'{}",
            chosen(args)
        );
    }
    let mut text = String::new();
    for entry in last {
        text.push_str(&shown(args, &entry));
    }
    print(&text)?;
    if args.follow {
        follow(args, &mut reader).map_err(refused)?;
    }
    Ok(())
}

/// Prints what comes, until whoever reads it has left.
fn follow(args: &Args, reader: &mut LogReader) -> io::Result<()> {
    loop {
        let mut text = String::new();
        reader.read(|entry| {
            if args.wants(&entry) {
                text.push_str(&shown(args, &entry));
            }
        })?;
        if text.is_empty() {
            std::thread::sleep(LOOK_AGAIN);
        } else if io::stdout().lock().write_all(text.as_bytes()).is_err() {
            return Ok(());
        }
    }
}

fn chosen(args: &Args) -> &'static str {
    if args.task.is_some() || args.event.is_some() {
        " for this choice"
    } else {
        ""
    }
}

fn shown(args: &Args, entry: &LogEntry) -> String {
    if args.json {
        let line = serde_json::to_string(entry).unwrap_or_default();
        return format!("{line}\n");
    }
    format!("{}  {}  {}\n", time(entry.at_ms), origin(entry), entry.text)
}

/// `load orders/3@1207 try 2 warning`, without what says nothing.
fn origin(entry: &LogEntry) -> String {
    let mut text = entry.task.clone().unwrap_or_else(|| "worker".to_owned());
    if let (Some(lane), Some(position)) = (&entry.lane, entry.position) {
        text.push_str(&format!(" {lane}@{position}"));
    }
    if entry.try_number > 1 {
        text.push_str(&format!(" try {}", entry.try_number));
    }
    if !matches!(entry.level.as_str(), "stdout" | "info") {
        text.push_str(&format!(" {}", entry.level));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_position_or_a_lane_with_one() {
        let position = Event {
            lane: None,
            position: 7,
        };
        assert_eq!(parse_event("7"), Ok(position));
        let with_lane = Event {
            lane: Some("orders/3".into()),
            position: 1207,
        };
        assert_eq!(parse_event("orders/3@1207"), Ok(with_lane));
        assert!(
            parse_event("orders/3")
                .unwrap_err()
                .contains("orders/3@1207")
        );
    }

    #[test]
    fn a_line_says_where_it_came_from_and_nothing_that_goes_without_saying() {
        let mut entry = LogEntry {
            task: Some("load".into()),
            lane: Some("o/3".into()),
            position: Some(5),
            try_number: 1,
            level: "stdout".into(),
            ..LogEntry::default()
        };
        assert_eq!(origin(&entry), "load o/3@5");
        entry.try_number = 2;
        entry.level = "warning".into();
        assert_eq!(origin(&entry), "load o/3@5 try 2 warning");
    }
}
