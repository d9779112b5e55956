//! What the engine has to say to people, and what it is about: fields of their own, so that nobody has
//! to cut them out of the sentence.

use std::sync::{Arc, OnceLock};

use evermill_contract::source::{DiagnosticSink, Severity};
use evermill_core::command::RunIx;

use crate::input::SourceKey;
use crate::shard::Shard;

/// Something that the engine has to say.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// How much it matters.
    pub severity: Severity,
    /// A sentence that stands for itself.
    pub text: &'a str,
    /// What it is about.
    pub subject: &'a Subject,
}

/// What a notice is about, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// DAG id.
    pub dag: Option<Arc<str>>,
    /// Run id.
    pub run: Option<Arc<str>>,
    /// Source id.
    pub source: Option<Arc<str>>,
    /// Lane name.
    pub lane: Option<Arc<str>>,
    /// Position in the lane.
    pub position: Option<u64>,
    /// Task id.
    pub task: Option<Arc<str>>,
    /// Which try, from 1.
    pub try_number: Option<u32>,
}

/// Where notices go; called from any thread.
pub type NoticeSink = Arc<dyn Fn(&Notice<'_>) + Send + Sync>;

/// A run's name, for a source that is made before its run is there.
pub(crate) type LateName = Arc<OnceLock<Arc<str>>>;

/// The name of a run that is there.
pub(crate) fn late_name(run: Option<Arc<str>>) -> LateName {
    run.map_or_else(LateName::default, |run| Arc::new(OnceLock::from(run)))
}

/// Where a source's own diagnostics go: it knows neither its DAG nor its run.
pub(crate) fn of_source(
    notices: &NoticeSink,
    dag: &str,
    source: &str,
    run: LateName,
) -> DiagnosticSink {
    let notices = Arc::clone(notices);
    let (dag, source) = (Some(Arc::from(dag)), Some(Arc::from(source)));
    let subject = Subject {
        dag,
        source,
        ..Subject::default()
    };
    Arc::new(move |severity, text: &str| {
        let mut subject = subject.clone();
        subject.run = run.get().cloned();
        notices(&Notice {
            severity,
            text,
            subject: &subject,
        });
    })
}

impl Shard {
    /// Tells people, not machines.
    pub(crate) fn notice(&self, severity: Severity, text: &str) {
        self.notice_of(severity, &Subject::default(), text);
    }

    /// The same, with what it is about.
    pub(crate) fn notice_of(&self, severity: Severity, subject: &Subject, text: &str) {
        (self.world.notices)(&Notice {
            severity,
            text,
            subject,
        });
    }

    /// A run.
    pub(crate) fn run_subject(&self, run: RunIx) -> Subject {
        let slot = self.runs.get(&run);
        Subject {
            dag: slot.map(|slot| Arc::clone(&slot.dag)),
            run: slot.map(|slot| Arc::clone(&slot.name)),
            ..Subject::default()
        }
    }

    /// A source of a run.
    pub(crate) fn source_subject(&self, key: SourceKey) -> Subject {
        Subject {
            source: self.listening.get(&key).map(|it| it.id.as_str().into()),
            ..self.run_subject(key.run)
        }
    }
}
