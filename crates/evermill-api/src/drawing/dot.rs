//! For Graphviz, and for whatever else reads its language.

use std::fmt::Write as _;

use super::{Graph, Shape, shown};

/// All graphs as one digraph, a cluster each.
#[must_use]
pub fn dot(graphs: &[Graph]) -> String {
    let mut out = String::from(
        "digraph evermill {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"monospace\"];\n",
    );
    for (number, graph) in graphs.iter().enumerate() {
        cluster(&mut out, number, graph).expect("a String takes everything");
    }
    out.push_str("}\n");
    out
}

fn cluster(out: &mut String, number: usize, graph: &Graph) -> std::fmt::Result {
    writeln!(out, "  subgraph cluster_{number} {{")?;
    writeln!(
        out,
        "    label={};",
        quoted(std::iter::once(&graph.title).chain(&graph.details))
    )?;
    for (index, node) in graph.nodes.iter().enumerate() {
        let label = quoted(std::iter::once(&node.id).chain(&node.details));
        let look = match node.shape {
            Shape::Source => ", shape=cds, style=solid",
            Shape::Choice => ", style=diagonals",
            Shape::Mapped => ", peripheries=2",
            Shape::Noop => ", style=\"rounded,dashed\"",
            Shape::Task => "",
        };
        writeln!(out, "    n{number}_{index} [label={label}{look}];")?;
    }
    for edge in &graph.edges {
        let style = if edge.carries { "" } else { " [style=dashed]" };
        writeln!(
            out,
            "    n{number}_{} -> n{number}_{}{style};",
            edge.from, edge.to
        )?;
    }
    writeln!(out, "  }}")
}

/// A string of the language, a line for each text.
fn quoted<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let lines: Vec<String> = texts
        .map(|text| shown(text).replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    format!("\"{}\"", lines.join("\\n"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::graph;
    use super::*;

    #[test]
    fn what_an_author_writes_cannot_end_a_string() {
        let mut flow = graph(&["a", "b"], &[(0, 1)]);
        flow.nodes[0].details = vec!["topic \"x\\".into()];
        flow.edges[0].carries = false;
        let text = dot(&[flow]);
        assert!(text.contains(r#"n0_0 [label="a\ntopic \"x\\"];"#), "{text}");
        assert!(text.contains("n0_0 -> n0_1 [style=dashed];"), "{text}");
    }
}
