//! Replays and resets (W18) in the world: asked for, paused, and told apart from live lanes.

use evermill_core::command::{Command, LaneId, ReplayMode, Stretch};

use crate::feature::Mark;
use crate::world::{RUN, World};

impl World<'_> {
    pub(crate) fn is_replay(&self, lane: LaneId) -> bool {
        let mut lanes = self.machine.lanes(RUN);
        lanes.any(|view| view.lane == lane && view.replay.is_some())
    }

    pub(crate) fn is_reset(&self, lane: LaneId) -> bool {
        let mut lanes = self.machine.lanes(RUN);
        lanes.any(|view| view.lane == lane && view.reset.is_some())
    }

    /// The replay that may be paused or has to go on: its generation, and whether it is paused.
    pub(crate) fn held_replay(&self) -> Option<(u32, bool)> {
        let lanes = self.machine.lanes(RUN).filter(|lane| !lane.closed);
        let mut replays = lanes.filter_map(|lane| Some((lane.generation, lane.replay?.paused)));
        replays.next().filter(|_| !self.is_over())
    }

    /// W18: a replay stands still, or goes on.
    pub(crate) fn hold_replay(&mut self) -> Result<(), String> {
        let (replay, paused) = self.held_replay().ok_or("there is no replay")?;
        // What a reader has on its way when it is stopped reaches nobody.
        for at in 0..self.readers.len() {
            let lane = self.readers[at].lane;
            if lane.is_some_and(|lane| self.is_replay(lane)) {
                self.readers[at].open = false;
            }
        }
        self.apply(Command::PauseReplay {
            run: RUN,
            replay,
            paused: !paused,
        })
    }

    /// W18: the live lane goes on elsewhere, as another one of its name.
    pub(crate) fn reset(&mut self, at: usize) -> Result<(), String> {
        let live = self.case.replayed(at).ok_or("nothing to reset")?;
        let lane = self.readers[live].lane.ok_or("the lane is not open")?;
        self.apply(Command::Reset {
            lane,
            to: self.case.lanes[at].first,
            by: "the scenario".into(),
        })
    }

    /// A replay nobody has asked for yet.
    pub(crate) fn next_replay(&self) -> Option<usize> {
        let open = |at: &usize| {
            let live = self.case.replayed(*at).map(|live| &self.readers[live]);
            self.case.lanes[*at].replay_until.is_some()
                && self.readers[*at].lane.is_none()
                && live.is_some_and(|live| live.lane.is_some())
        };
        (0..self.readers.len())
            .find(open)
            .filter(|_| !self.is_over())
    }

    /// W18: a stretch of a lane is read again, as a lane of its own.
    pub(crate) fn replay(&mut self, at: usize) -> Result<(), String> {
        let live = self.case.replayed(at).ok_or("nothing to replay")?;
        let lane = self.readers[live].lane.ok_or("the lane is not open")?;
        let replay = &self.case.lanes[at];
        let to = replay.replay_until.ok_or("it is no replay")?;
        self.coverage.hit(Mark::Replay);
        let stretch = Stretch {
            lane: lane.lane,
            from: replay.first,
            to,
        };
        self.apply(Command::Replay {
            run: RUN,
            stretches: vec![stretch],
            mode: ReplayMode {
                fresh_keys: replay.fresh_keys,
                ..ReplayMode::default()
            },
        })
    }
}
