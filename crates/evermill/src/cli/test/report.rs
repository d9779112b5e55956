//! How an activation ended, as a table or as the contract's JSON.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::table::{first_line, print as write, table};

/// What was found.
#[derive(Deserialize)]
pub(super) struct Found {
    pub(super) activations: Vec<Activation>,
    /// The logical date, ISO 8601.
    pub(super) date: String,
}

#[derive(Deserialize)]
pub(super) struct Activation {
    /// `done`, `skipped`, `parked` or `dropped`.
    pub(super) settled: String,
    pub(super) tasks: Vec<Task>,
}

#[derive(Deserialize)]
pub(super) struct Task {
    pub(super) task_id: String,
    pub(super) map_index: i64,
    pub(super) state: String,
    pub(super) try_number: u32,
    pub(super) xcoms: Map<String, Value>,
    pub(super) error: Option<String>,
}

/// Characters of a result or an error that the table shows.
const WIDTH: usize = 60;

/// Says it; a failed activation is a failure.
pub(super) fn print(dag: &str, found: &Found, as_json: bool) -> Result<(), Failure> {
    let [activation] = &found.activations[..] else {
        let count = found.activations.len();
        return Err(Failure::failed(format!(
            "{count} activations were run, not one"
        )));
    };
    let state = match activation.settled.as_str() {
        "done" => "success",
        "skipped" => "skipped",
        _ => "failed",
    };
    if as_json {
        write(&format!(
            "{}\n",
            contract(dag, state, &found.date, activation)
        ))?;
    } else {
        write(&text(dag, state, activation))?;
    }
    match state {
        "failed" => Err(Failure::failed("")),
        _ => Ok(()),
    }
}

fn contract(dag: &str, state: &str, date: &str, activation: &Activation) -> Value {
    let task = |task: &Task| {
        json!({
            "task_id": task.task_id,
            "map_index": task.map_index,
            "state": task.state,
            "try_number": task.try_number,
            "xcoms": task.xcoms,
            "rendered": {},
        })
    };
    json!({
        "dag": dag,
        "run_id": format!("{dag}-test"),
        "state": state,
        "data_interval": [date, date],
        "tasks": activation.tasks.iter().map(task).collect::<Vec<_>>(),
    })
}

fn text(dag: &str, state: &str, activation: &Activation) -> String {
    let row = |task: &Task| {
        let name = match task.map_index {
            -1 => task.task_id.clone(),
            index => format!("{}[{index}]", task.task_id),
        };
        let returned = task.xcoms.get("return_value").map(Value::to_string);
        let shown = task.error.as_ref().or(returned.as_ref());
        let shown = shown.map_or_else(String::new, |text| first_line(text, WIDTH));
        [name, task.state.clone(), task.try_number.to_string(), shown]
    };
    let rows = activation.tasks.iter().map(row).collect();
    let settled = match activation.settled.as_str() {
        "parked" => "; a running engine would park it",
        "dropped" => "; a running engine would drop it",
        _ => "",
    };
    let head = ["TASK", "STATE", "TRIES", "RESULT"];
    format!("{}{dag}: {state}{settled}\n", table(head, rows, 4))
}
