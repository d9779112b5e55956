/** What was seen of runs since this page was opened: a sample a second, for lines over time. */
import type { RunLine } from './api/types';

/** Samples of a run: ten minutes, or two when there are many runs. */
const SAMPLES_MAX = 600;
const SAMPLES_MAX_OF_MANY = 120;
const MANY = 100;
/** Two samples are at least so far apart; ticks of the engine come twice as often. */
const APART_MS = 900;
/** When nothing was told for so long, nothing has happened. */
const QUIET_MS = 1_900;

export interface Samples {
  at: number[];
  /** Events a second that settled, and that came in; NaN where we did not hear. */
  settled: number[];
  came: number[];
  p50: number[];
  p99: number[];
  /** Events to be read or under way. */
  backlog: number[];
  /** When it was first seen. */
  seenAt: number;
  /** When something was last seen to settle, or nothing was under way; 0 until then. */
  freeAt: number;
}

interface Last {
  settled: number;
  came: number;
}

export function settledOf(run: RunLine): number {
  return run.done + run.skipped + run.parked + run.dropped;
}

export class History {
  readonly runs = new Map<string, Samples>();
  #last = new Map<string, Last>();
  #sampledAt = 0;

  /** After what the engine told at `at`; says whether there is a new sample. */
  told(runs: ReadonlyMap<string, RunLine>, at: number): boolean {
    return at - this.#sampledAt >= APART_MS && this.#sample(runs, at);
  }

  /** When time has passed and nothing was told. */
  quiet(runs: ReadonlyMap<string, RunLine>, now: number): boolean {
    return this.#sampledAt > 0 && now - this.#sampledAt >= QUIET_MS && this.#sample(runs, now);
  }

  /** What happened from here on until we hear again is not known. */
  lost(): void {
    this.#last.clear();
    this.#sampledAt = 0;
    for (const samples of this.runs.values()) {
      if (samples.at.length === 0) continue;
      samples.at.push((samples.at.at(-1) ?? 0) + 1);
      for (const line of [samples.settled, samples.came, samples.p50, samples.p99, samples.backlog]) line.push(NaN);
    }
  }

  #sample(runs: ReadonlyMap<string, RunLine>, at: number): boolean {
    const seconds = (at - this.#sampledAt) / 1_000;
    const isFirst = this.#sampledAt === 0;
    this.#sampledAt = at;
    const most = runs.size > MANY ? SAMPLES_MAX_OF_MANY : SAMPLES_MAX;
    for (const run of runs.values()) {
      const last = this.#last.get(run.run);
      const settled = settledOf(run);
      this.#last.set(run.run, { settled, came: run.in });
      let samples = this.runs.get(run.run);
      if (!samples) {
        samples = { at: [], settled: [], came: [], p50: [], p99: [], backlog: [], seenAt: at, freeAt: 0 };
        this.runs.set(run.run, samples);
      }
      if (run.in_flight === 0 || (last && settled !== last.settled)) samples.freeAt = at;
      if (isFirst || !last) continue;
      samples.at.push(at);
      // What is parked and then retried is under way again: counters may go back.
      samples.settled.push(Math.max(0, settled - last.settled) / seconds);
      samples.came.push(Math.max(0, run.in - last.came) / seconds);
      samples.p50.push(run.latency_ms.p50 ?? NaN);
      samples.p99.push(run.latency_ms.p99 ?? NaN);
      samples.backlog.push((run.behind ?? 0) + run.in_flight);
      if (samples.at.length > most) {
        const { at, settled, came, p50, p99, backlog } = samples;
        for (const line of [at, settled, came, p50, p99, backlog]) line.splice(0, line.length - most);
      }
    }
    for (const run of this.runs.keys()) {
      if (!runs.has(run)) {
        this.runs.delete(run);
        this.#last.delete(run);
      }
    }
    return true;
  }
}

/** Mean of the last few samples: what happens now, without the jitter. */
export function recent(values: readonly number[], samples = 5): number {
  const last = values.slice(-samples).filter((value) => !Number.isNaN(value));
  return last.length === 0 ? NaN : last.reduce((sum, value) => sum + value, 0) / last.length;
}
