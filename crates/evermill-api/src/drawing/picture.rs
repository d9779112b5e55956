//! For a browser: one SVG that needs nothing else, readable on light and on dark ground.

use std::fmt::Write as _;

use super::layers::Layers;
use super::{Graph, Node, Shape, shown};

/// Width of a character of the text, in pixels: the font is monospaced at 12 px.
const CHARACTER: f64 = 7.25;
const LINE: f64 = 16.0;
const PADDING: f64 = 10.0;
const MARGIN: f64 = 20.0;
/// Between neighbours of a layer, and between layers.
const GAP: f64 = 14.0;
const BETWEEN_LAYERS: f64 = 56.0;
/// Room of an edge that passes a layer.
const THIN: f64 = 6.0;
const TEXT_CHARACTERS_MAX: usize = 38;
/// A graph that is deeper than this and than it is broad runs down instead of to the right.
const DEPTH_TO_THE_RIGHT: usize = 8;

/// Plain rules, no variables: many who show an SVG know only those.
const HEAD: &str = r#"<style>
.evermill text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #4c5665; }
.evermill .title, .evermill .id { fill: #1c2430; font-weight: 600; }
.evermill .ground { fill: #ffffff; }
.evermill .node rect { fill: #f4f6f9; stroke: #8a95a5; }
.evermill .source rect { stroke: #0b7a75; stroke-width: 2; }
.evermill .choice rect { stroke: #9a5b00; stroke-width: 2; }
.evermill .noop rect { stroke-dasharray: 4 3; }
.evermill .edge { fill: none; stroke: #7a8595; stroke-width: 1.4; }
.evermill .order { stroke-dasharray: 5 4; }
.evermill .head { fill: #7a8595; }
@media (prefers-color-scheme: dark) {
.evermill text { fill: #a9b3c1; }
.evermill .title, .evermill .id { fill: #e6eaf0; }
.evermill .ground { fill: #14181f; }
.evermill .node rect { fill: #1f2530; stroke: #7d8898; }
.evermill .source rect { stroke: #4fd1c5; }
.evermill .choice rect { stroke: #f0b35a; }
.evermill .edge { stroke: #8b96a6; }
.evermill .head { fill: #8b96a6; }
}
</style>
<defs><marker id="evermill-head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>
"#;

/// All graphs in one picture, one below the other.
#[must_use]
pub fn svg(graphs: &[Graph]) -> String {
    let mut body = String::new();
    let (mut width, mut top) = (0.0_f64, MARGIN);
    for graph in graphs {
        let drawn = Drawn::new(graph);
        let size = drawn
            .write(&mut body, graph, top)
            .expect("a String takes everything");
        width = width.max(size.0);
        top += size.1 + MARGIN;
    }
    let (width, height) = ((width + 2.0 * MARGIN).ceil(), top.ceil());
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"evermill\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n{HEAD}<rect class=\"ground\" width=\"{width}\" \
         height=\"{height}\"/>\n{body}</svg>\n"
    )
}

struct Drawn {
    is_down: bool,
    layers: Layers,
    boxes: Vec<(f64, f64)>,
    /// Where each layer begins and how deep it is.
    depths: Vec<(f64, f64)>,
}

/// A point: along the layers, and across them.
type Point = (f64, f64);

impl Drawn {
    fn new(graph: &Graph) -> Self {
        let boxes: Vec<(f64, f64)> = graph.nodes.iter().map(size).collect();
        let flat = Layers::new(graph, |_| 1.0, 1.0, 1.0);
        let broadest = flat.layers.iter().map(Vec::len).max().unwrap_or(0);
        let is_down = flat.layers.len() > DEPTH_TO_THE_RIGHT.max(broadest);
        let breadth = |node: usize| {
            if is_down {
                boxes[node].0
            } else {
                boxes[node].1
            }
        };
        let mut layers = Layers::new(graph, breadth, THIN, GAP);
        let first = layers
            .spots
            .iter()
            .map(|spot| spot.centre - spot.breadth / 2.0);
        let first = first.fold(f64::INFINITY, f64::min);
        for spot in &mut layers.spots {
            spot.centre -= first;
        }
        let depth = |spot: &usize| {
            boxes
                .get(*spot)
                .map_or(0.0, |size| if is_down { size.1 } else { size.0 })
        };
        let mut depths = Vec::with_capacity(layers.layers.len());
        let mut at = 0.0;
        for layer in &layers.layers {
            let deep = layer.iter().map(depth).fold(0.0, f64::max);
            depths.push((at, deep));
            at += deep + BETWEEN_LAYERS;
        }
        Self {
            is_down,
            layers,
            boxes,
            depths,
        }
    }

    /// Writes title, edges and nodes, and says how much room all of it took.
    fn write(
        &self,
        out: &mut String,
        graph: &Graph,
        top: f64,
    ) -> Result<(f64, f64), std::fmt::Error> {
        let mut width = 0.0_f64;
        writeln!(out, "<g transform=\"translate({MARGIN} {top})\">")?;
        let titles = std::iter::once(&graph.title).chain(&graph.details);
        let mut below = 0.0;
        for (index, text) in titles.enumerate() {
            let class = if index == 0 { " class=\"title\"" } else { "" };
            writeln!(
                out,
                "<text{class} y=\"{:.0}\">{}</text>",
                below + 12.0,
                escaped(text)
            )?;
            width = width.max(shown(text).chars().count() as f64 * CHARACTER);
            below += LINE;
        }
        below += GAP;
        writeln!(out, "<g transform=\"translate(0 {below:.0})\">")?;
        for (edge, path) in graph.edges.iter().zip(&self.layers.paths) {
            let class = if edge.carries { "edge" } else { "edge order" };
            let path = self.path(path);
            writeln!(
                out,
                "<path class=\"{class}\" d=\"{path}\" marker-end=\"url(#evermill-head)\"/>"
            )?;
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            self.node(out, node, index)?;
        }
        writeln!(out, "</g>\n</g>")?;
        let along = self.depths.last().map_or(0.0, |(at, deep)| at + deep);
        let spots = self.layers.spots.iter();
        let across = spots
            .map(|spot| spot.centre + spot.breadth / 2.0)
            .fold(0.0, f64::max);
        let (wide, high) = if self.is_down {
            (across, along)
        } else {
            (along, across)
        };
        Ok((width.max(wide), below + high))
    }

    fn node(&self, out: &mut String, node: &Node, index: usize) -> std::fmt::Result {
        let (wide, high) = self.boxes[index];
        let spot = &self.layers.spots[index];
        let (begin, deep) = self.depths[spot.layer];
        let middle = begin + deep / 2.0;
        let (x, y) = if self.is_down {
            (spot.centre, middle)
        } else {
            (middle, spot.centre)
        };
        let class = match node.shape {
            Shape::Source => "node source",
            Shape::Choice => "node choice",
            Shape::Noop => "node noop",
            Shape::Task | Shape::Mapped => "node",
        };
        let (left, top) = (x - wide / 2.0, y - high / 2.0);
        writeln!(
            out,
            "<g class=\"{class}\" transform=\"translate({left:.1} {top:.1})\">"
        )?;
        let all = std::iter::once(&node.id).chain(&node.details);
        let all: Vec<String> = all.map(|text| escaped(text)).collect();
        writeln!(out, "<title>{}</title>", all.join("\n"))?;
        if node.shape == Shape::Mapped {
            writeln!(
                out,
                "<rect x=\"4\" y=\"-4\" width=\"{wide:.1}\" height=\"{high:.1}\" rx=\"6\"/>"
            )?;
        }
        let rx = if node.shape == Shape::Source {
            high / 2.0
        } else {
            6.0
        };
        writeln!(
            out,
            "<rect width=\"{wide:.1}\" height=\"{high:.1}\" rx=\"{:.1}\"/>",
            rx.min(18.0)
        )?;
        for (line, text) in lines(node).iter().enumerate() {
            let class = if line == 0 { " class=\"id\"" } else { "" };
            let baseline = PADDING + 10.0 + line as f64 * LINE;
            let text = escaped(text);
            writeln!(
                out,
                "<text{class} x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"middle\">{text}</text>",
                wide / 2.0
            )?;
        }
        writeln!(out, "</g>")
    }

    /// From the far side of the first spot to the near side of the last, straight through what is between.
    fn path(&self, spots: &[usize]) -> String {
        let side = |spot: usize, is_far: bool| -> Point {
            let at = &self.layers.spots[spot];
            let (begin, deep) = self.depths[at.layer];
            let own = self
                .boxes
                .get(spot)
                .map_or(deep, |size| if self.is_down { size.1 } else { size.0 });
            let half = if is_far { own / 2.0 } else { -own / 2.0 };
            (begin + deep / 2.0 + half, at.centre)
        };
        let place = |(along, across): Point| {
            let (x, y) = if self.is_down {
                (across, along)
            } else {
                (along, across)
            };
            format!("{x:.1} {y:.1}")
        };
        let mut from = side(spots[0], true);
        let mut path = format!("M{}", place(from));
        for &spot in &spots[1..] {
            let to = side(spot, false);
            let bend = (from.0 + to.0) / 2.0;
            let bends = [(bend, from.1), (bend, to.1), to].map(place);
            write!(path, "C{}", bends.join(" ")).expect("a String takes everything");
            from = side(spot, true);
            if spot != spots[spots.len() - 1] {
                write!(path, "L{}", place(from)).expect("a String takes everything");
            }
        }
        path
    }
}

/// What stands in a box: the id, then the details.
fn lines(node: &Node) -> Vec<String> {
    let all = std::iter::once(&node.id).chain(&node.details);
    all.map(|text| shortened(&shown(text))).collect()
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= TEXT_CHARACTERS_MAX {
        return text.to_owned();
    }
    let kept: String = text.chars().take(TEXT_CHARACTERS_MAX - 1).collect();
    kept + "…"
}

fn size(node: &Node) -> (f64, f64) {
    let lines = lines(node);
    let longest = lines
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    (
        longest as f64 * CHARACTER + 2.0 * PADDING + 8.0,
        lines.len() as f64 * LINE + 2.0 * PADDING - 4.0,
    )
}

fn escaped(text: &str) -> String {
    shown(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::graph;
    use super::*;

    #[test]
    fn what_an_author_writes_cannot_become_a_tag() {
        let mut flow = graph(&["a"], &[]);
        flow.title = "<script>&".into();
        let drawn = svg(&[flow]);
        assert!(
            drawn.contains("&lt;script&gt;&amp;") && !drawn.contains("<script>"),
            "{drawn}"
        );
    }

    #[test]
    fn a_long_chain_runs_down_and_a_broad_fan_to_the_right() {
        let names: Vec<String> = (0..62).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let chain: Vec<_> = (0..61).map(|n| (n, n + 1)).collect();
        let fan: Vec<_> = (1..61).flat_map(|n| [(0, n), (n, 61)]).collect();
        assert!(Drawn::new(&graph(&names, &chain)).is_down);
        assert!(!Drawn::new(&graph(&names, &fan)).is_down);
    }
}
