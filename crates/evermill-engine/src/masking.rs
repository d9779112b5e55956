//! Secrets stay out of what people see: every text that comes from user code or from a connector is
//! masked before the engine keeps, shows or hands on any of it. Results are not texts: what a task
//! returns is what the next one gets.
//!
//! Workers' reports are masked on the threads that deliver them. Without a secret nothing is looked at.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::settings::Settings;
use evermill_contract::source::DiagnosticSink;
use evermill_contract::worker::{Death, Outcome, TaskError, WorkerEvent};

use crate::notice::{Notice, NoticeSink, Subject};

/// A report without secrets.
pub(crate) fn report(settings: &dyn Settings, mut event: WorkerEvent) -> WorkerEvent {
    match &mut event {
        WorkerEvent::Outcomes { runs, .. } => {
            for run in runs {
                if let Outcome::Failed(error) = &mut run.outcome {
                    mask_error(settings, error);
                }
            }
        }
        WorkerEvent::Log { text, .. } | WorkerEvent::Progress { value: text, .. } => {
            if let Some(masked) = settings.mask(text) {
                *text = Bytes::from(masked);
            }
        }
        WorkerEvent::Died { cause, .. } => {
            if let Death::Protocol(what) = cause {
                mask(settings, what);
            }
        }
        WorkerEvent::Unavailable { reason, .. } => mask(settings, reason),
        WorkerEvent::Ready { .. }
        | WorkerEvent::Returned { .. }
        | WorkerEvent::Finished { .. }
        | WorkerEvent::Ask { .. } => {}
    }
    event
}

fn mask_error(settings: &dyn Settings, error: &mut TaskError) {
    for text in [&mut error.class, &mut error.message, &mut error.traceback] {
        mask(settings, text);
    }
}

fn mask(settings: &dyn Settings, text: &mut String) {
    if let Cow::Owned(masked) = masked(settings, text) {
        *text = masked;
    }
}

/// A text without secrets.
pub(crate) fn masked<'a>(settings: &dyn Settings, text: &'a str) -> Cow<'a, str> {
    match settings.mask(text.as_bytes()) {
        None => Cow::Borrowed(text),
        Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
    }
}

/// Notices without secrets.
pub(crate) fn notices(settings: &Arc<dyn Settings>, tell: NoticeSink) -> NoticeSink {
    let settings = Arc::clone(settings);
    Arc::new(move |notice: &Notice<'_>| {
        let text = masked(&*settings, notice.text);
        tell(&Notice {
            text: &text,
            ..*notice
        });
    })
}

/// The sink of a part that the engine does not know, such as one that sends: what it says is a notice
/// without secrets that is about nothing in particular.
#[must_use]
pub fn diagnostics(settings: &Arc<dyn Settings>, tell: &NoticeSink) -> DiagnosticSink {
    let tell = notices(settings, Arc::clone(tell));
    Arc::new(move |severity, text: &str| {
        let subject = &Subject::default();
        tell(&Notice {
            severity,
            text,
            subject,
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermill_contract::worker::{OutcomeRun, Slot, TaskErrorKind, Token};
    use std::sync::Mutex;

    struct Tulips;

    impl Settings for Tulips {
        fn connection(&self, _: &str) -> Result<Option<String>, String> {
            Ok(None)
        }
        fn secret(&self, _: &str) -> Result<Option<String>, String> {
            Ok(None)
        }
        fn mask(&self, text: &[u8]) -> Option<Vec<u8>> {
            let text = String::from_utf8_lossy(text);
            text.contains("tulips")
                .then(|| text.replace("tulips", "***").into_bytes())
        }
    }

    /// S10.
    #[test]
    fn k08_no_text_of_a_report_keeps_a_secret() {
        let text = || "my tulips".to_owned();
        let error = TaskError {
            kind: TaskErrorKind::Raised,
            class: text(),
            message: text(),
            traceback: text(),
            retryable: true,
            retry_after_ms: None,
        };
        let (slot, token) = (Slot(0), Token(1));
        let outcome = OutcomeRun {
            first: 0,
            count: 1,
            started_ns: 0,
            ended_ns: 0,
            outcome: Outcome::Failed(Box::new(error)),
        };
        let events = [
            WorkerEvent::Outcomes {
                slot,
                token,
                runs: vec![outcome],
            },
            WorkerEvent::Log {
                slot,
                token: None,
                member: None,
                origin: evermill_contract::worker::LogOrigin::Stdout,
                text: Bytes::from(text()),
            },
            WorkerEvent::Progress {
                slot,
                token,
                member: 0,
                value: Bytes::from(text()),
            },
            WorkerEvent::Died {
                slot,
                cause: Death::Protocol(text()),
                token: None,
                started: None,
                reported: 0,
            },
            WorkerEvent::Unavailable {
                reason: text(),
                retry_in: std::time::Duration::ZERO,
            },
        ];
        for event in events {
            let said = format!("{:?}", report(&Tulips, event));
            assert!(said.contains("***") && !said.contains("tulips"), "{said}");
        }
        let told = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&told);
        let settings: Arc<dyn Settings> = Arc::new(Tulips);
        let tell: NoticeSink = Arc::new(move |notice: &Notice<'_>| {
            notice.text.clone_into(&mut heard.lock().unwrap());
        });
        diagnostics(&settings, &tell)(evermill_contract::source::Severity::Error, "no tulips");
        assert_eq!(*told.lock().unwrap(), "no ***");
    }
}
