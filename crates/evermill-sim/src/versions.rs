//! Further versions of a case's DAG, for swaps (W16): the same, with sources in other places.

use evermill_core::dag::{Dag, DagSpec, Node};

/// The same DAG with its sources in another order: to each version they have other places (W16).
pub(crate) fn turned(spec: &DagSpec, by: usize) -> Result<Dag, String> {
    let mut next = spec.clone();
    next.version = format!("{}.{by}", spec.version);
    let count = next.sources.len().max(1);
    next.sources.rotate_left(by % count);
    let order = next.clone();
    let upstream = next.tasks.iter_mut().flat_map(|task| &mut task.upstream);
    for node in upstream {
        if let Node::Source(source) = node {
            *source = place_of(&order, spec, *source);
        }
    }
    Dag::compile(next).map_err(|faults| format!("sources in another order: {faults:?}"))
}

/// Where one version of a DAG has a source of another.
pub(crate) fn place_of(version: &DagSpec, of: &DagSpec, source: u16) -> u16 {
    let Some(known) = of.sources.get(usize::from(source)) else {
        return source;
    };
    let mut sources = version.sources.iter();
    let place = sources.position(|source| source.id == known.id);
    place.map_or(source, |place| place as u16)
}
