/** What an operator should look at, the worst first: what it is, why, and what to do. */
import type { EngineLine, NoteView, RunLine } from './api/types';
import { LONG_MS } from './flow';
import { recent, type Samples } from './history';
import { runHref } from './route.svelte';
import { events, rate, since } from './say';

export type Level = 'bad' | 'warn';

export interface Matter {
  /** The same matter has the same name from one moment to the next. */
  id: string;
  /** What is alike in other runs. */
  kind: string;
  level: Level;
  run: RunLine | null;
  title: string;
  text: string;
  href: string | null;
  /** What the link does. */
  link: string;
}

/** Events that no worker is at, and none of which settles for so long, are stuck. */
const STUCK_MS = 10_000;
/** Whether a run falls behind is judged over so many samples. */
const TREND_SAMPLES = 30;
/** ... and it has to be by so many events. */
const TREND_EVENTS = 100;

export function ofEngine(engine: EngineLine): Matter[] {
  const found: Matter[] = [];
  const add = (id: string, level: Level, title: string, text: string): void => {
    found.push({ id, kind: id, level, run: null, title, text, href: null, link: '' });
  };
  if (engine.stalled) add('stalled', 'bad', 'Nothing can be committed', engine.stalled);
  if (engine.workers.unavailable) add('workers', 'bad', 'No worker can be had', engine.workers.unavailable);
  return [...found, ...engine.notes.map(ofNote)];
}

const NOTES: Record<NoteView['kind'], string> = {
  folder_unreadable: 'The folder of DAGs cannot be read',
  file_in_error: 'A DAG file is broken',
  not_served: 'A DAG is not served as its file says',
  retired: 'The file of a DAG is gone',
  events_left: 'Events wait for a source that is gone',
};

export function ofNote({ kind, text }: NoteView): Matter {
  return { id: `note ${text}`, kind, level: 'warn', run: null, title: NOTES[kind], text, href: null, link: '' };
}

/** Who has kept a worker from others for a while, the longest first; nothing when nobody has. */
export function keepers(runs: Iterable<RunLine>, now: number): string {
  const long = [...runs].flatMap(({ dag, longest }) => (longest && now - longest.since_ms > STUCK_MS ? [{ dag, ...longest }] : []));
  long.sort((a, b) => a.since_ms - b.since_ms);
  return long.slice(0, 2).map(({ dag, task, since_ms }) => `${task} of ${dag} (for ${since(since_ms, now)})`).join(' and ');
}

/** `kept` is what {@link keepers} says. */
export function ofRun(run: RunLine, samples: Samples | undefined, now: number, kept: string): Matter[] {
  const found: Matter[] = [];
  const add = (kind: string, level: Level, title: string, text: string, href = runHref(run.run), link = 'Open the run', id = kind): void => {
    found.push({ id: `${run.run} ${id}`, kind, level, run, title, text, href, link });
  };
  if (run.state === 'failed') {
    add('failed', 'bad', 'The run has failed', `See what failed, mend it, then switch the DAG on again: evermill start ${run.dag}`);
  }
  for (const text of run.trouble) add('trouble', 'bad', 'A source is in trouble', text, runHref(run.run), 'Open the run', text);
  if (run.state === 'running' && samples && run.in_flight > 0) {
    const free = Math.max(samples.freeAt, run.progress_ms ?? 0);
    const { longest } = run;
    if (longest) {
      const from = Math.max(free, longest.since_ms);
      const text = `A worker has been at ${longest.task} for ${since(longest.since_ms, now)}, and nothing has settled for ${since(from, now)}; ${events(run.in_flight)} under way. If that is more than it should take, see its log; timeout= on the task would end it.`;
      if (now - from > LONG_MS) add('long', 'warn', 'A task does not end', text, runHref(run.run), 'See the graph');
    } else if (run.waiting === 0 && run.awaiting === 0) {
      // What waits for a time or a word gets on by itself.
      const from = Math.max(free, samples.seenAt);
      const text = `${events(run.in_flight)} under way and with no worker; nothing has settled for ${since(from, now)}. ${kept ? `Workers are kept by ${kept}.` : 'The graph shows where they wait: a pool may be full, or a rate= hold them back.'}`;
      if (now - from > STUCK_MS) add('stuck', 'bad', 'Nothing gets on', text, runHref(run.run), 'See the graph');
    }
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
    add('behind', 'warn', 'Falls behind', `${events((run.behind ?? 0) + run.in_flight)} are to be read or under way, ${rate(falls)} more each second. Give the slowest task more workers or a larger batch.`);
  }
  return found;
}

/** By how many events a second there is more to be done; 0 unless it does so steadily. */
function trend(samples: Samples): number {
  const { at, backlog } = samples;
  const first = at.length - TREND_SAMPLES;
  if (first < 0) return 0;
  const third = TREND_SAMPLES / 3;
  const parts = [0, 1, 2].map((n) => recent(backlog.slice(first + n * third, first + (n + 1) * third), third));
  const [a = NaN, b = NaN, c = NaN] = parts;
  if (!(a < b && b < c && c - a > TREND_EVENTS)) return 0;
  return (c - a) / (((at.at(-1) ?? 0) - (at[first] ?? 0)) * (2 / 3) / 1_000);
}

export function worst(matters: readonly Matter[]): Level | 'good' {
  if (matters.some((matter) => matter.level === 'bad')) return 'bad';
  return matters.length > 0 ? 'warn' : 'good';
}

/** Matters that are alike in more runs than these are told together. */
const ALIKE = 3;

/** What is alike in many runs, or one matter alone. */
export interface Group {
  first: Matter;
  all: Matter[];
}

/** In the order of the first of each. */
export function together(matters: readonly Matter[]): Group[] {
  const kinds = new Map<string, Group>();
  for (const matter of matters) {
    const kind = `${matter.level} ${matter.run ? matter.kind : matter.id}`;
    const known = kinds.get(kind);
    if (known) known.all.push(matter);
    else kinds.set(kind, { first: matter, all: [matter] });
  }
  return [...kinds.values()].flatMap((group) => (new Set(group.all.map(({ run }) => run?.run)).size > ALIKE ? [group] : group.all.map((one) => ({ first: one, all: [one] }))));
}
