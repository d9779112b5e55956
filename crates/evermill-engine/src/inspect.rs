//! A look at a store that no engine runs: what `ps` shows then. Nothing is committed or performed.

use std::path::Path;

use evermill_store::Store;

use crate::boot::Boot;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::open::OpenError;
use crate::prepare::PoolNumbers;
use crate::publish::state_name;
use crate::view::{EngineView, LaneView, Percentiles, RunView, SourceView};

impl Engine {
    /// The runs of a store, as its last commit left them. Latencies are not kept and so are unknown,
    /// and a source that nobody listens to is not ready.
    ///
    /// # Errors
    /// [`OpenError`] when the store cannot be read or does not fit together.
    pub fn inspect(data_dir: &Path, store: &mut dyn Store) -> Result<EngineView, OpenError> {
        let now = Clock::system().now_ms();
        let pools = PoolNumbers::default();
        let boot = Boot {
            data_dir,
            pools: &pools,
            now,
            incarnation: 0,
            unclean: false,
            unpacks: false,
        };
        let (versions, _, machine, _) = boot.resume(store)?;
        let runs = machine.runs().map(|run| {
            let outline = versions.get(&run.version).map(|known| &known.outline);
            let sources = outline
                .iter()
                .flat_map(|outline| outline.sources.iter().enumerate());
            let source_view = |(index, source): (usize, &crate::manifest::SourceOutline)| {
                let lanes = machine
                    .lanes(run.run)
                    .filter(|lane| usize::from(lane.source) == index);
                let lane_view = |lane: evermill_core::LaneView| LaneView {
                    name: lane.name,
                    position: Some(lane.low),
                    ..LaneView::default()
                };
                SourceView {
                    id: source.id.to_string(),
                    lanes: lanes.map(lane_view).collect(),
                    ..SourceView::default()
                }
            };
            RunView {
                sources: sources.map(source_view).collect(),
                dag: run.dag,
                run: run.name,
                version: run.version,
                state: state_name(run.state),
                taken_in: run.counters.seen,
                done: run.counters.done,
                skipped: run.counters.skipped,
                parked: run.counters.parked,
                dropped: run.counters.dropped,
                in_flight: run.counters.in_flight(),
                latency_ms: Percentiles::default(),
                commit_ms: Percentiles::default(),
                // Attempts are counted by an engine while it is open.
                tasks: Vec::new(),
            }
        });
        Ok(EngineView {
            runs: runs.collect(),
            ..EngineView::default()
        })
    }
}
