//! What somebody sees: a live picture on a terminal, a line a second elsewhere.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evermill_api::live::{Snapshot, Watch, lines};
use evermill_engine::view::EngineView;
use evermill_engine::{Handle, LogLine, LogSink};

use crate::cli::check::graph;
use crate::cli::run::files::Files;
use crate::cli::run::{log_lines, progress, task_prefix};
use crate::screen::Screen;

/// Lines of tasks that stay in the picture.
const SAID: usize = 3;

/// The picture and what it remembers.
pub(super) struct View {
    screen: Arc<Screen>,
    watch: Watch,
    said: Arc<Mutex<VecDeque<String>>>,
    begun: Instant,
    hint: &'static str,
}

impl View {
    pub(super) fn new(screen: &Arc<Screen>, files: &Files) -> Self {
        let graphs = files.dags().map(|dag| (dag.id.clone(), graph::of(dag, "")));
        Self {
            screen: Arc::clone(screen),
            watch: Watch::new(graphs.collect()),
            said: Arc::default(),
            begun: Instant::now(),
            hint: "Ctrl-C ends it",
        }
    }

    /// Where the output of tasks goes: into the picture, if there is one.
    pub(super) fn log(&self) -> LogSink {
        if !self.screen.is_terminal() {
            return log_lines(&self.screen, false);
        }
        let said = Arc::clone(&self.said);
        Box::new(move |line: LogLine| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let prefix = task_prefix(&line, false);
            for text in String::from_utf8_lossy(&line.text).lines() {
                said.push_back(format!("{prefix}{text}"));
            }
            let over = said.len().saturating_sub(SAID);
            said.drain(..over);
        })
    }

    /// From now on it says that everything comes to its end.
    pub(super) fn ends(&mut self) {
        self.hint = "no more orders: what was sent is settled first; a second Ctrl-C does not wait";
    }

    /// Shows the engine as it is.
    pub(super) fn show(&mut self, engine: &Handle) -> Arc<EngineView> {
        let view = engine.view();
        if self.screen.is_terminal() {
            // The last row stays free: a picture that fills the screen would scroll.
            let (width, height) = self.screen.size();
            self.draw(&view, self.hint, width, height.saturating_sub(1));
        } else {
            self.screen.status(&progress::line(&view));
        }
        view
    }

    /// Shows the engine when all has ended; the picture stays.
    pub(super) fn last(&mut self, engine: &Handle) -> Arc<EngineView> {
        self.hint = "";
        let view = self.show(engine);
        if self.screen.is_json() {
            self.screen.news(&progress::line(&view));
        }
        self.screen.keep();
        view
    }

    fn draw(&mut self, view: &EngineView, hint: &str, width: usize, height: usize) {
        let age: Duration = self.begun.elapsed();
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Snapshot {
            runs: self.watch.look(age, view),
            wrong: progress::troubles(view),
            said: said.iter().cloned().collect(),
            age,
            hint: hint.to_owned(),
        };
        drop(said);
        self.screen.picture(&lines(&snapshot, width, height));
    }
}
