//! DAG files in YAML: shell commands and HTTP requests behind sources, without code.
//!
//! ```yaml
//! dag: thumbnails
//! sources:
//!   incoming: { kafka: { topic: uploads, group_id: thumbs } }
//! tasks:
//!   make: { after: incoming, run: convert-one, retries: 2, timeout: 30s }
//! ```
//! They load to the same manifest as every other front end. Each document of a file is a DAG. What
//! is wrong is found all at once, each with its line; what only the whole can show (cycles, tasks
//! that nothing runs) is left to whoever compiles the manifest.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::manifest::{Code, DagManifest, FORMAT, Fault, Manifest, is_fifo};

mod asked;
mod http;
mod option;
mod schema;
mod sink;
#[cfg(test)]
mod tests;
mod tree;
mod wait;

use self::option::{
    AFTER, BATCH, BOTH, CRON, DAG, EVERY, FILES, KAFKA, LOOP, Opt, SHARED, SIGNAL, SOURCE, SQS,
    TASK, TOPIC, text,
};
use self::tree::{At, Key, Kind, Node};

pub use self::schema::schema;

/// Longer files are refused, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The endings of such files.
pub const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// The kinds of sources there are.
const KINDS: [&str; 13] = [
    "kafka", "sqs", "http", "webhook", "cron", "every", "loop", "signal", "files", "alerts",
    "after", "topic", "poll",
];
/// A word this alike is taken for the one that was meant (Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// What a file declares.
#[derive(Debug)]
pub struct Document {
    /// Without the bundle's files: whoever has the folder fills them in.
    pub manifest: Manifest,
    /// Files that its commands need, from the DAG folder, and the lines that name them.
    pub files: Vec<(String, u32)>,
}

/// Whether a file is one of these, by its name.
#[must_use]
pub fn is_yaml(path: &str) -> bool {
    let ending = path.rsplit_once('.').map(|(_, ending)| ending);
    ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

/// Reads a file; `entry` is its path in the DAG folder, which faults carry too.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(text: &str, entry: &str) -> Result<Document, Vec<Fault>> {
    let mut reader = Reader {
        file: entry,
        faults: Vec::new(),
        files: Vec::new(),
    };
    let dags = reader.documents(text);
    let Reader { faults, files, .. } = reader;
    if !faults.is_empty() {
        return Err(faults);
    }
    let manifest = Manifest {
        format: FORMAT,
        entry: entry.to_owned(),
        dags,
        files: Vec::new(),
    };
    Ok(Document { manifest, files })
}

/// A cure that names the known word nearest to a wrong one, or all of them when none is near.
fn nearest(word: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    let alike = known
        .clone()
        .map(|other| (strsim::jaro_winkler(word, other), other))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match alike {
        Some((_, other)) => format!("did you mean '{other}'?"),
        None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

struct Reader<'a> {
    file: &'a str,
    faults: Vec<Fault>,
    files: Vec<(String, u32)>,
}

/// What a DAG's own lines say, for its tasks and sources.
#[derive(Default)]
struct Defaults {
    task: Map<String, Value>,
    source: Map<String, Value>,
}

/// A name that a task comes after.
struct After {
    at: At,
    name: String,
}

/// A task with its names not looked up yet.
struct Task {
    id: String,
    at: At,
    fields: Map<String, Value>,
    after: Vec<After>,
    run: Option<String>,
    http: Option<Map<String, Value>>,
    sink: Option<Map<String, Value>>,
    /// What it waits for: `wait`, or `polls` and `poke`.
    waits: Option<(String, Map<String, Value>)>,
    /// Whose result it reads: `stdin` of a command, `body_from` of a request.
    stdin: Option<After>,
}

impl Reader<'_> {
    fn fault(&mut self, at: At, code: Code, message: impl Into<String>, cure: impl Into<String>) {
        self.faults.push(Fault {
            file: self.file.to_owned(),
            line: at.line,
            column: (at.column > 0).then_some(at.column),
            code,
            message: message.into(),
            cure: cure.into(),
        });
    }

    fn documents(&mut self, text: &str) -> Vec<DagManifest> {
        let first = At { line: 0, column: 0 };
        if text.len() > FILE_BYTES_MAX {
            let message = format!("the file has more than {FILE_BYTES_MAX} bytes");
            self.fault(first, Code::TooLarge, message, "declare fewer tasks");
            return Vec::new();
        }
        let documents = match tree::parse(text) {
            Ok(documents) => documents,
            Err(tree::Refusal { at, why, cure }) => {
                self.fault(at, Code::SyntaxError, why, cure);
                return Vec::new();
            }
        };
        let documents: Vec<_> = documents.iter().filter(|node| !node.is_empty()).collect();
        if documents.is_empty() {
            let cure = "begin it with dag: and a name";
            self.fault(first, Code::NoDag, "the file declares no DAG", cure);
        }
        let dags = documents.into_iter().filter_map(|node| self.dag(node));
        dags.collect()
    }

    fn dag(&mut self, node: &Node) -> Option<DagManifest> {
        let pairs = self.map("the DAG", node)?;
        let named = pairs.iter().find(|(key, _)| key.text == "dag");
        let id = named.and_then(|(_, node)| text(node));
        let Some(id) = id else {
            let cure = "begin it with dag: and a name";
            self.fault(node.at, Code::NoDag, "a DAG without a name", cure);
            return None;
        };
        let owner = format!("DAG '{id}'");
        let at = named.map_or(node.at, |(key, _)| key.at);
        self.id(&owner, id, at);
        let (mut fields, mut defaults) = (Map::new(), Defaults::default());
        let (mut sources, mut tasks) = (Vec::new(), Vec::new());
        for (key, value) in pairs {
            match key.text.as_str() {
                "dag" => {}
                "sources" => sources = self.named("sources", value),
                "tasks" => tasks = self.named("tasks", value),
                "files" => self.needed(&owner, value),
                "freshness" => self.option(&owner, SOURCE, key, value, &mut defaults.source),
                name if knows(SHARED, name) => {
                    self.option(&owner, SHARED, key, value, &mut defaults.task);
                }
                name if knows(BOTH, name) => self.option(&owner, BOTH, key, value, &mut fields),
                name if knows(DAG, name) => self.option(&owner, DAG, key, value, &mut fields),
                name => {
                    let own = ["dag", "sources", "tasks", "files", "freshness"];
                    let known = [DAG, BOTH, SHARED]
                        .into_iter()
                        .flatten()
                        .map(|opt| opt.name);
                    let cure = match name {
                        "run" | "after" | "stdin" | "http" => {
                            "it is an option of a task".to_owned()
                        }
                        name if knows(TASK, name) => "it is an option of a task".to_owned(),
                        name => nearest(name, own.into_iter().chain(known)),
                    };
                    let message = format!("{owner} has no option '{name}'");
                    self.fault(key.at, Code::UnknownOption, message, cure);
                }
            }
        }
        let sources: Vec<_> = sources
            .into_iter()
            .filter_map(|(key, node)| self.source(key, node, &defaults))
            .collect();
        let tasks: Vec<_> = tasks
            .into_iter()
            .filter_map(|(key, node)| self.task(key, node, &defaults))
            .collect();
        let tasks = self.connected(&owner, at, &sources, tasks);
        fields.insert("id".into(), id.into());
        fields.insert("file".into(), self.file.into());
        fields.insert("line".into(), at.line.into());
        let sources = sources.into_iter().map(|(_, _, source)| source).collect();
        fields.insert("sources".into(), Value::Array(sources));
        fields.insert("tasks".into(), Value::Array(tasks));
        if !self.faults.is_empty() {
            return None;
        }
        match serde_json::from_value(Value::Object(fields)) {
            Ok(dag) => Some(dag),
            Err(why) => {
                self.fault(at, Code::Manifest, why.to_string(), "");
                None
            }
        }
    }

    // Maps, and what may stand in them.

    /// The pairs of a map; a key that comes twice is a fault.
    fn map<'n>(&mut self, owner: &str, node: &'n Node) -> Option<&'n [(Key, Node)]> {
        let Kind::Map(pairs) = &node.kind else {
            let message = format!("{owner} is {} where a map is expected", node.sort());
            self.fault(node.at, Code::BadValue, message, "write names and values");
            return None;
        };
        for (index, (key, _)) in pairs.iter().enumerate() {
            if let Some((first, _)) = pairs[..index]
                .iter()
                .find(|(other, _)| other.text == key.text)
            {
                let message = format!(
                    "'{}' stands twice in {owner}: the other one is at line {}",
                    key.text, first.at.line
                );
                self.fault(
                    key.at,
                    Code::DuplicateId,
                    message,
                    "give one of them another name",
                );
            }
        }
        Some(pairs)
    }

    fn named<'n>(&mut self, owner: &str, node: &'n Node) -> Vec<(&'n Key, &'n Node)> {
        if node.is_empty() {
            return Vec::new();
        }
        let pairs = self.map(owner, node).unwrap_or_default();
        pairs.iter().map(|(key, node)| (key, node)).collect()
    }

    fn option(
        &mut self,
        owner: &str,
        known: &'static [Opt],
        key: &Key,
        value: &Node,
        fields: &mut Map<String, Value>,
    ) {
        let Some(opt) = known.iter().find(|opt| opt.name == key.text) else {
            return;
        };
        if value.is_empty() {
            return;
        }
        match opt.of.read(value) {
            Ok(value) => drop(fields.insert(opt.field.to_owned(), value)),
            Err(cure) => {
                let written =
                    text(value).map_or_else(|| value.sort().to_owned(), |text| format!("'{text}'"));
                let message = format!("{owner}: {}: {written} is not possible", key.text);
                self.fault(value.at, Code::BadValue, message, cure);
            }
        }
    }

    fn id(&mut self, owner: &str, id: &str, at: At) {
        let legal = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        if id.chars().count() > 250 || !id.chars().all(legal) {
            let cure = "use letters, digits, '_', '-' and '.', at most 250";
            self.fault(
                at,
                Code::BadValue,
                format!("'{id}' cannot be the id of {owner}"),
                cure,
            );
        }
    }

    fn needed(&mut self, owner: &str, node: &Node) {
        let Kind::List(items) = &node.kind else {
            let message = format!("{owner}: files is {} where a list is expected", node.sort());
            self.fault(node.at, Code::BadValue, message, "write a list of paths");
            return;
        };
        for item in items {
            let path = text(item).unwrap_or_default();
            let leaves = path.split('/').any(|part| matches!(part, "" | "." | ".."));
            if leaves {
                let message =
                    format!("{owner}: files: '{path}' is no path within the DAG's folder");
                let cure = "write a path from the folder of this file, without . and ..";
                self.fault(item.at, Code::BadValue, message, cure);
            } else {
                self.files.push((path.to_owned(), item.at.line));
            }
        }
    }

    // Sources.

    fn source(
        &mut self,
        key: &Key,
        node: &Node,
        defaults: &Defaults,
    ) -> Option<(String, At, Value)> {
        let owner = format!("source '{}'", key.text);
        self.id("a source", &key.text, key.at);
        let pairs = self.map(&owner, node)?;
        let (mut fields, mut config) = (defaults.source.clone(), None);
        for (name, value) in pairs {
            match name.text.as_str() {
                "kafka" => config = self.kafka(&owner, name.at, value),
                "sqs" => config = self.queue(&owner, name.at, value),
                "http" => config = self.polled(&owner, name, value),
                "webhook" => config = self.webhook(&owner, value),
                "cron" => config = self.timed(&owner, CRON, name, value),
                "every" => config = self.timed(&owner, EVERY, name, value),
                "signal" => config = self.timed(&owner, SIGNAL, name, value),
                "after" => config = self.timed(&owner, AFTER, name, value),
                "topic" => config = self.timed(&owner, TOPIC, name, value),
                "files" => config = self.timed(&owner, FILES, name, value),
                "poll" => config = self.asked(&owner, &key.text, name, value),
                "alerts" => config = Some(self.alerts(&owner, value)),
                "loop" => {
                    config = self.timed(&owner, LOOP, name, value);
                    fields.insert("order".into(), "serial".into());
                }
                "batch" => {
                    let mut batch = Map::new();
                    self.options(&format!("batch of {owner}"), BATCH, value, &mut batch);
                    if batch.contains_key("max_events") {
                        fields.insert("batch".into(), batch.into());
                    } else {
                        let message = format!("batch of {owner} has no max_events");
                        self.fault(
                            value.at,
                            Code::BadValue,
                            message,
                            "write max_events: and a number",
                        );
                    }
                }
                known if knows(SOURCE, known) => {
                    self.option(&owner, SOURCE, name, value, &mut fields);
                }
                other => {
                    let known = SOURCE.iter().map(|opt| opt.name);
                    let own = KINDS.into_iter().chain(["batch"]);
                    let cure = nearest(other, own.chain(known));
                    let message = format!("{owner} has no option '{other}'");
                    self.fault(name.at, Code::UnknownOption, message, cure);
                }
            }
        }
        if config.is_none() && self.faults.is_empty() {
            let message = format!("{owner} does not say what it listens to");
            self.fault(
                key.at,
                Code::BadValue,
                message,
                "write kafka: and a topic, cron: and an expression, or every: and a duration",
            );
        }
        let config = config.unwrap_or_default();
        if config["queue"].as_str().is_some_and(is_fifo) {
            // Whoever made it one wants its groups in line.
            fields.entry("order").or_insert("key".into());
        }
        fields.insert("id".into(), key.text.as_str().into());
        fields.insert("line".into(), key.at.line.into());
        fields.insert("config".into(), config);
        Some((key.text.clone(), key.at, Value::Object(fields)))
    }

    fn kafka(&mut self, owner: &str, at: At, node: &Node) -> Option<Value> {
        let mut config = Map::new();
        self.options(&format!("kafka of {owner}"), KAFKA, node, &mut config);
        let topic = config.get("topic").and_then(Value::as_str)?;
        if !sink::is_topic(topic) {
            let message = format!(
                "{owner}: no Kafka topic can be called '{topic}', so no event would ever come"
            );
            let cure = "a topic's name has letters, digits, '.', '_' and '-', at most 249";
            self.fault(at, Code::NeverFires, message, cure);
        }
        config.insert("kind".into(), "kafka".into());
        Some(Value::Object(config))
    }

    fn queue(&mut self, owner: &str, at: At, node: &Node) -> Option<Value> {
        let mut config = Map::new();
        let owner = format!("sqs of {owner}");
        self.options(&owner, SQS, node, &mut config);
        self.check_queue(&owner, at, &config);
        config.insert("kind".into(), "sqs".into());
        Some(Value::Object(config))
    }

    /// A clock, a loop or signals: a map of options, or the value of the first one alone.
    fn timed(
        &mut self,
        owner: &str,
        known: &'static [Opt],
        key: &Key,
        node: &Node,
    ) -> Option<Value> {
        let mut config = Map::new();
        let owner = format!("{} of {owner}", key.text);
        if matches!(node.kind, Kind::Map(_)) {
            self.options(&owner, known, node, &mut config);
        } else {
            let only = Key {
                at: key.at,
                text: known[0].name.to_owned(),
            };
            self.option(&owner, known, &only, node, &mut config);
        }
        if config.get("interval_ms") == Some(&0.into()) {
            let message = format!("{owner}: an interval of 0 never ends");
            self.fault(
                node.at,
                Code::BadValue,
                message,
                "write a duration such as 10s",
            );
        }
        config.insert("kind".into(), key.text.as_str().into());
        Some(Value::Object(config))
    }

    /// A map with nothing but these options; the first of them must be there.
    fn options(
        &mut self,
        owner: &str,
        known: &'static [Opt],
        node: &Node,
        fields: &mut Map<String, Value>,
    ) {
        let Some(pairs) = self.map(owner, node) else {
            return;
        };
        for (key, value) in pairs {
            if knows(known, &key.text) {
                self.option(owner, known, key, value, fields);
            } else {
                let cure = nearest(&key.text, known.iter().map(|opt| opt.name));
                let message = format!("{owner} has no option '{}'", key.text);
                self.fault(key.at, Code::UnknownOption, message, cure);
            }
        }
        let must = &known[0];
        if !pairs.iter().any(|(key, _)| key.text == must.name) {
            let message = format!("{owner} has no {}", must.name);
            self.fault(
                node.at,
                Code::BadValue,
                message,
                format!("write {}: {}", must.name, must.about),
            );
        }
    }

    // Tasks.

    fn task(&mut self, key: &Key, node: &Node, defaults: &Defaults) -> Option<Task> {
        let owner = format!("task '{}'", key.text);
        self.id("a task", &key.text, key.at);
        let pairs = self.map(&owner, node)?;
        let mut task = Task {
            id: key.text.clone(),
            at: key.at,
            fields: defaults.task.clone(),
            after: Vec::new(),
            run: None,
            http: None,
            sink: None,
            waits: None,
            stdin: None,
        };
        let mut body_from = None;
        for (name, value) in pairs {
            match name.text.as_str() {
                "after" => task.after = self.names(&owner, value),
                "run" => task.run = self.word(&owner, name, value).map(|run| run.name),
                "stdin" => task.stdin = self.word(&owner, name, value),
                "http" => {
                    let (http, from) = self.http(&owner, name.at, value);
                    (task.http, body_from) = (Some(http), from);
                }
                option if sink::NAMES.contains(&option) => {
                    let (sink, from) = self.place_to_write(&owner, name, value);
                    if let Some(other) = task.sink.replace(sink) {
                        let other = sink::option_of(Some(&other));
                        let message = format!("{owner} has {other} and {option}");
                        self.fault(name.at, Code::BadValue, message, "make two tasks of it");
                    }
                    body_from = from;
                }
                "wait" | "wait_http" => {
                    let waits = match name.text.as_str() {
                        "wait" => self.wait(&owner, name, value),
                        _ => self.wait_http(&owner, name, value),
                    };
                    if task.waits.replace((name.text.clone(), waits)).is_some() {
                        let message = format!("{owner} has wait and wait_http");
                        self.fault(name.at, Code::BadValue, message, "make two tasks of it");
                    }
                }
                "env" => self.env(&owner, name, value, &mut task.fields),
                "connections" | "secrets" => {
                    self.asked_for(&owner, name, value, &mut task.fields);
                }
                known if knows(SHARED, known) => {
                    self.option(&owner, SHARED, name, value, &mut task.fields);
                }
                known if knows(BOTH, known) => {
                    self.option(&owner, BOTH, name, value, &mut task.fields);
                }
                known if knows(TASK, known) => {
                    self.option(&owner, TASK, name, value, &mut task.fields);
                }
                other => {
                    let cure = if knows(DAG, other) {
                        "it is an option of a DAG".to_owned()
                    } else {
                        let known = [SHARED, BOTH, TASK]
                            .into_iter()
                            .flatten()
                            .map(|opt| opt.name);
                        nearest(
                            other,
                            ["after", "run", "stdin", "http", "wait", "wait_http"]
                                .into_iter()
                                .chain(sink::NAMES)
                                .chain(known),
                        )
                    };
                    let message = format!("{owner} has no option '{other}'");
                    self.fault(name.at, Code::UnknownOption, message, cure);
                }
            }
        }
        if let (Some(stdin), true) = (&task.stdin, task.sink.is_some()) {
            let message = format!("{owner}: stdin: what is written to has no standard input");
            self.fault(
                stdin.at,
                Code::BadValue,
                message,
                format!(
                    "write value_from: in {}",
                    sink::option_of(task.sink.as_ref())
                ),
            );
        }
        if let (Some(stdin), true) = (&task.stdin, task.http.is_some()) {
            let message = format!("{owner}: stdin: a request has no standard input");
            self.fault(
                stdin.at,
                Code::BadValue,
                message,
                "write body_from: in http",
            );
        }
        task.stdin = body_from.or(task.stdin);
        Some(task)
    }

    /// A task's variables beside those of its DAG.
    fn env(&mut self, owner: &str, key: &Key, value: &Node, fields: &mut Map<String, Value>) {
        let mut own = Map::new();
        self.option(owner, SHARED, key, value, &mut own);
        let Some(Value::Object(own)) = own.remove("env") else {
            return;
        };
        match fields.get_mut("env") {
            Some(Value::Object(all)) => all.extend(own),
            _ => drop(fields.insert("env".into(), own.into())),
        }
    }

    /// What a task gets beside what all tasks of its DAG get.
    fn asked_for(&mut self, owner: &str, key: &Key, value: &Node, fields: &mut Map<String, Value>) {
        let mut own = Map::new();
        self.option(owner, SHARED, key, value, &mut own);
        let names = |fields: &Map<String, Value>| {
            let names = fields.get(&key.text).and_then(Value::as_array);
            let names = names.into_iter().flatten().filter_map(Value::as_str);
            names.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let both: BTreeSet<_> = names(fields).union(&names(&own)).cloned().collect();
        if !both.is_empty() {
            fields.insert(key.text.clone(), Value::from_iter(both));
        }
    }

    fn word(&mut self, owner: &str, key: &Key, value: &Node) -> Option<After> {
        let Some(found) = text(value) else {
            let message = format!(
                "{owner}: {} is {} where a text is expected",
                key.text,
                value.sort()
            );
            self.fault(value.at, Code::BadValue, message, "write a text");
            return None;
        };
        Some(After {
            at: value.at,
            name: found.to_owned(),
        })
    }

    /// One name, or a list of them.
    fn names(&mut self, owner: &str, node: &Node) -> Vec<After> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut names = Vec::new();
        for item in items {
            match text(item) {
                Some(name) => names.push(After {
                    at: item.at,
                    name: name.to_owned(),
                }),
                None => {
                    let message = format!(
                        "{owner}: after holds {} where a name is expected",
                        item.sort()
                    );
                    self.fault(
                        item.at,
                        Code::BadEdge,
                        message,
                        "write the names of tasks and sources",
                    );
                }
            }
        }
        names
    }

    /// Looks every name up, and says what leads nowhere.
    fn connected(
        &mut self,
        owner: &str,
        at: At,
        sources: &[(String, At, Value)],
        tasks: Vec<Task>,
    ) -> Vec<Value> {
        if tasks.is_empty() && self.faults.is_empty() {
            let message = format!("{owner} has no task, so nothing would run");
            self.fault(at, Code::NoTask, message, "write tasks: and one at least");
        }
        let is_source = |name: &str| sources.iter().any(|(id, ..)| id == name);
        for task in tasks.iter().filter(|task| is_source(&task.id)) {
            let message = format!("'{}' is a source and a task", task.id);
            self.fault(
                task.at,
                Code::DuplicateId,
                message,
                "give one of them another name",
            );
        }
        for (id, at, _) in sources {
            let follows = |task: &Task| task.after.iter().any(|after| after.name == *id);
            if !tasks.iter().any(follows) {
                let message = format!("no task comes after source '{id}'");
                self.fault(
                    *at,
                    Code::NoTask,
                    message,
                    "name it in a task's after:, or remove it",
                );
            }
        }
        let ids: Vec<String> = tasks.iter().map(|task| task.id.clone()).collect();
        let known = |name: &str| ids.iter().any(|id| id == name);
        let mut made = Vec::with_capacity(tasks.len());
        for task in tasks {
            for after in &task.after {
                if !known(&after.name) && !is_source(&after.name) {
                    let all = ids.iter().map(String::as_str);
                    let all = all.chain(sources.iter().map(|(id, ..)| id.as_str()));
                    let cure = nearest_owned(&after.name, all);
                    let message = format!(
                        "task '{}' comes after '{}', which is no task or source of {owner}",
                        task.id, after.name
                    );
                    self.fault(after.at, Code::UnknownUpstream, message, cure);
                }
            }
            self.check_stdin(&task);
            let acts = [
                ("run", task.run.is_some()),
                ("http", task.http.is_some()),
                (sink::option_of(task.sink.as_ref()), task.sink.is_some()),
                (
                    task.waits
                        .as_ref()
                        .map_or("wait", |(option, _)| option.as_str()),
                    task.waits.is_some(),
                ),
            ];
            let mut acts = acts.iter().filter(|(_, is)| *is).map(|(name, _)| name);
            if let (Some(one), Some(other)) = (acts.next(), acts.next()) {
                let message = format!("task '{}' has {one} and {other}", task.id);
                self.fault(task.at, Code::BadValue, message, "make two tasks of it");
            }
            made.push(task_json(task, &is_source));
        }
        made
    }

    fn check_stdin(&mut self, task: &Task) {
        let Some(stdin) = &task.stdin else { return };
        let word = match (&task.http, &task.sink) {
            (Some(_), _) => "body_from",
            (None, Some(_)) => "value_from",
            (None, None) => "stdin",
        };
        let message = |what: &str| format!("task '{}': {word}: {what}", task.id);
        if task.run.is_none() && task.http.is_none() && task.sink.is_none() {
            self.fault(
                stdin.at,
                Code::BadValue,
                message("there is no command to read it"),
                "write run:",
            );
        } else if !task.after.iter().any(|after| after.name == stdin.name) {
            let what = format!("'{}' does not come right before it", stdin.name);
            self.fault(
                stdin.at,
                Code::BadValue,
                message(&what),
                "name it in after:, too",
            );
        }
    }
}

fn task_json(task: Task, is_source: &impl Fn(&str) -> bool) -> Value {
    let Task {
        id,
        at,
        mut fields,
        after,
        run,
        http,
        sink,
        waits,
        stdin,
    } = task;
    let acts = run.is_some() || http.is_some() || sink.is_some();
    let stdin = stdin
        .map(|stdin| stdin.name)
        .filter(|name| !is_source(name));
    let edge = |after: &After| {
        let (kind, reads) = if is_source(&after.name) {
            ("source", acts && stdin.is_none())
        } else {
            ("task", stdin.as_deref() == Some(after.name.as_str()))
        };
        json!({"node": after.name, "kind": kind, "reads_result": reads})
    };
    fields.insert("id".into(), id.into());
    fields.insert("line".into(), at.line.into());
    fields.insert("upstream".into(), after.iter().map(edge).collect());
    let kind = match (acts, &waits) {
        (true, _) => "call",
        (false, Some(_)) => "sensor",
        (false, None) => "noop",
    };
    fields.insert("kind".into(), kind.into());
    fields.extend(waits.into_iter().flat_map(|(_, waits)| waits));
    if acts {
        let results: Vec<_> = stdin.iter().cloned().collect();
        fields.insert(
            "wants".into(),
            json!({"event": true, "ctx": true, "results": results}),
        );
    }
    if let Some(command) = run {
        let mut shell = json!({"command": command});
        if let Some(stdin) = &stdin {
            shell["stdin"] = stdin.as_str().into();
        }
        fields.insert("run".into(), shell);
    }
    if let Some(mut sink) = sink {
        if let Some(stdin) = &stdin {
            sink.insert("value_from".into(), stdin.as_str().into());
        }
        if sink["kind"] != "topic" {
            sink::be_patient(&mut fields);
        }
        fields.insert("sink".into(), sink.into());
    }
    if let Some(mut http) = http {
        if let Some(stdin) = stdin {
            http.insert("body_from".into(), stdin.into());
        }
        fields.insert("http".into(), http.into());
    }
    Value::Object(fields)
}

fn nearest_owned<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let alike = known
        .map(|other| (strsim::jaro_winkler(word, other), other))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    alike.map_or_else(
        || "name a task or source of this DAG".to_owned(),
        |(_, other)| format!("did you mean '{other}'?"),
    )
}

fn knows(known: &[Opt], name: &str) -> bool {
    known.iter().any(|opt| opt.name == name)
}
