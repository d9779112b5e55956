/** What an operator should look at, the worst first: what it is, why, and what to do. */
import type { EngineLine, RunLine } from './api/types';
import { recent, type Samples } from './history';
import { runHref } from './route.svelte';
import { ago, events, rate } from './say';

export type Level = 'bad' | 'warn';

export interface Matter {
  /** The same matter has the same name from one moment to the next. */
  id: string;
  level: Level;
  run: RunLine | null;
  title: string;
  text: string;
  href: string | null;
  /** What the link does. */
  link: string;
}

/** Events that are under way and none of which settles for so long are stuck. */
const STUCK_MS = 10_000;
/** Whether a run falls behind is judged over so many samples. */
const TREND_SAMPLES = 30;
/** ... and it has to be by so many events. */
const TREND_EVENTS = 100;

export function ofEngine(engine: EngineLine): Matter[] {
  const found: Matter[] = [];
  const add = (id: string, level: Level, title: string, text: string): void => {
    found.push({ id, level, run: null, title, text, href: null, link: '' });
  };
  if (engine.stalled) add('stalled', 'bad', 'Nothing can be committed', engine.stalled);
  if (engine.workers.unavailable) add('workers', 'bad', 'No worker can be had', engine.workers.unavailable);
  for (const note of engine.notes) add(`note ${note}`, 'warn', 'Worth knowing', note);
  return found;
}

export function ofRun(run: RunLine, samples: Samples | undefined, now: number): Matter[] {
  const found: Matter[] = [];
  const add = (id: string, level: Level, title: string, text: string, href = runHref(run.run), link = 'Open the run'): void => {
    found.push({ id: `${run.run} ${id}`, level, run, title, text, href, link });
  };
  if (run.state === 'failed') {
    add('failed', 'bad', 'The run has failed', `See what failed, mend it, then switch the DAG on again: evermill start ${run.dag}`);
  }
  for (const text of run.trouble) add(text, 'bad', 'A source is in trouble', text);
  if (run.state === 'running' && samples && run.in_flight > 0 && now - samples.movedAt > STUCK_MS) {
    const text = `${events(run.in_flight)} under way, and nothing has settled for ${ago(samples.movedAt, now).replace(' ago', '')}. The graph shows which task holds them.`;
    add('stuck', 'bad', 'Nothing gets on', text, runHref(run.run), 'See the graph');
  }
  if (run.stale) add('stale', 'bad', 'No fresh data', 'A source made no progress for longer than its freshness= allows. Look whether whoever feeds it still does.');
  if (run.parked > 0) {
    const one = run.parked === 1;
    add('parked', 'warn', `${events(run.parked, 'activation')} parked`, `${one ? 'It' : 'They'} gave up after all retries and ${one ? 'is' : 'are'} kept. See why, mend the cause, then retry or drop ${one ? 'it' : 'them'}.`, runHref(run.run, 'parked'), 'See why');
  }
  if (run.awaiting > 0) {
    const one = run.awaiting === 1;
    add('awaiting', 'warn', `${events(run.awaiting, 'activation')} ${one ? 'waits' : 'wait'} for an answer`, `${one ? 'It goes' : 'They go'} on as soon as somebody, or another program, sends the signal.`, `#/approvals?run=${encodeURIComponent(run.run)}`, one ? 'See it' : 'See them');
  }
  if (run.state === 'paused') {
    const waits = run.behind ? `${events(run.behind)} wait meanwhile.` : 'Nothing is read meanwhile.';
    add('paused', 'warn', 'Paused', `Somebody paused this run. ${waits}`);
  }
  const falls = samples && run.state === 'running' ? trend(samples) : 0;
  if (falls > 0) {
    add('behind', 'warn', 'Falls behind', `${events(run.behind ?? 0)} wait to be read, ${rate(falls)} more each second. Give the slowest task more workers or a larger batch.`);
  }
  return found;
}

/** By how many events a second the lag grows; 0 unless it does so steadily. */
function trend(samples: Samples): number {
  const { at, behind } = samples;
  const first = at.length - TREND_SAMPLES;
  if (first < 0) return 0;
  const third = TREND_SAMPLES / 3;
  const parts = [0, 1, 2].map((n) => recent(behind.slice(first + n * third, first + (n + 1) * third), third));
  const [a = NaN, b = NaN, c = NaN] = parts;
  if (!(a < b && b < c && c - a > TREND_EVENTS)) return 0;
  return (c - a) / (((at.at(-1) ?? 0) - (at[first] ?? 0)) * (2 / 3) / 1_000);
}

export function worst(matters: readonly Matter[]): Level | 'good' {
  if (matters.some((matter) => matter.level === 'bad')) return 'bad';
  return matters.length > 0 ? 'warn' : 'good';
}
