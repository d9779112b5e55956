/** Where the nodes of a graph are drawn. */
import { graphlib, layout } from '@dagrejs/dagre';

export const NODE_WIDTH = 196;
export const NODE_HEIGHT = 64;
const MARGIN = 12;

export interface Place {
  x: number;
  y: number;
}

export interface Plan {
  width: number;
  height: number;
  /** The top left corner of each node, by its place in the graph. */
  nodes: Place[];
  /** The points that each edge goes through. */
  edges: Place[][];
}

export function plan(count: number, edges: readonly (readonly number[])[], isUpright: boolean): Plan {
  if (count === 0) return { width: 0, height: 0, nodes: [], edges: [] };
  const graph = new graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: isUpright ? 'TB' : 'LR', nodesep: isUpright ? 16 : 22, ranksep: isUpright ? 44 : 64 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (let node = 0; node < count; node += 1) {
    graph.setNode(String(node), { width: NODE_WIDTH, height: NODE_HEIGHT });
  }
  edges.forEach(([from, to], n) => graph.setEdge(String(from), String(to), {}, String(n)));
  layout(graph);
  const nodes = Array.from({ length: count }, (_, node) => {
    const { x, y } = graph.node(String(node)) as Place;
    return { x: x - NODE_WIDTH / 2, y: y - NODE_HEIGHT / 2 };
  });
  const lines = edges.map(([from, to], n) => (graph.edge(String(from), String(to), String(n)) as { points: Place[] }).points);
  // Lines that go around nodes may run outside of what holds the nodes.
  const ends = [...nodes, ...nodes.map(({ x, y }) => ({ x: x + NODE_WIDTH, y: y + NODE_HEIGHT })), ...lines.flat()];
  const left = Math.min(...ends.map(({ x }) => x)) - MARGIN;
  const top = Math.min(...ends.map(({ y }) => y)) - MARGIN;
  const moved = ({ x, y }: Place): Place => ({ x: x - left, y: y - top });
  return {
    width: Math.max(...ends.map(({ x }) => x)) - left + MARGIN,
    height: Math.max(...ends.map(({ y }) => y)) - top + MARGIN,
    nodes: nodes.map(moved),
    edges: lines.map((points) => points.map(moved)),
  };
}

/** A smooth line through points. */
export function curve(points: readonly Place[], isUpright: boolean): string {
  const [first] = points;
  if (!first) return '';
  let text = `M${first.x},${first.y}`;
  for (let n = 1; n < points.length; n += 1) {
    const a = points[n - 1] as Place;
    const b = points[n] as Place;
    const half = isUpright ? (b.y - a.y) / 2 : (b.x - a.x) / 2;
    text += isUpright
      ? `C${a.x},${a.y + half} ${b.x},${b.y - half} ${b.x},${b.y}`
      : `C${a.x + half},${a.y} ${b.x - half},${b.y} ${b.x},${b.y}`;
  }
  return text;
}
