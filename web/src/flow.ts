/** How a run's graph looks at the moment: the state of each node, and what passes along each edge. */
import type { NodeView, RunDetail, SourceView, TaskView } from './api/types';
import { since } from './say';

/** What a worker is at may take its time, but should be looked at when it takes so long. */
export const LONG_MS = 30_000;

export type Shade = 'idle' | 'good' | 'busy' | 'warn' | 'bad';

export interface NodeState {
  id: string;
  kind: string;
  shade: Shade;
  /** The state in a word. */
  word: string;
  /** What there is to count here, in one line. */
  line: string;
  /** What ended here in a second, where that is known. */
  rate: number | null;
}

/** Attempts of tasks a second, from one detail to the next. */
export class Rates {
  #run = '';
  #at = 0;
  #ended = new Map<string, number>();
  #rates = new Map<string, number>();

  /** Smoothed over a few seconds. */
  of(detail: RunDetail, now: number): ReadonlyMap<string, number> {
    if (detail.run !== this.#run) {
      this.#run = detail.run;
      this.#ended.clear();
      this.#rates.clear();
      this.#at = 0;
    }
    const seconds = (now - this.#at) / 1_000;
    if (this.#at > 0 && seconds < 0.4) return this.#rates;
    const rates = new Map<string, number>();
    for (const task of detail.tasks) {
      const ended = task.succeeded + task.skipped + task.failed;
      const last = this.#ended.get(task.id);
      if (last !== undefined && this.#at > 0) {
        const rate = Math.max(0, ended - last) / seconds;
        const before = this.#rates.get(task.id);
        const smooth = before === undefined ? rate : before + (rate - before) * Math.min(1, seconds / 3);
        rates.set(task.id, smooth < 0.05 ? 0 : smooth);
      }
      this.#ended.set(task.id, ended);
    }
    this.#at = now;
    this.#rates = rates;
    return rates;
  }
}

const plural = (count: number, word: string): string => `${count.toLocaleString('en-US')} ${word}`;

function sourceState(source: SourceView | undefined, isActive: boolean): Omit<NodeState, 'id' | 'kind' | 'rate'> {
  if (!source) return { shade: 'idle', word: 'unknown', line: '' };
  const known = source.lanes.map((lane) => lane.behind).filter((behind) => behind != null);
  const behind = known.length > 0 ? known.reduce((sum, one) => sum + one, 0) : null;
  const line = behind === null ? plural(source.lanes.length, source.lanes.length === 1 ? 'lane' : 'lanes') : behind === 0 ? 'all read' : plural(behind, 'behind');
  const stopped = source.lanes.some((lane) => lane.stopped != null);
  if (source.degraded || stopped) return { shade: 'bad', word: stopped ? 'stopped' : 'in trouble', line };
  if (source.stale) return { shade: 'bad', word: 'stale', line };
  if (source.ended) return { shade: 'idle', word: 'ended', line };
  if (!source.ready) return { shade: 'busy', word: 'starting', line };
  return isActive ? { shade: behind ? 'busy' : 'good', word: 'listens', line } : { shade: 'idle', word: 'rests', line };
}

/** Events at a node that wait for their turn, and those that a worker has: what was sent off before one was free waits, too. */
export function under(node: NodeView, task: TaskView | undefined): { queued: number; running: number } {
  const running = task && node.kind !== 'noop' ? Math.min(node.running, task.running) : node.running;
  return { queued: node.queued + node.running - running, running };
}

/** What a node looks like now. `moving`: something ended here in the last seconds. */
export function nodeStates(detail: RunDetail, rates: ReadonlyMap<string, number>, now: number): NodeState[] {
  const sources = new Map(detail.sources.map((source) => [source.id, source]));
  const tasks = new Map(detail.tasks.map((task) => [task.id, task]));
  const parked = new Map<string, number>();
  for (const group of detail.parked_by) {
    if (group.task) parked.set(group.task, (parked.get(group.task) ?? 0) + group.count);
  }
  const isActive = detail.state === 'running' || detail.state === 'starting' || detail.state === 'draining';
  return detail.graph.nodes.map((node) => {
    const { id, kind } = node;
    if (kind === 'source') return { id, kind, rate: null, ...sourceState(sources.get(id), isActive) };
    const task: TaskView | undefined = tasks.get(id);
    const rate = task && kind !== 'noop' ? (rates.get(id) ?? null) : null;
    const { queued, running } = under(node, task);
    const ways = [
      [node.held, 'held'],
      [queued, 'queued'],
      [running, 'running'],
    ] as const;
    const kept = parked.get(id) ?? 0;
    const all = [[kept, 'parked'], ...ways] as const;
    // The node has room for two; the rest shows when it is chosen.
    const isLong = running > 0 && detail.longest?.task === id && now - detail.longest.since_ms > LONG_MS;
    const counts = all.filter(([count]) => count > 0).slice(0, 2).map(([count, word]) => plural(count, word));
    const done = task ? task.succeeded + task.skipped : 0;
    if (isLong) counts.splice(0, 2, `${plural(running, 'running')} for ${since(detail.longest?.since_ms ?? now, now)}`);
    const line = counts.length > 0 ? counts.join(' · ') : kind === 'noop' ? 'nothing to run' : done > 0 ? plural(done, 'done') : 'nothing yet';
    if (kept > 0) return { id, kind, rate, shade: 'bad', word: 'parked', line };
    if (isLong) return { id, kind, rate, shade: 'warn', word: 'runs for long', line };
    if (node.held > 0) return { id, kind, rate, shade: 'warn', word: 'held', line };
    if (running > 0 || (rate ?? 0) > 0) return { id, kind, rate, shade: 'good', word: 'runs', line };
    if (queued > 0) return { id, kind, rate, shade: 'busy', word: 'queued', line };
    return { id, kind, rate, shade: 'idle', word: 'idle', line };
  });
}

/** What passes an edge in a second, about: as much as the slower of its ends lets through. */
export function edgeRate(from: NodeState, to: NodeState): number {
  const ends = [from.rate, to.rate].filter((rate) => rate !== null);
  return ends.length === 0 ? 0 : Math.min(...ends);
}
