//! Versions (W16).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::activation::Held;
use crate::bits;
use crate::command::{Limited, RunIx};
use crate::dag::Dag;
use crate::limits;
use crate::machine::Machine;
use crate::run::Run;

impl Machine {
    /// New activations use this version from what is read next on. Lanes whose source it has go on
    /// where they are; those of a source it lacks are read no more, and keep their positions.
    pub(crate) fn swap(&mut self, ix: RunIx, dag: &Arc<Dag>) {
        self.strike_versions_of(ix);
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        let version = run.place_version(dag);
        if version == run.row.current {
            return;
        }
        run.move_rates(dag);
        run.row.current = version;
        let mut retired = Vec::new();
        for lane in run.lanes.values_mut() {
            let home = &run.dags[usize::from(lane.cursor.home())];
            let Some(place) = dag.place_of(home, lane.cursor.source) else {
                retired.push(lane.id);
                continue;
            };
            let from = lane
                .pending
                .front()
                .map_or(lane.read, |event| event.position);
            lane.cursor.source = place;
            lane.cursor.switches.retain(|&(at, _)| at < from);
            lane.cursor.switches.push((from, version));
            lane.changed = true;
            self.dirty_lanes.insert(lane.id);
        }
        self.dirty_runs.insert(ix);
        retired.into_iter().for_each(|lane| self.close_lane(lane));
    }

    /// Strikes versions of a run that nothing durable and nothing in memory names any more.
    fn strike_versions_of(&mut self, ix: RunIx) {
        let Some(run) = self.runs.get(&ix) else {
            return;
        };
        let waves = self.waves.iter().flatten().filter(|wave| wave.run == ix);
        let mut named: BTreeSet<u16> = waves.map(|wave| wave.version).collect();
        named.extend(run.materialised.values().map(|held| held.version));
        let loaded = run.loads.iter();
        named.extend(loaded.filter_map(|(&(version, _), load)| (load.out > 0).then_some(version)));
        for lane in run.lanes.values() {
            named.extend(lane.deferred.values());
        }
        self.strike_versions(ix, &named);
        if let Some(run) = self.runs.get_mut(&ix) {
            let versions = &run.row.versions;
            run.loads
                .retain(|&(version, _), _| !versions[usize::from(version)].is_empty());
        }
    }

    /// Versions that nothing durable names any more lose their name in their run's list, but for
    /// the current one. `named`: those of activations with rows of their own.
    pub(crate) fn strike_versions(&mut self, ix: RunIx, named: &BTreeSet<u16>) {
        let Some(run) = self.runs.get_mut(&ix) else {
            return;
        };
        let mut named = named.clone();
        named.insert(run.row.current);
        for lane in run.lanes.values() {
            let switches = lane.cursor.switches.iter();
            named.extend(switches.map(|&(_, version)| version));
            named.extend(lane.recovered.values().map(|r| r.version));
        }
        for (version, name) in run.row.versions.iter_mut().enumerate() {
            if !named.contains(&(version as u16)) {
                name.clear();
            }
        }
    }

    /// What is in flight of a run, in events, by the hash of its version.
    #[must_use]
    pub fn in_flight_by_version(&self, ix: RunIx) -> BTreeMap<String, u64> {
        let Some(run) = self.runs.get(&ix) else {
            return BTreeMap::new();
        };
        let mut counts = BTreeMap::<u16, u64>::new();
        for lane in run.lanes.values() {
            for event in &lane.pending {
                *counts.entry(lane.version_of(event.position)).or_default() += 1;
            }
        }
        for wave in self.waves.iter().flatten().filter(|wave| wave.run == ix) {
            let members = wave.members.iter().enumerate();
            let left = members.filter(|(at, _)| !bits::get(&wave.left, *at as u32));
            let events: u64 = left.map(|(_, member)| u64::from(member.events)).sum();
            *counts.entry(wave.version).or_default() += events;
        }
        let waiting = run.materialised.values();
        for held in
            waiting.filter(|held| !matches!(held.held, Held::Parked(_) | Held::Running { .. }))
        {
            *counts.entry(held.version).or_default() += held.weight();
        }
        let named = counts.into_iter().filter(|(_, count)| *count > 0);
        named
            .map(|(version, count)| (run.row.versions[usize::from(version)].clone(), count))
            .collect()
    }

    /// Every version some run may still need, by hash.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        let named = self.runs.values().flat_map(|run| &run.row.versions);
        named
            .map(String::as_str)
            .filter(|version| !version.is_empty())
    }
}

impl Run {
    /// Rates belong to tasks and sources by their ids.
    fn move_rates(&mut self, to: &Dag) {
        let from = Arc::clone(self.dag());
        let rates = std::mem::take(&mut self.rates).into_iter();
        let moved = rates.filter_map(|(of, rate)| {
            let of = match of {
                Limited::Task(task) => Limited::Task(to.task_of(&from, task)?),
                Limited::Key(task) => Limited::Key(to.task_of(&from, task)?),
                Limited::Source(source) => Limited::Source(to.place_of(&from, source)?),
            };
            Some((of, rate))
        });
        self.rates = moved.collect();
        let rates = std::mem::take(&mut self.key_rates).into_iter();
        let moved = rates.filter_map(|(task, rates)| Some((to.task_of(&from, task)?, rates)));
        self.key_rates = moved.collect();
    }

    /// What a task of any version is called in the current one: rates are known by that.
    pub(crate) fn place_of_task(&self, version: u16, task: u16) -> Option<u16> {
        if version == self.row.current {
            return Some(task);
        }
        self.dag().task_of(&self.dags[usize::from(version)], task)
    }

    /// Whether each key of a task has a rate of its own.
    pub(crate) fn has_key_rates(&self, version: u16, task: u16) -> bool {
        let task = self.place_of_task(version, task);
        task.is_some_and(|task| self.key_rates.contains_key(&task))
    }

    /// The place of a version in the run's list. History names versions by it, so a place is taken
    /// again only when there are many.
    fn place_version(&mut self, dag: &Arc<Dag>) -> u16 {
        let versions = &mut self.row.versions;
        let known = versions.iter().position(|v| *v == dag.spec.version);
        let full = versions.len() >= limits::VERSION_PLACES;
        let struck = || versions.iter().position(String::is_empty);
        let free = if full { struck() } else { None };
        let place = known.or(free).unwrap_or(versions.len());
        if known.is_none() {
            versions.resize(versions.len().max(place + 1), String::new());
            versions[place].clone_from(&dag.spec.version);
            self.dags.resize(versions.len(), Arc::clone(dag));
            self.dags[place] = Arc::clone(dag);
        }
        place as u16
    }
}
