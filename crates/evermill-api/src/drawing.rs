//! A DAG as a picture: for a terminal ([`text`]), for a browser ([`svg`]), for Graphviz ([`dot`]).
//!
//! Whoever draws says what a node is called and what stands beside it; nothing here knows what an
//! option means. Every picture is a function of its [`Graph`]: the same one each time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use evermill_engine::view::{GraphView, NodeKind, NodeView};

mod dot;
mod layers;
mod picture;
mod rails;

pub use dot::dot;
pub use layers::layers;
pub use picture::svg;
pub use rails::{RailRow, rails, text};

/// One DAG to be drawn.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// What it is called.
    pub title: String,
    /// What holds for all of it; a phrase each.
    pub details: Vec<String>,
    /// In order of declaration, which decides where nothing else does.
    pub nodes: Vec<Node>,
    /// Which node comes after which.
    pub edges: Vec<Edge>,
}

/// A source or a task.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is called.
    pub id: String,
    /// How it looks.
    pub shape: Shape,
    /// What is worth knowing about it; a phrase each.
    pub details: Vec<String>,
}

/// How a node looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Listens for ever.
    Source,
    /// Runs.
    Task,
    /// Runs, and decides what goes on.
    Choice,
    /// Runs once per item of a list.
    Mapped,
    /// Nothing to run.
    Noop,
}

impl Shape {
    const fn glyph(self) -> char {
        match self {
            Self::Source => '◉',
            Self::Task => '●',
            Self::Choice => '◆',
            Self::Mapped => '■',
            Self::Noop => '○',
        }
    }
}

/// An edge between two of a graph's nodes, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The earlier one.
    pub from: usize,
    /// The later one.
    pub to: usize,
    /// It hands over an event or a result; else it only says when.
    pub carries: bool,
}

impl From<&GraphView> for Graph {
    /// What an engine tells of a DAG that runs.
    fn from(view: &GraphView) -> Self {
        let shape = |kind| match kind {
            NodeKind::Source => Shape::Source,
            NodeKind::Task => Shape::Task,
            NodeKind::Choice => Shape::Choice,
            NodeKind::Mapped => Shape::Mapped,
            NodeKind::Noop => Shape::Noop,
        };
        let node = |node: &NodeView| Node {
            id: node.id.clone(),
            shape: shape(node.kind),
            details: Vec::new(),
        };
        let edge = |&(from, to): &(usize, usize)| Edge {
            from,
            to,
            carries: true,
        };
        let is_whole = |edge: &Edge| edge.from.max(edge.to) < view.nodes.len();
        Self {
            nodes: view.nodes.iter().map(node).collect(),
            edges: view.edges.iter().map(edge).filter(is_whole).collect(),
            ..Self::default()
        }
    }
}

/// The edges of a graph, found from either end.
struct Links {
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

impl Links {
    fn new(graph: &Graph) -> Self {
        let none = vec![Vec::new(); graph.nodes.len()];
        let (mut before, mut after) = (none.clone(), none);
        for edge in &graph.edges {
            before[edge.to].push(edge.from);
            after[edge.from].push(edge.to);
        }
        Self { before, after }
    }

    /// Every node after all that come before it, and soon after the last of those; ties as declared.
    /// Nodes of a cycle, which no checked DAG has, come last.
    fn order(&self) -> Vec<usize> {
        let count = self.before.len();
        let mut waits: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut order = Vec::with_capacity(count);
        let roots = (0..count).filter(|&node| waits[node] == 0);
        let mut ready: BinaryHeap<_> = roots.map(|node| (0, Reverse(node))).collect();
        while let Some((_, Reverse(node))) = ready.pop() {
            order.push(node);
            for &next in &self.after[node] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.push((order.len(), Reverse(next)));
                }
            }
        }
        order.extend((0..count).filter(|&node| waits[node] > 0));
        order
    }
}

/// Text from a DAG file, fit to be shown: what would move a cursor is spelled out.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let spelled = c.is_control().then(|| c.escape_default());
            let itself = spelled.is_none().then_some(c);
            spelled.into_iter().flatten().chain(itself)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn graph(nodes: &[&str], edges: &[(usize, usize)]) -> Graph {
        Graph {
            title: "flow".into(),
            nodes: nodes
                .iter()
                .map(|id| Node {
                    id: (*id).to_owned(),
                    shape: Shape::Task,
                    details: Vec::new(),
                })
                .collect(),
            edges: edges
                .iter()
                .map(|&(from, to)| Edge {
                    from,
                    to,
                    carries: true,
                })
                .collect(),
            ..Graph::default()
        }
    }

    #[test]
    fn a_node_comes_after_all_before_it_and_soon() {
        let flow = graph(
            &["a", "b", "c", "b2", "join"],
            &[(0, 1), (0, 2), (1, 3), (2, 4), (3, 4)],
        );
        assert_eq!(Links::new(&flow).order(), [0, 1, 3, 2, 4]);
    }

    #[test]
    fn a_cycle_is_drawn_all_the_same() {
        let flow = graph(&["a", "b"], &[(0, 1), (1, 0)]);
        assert_eq!(Links::new(&flow).order(), [0, 1]);
        assert!(
            text(&flow).contains('b')
                && svg(std::slice::from_ref(&flow)).contains("svg")
                && dot(&[flow]).contains("b")
        );
    }

    #[test]
    fn what_would_move_a_cursor_is_spelled_out() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
