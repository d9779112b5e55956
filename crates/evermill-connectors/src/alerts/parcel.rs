//! What is delivered together, and when: the first alert waits a moment for company, deliveries keep
//! their distance, and a hook that fails is given more and more time.

use std::time::{Duration, Instant};

use evermill_contract::alert::{Alert, Receipt};
use serde::Serialize;

use crate::limits;

/// What a hook gets.
#[derive(Debug, Serialize)]
pub(super) struct Parcel<'a> {
    /// For people; where a chat shows a message it is this.
    pub(super) text: String,
    pub(super) alerts: &'a [Alert],
    /// Alerts that are not among them, because there were too many.
    left_out: u64,
}

impl Parcel<'_> {
    /// The same whenever the same alerts are told again in one parcel.
    pub(super) fn key(&self) -> String {
        let end = |alert: Option<&Alert>| alert.map_or_else(String::new, |alert| alert.id.clone());
        let (first, last) = (end(self.alerts.first()), end(self.alerts.last()));
        format!("{first}.{last}.{}", self.count())
    }

    /// Alerts it stands for.
    pub(super) const fn count(&self) -> u64 {
        self.alerts.len() as u64 + self.left_out
    }
}

/// Alerts on their way to one hook.
#[derive(Debug)]
pub(super) struct Pending {
    every: Duration,
    alerts: Vec<Alert>,
    left_out: u64,
    /// Of all of them.
    receipts: Vec<Receipt>,
    /// Not before.
    next: Option<Instant>,
    /// After this delivery, or this failure.
    earliest: Option<Instant>,
    failures: u32,
}

impl Pending {
    pub(super) const fn new(every: Duration) -> Self {
        Self {
            every,
            alerts: Vec::new(),
            left_out: 0,
            receipts: Vec::new(),
            next: None,
            earliest: None,
            failures: 0,
        }
    }

    pub(super) fn add(&mut self, alert: Alert, receipt: Receipt, now: Instant) {
        self.receipts.push(receipt);
        if self.alerts.len() < limits::ALERTS_PER_DELIVERY {
            self.alerts.push(alert);
        } else {
            self.left_out += 1;
        }
        let gathered = now + limits::ALERTS_GATHER;
        let due = self
            .earliest
            .map_or(gathered, |earliest| earliest.max(gathered));
        self.next.get_or_insert(due);
    }

    /// Alerts that never came here.
    pub(super) const fn lost(&mut self, count: u64) {
        self.left_out += count;
    }

    /// How long there is nothing to do; `None`: until an alert comes.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// What is to be delivered now.
    pub(super) fn due(&self, now: Instant) -> Option<Parcel<'_>> {
        self.next.filter(|next| *next <= now)?;
        self.all()
    }

    /// Whatever there is.
    pub(super) fn all(&self) -> Option<Parcel<'_>> {
        (!self.alerts.is_empty()).then(|| Parcel {
            text: text(&self.alerts, self.left_out),
            alerts: &self.alerts,
            left_out: self.left_out,
        })
    }

    /// It was taken, or refused for good.
    pub(super) fn over(&mut self, now: Instant) {
        self.alerts.clear();
        self.receipts.drain(..).for_each(Receipt::told);
        (self.left_out, self.failures) = (0, 0);
        self.next = None;
        self.earliest = Some(now + self.every);
    }

    /// It is to be tried again. How often in a row it was.
    pub(super) fn failed(&mut self, now: Instant) -> u32 {
        let pause = limits::ALERTS_RETRY * 2_u32.saturating_pow(self.failures.min(16));
        let later = now + pause.min(limits::ALERTS_RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        (self.next, self.earliest) = (Some(later), Some(later));
        self.failures
    }
}

fn text(alerts: &[Alert], left_out: u64) -> String {
    let mut lines: Vec<String> = alerts
        .iter()
        .take(limits::ALERTS_IN_TEXT)
        .map(|alert| format!("[{}] {}", alert.kind, alert.text))
        .collect();
    let more = alerts.len().saturating_sub(limits::ALERTS_IN_TEXT) as u64 + left_out;
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use evermill_contract::alert::AlertKind;

    use super::*;

    pub(in super::super) fn alert(number: u64) -> Alert {
        Alert {
            id: number.to_string(),
            kind: AlertKind::Parked,
            at_ms: number,
            dag: "d".into(),
            run: "d-1".into(),
            source: None,
            lane: None,
            position: None,
            task: None,
            count: 1,
            text: format!("alert {number}"),
        }
    }

    fn nobody() -> Receipt {
        Receipt::new(|| {})
    }

    #[test]
    fn alerts_that_come_together_go_together_and_deliveries_keep_their_distance() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut pending = Pending::new(minute);
        assert_eq!(pending.wait(start), None);
        pending.add(alert(1), nobody(), start);
        pending.add(alert(2), nobody(), start);
        assert!(pending.due(start).is_none(), "it waits for company");
        let sent = start + limits::ALERTS_GATHER;
        assert_eq!(pending.due(sent).expect("a parcel").alerts.len(), 2);
        pending.over(sent);
        pending.add(alert(3), nobody(), sent + Duration::from_secs(1));
        assert_eq!(pending.wait(sent), Some(minute));
        let parcel = pending.due(sent + minute);
        assert_eq!(parcel.expect("a parcel").text, "[parked] alert 3");
    }

    #[test]
    fn a_hook_that_fails_gets_its_alerts_later_and_later_and_no_more_than_it_can_take() {
        let mut now = Instant::now();
        let mut pending = Pending::new(Duration::ZERO);
        for number in 0..limits::ALERTS_PER_DELIVERY as u64 + 5 {
            pending.add(alert(number), nobody(), now);
        }
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pending.failed(now);
            let pause = pending.wait(now).expect("it is tried again");
            now += pause;
            pauses.push(pause);
        }
        assert_eq!(pauses[1], 2 * pauses[0]);
        assert_eq!(pauses.last(), Some(&limits::ALERTS_RETRY_MAX));
        let parcel = pending.due(now).expect("nothing is forgotten");
        assert_eq!(parcel.alerts.len(), limits::ALERTS_PER_DELIVERY);
        assert_eq!(parcel.left_out, 5);
        assert!(parcel.text.ends_with("and 95 more"), "{}", parcel.text);
    }
}
