//! Joins (W6): activations that wait for events of several sources.

use std::sync::Arc;

use crate::activation::{self, Held, ParkReason, Snapshot};
use crate::bits;
use crate::command::{ActivationKey, Decision, Event, LaneId, Ms};
use crate::dag::PlanNode;
use crate::machine::{Machine, put};
use crate::row::Table;
use crate::run::Run;
use crate::scope::Place;
use crate::wave::Row;

impl Machine {
    /// An event of a source that joins others: binds to an open activation, or opens one.
    pub(crate) fn join(&mut self, id: LaneId, event: Event, out: &mut Decision) {
        let run = self.runs.get_mut(&id.run).expect("lanes have runs");
        let lane = run.lanes.get_mut(&id.lane).expect("lanes exist");
        lane.segments.push_back(crate::lane::Segment {
            wave: None,
            first: event.position,
            last: event.position,
        });
        self.dirty_lanes.insert(id);
        let (version, source) = (run.row.current, lane.cursor.source);
        let dag = Arc::clone(run.dag());
        let plan = dag.plan_of_source[usize::from(source)];
        if let Some((key, source)) = run.oldest_open(id.lane, event.key) {
            return self.bind(key, source, id, event, out);
        }
        let key = ActivationKey {
            lane: id,
            position: event.position,
            child: 0,
        };
        let since = event.arrived_ms;
        let steps = &dag.plans[usize::from(plan)].steps;
        for step in steps {
            if let PlanNode::Source(other) = step.node
                && other != source
            {
                run.open
                    .entry((version, plan, other))
                    .or_default()
                    .insert((since, key));
            }
        }
        run.open_keys.insert(key, event.key);
        let until = dag
            .spec
            .join
            .within_ms
            .map(|within| since.max(self.now) + within);
        let order_lane = run.lanes[&id.lane].order_lane();
        let scope = Run::order_scope(dag.spec.order, order_lane, event.key).map(|scope| {
            let seq = run
                .scopes
                .entry(scope)
                .or_default()
                .push(Place::Gone, version);
            (scope, seq)
        });
        let snapshot = Snapshot {
            key,
            last: event.position,
            version,
            round: 0,
            ordered: scope.is_some(),
            late: false,
            silenced: false,
            events: vec![event],
            bound: Vec::new(),
            entries: Vec::new(),
        };
        self.materialise(snapshot, Held::Open { until }, scope, out);
        self.release(key);
    }

    /// A later event of a missing source joins an open activation; `source` as its version counts.
    fn bind(
        &mut self,
        key: ActivationKey,
        source: u16,
        lane: LaneId,
        event: Event,
        out: &mut Decision,
    ) {
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        run.close_join(key, Some(source));
        if let Some(held) = run.materialised.get(&key) {
            let Ok((mut snapshot, kind)) = Snapshot::decode(key, held.own_body()) else {
                return;
            };
            snapshot.bound.push((source, lane, event));
            let scope = held.scope();
            self.materialise(snapshot, kind, scope, out);
            self.release(key);
            return;
        }
        let (ix, member) = run.joins[&key];
        let wave = self.wave_mut(ix);
        wave.bound
            .entry(member)
            .or_default()
            .push((source, lane, event));
        let node = wave
            .plan()
            .steps
            .iter()
            .position(|s| s.node == PlanNode::Source(source));
        let node = node.expect("joined sources are in the plan") as u16;
        wave.put(node, Row::Success, member);
        wave.put(node, Row::Done, member);
        let (mask, dirty) = (bits::single(wave.words, member), wave.dirty_below(node));
        let snapshot = self.snapshot(ix, member);
        let body = snapshot.encode(Held::Waiting);
        put(out, Table::Activation, activation::row_key(key), body);
        self.progress(ix, &mask, dirty, out);
    }

    /// `within` is over: what is missing is skipped, or the activation parks.
    pub(crate) fn time_out_join(&mut self, key: ActivationKey, out: &mut Decision) {
        let run = self
            .runs
            .get_mut(&key.lane.run)
            .expect("activations have runs");
        run.close_join(key, None);
        let held = run.materialised[&key].clone();
        let Ok((mut snapshot, _)) = Snapshot::decode(key, held.own_body()) else {
            return;
        };
        if run.dags[usize::from(snapshot.version)]
            .spec
            .join
            .park_on_timeout
        {
            return self.park(snapshot, ParkReason::JoinTimeout, None, out);
        }
        snapshot.silenced = true;
        self.materialise(snapshot, Held::Waiting, held.scope(), out);
        self.release(key);
    }

    /// Until when an open member waits.
    pub(crate) fn join_deadline(&self, ix: u32, member: u32) -> Option<Ms> {
        let wave = self.wave(ix);
        let since = wave.member_events(member).first()?.arrived_ms;
        Some(since + wave.dag.spec.join.within_ms?)
    }
}

impl Run {
    /// The oldest activation, of whatever version, that lacks the lane's source; with the source's
    /// place in that version.
    fn oldest_open(&self, lane: u32, key: u128) -> Option<(ActivationKey, u16)> {
        let lacking = self
            .open
            .iter()
            .filter_map(|(&(version, _, source), open)| {
                (self.source_in(version, lane) == Some(source)).then_some((version, source, open))
            });
        let first = lacking.filter_map(|(version, source, open)| {
            let on_key = self.dags[usize::from(version)].spec.join.on_key;
            let fits =
                |activation: &ActivationKey| !on_key || self.join_key(*activation) == Some(key);
            let &(since, activation) = open.iter().find(|(_, activation)| fits(activation))?;
            Some((since, activation, source))
        });
        let (_, activation, source) = first.min()?;
        Some((activation, source))
    }

    fn join_key(&self, activation: ActivationKey) -> Option<u128> {
        self.open_keys.get(&activation).copied()
    }

    /// The activation no longer lacks this source, or any.
    fn close_join(&mut self, key: ActivationKey, source: Option<u16>) {
        for ((.., missing), open) in &mut self.open {
            if source.is_none_or(|source| source == *missing) {
                open.retain(|(_, activation)| *activation != key);
            }
        }
        self.open.retain(|_, open| !open.is_empty());
        if !self
            .open
            .values()
            .flatten()
            .any(|(_, activation)| *activation == key)
        {
            self.open_keys.remove(&key);
        }
    }
}
