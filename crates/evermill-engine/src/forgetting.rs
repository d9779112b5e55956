//! Events that are kept for a source which nobody has any more: they wait for a version that has it again,
//! unless an operator lets them go.
//!
//! What goes are the events that were not begun, what the source remembers, and the ids of what came. What
//! stays are positions: a source that comes back is read on from there, and no position is given twice.

use evermill_core::{LaneView, RunView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MANUAL;
use crate::handle::EngineError;
use crate::inbox::Inboxes;
use crate::input::Reply;
use crate::manifest::Outline;
use crate::requests::is_over;
use crate::rest::State;
use crate::shard::Shard;

/// What is kept for a source that is gone, before it was let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftView {
    /// The run.
    pub run: String,
    /// The source.
    pub source: String,
    /// Events that were kept and not begun.
    pub events: u64,
    /// The source remembered how far it was.
    pub remembers: bool,
}

impl Shard {
    /// Lets go of what is kept for a source that the run's version has not; the answer follows the commit.
    pub(crate) fn forget_source(
        &mut self,
        run: &str,
        source: &str,
        dry_run: bool,
        reply: Reply<LeftView>,
    ) {
        let left = self.books().find(run).and_then(|found| {
            let lanes: Vec<LaneView> = self.machine.lanes(found.run).collect();
            let left = look(
                &found,
                self.outline_of(found.run),
                source,
                &lanes,
                &self.inboxes,
            )?;
            Ok((found, left))
        });
        let (found, left) = match left {
            Ok(found) => found,
            Err(refused) => return crate::requests::answer(&reply, Err(refused)),
        };
        if !dry_run {
            let number = self.inboxes.number(&found.dag, source);
            if let Some(inbox) = self.inboxes.get_mut(number) {
                inbox.empty(&mut self.decision.writes);
                self.unseal();
            }
            self.feeds.retain(|_, feed| feed.inbox != number);
            self.view_stale = true;
        }
        self.reply_after_commit(reply, Ok(left));
    }
}

impl State {
    /// Likewise, where no engine runs.
    pub(crate) fn forget_source(
        &mut self,
        run: &str,
        source: &str,
        dry_run: bool,
    ) -> Result<LeftView, EngineError> {
        let mut inboxes = Inboxes::load(&mut *self.store).map_err(EngineError::store)?;
        let found = self.books().find(run)?;
        let lanes: Vec<LaneView> = self.machine.lanes(found.run).collect();
        let known = self.versions.get(&found.version);
        let outline = known.map(|known| &*known.outline);
        let left = look(&found, outline, source, &lanes, &inboxes)?;
        if dry_run {
            return Ok(left);
        }
        let mut decision = std::mem::take(&mut self.pending);
        let number = inboxes.number(&found.dag, source);
        if let Some(inbox) = inboxes.get_mut(number) {
            inbox.empty(&mut decision.writes);
        }
        self.commit(decision)?;
        Ok(left)
    }
}

/// What is kept for a source, if nobody needs it.
fn look(
    run: &RunView,
    outline: Option<&Outline>,
    source: &str,
    lanes: &[LaneView],
    inboxes: &Inboxes,
) -> Result<LeftView, EngineError> {
    let refused = |why: String| Err(EngineError::Refused(why));
    let known = inboxes.find(&run.dag, source);
    let Some(inbox) = known else {
        let kept: Vec<&str> = inboxes.of_dag(&run.dag).collect();
        let kept = match kept.is_empty() {
            true => "nothing is kept for any".to_owned(),
            false => format!("something is kept for {}", kept.join(", ")),
        };
        return refused(format!(
            "nothing is kept for a source '{source}' of DAG '{}': {kept}",
            run.dag
        ));
    };
    let sources = outline.map_or(&[][..], |outline| &outline.sources);
    let has_it = source == MANUAL || sources.iter().any(|one| *one.id == *source);
    if has_it && !is_over(run.state) {
        return refused(format!(
            "run '{}' has the source '{source}', and goes on with what is kept for it; `evermill stop {}` ends the run",
            run.name, run.name
        ));
    }
    let of_it = lanes.iter().filter(|lane| lane.source_id == source);
    let begun: usize = of_it.map(|lane| lane.in_waves).sum();
    if begun > 0 {
        return refused(format!(
            "{begun} events of source '{source}' have begun: try again when they are done"
        ));
    }
    Ok(LeftView {
        run: run.name.clone(),
        source: source.to_owned(),
        events: inbox.kept() as u64,
        remembers: inbox.memo().is_some() || !inbox.pages().is_empty(),
    })
}
