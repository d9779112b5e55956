//! `show RUN --recent` and `--at`: what is remembered of activations that have settled.

use std::fmt::Write as _;

use evermill_engine::view::{Blob, PastActivation, PastTask, PastView};

use super::{Args, attempts};
use crate::cli::parked::{age, event_text, time};
use crate::cli::start;
use crate::failure::Failure;
use crate::reach::{Reach, get, part};
use crate::table::{first_line, print, table};

/// Characters of the tasks' column.
const TASKS_WIDTH: usize = 80;
/// Of several that have the same position, the latest are shown.
const AT_MOST: usize = 10;

/// Asks and prints.
pub(super) fn run(reach: &Reach, args: &Args) -> Result<(), Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(event) = &args.at {
        query.append_pair("position", &event.position.to_string());
        query.extend_pairs(event.lane.iter().map(|lane| ("lane", lane)));
    }
    let words = [
        ("task", &args.task),
        ("key", &args.key),
        ("text", &args.text),
    ];
    for (name, word) in words {
        query.extend_pairs(word.iter().map(|word| (name, word)));
    }
    query.extend_pairs(args.since.iter().map(|ms| ("since_ms", ms.to_string())));
    query.append_pair("payload", "true");
    query.append_pair("problems", &args.problems.to_string());
    let limit = args.recent.unwrap_or(AT_MOST);
    let found = look(reach, &args.run, &query.finish(), limit)?;
    if args.json {
        let text = serde_json::to_string(&found);
        let text = text.map_err(|error| Failure::failed(error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    if found.activations.is_empty() {
        return print(&format!(
            "nothing of that kind is remembered{}\n",
            sampled(&found)
        ));
    }
    if args.at.is_some() {
        let texts = found.activations.iter().map(|one| {
            let place = [
                ("lane", one.lane.clone()),
                ("position", one.position.to_string()),
            ];
            let tries = attempts::of(reach, &args.run, &place)?;
            Ok(match &tries[..] {
                [] => whole(one),
                _ => format!("{}\n{}", whole(one), attempts::tries_table(&tries)),
            })
        });
        let texts = texts.collect::<Result<Vec<_>, Failure>>()?;
        return print(&texts.join("\n"));
    }
    print(&recent(&found))
}

/// Goes on from page to page until there are enough: one looks through so much of history and no more.
fn look(reach: &Reach, run: &str, query: &str, limit: usize) -> Result<PastView, Failure> {
    let mut found = PastView::default();
    loop {
        let mut query = form_urlencoded::Serializer::new(query.to_owned());
        query.extend_pairs(found.next.iter().map(|next| ("cursor", next)));
        let left = limit - found.activations.len();
        query.append_pair("limit", &left.to_string());
        let path = format!("runs/{}/activations?{}", part(run), query.finish());
        let mut page: PastView = reach.ask(&get(&path))?;
        found.activations.append(&mut page.activations);
        found.kept += page.kept;
        found.settled += page.settled;
        (found.more, found.next) = (page.more, page.next);
        if found.next.is_none() || found.activations.len() >= limit {
            return Ok(found);
        }
    }
}

/// History keeps every event below some rate, and a part of them above.
fn sampled(found: &PastView) -> String {
    match found.kept < found.settled {
        true => format!(" (sampled: {} of {} events)", found.kept, found.settled),
        false => String::new(),
    }
}

fn recent(found: &PastView) -> String {
    let row = |past: &PastActivation| {
        let tasks: Vec<String> = past.tasks.iter().map(short).collect();
        let took = past.settled_ms.saturating_sub(past.arrived_ms);
        [
            format!("{}@{}", past.lane, past.position),
            past.ended.clone(),
            age(past.settled_ms),
            format!("{took} ms"),
            first_line(&tasks.join(", "), TASKS_WIDTH),
        ]
    };
    let rows = found.activations.iter().map(row).collect();
    let mut text = table(["EVENT", "ENDED", "SETTLED", "TOOK", "TASKS"], rows, 5);
    let sampled = sampled(found);
    if !sampled.is_empty() {
        writeln!(text, "{}", sampled.trim_start()).expect("a String takes everything");
    }
    text
}

/// `load failed x3`, `load 12 ms`.
fn short(task: &PastTask) -> String {
    let mut text = task.task.clone();
    let mut add = |more: &str| {
        text.push(' ');
        text.push_str(more);
    };
    match (task.state.as_str(), task.took_ms) {
        ("success", Some(ms)) => add(&format!("{ms} ms")),
        ("success", None) => {}
        (state, _) => add(state),
    }
    if task.tries > 1 {
        add(&format!("x{}", task.tries));
    }
    text
}

fn whole(past: &PastActivation) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(out, "{name:<9} {value}").expect("a String takes everything");
    };
    line("id", &past.id);
    line("ended", &past.ended);
    line("arrived", &time(past.arrived_ms));
    let took = past.settled_ms.saturating_sub(past.arrived_ms);
    line(
        "settled",
        &format!("{}, {took} ms later", time(past.settled_ms)),
    );
    if let Some(version) = &past.version {
        line("version", start::short(version));
    }
    if past.round > 0 {
        line("retried", &format!("{} times by hand", past.round));
    }
    out.push('\n');
    let row = |task: &PastTask| {
        let took = task
            .took_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let result = task.result.as_ref().map(|result| match result {
            Blob::Text(text) => text.clone(),
            Blob::Base64 { base64 } => format!("base64 {base64}"),
        });
        // What was tried again and went well has an error, too.
        let shown = match task.state.as_str() {
            "success" => result.as_ref().or(task.error.as_ref()),
            _ => task.error.as_ref().or(result.as_ref()),
        };
        let shown = shown.map_or_else(String::new, |text| first_line(text, TASKS_WIDTH));
        [
            task.task.clone(),
            task.state.clone(),
            task.tries.to_string(),
            took,
            shown,
        ]
    };
    let rows = past.tasks.iter().map(row).collect();
    out.push_str(&table(
        ["TASK", "STATE", "TRIES", "TOOK", "RESULT"],
        rows,
        5,
    ));
    for event in &past.payload {
        out.push('\n');
        out.push_str(&event_text(event, false));
    }
    out
}
