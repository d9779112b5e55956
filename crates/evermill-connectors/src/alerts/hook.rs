//! One thread per hook: what one cannot take holds up no other, and never the engine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evermill_contract::alert::{Alert, AlertTaker, Receipt};
use evermill_contract::source::{DiagnosticSink, Severity, SourceError};

use super::config::HookConfig;
use super::deliver::{Delivery, Failed};
use super::parcel::Pending;
use crate::limits;

/// Every hook, at work. When it is dropped each hook makes one last delivery, and its thread ends.
pub struct Hooks {
    doors: Mutex<Vec<Door>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Where alerts for one hook go in.
struct Door {
    config: HookConfig,
    queue: SyncSender<(Alert, Receipt)>,
    lost: Arc<AtomicU64>,
}

struct Hook {
    name: String,
    every: Duration,
    delivery: Delivery,
    queue: Receiver<(Alert, Receipt)>,
    lost: Arc<AtomicU64>,
    tell: DiagnosticSink,
}

impl Hooks {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`SourceError::Refused`] naming the hook, for a URL that is none or a thread that is not given.
    pub fn start(configs: Vec<HookConfig>, tell: &DiagnosticSink) -> Result<Self, SourceError> {
        let (mut doors, mut threads) = (Vec::new(), Vec::new());
        for config in configs {
            let named = |cause: String| SourceError::Refused(format!("{}: {cause}", config.name));
            let delivery = Delivery::open(&config.to).map_err(|cause| named(cause.to_string()))?;
            let (sender, queue) = mpsc::sync_channel(limits::ALERTS_QUEUED);
            let lost = Arc::new(AtomicU64::new(0));
            let hook = Hook {
                name: config.name.clone(),
                every: config.every,
                delivery,
                queue,
                lost: Arc::clone(&lost),
                tell: Arc::clone(tell),
            };
            let thread = std::thread::Builder::new().name("alerts".to_owned());
            let thread = thread.spawn(move || hook.run());
            threads.push(thread.map_err(|cause| named(cause.to_string()))?);
            doors.push(Door {
                config,
                queue: sender,
                lost,
            });
        }
        Ok(Self {
            doors: Mutex::new(doors),
            threads: Mutex::new(threads),
        })
    }
}

impl AlertTaker for Hooks {
    fn wants(&self, alert: &Alert) -> bool {
        lock(&self.doors)
            .iter()
            .any(|door| door.config.wants(alert))
    }

    fn take(&self, alert: &Alert, receipt: Receipt) {
        let doors = lock(&self.doors);
        if doors.is_empty() {
            // The hooks have ended: the next start tells it.
            return;
        }
        for door in doors.iter().filter(|door| door.config.wants(alert)) {
            door.take(alert, receipt.clone());
        }
        receipt.told();
    }

    fn finish(&self) {
        // Each thread sees its queue end.
        lock(&self.doors).clear();
        for thread in lock(&self.threads).drain(..) {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each statement leaves the list whole.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    fn take(&self, alert: &Alert, receipt: Receipt) {
        if let Err(TrySendError::Full((_, receipt)) | TrySendError::Disconnected((_, receipt))) =
            self.queue.try_send((alert.clone(), receipt))
        {
            // It goes with the next delivery, as a number.
            receipt.told();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Hook {
    fn run(self) {
        let mut pending = Pending::new(self.every);
        loop {
            let received = match pending.wait(Instant::now()) {
                None => self
                    .queue
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => self.queue.recv_timeout(wait),
            };
            match received {
                Ok((alert, receipt)) => {
                    pending.add(alert, receipt, Instant::now());
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.last(&mut pending),
            }
            pending.lost(self.lost.swap(0, Ordering::Relaxed));
            let Some(parcel) = pending.due(Instant::now()) else {
                continue;
            };
            let sent = self.delivery.send(&parcel);
            let now = Instant::now();
            match sent {
                Ok(()) => pending.over(now),
                Err(Failed::ForGood(why)) => {
                    pending.over(now);
                    let text = format!("{}: alerts are lost: {why}", self.name);
                    (self.tell)(Severity::Warning, &text);
                }
                Err(Failed::ForNow(why)) => {
                    // Said once, not with every try.
                    if pending.failed(now) == 1 {
                        let text = format!("{}: {why}; it is tried again", self.name);
                        (self.tell)(Severity::Warning, &text);
                    }
                }
            }
        }
    }

    /// The engine ends: what is left is told once, whatever its distance. What is not taken now is told
    /// after the next start.
    fn last(&self, pending: &mut Pending) {
        let Some(parcel) = pending.all() else {
            return;
        };
        let sent = self.delivery.send(&parcel);
        let text = match &sent {
            Ok(()) => None,
            Err(Failed::ForGood(why)) => Some(format!("{}: alerts are lost: {why}", self.name)),
            Err(Failed::ForNow(why)) => Some(format!(
                "{}: {why}; alerts are told after the next start",
                self.name
            )),
        };
        if !matches!(sent, Err(Failed::ForNow(_))) {
            pending.over(Instant::now());
        }
        if let Some(text) = text {
            (self.tell)(Severity::Warning, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use evermill_contract::alert::AlertKind;
    use evermill_http::testing::{Reply, Server};

    use super::super::config::HookTo;
    use super::*;

    fn alert(kind: AlertKind, dag: &str) -> Alert {
        Alert {
            id: format!("{kind}-{dag}"),
            kind,
            at_ms: 1,
            dag: dag.into(),
            run: format!("{dag}-1"),
            source: None,
            lane: None,
            position: None,
            task: None,
            count: 1,
            text: format!("{kind} of {dag}"),
        }
    }

    #[test]
    fn a_hook_gets_what_it_wants_at_the_latest_when_the_engine_ends() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("got");
        let config = HookConfig {
            name: "alerts.1".into(),
            kinds: vec![AlertKind::Parked],
            dags: vec!["orders".into()],
            every: Duration::from_secs(3600),
            to: HookTo::Command(format!("cat >> {}", file.display())),
        };
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&said);
        let tell: DiagnosticSink = Arc::new(move |_, text| {
            heard.lock().unwrap().push(text.to_owned());
        });
        let hooks = Hooks::start(vec![config], &tell).unwrap();
        let told = Arc::new(AtomicU32::new(0));
        for (kind, dag) in [
            (AlertKind::Parked, "orders"),
            (AlertKind::Parked, "other"),
            (AlertKind::RunFailed, "orders"),
        ] {
            let (alert, told) = (alert(kind, dag), Arc::clone(&told));
            let receipt = Receipt::new(move || {
                told.fetch_add(1, Ordering::AcqRel);
            });
            if hooks.wants(&alert) {
                hooks.take(&alert, receipt);
            }
        }
        hooks.finish();
        assert_eq!(told.load(Ordering::Acquire), 1);
        let text = std::fs::read_to_string(&file).unwrap();
        let parcel: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parcel["alerts"].as_array().unwrap().len(), 1, "{parcel}");
        assert_eq!(parcel["text"], "[parked] parked of orders");
        assert!(said.lock().unwrap().is_empty());
    }

    #[test]
    fn a_post_that_is_refused_is_lost_with_a_word_and_not_tried_again() {
        let server = Server::start(|_| Reply::new(404, ""));
        let delivery = Delivery::open(&HookTo::Post(server.url())).unwrap();
        let mut pending = Pending::new(Duration::ZERO);
        let now = Instant::now();
        pending.add(alert(AlertKind::Parked, "orders"), Receipt::new(|| {}), now);
        let parcel = pending.all().unwrap();
        let failed = delivery.send(&parcel).unwrap_err();
        assert!(
            matches!(&failed, Failed::ForGood(why) if why.contains("404")),
            "{failed:?}"
        );
        let seen = &server.seen()[0];
        assert_eq!(seen.body, serde_json::to_vec(&parcel).unwrap());
        let key = seen.header("idempotency-key");
        assert_eq!(key, Some("parked-orders.parked-orders.1"));
    }

    #[test]
    fn what_a_hook_cannot_take_at_the_end_is_left_for_the_next_start() {
        let server = Server::start(|_| Reply::new(503, ""));
        let config = HookConfig {
            name: "alerts.1".into(),
            kinds: Vec::new(),
            dags: Vec::new(),
            every: Duration::ZERO,
            to: HookTo::Post(server.url()),
        };
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&said);
        let tell: DiagnosticSink = Arc::new(move |_, text| {
            heard.lock().unwrap().push(text.to_owned());
        });
        let hooks = Hooks::start(vec![config], &tell).unwrap();
        let told = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&told);
        let receipt = Receipt::new(move || {
            counted.fetch_add(1, Ordering::AcqRel);
        });
        hooks.take(&alert(AlertKind::Parked, "orders"), receipt);
        hooks.finish();
        assert_eq!(told.load(Ordering::Acquire), 0);
        let said = said.lock().unwrap().join("\n");
        assert!(said.contains("after the next start"), "{said}");
    }
}
