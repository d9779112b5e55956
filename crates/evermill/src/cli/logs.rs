//! `evermill logs RUN [-f]`: what the tasks of a run printed.
//!
//! It lies in files of the data directory that are only ever appended to, so it is read as it is, whether an
//! engine runs or not, and with the same reader as `/api/v1/runs/{run}/logs`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use evermill_engine::{
    LOG_LEVELS, LogEntry, LogFilter, LogOrder, LogPage, LogPlace, LogQuery, RunLogs, limits,
};

use super::parked::time;
use super::place::now_ms;
use crate::duration;
use crate::failure::Failure;
use crate::reach::Reach;
use crate::table::print;

/// How often a follower looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What can be typed behind `logs`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A DAG id (its latest run) or a run id, as `evermill ps` lists them
    #[arg(required_unless_present = "workers")]
    run: Option<String>,
    /// What workers print outside any run, such as threads and child processes that outlive their task
    #[arg(long, conflicts_with_all = ["run", "task", "event", "key", "try_number"])]
    workers: bool,
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
    /// Only of events with this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only of the N-th try
    #[arg(long = "try", value_name = "N")]
    try_number: Option<u32>,
    /// Only so bad or worse; what is printed counts as info
    #[arg(long, value_name = "LEVEL", value_parser = PossibleValuesParser::new(LOG_LEVELS))]
    level: Option<String>,
    /// Only lines with this text
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Only what came within this time, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    since: Option<Duration>,
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
    fn filter(&self) -> LogFilter {
        let event = self.event.as_ref();
        let since = self
            .since
            .map(|since| now_ms().saturating_sub(since.as_millis() as u64));
        LogFilter {
            task: self.task.clone(),
            lane: event.and_then(|event| event.lane.clone()),
            position: event.map(|event| event.position),
            key: self.key.clone(),
            try_number: self.try_number,
            level: self.level.clone(),
            text: self.text.clone(),
            since_ms: since,
            until_ms: None,
        }
    }
}

/// Prints them.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let reach = Reach::open(data_dir)?;
    let (logs, of) = match &args.run {
        Some(run) => {
            let run = reach.run(run)?.run.run;
            (RunLogs::new(reach.data_dir(), &run), format!("'{run}'"))
        }
        None => (RunLogs::of_workers(reach.data_dir()), "workers".to_owned()),
    };
    reach.close()?;
    let refused = |cause| Failure::failed(format!("the log of {of}: {cause}"));
    let mut query = LogQuery {
        filter: args.filter(),
        limit: limits::LOG_PAGE_LINES,
        ..LogQuery::default()
    };
    let mut is_empty = true;
    if args.all {
        query.order = LogOrder::Oldest;
    } else {
        let (last, after) = last(&logs, &mut query, args.lines).map_err(refused)?;
        is_empty = last.is_empty();
        let text: String = last.iter().rev().map(|entry| shown(args, entry)).collect();
        print(&text)?;
        query = LogQuery {
            order: LogOrder::Oldest,
            from: place(&after),
            limit: limits::LOG_PAGE_LINES,
            ..query
        };
    }
    if args.all || args.follow {
        is_empty &= on(args, &logs, query).map_err(refused)?;
    }
    if is_empty {
        eprintln!(
            "nothing that was printed is kept of {of}{}",
            chosen(&args.filter())
        );
    }
    Ok(())
}

/// The last lines, newest first, and the place behind them.
fn last(logs: &RunLogs, query: &mut LogQuery, count: usize) -> io::Result<(Vec<LogEntry>, String)> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        query.limit = (count - found.len()).min(limits::LOG_PAGE_LINES);
        let page = logs.page(query)?;
        found.extend(page.entries);
        let after = after.get_or_insert(page.after);
        match page.next {
            Some(next) if found.len() < count => query.from = place(&next),
            _ => return Ok((found, std::mem::take(after))),
        }
    }
}

/// Prints what comes behind a place: what is there, or, who follows, until whoever reads it has left. Whether
/// that was nothing.
fn on(args: &Args, logs: &RunLogs, mut query: LogQuery) -> io::Result<bool> {
    let mut is_empty = true;
    loop {
        let LogPage {
            entries,
            next,
            after,
            missed,
        } = logs.page(&query)?;
        if missed {
            eprintln!("some lines are missing here: the oldest went before they were read");
        }
        is_empty &= entries.is_empty();
        let text: String = entries.iter().map(|entry| shown(args, entry)).collect();
        if io::stdout().lock().write_all(text.as_bytes()).is_err() {
            return Ok(false);
        }
        match (next, args.follow) {
            (None, false) => return Ok(is_empty),
            (None, true) => std::thread::sleep(LOOK_AGAIN),
            (Some(_), _) => {}
        }
        query.from = place(&after);
    }
}

/// What a page says is always a place.
fn place(text: &str) -> Option<LogPlace> {
    text.parse().ok()
}

fn chosen(filter: &LogFilter) -> &'static str {
    if *filter == LogFilter::default() {
        ""
    } else {
        " for this choice"
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
