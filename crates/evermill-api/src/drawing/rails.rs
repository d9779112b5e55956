//! For a terminal: a line per node, with the edges as rails to its left.
//!
//! A rail belongs to one node. An *outgoing* rail starts at its node, and every node it leads to
//! hangs on it with an arrow. An *incoming* rail ends at its node, and every node it comes from is
//! tied to it. Each edge takes the rail of the end that has more of them, so a fan of sixty needs one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Graph, Links, shown};

/// Cells from one column to the next: a rail, a line, the head of an arrow.
const CELLS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rail {
    Out(usize),
    Into(usize),
}

/// The graph with its title, ended by a newline.
#[must_use]
pub fn text(graph: &Graph) -> String {
    let mut rails = Rails::new(graph);
    for node in rails.links.order() {
        rails.draw(node);
    }
    let mut out = shown(&graph.title);
    out.push('\n');
    for detail in &graph.details {
        writeln!(out, "  {}", shown(detail)).expect("a String takes everything");
    }
    out.push('\n');
    out.push_str(&labelled(graph, &rails.rows));
    out
}

/// One line of a drawing: its rails, and the node that stands in it, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RailRow {
    /// Rails, arrows and the node's glyph.
    pub rails: String,
    /// The node's place in the graph.
    pub node: Option<usize>,
}

/// The rails alone, for who writes something of their own beside each node.
#[must_use]
pub fn rails(graph: &Graph) -> Vec<RailRow> {
    let mut rails = Rails::new(graph);
    for node in rails.links.order() {
        rails.draw(node);
    }
    let row = |row: Row| RailRow {
        rails: row.cells.into_iter().collect(),
        node: row.node,
    };
    rails.rows.into_iter().map(row).collect()
}

fn labelled(graph: &Graph, rows: &[Row]) -> String {
    let width = |cells: &Vec<char>| cells.len();
    let rails = rows.iter().map(|row| width(&row.cells)).max().unwrap_or(0);
    let ids = graph
        .nodes
        .iter()
        .map(|node| shown(&node.id).chars().count());
    let ids = ids.max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        let cells: String = row.cells.iter().collect();
        let (id, details) = row.node.map_or_else(Default::default, |node| {
            let node = &graph.nodes[node];
            let details: Vec<_> = node.details.iter().map(|detail| shown(detail)).collect();
            (shown(&node.id), details.join(" · "))
        });
        let line = format!("  {cells:<rails$}  {id:<ids$}  {details}");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

struct Row {
    cells: Vec<char>,
    node: Option<usize>,
}

struct Rails<'a> {
    graph: &'a Graph,
    links: Links,
    /// The rail of each edge, and how many edges a rail still has to serve.
    left: BTreeMap<Rail, usize>,
    columns: Vec<Option<Rail>>,
    rows: Vec<Row>,
}

impl<'a> Rails<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut rails = Self {
            graph,
            links: Links::new(graph),
            left: BTreeMap::new(),
            columns: Vec::new(),
            rows: Vec::new(),
        };
        for edge in &graph.edges {
            *rails
                .left
                .entry(rails.rail(edge.from, edge.to))
                .or_default() += 1;
        }
        rails
    }

    fn rail(&self, from: usize, to: usize) -> Rail {
        if self.links.after[from].len() >= self.links.before[to].len() {
            Rail::Out(from)
        } else {
            Rail::Into(to)
        }
    }

    fn draw(&mut self, node: usize) {
        let hung: Vec<usize> = self.hung(node);
        let own = self.column_of(Rail::Into(node));
        let ended: Vec<usize> = hung
            .iter()
            .copied()
            .filter(|&at| self.is_used_up(at))
            .collect();
        // Only a rail with a single node on it goes straight on into that node.
        let straight = hung.iter().copied().find(|&at| self.is_for_one(at));
        let beside = hung.first().map_or(0, |first| first + 1);
        let column = own.or(straight).unwrap_or_else(|| self.free_column(beside));
        self.keep_apart(
            column,
            own.is_some() || hung.contains(&column),
            !hung.is_empty(),
        );
        let mut row = self.upright();
        put(&mut row, column, self.graph.nodes[node].shape.glyph());
        // From the farthest inwards, so that each sees who passes.
        let left = hung.iter().filter(|at| **at < column);
        let right = hung.iter().rev().filter(|at| **at > column);
        for &at in left.chain(right) {
            hang(&mut row, at, column, ended.contains(&at));
        }
        for &at in ended.iter().chain(&own) {
            self.columns[at] = None;
        }
        if self.left.contains_key(&Rail::Out(node)) {
            self.columns[column] = Some(Rail::Out(node));
        }
        let tied = self.tied(node, column);
        let (first, last) = (hung.first(), hung.last());
        let apart = tied.iter().any(|(at, _)| *at < column)
            || (!tied.is_empty() && last.is_some_and(|last| *last > column))
            || (first.is_some() && tied.iter().any(|(at, _)| Some(at) < first));
        if apart {
            self.rows.push(Row {
                cells: row,
                node: Some(node),
            });
            let goes_on = self.columns[column].is_some();
            let mut row = self.upright();
            for (at, is_new) in &tied {
                tie(&mut row, column, *at, *is_new);
            }
            let ways = [
                tied.iter().any(|(at, _)| *at < column),
                tied.iter().any(|(at, _)| *at > column),
            ];
            put(&mut row, column, corner(ways, goes_on));
            self.rows.push(Row {
                cells: row,
                node: None,
            });
        } else {
            for (at, is_new) in &tied {
                tie(&mut row, column, *at, *is_new);
            }
            self.rows.push(Row {
                cells: row,
                node: Some(node),
            });
        }
    }

    /// Columns of the rails that `node` hangs on, ascending; what hangs is served.
    fn hung(&mut self, node: usize) -> Vec<usize> {
        let before = self.links.before[node].clone();
        let mut hung = Vec::new();
        for from in before {
            let rail = self.rail(from, node);
            if let (Rail::Out(_), Some(column)) = (rail, self.column_of(rail)) {
                *self.left.entry(rail).or_default() -= 1;
                hung.push(column);
            }
        }
        hung.sort_unstable();
        hung.dedup();
        hung
    }

    /// Columns of the rails that `node` is tied to, ascending, and whether they begin here.
    fn tied(&mut self, node: usize, column: usize) -> Vec<(usize, bool)> {
        let after = self.links.after[node].clone();
        let mut tied = Vec::new();
        for to in after {
            let rail = self.rail(node, to);
            if rail != Rail::Into(to) {
                continue;
            }
            let found = self.column_of(rail);
            let at = found.unwrap_or_else(|| self.free_column(column + 1));
            self.columns[at] = Some(rail);
            tied.push((at, found.is_none()));
        }
        tied.sort_unstable();
        tied
    }

    fn column_of(&self, rail: Rail) -> Option<usize> {
        self.columns.iter().position(|column| *column == Some(rail))
    }

    fn is_used_up(&self, column: usize) -> bool {
        self.columns[column].is_some_and(|rail| self.left.get(&rail) == Some(&0))
    }

    fn is_for_one(&self, column: usize) -> bool {
        matches!(self.columns[column], Some(Rail::Out(from)) if self.links.after[from].len() == 1)
    }

    fn free_column(&mut self, from: usize) -> usize {
        let free = (from..self.columns.len()).find(|&at| self.columns[at].is_none());
        free.unwrap_or_else(|| {
            let at = from.max(self.columns.len());
            self.columns.resize(at + 1, None);
            at
        })
    }

    /// Two nodes one above the other would seem joined, or seem not to be: a row between them says.
    fn keep_apart(&mut self, column: usize, is_joined: bool, is_hung: bool) {
        let above = self
            .rows
            .last()
            .and_then(|row| row.cells.get(column * CELLS));
        let is_node = above.is_some_and(|cell| "◉●◆■○".contains(*cell));
        if is_node && (is_joined || !is_hung) {
            let cells = self.upright();
            self.rows.push(Row { cells, node: None });
        }
    }

    /// Every rail going straight on.
    fn upright(&self) -> Vec<char> {
        let mut row = Vec::new();
        for (at, rail) in self.columns.iter().enumerate() {
            if rail.is_some() {
                put(&mut row, at, '│');
            }
        }
        row
    }
}

/// Draws the arrow from the rail at `at` to the node at `column`.
fn hang(row: &mut Vec<char>, at: usize, column: usize, ends: bool) {
    let is_left = at < column;
    let outside = if is_left {
        (at * CELLS).checked_sub(1)
    } else {
        Some(at * CELLS + 1)
    };
    let passed = outside.is_some_and(|cell| row.get(cell) == Some(&'─'));
    line(row, at, column);
    row[if is_left {
        column * CELLS - 1
    } else {
        column * CELLS + 1
    }] = if is_left { '▶' } else { '◀' };
    let glyph = match (is_left, ends, passed) {
        (_, false, true) => '┼',
        (_, true, true) => '┴',
        (true, false, false) => '├',
        (true, true, false) => '╰',
        (false, false, false) => '┤',
        (false, true, false) => '╯',
    };
    put(row, at, glyph);
}

fn put(row: &mut Vec<char>, column: usize, glyph: char) {
    let at = column * CELLS;
    if row.len() <= at {
        row.resize(at + 1, ' ');
    }
    row[at] = glyph;
}

/// A horizontal line between two columns; rails in between stay visible as crossed.
fn line(row: &mut Vec<char>, one: usize, other: usize) {
    let (from, to) = (one.min(other) * CELLS, one.max(other) * CELLS);
    if row.len() <= to {
        row.resize(to + 1, ' ');
    }
    for cell in &mut row[from + 1..to] {
        if *cell == ' ' {
            *cell = '─';
        }
    }
}

/// Ties the node at `column` to the rail at `at`.
fn tie(row: &mut Vec<char>, column: usize, at: usize, is_new: bool) {
    line(row, column, at);
    let passes = |row: &Vec<char>, cell: usize| row.get(cell) == Some(&'─');
    let both = passes(row, at * CELLS + 1) && at > 0 && passes(row, at * CELLS - 1);
    let glyph = match (at > column, is_new, both) {
        (_, false, true) => '┼',
        (_, true, true) => '┬',
        (true, false, false) => '┤',
        (true, true, false) => '╮',
        (false, _, false) => '├',
    };
    put(row, at, glyph);
    // Farther rails were not drawn yet when this one was: what it passes is tied, too.
    let nearer = if at > column {
        column + 1..at
    } else {
        at + 1..column
    };
    for between in nearer {
        let cell = &mut row[between * CELLS];
        *cell = match *cell {
            '┤' => '┼',
            '╮' => '┬',
            other => other,
        };
    }
}

/// Where lines leave a node that stands in the row above: to the left, to the right, and down.
const fn corner([left, right]: [bool; 2], down: bool) -> char {
    match (left, right, down) {
        (true, true, true) => '┼',
        (true, true, false) => '┴',
        (true, false, true) => '┤',
        (true, false, false) => '╯',
        (false, _, true) => '├',
        (false, _, false) => '╰',
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::graph;
    use super::*;

    fn rows(nodes: &[&str], edges: &[(usize, usize)]) -> String {
        let drawn = text(&graph(nodes, edges));
        drawn.split_once("\n\n").expect("a title").1.to_owned()
    }

    #[test]
    fn a_chain_is_one_rail() {
        assert_eq!(
            rows(&["a", "b", "c"], &[(0, 1), (1, 2)]),
            "  ●  a\n  │\n  ●  b\n  │\n  ●  c\n"
        );
    }

    #[test]
    fn a_fan_takes_two_rails_however_wide() {
        let edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)];
        assert_eq!(
            rows(&["s", "x", "y", "z", "j"], &edges),
            "  ●        s\n  ├─▶●──╮  x\n  ├─▶●──┤  y\n  ╰─▶●──┤  z\n        ●  j\n"
        );
    }

    #[test]
    fn nodes_without_an_edge_do_not_seem_joined() {
        assert_eq!(rows(&["a", "b"], &[]), "  ●  a\n\n  ●  b\n");
    }
}
