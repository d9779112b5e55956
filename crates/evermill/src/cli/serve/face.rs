//! What operators may ask of a server: what they may ask of its engine, and what only its folder knows.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use evermill_contract::alert::Alert;
use evermill_engine::view::{
    AttemptView, EngineView, ParkedFilter, ParkedPage, PastView, PoolView, ReplayView, RunDetail,
    VersionDiff, WaitPage,
};
use evermill_engine::{
    AttemptQuery, BackfillAsk, Checked, EngineError, LeftView, Operations, Order, Page, PastQuery,
    Pushed, ReplayAnswer, ReplayAsk, ReplayOrder, ResetAnswer, ResetAsk, Resolve, RunLogs, Signal,
    Started, SwitchOn,
};

use super::keeper::Keeper;

/// See the module.
pub(super) struct Face(pub(super) Arc<Keeper>);

impl Operations for Face {
    fn overview(&self) -> Result<Arc<EngineView>, EngineError> {
        let view = self.0.engine.overview()?;
        let notes = self.0.notes(None);
        if notes.is_empty() {
            return Ok(view);
        }
        let mut view = EngineView::clone(&view);
        view.notes.extend(notes);
        Ok(Arc::new(view))
    }

    fn detail(&self, run: &str) -> Result<RunDetail, EngineError> {
        let mut detail = self.0.engine.detail(run)?;
        detail.notes.extend(self.0.notes(Some(&detail.run.dag)));
        Ok(detail)
    }

    fn order(&self, run: &str, order: Order) -> Result<(), EngineError> {
        self.0.engine.order(run, order)
    }

    fn switch_on(&self, dag: &str, how: &SwitchOn) -> Result<Started, EngineError> {
        self.0.switch_on(dag, how)
    }

    fn roll_back(
        &self,
        dag: &str,
        version: Option<&str>,
        by: &str,
    ) -> Result<Started, EngineError> {
        Operations::roll_back(&self.0.engine, dag, version, by)
    }

    fn compare(
        &self,
        run: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<VersionDiff, EngineError> {
        self.0.engine.compare(run, from, to)
    }

    fn trigger(&self, run: &str, conf: Option<Bytes>) -> Result<String, EngineError> {
        self.0.make_ready(run)?;
        Operations::trigger(&self.0.engine, run, conf)
    }

    fn trigger_as(
        &self,
        run: &str,
        conf: Option<Bytes>,
        id: Bytes,
    ) -> Result<Option<String>, EngineError> {
        self.0.make_ready(run)?;
        Operations::trigger_as(&self.0.engine, run, conf, id)
    }

    fn signal(&self, run: &str, signal: Signal) -> Result<Pushed, EngineError> {
        self.0.engine.signal(run, signal)
    }

    fn waits(&self, run: &str, signal: Option<&str>, page: Page) -> Result<WaitPage, EngineError> {
        self.0.engine.waits(run, signal, page)
    }

    fn parked(
        &self,
        run: &str,
        which: &ParkedFilter,
        page: Page,
    ) -> Result<ParkedPage, EngineError> {
        self.0.engine.parked(run, which, page)
    }

    fn resolve(
        &self,
        run: &str,
        which: &ParkedFilter,
        how: Resolve,
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        self.0.engine.resolve(run, which, how, dry_run)
    }

    fn amend(&self, run: &str, id: &str, event: u32, value: Bytes) -> Result<(), EngineError> {
        self.0.engine.amend(run, id, event, value)
    }

    fn alerts(&self) -> Result<Vec<Alert>, EngineError> {
        self.0.engine.alerts()
    }

    fn pools(&self) -> Result<Vec<PoolView>, EngineError> {
        self.0.engine.pools()
    }

    fn set_pool(&self, name: &str, slots: Option<u32>) -> Result<PoolView, EngineError> {
        self.0.engine.set_pool(name, slots)
    }

    fn past(&self, run: &str, wanted: &PastQuery) -> Result<PastView, EngineError> {
        self.0.engine.past(run, wanted)
    }

    fn attempts(&self, run: &str, wanted: &AttemptQuery) -> Result<Vec<AttemptView>, EngineError> {
        self.0.engine.attempts(run, wanted)
    }

    fn logs(&self, run: &str) -> Result<RunLogs, EngineError> {
        self.0.engine.logs(run)
    }

    fn worker_logs(&self) -> Result<RunLogs, EngineError> {
        self.0.engine.worker_logs()
    }

    fn replay(&self, run: &str, ask: &ReplayAsk) -> Result<ReplayAnswer, EngineError> {
        self.0.engine.replay(run, ask)
    }

    fn backfill(&self, run: &str, ask: &BackfillAsk) -> Result<ReplayAnswer, EngineError> {
        self.0.engine.backfill(run, ask)
    }

    fn replays(&self, run: &str) -> Result<Vec<ReplayView>, EngineError> {
        self.0.engine.replays(run)
    }

    fn steer_replay(&self, run: &str, replay: u32, order: ReplayOrder) -> Result<(), EngineError> {
        self.0.engine.steer_replay(run, replay, order)
    }

    fn forget_source(
        &self,
        run: &str,
        source: &str,
        dry_run: bool,
    ) -> Result<LeftView, EngineError> {
        self.0.engine.forget_source(run, source, dry_run)
    }

    fn reset(&self, run: &str, ask: &ResetAsk) -> Result<ResetAnswer, EngineError> {
        self.0.engine.reset(run, ask)
    }

    fn backup(&self, file: &Path) -> Result<Checked, EngineError> {
        self.0.engine.backup(file)
    }

    fn verify(&self) -> Result<Checked, EngineError> {
        self.0.engine.verify()
    }
}
