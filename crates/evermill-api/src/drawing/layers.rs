//! Where nodes go when edges run in one direction: a layer for each, a place within it, and
//! stand-ins where an edge passes a layer.

use super::{Graph, Links};

/// Sweeps over all layers; crossings hardly change after so many.
const SWEEPS: usize = 12;

/// The graph in layers.
pub(super) struct Layers {
    /// Nodes, then the stand-ins.
    pub(super) spots: Vec<Spot>,
    /// Spots by layer, in their order across it.
    pub(super) layers: Vec<Vec<usize>>,
    /// The spots each edge of the graph goes through, its ends among them.
    pub(super) paths: Vec<Vec<usize>>,
}

/// A place that takes room in a layer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spot {
    pub(super) layer: usize,
    /// Room it takes across the layer.
    pub(super) breadth: f64,
    /// Its centre across the layer.
    pub(super) centre: f64,
}

impl Layers {
    /// `breadth` is the room of a node across its layer; a stand-in takes `thin`.
    pub(super) fn new(graph: &Graph, breadth: impl Fn(usize) -> f64, thin: f64, gap: f64) -> Self {
        let links = Links::new(graph);
        let ranks = ranks(&links);
        let mut spots: Vec<Spot> = ranks
            .iter()
            .enumerate()
            .map(|(node, &layer)| Spot {
                layer,
                breadth: breadth(node),
                centre: 0.0,
            })
            .collect();
        let mut paths = Vec::with_capacity(graph.edges.len());
        for edge in &graph.edges {
            let mut path = vec![edge.from];
            for layer in ranks[edge.from] + 1..ranks[edge.to] {
                path.push(spots.len());
                spots.push(Spot {
                    layer,
                    breadth: thin,
                    centre: 0.0,
                });
            }
            path.push(edge.to);
            paths.push(path);
        }
        let depth = spots.iter().map(|spot| spot.layer + 1).max().unwrap_or(0);
        let mut layers = vec![Vec::new(); depth];
        for (index, spot) in spots.iter().enumerate() {
            layers[spot.layer].push(index);
        }
        let mut made = Self {
            spots,
            layers,
            paths,
        };
        made.settle(gap);
        made
    }

    /// Orders every layer by where its neighbours are, then gives each spot a centre near them.
    fn settle(&mut self, gap: f64) {
        let mut near = vec![(Vec::new(), Vec::new()); self.spots.len()];
        for pair in self.paths.iter().flat_map(|path| path.windows(2)) {
            near[pair[1]].0.push(pair[0]);
            near[pair[0]].1.push(pair[1]);
        }
        for layer in 0..self.layers.len() {
            self.line_up(layer, gap);
        }
        for sweep in 0..SWEEPS {
            let forward = sweep % 2 == 0;
            for step in 0..self.layers.len() {
                let layer = if forward {
                    step
                } else {
                    self.layers.len() - 1 - step
                };
                let of = |spot: usize| {
                    if forward {
                        &near[spot].0
                    } else {
                        &near[spot].1
                    }
                };
                let wanted = self.wanted(layer, of);
                // The last sweeps move spots without swapping them.
                if sweep + 2 < SWEEPS {
                    self.sort(layer, &wanted);
                }
                let both = |spot: usize| {
                    let (before, after) = &near[spot];
                    self.middle(before.iter().chain(after))
                        .unwrap_or(self.spots[spot].centre)
                };
                let wanted: Vec<f64> = if sweep + 2 < SWEEPS {
                    self.wanted(layer, of)
                } else {
                    self.layers[layer].iter().map(|&spot| both(spot)).collect()
                };
                self.place(layer, &wanted, gap);
            }
        }
    }

    fn line_up(&mut self, layer: usize, gap: f64) {
        let mut at = 0.0;
        for &spot in &self.layers[layer] {
            let breadth = self.spots[spot].breadth;
            self.spots[spot].centre = at + breadth / 2.0;
            at += breadth + gap;
        }
    }

    fn wanted<'a>(&self, layer: usize, of: impl Fn(usize) -> &'a Vec<usize>) -> Vec<f64> {
        let spots = self.layers[layer].iter();
        spots
            .map(|&spot| {
                self.middle(of(spot).iter())
                    .unwrap_or(self.spots[spot].centre)
            })
            .collect()
    }

    fn middle<'a>(&self, spots: impl Iterator<Item = &'a usize>) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0.0);
        for &spot in spots {
            sum += self.spots[spot].centre;
            count += 1.0;
        }
        (count > 0.0).then(|| sum / count)
    }

    fn sort(&mut self, layer: usize, wanted: &[f64]) {
        let mut keyed: Vec<(f64, usize)> = wanted
            .iter()
            .copied()
            .zip(self.layers[layer].iter().copied())
            .collect();
        keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
        self.layers[layer] = keyed.into_iter().map(|(_, spot)| spot).collect();
    }

    /// Centres as near as possible to the wanted ones (least squares) that keep order and distance:
    /// neighbours that would overlap become one block around their mean.
    fn place(&mut self, layer: usize, wanted: &[f64], gap: f64) {
        let spots = &self.layers[layer];
        let mut offsets = Vec::with_capacity(spots.len());
        let mut at = 0.0;
        for (index, &spot) in spots.iter().enumerate() {
            let half = self.spots[spot].breadth / 2.0;
            at += if index == 0 { 0.0 } else { half + gap };
            offsets.push(at);
            at += half;
        }
        // Sum and size of each block of wanted places, less the offsets.
        let mut blocks: Vec<(f64, usize)> = Vec::new();
        for (want, offset) in wanted.iter().zip(&offsets) {
            let mut block = (want - offset, 1);
            while let Some(last) = blocks.last().copied() {
                if last.0 / last.1 as f64 <= block.0 / block.1 as f64 {
                    break;
                }
                block = (block.0 + last.0, block.1 + last.1);
                blocks.pop();
            }
            blocks.push(block);
        }
        let mut rest = spots.iter().zip(&offsets);
        for (sum, size) in blocks {
            for (&spot, offset) in rest.by_ref().take(size) {
                self.spots[spot].centre = sum / size as f64 + offset;
            }
        }
    }
}

/// The nodes of each layer, in order of declaration.
#[must_use]
pub fn layers(graph: &Graph) -> Vec<Vec<usize>> {
    let mut layers = Vec::new();
    for (node, rank) in ranks(&Links::new(graph)).into_iter().enumerate() {
        if layers.len() <= rank {
            layers.resize(rank + 1, Vec::new());
        }
        layers[rank].push(node);
    }
    layers
}

/// The layer of each node: behind everything before it, and a root right before its first follower.
fn ranks(links: &Links) -> Vec<usize> {
    let order = links.order();
    let mut rank: Vec<usize> = vec![0; order.len()];
    let mut seen = vec![false; order.len()];
    for &node in &order {
        // What is not seen yet comes before it in a cycle only.
        let before = links.before[node].iter().filter(|before| seen[**before]);
        rank[node] = before.map(|&before| rank[before] + 1).max().unwrap_or(0);
        seen[node] = true;
    }
    for &node in order.iter().filter(|node| links.before[**node].is_empty()) {
        let first = links.after[node].iter().map(|&after| rank[after]).min();
        rank[node] = first.map_or(0, |first| first.saturating_sub(1));
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::super::tests::graph;
    use super::*;

    #[test]
    fn spots_of_a_layer_never_overlap() {
        let edges: Vec<_> = (1..=20)
            .flat_map(|task| [(0, task), (task, 21)])
            .chain([(0, 21)])
            .collect();
        let names: Vec<String> = (0..22).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let made = Layers::new(&graph(&names, &edges), |node| 10.0 + node as f64, 4.0, 5.0);
        assert_eq!(made.layers.len(), 3);
        for pair in made.layers.iter().flat_map(|layer| layer.windows(2)) {
            let [one, other] = [pair[0], pair[1]].map(|spot| made.spots[spot]);
            let apart = other.centre - one.centre - (one.breadth + other.breadth) / 2.0;
            assert!(apart > 4.999, "{apart}");
        }
    }

    #[test]
    fn a_root_stands_right_before_its_first_follower() {
        let links = Links::new(&graph(&["a", "b", "c", "root"], &[(0, 1), (1, 2), (3, 2)]));
        assert_eq!(ranks(&links), [0, 1, 2, 1]);
    }
}
