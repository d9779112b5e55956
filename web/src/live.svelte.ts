/** What the engine tells, as it tells it: one stream of events for the whole page. */
import { address, del, get, parse, Refusal } from './api/client';
import type { EngineLine, PoolView, RunDetail, RunLine, Session, TokenMade } from './api/types';
import { History } from './history';

/** How soon a stream that was refused is asked for again; doubled up to the second. */
const AGAIN_MS = [500, 8_000] as const;
/** A stream that says nothing for so long is gone, whatever the connection pretends: the engine speaks every 10 s. */
const SILENT_MS = 25_000;

export type Link = 'connecting' | 'live' | 'lost' | 'locked';

interface Wants {
  run: string | null;
  pools: boolean;
}

class Live {
  link = $state<Link>('connecting');
  /** Why there is no stream, in the engine's words. */
  why = $state<string | null>(null);
  /** Who looks; known once the engine has said so. */
  session = $state.raw<Session | null>(null);
  engine = $state.raw<EngineLine | null>(null);
  runs = $state.raw<ReadonlyMap<string, RunLine>>(new Map());
  /** All of the run that is looked at. */
  detail = $state.raw<RunDetail | null>(null);
  isMissing = $state(false);
  pools = $state.raw<PoolView[] | null>(null);
  /** A token that was just made. It is shown until somebody has kept it, also when the page is locked by it. */
  made = $state.raw<TokenMade | null>(null);
  /** The engine's clock, about. */
  now = $state(Date.now());
  /** Changes with every sample of `history`. */
  beat = $state(0);
  readonly history = new History();

  #wants: Wants = { run: null, pools: false };
  #source: EventSource | null = null;
  #heardAt = 0;
  #offset = 0;
  #again = 0;
  #wait: number = AGAIN_MS[0];
  /** What a tick changes is shown when the tick is complete. */
  #fresh: Map<string, RunLine> | null = null;

  constructor() {
    void this.#who();
    setInterval(() => this.#second(), 1_000);
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.#second();
    });
  }

  /** Listens for the overview, and for this beside it. */
  want(wants: Wants): void {
    const isSame = wants.run === this.#wants.run && wants.pools === this.#wants.pools;
    if (isSame && this.#source) return;
    if (wants.run !== this.#wants.run) {
      this.detail = null;
      this.isMissing = false;
    }
    if (!wants.pools) this.pools = null;
    this.#wants = wants;
    this.open();
  }

  open(): void {
    clearTimeout(this.#again);
    this.#source?.close();
    const query: Record<string, string> = {};
    if (this.#wants.run !== null) query.run = this.#wants.run;
    if (this.#wants.pools) query.pools = 'true';
    const source = new EventSource(address('stream', query));
    this.#source = source;
    this.#heardAt = Date.now();
    const on = <T>(name: string, take: (data: T) => void): void => {
      source.addEventListener(name, (event) => {
        if (source !== this.#source) return;
        this.#heardAt = Date.now();
        take(parse<T>((event as MessageEvent<string>).data));
      });
    };
    on<{ engine: EngineLine; runs: RunLine[] }>('snapshot', ({ engine, runs }) => {
      this.engine = engine;
      this.#fresh = new Map(runs.map((run) => [run.run, run]));
    });
    on<EngineLine>('engine', (engine) => (this.engine = engine));
    on<RunLine>('run', (run) => this.#next().set(run.run, run));
    on<{ run: string }>('gone', ({ run }) => this.#next().delete(run));
    on<RunDetail>('detail', (detail) => {
      this.detail = detail;
      this.isMissing = false;
    });
    on<unknown>('missing', () => (this.isMissing = true));
    on<PoolView[]>('pools', (pools) => (this.pools = pools));
    on<{ at_ms: number }>('told', ({ at_ms }) => this.#told(at_ms));
    source.onerror = () => {
      if (source === this.#source) this.#broken();
    };
  }

  #next(): Map<string, RunLine> {
    this.#fresh ??= new Map(this.runs);
    return this.#fresh;
  }

  #told(at: number): void {
    this.link = 'live';
    this.why = null;
    this.#wait = AGAIN_MS[0];
    this.#offset = at - Date.now();
    this.now = at;
    if (this.#fresh) {
      this.runs = this.#fresh;
      this.#fresh = null;
    }
    if (this.history.told(this.runs, at)) this.beat += 1;
  }

  #second(): void {
    if (this.link === 'live') {
      this.now = Date.now() + this.#offset;
      if (this.history.quiet(this.runs, this.now)) this.beat += 1;
    }
    if (this.#source && this.link !== 'locked' && Date.now() - this.#heardAt > SILENT_MS) this.#lose(0);
  }

  #broken(): void {
    // The browser would come back by itself, some seconds later; whether the engine is gone or who looks may not look any more
    // is known at once.
    this.#lose(this.link === 'lost' ? this.#wait : 0);
  }

  #lose(after: number): void {
    this.#source?.close();
    this.#source = null;
    if (this.link === 'live') this.history.lost();
    // Who has not shown a token yet has lost nothing.
    if (this.link !== 'connecting' || after > 0) this.link = 'lost';
    this.#wait = Math.min(this.#wait * 2, AGAIN_MS[1]);
    clearTimeout(this.#again);
    this.#again = window.setTimeout(() => void this.#ask(), after);
  }

  /** A stream does not say why it was refused; an ordinary request does. */
  async #ask(): Promise<void> {
    try {
      await get('runs', { limit: '0' });
      this.open();
    } catch (cause) {
      if (cause instanceof Refusal && cause.problem.status === 401) {
        this.#lock(this.runs.size > 0 ? 'You were logged out: the token has expired or was taken back, or twelve hours are over.' : null);
        return;
      }
      this.why = cause instanceof Refusal ? cause.problem.detail : null;
      this.#lose(this.#wait);
    }
  }

  /** What was seen belongs to whoever was logged in. */
  #lock(why: string | null): void {
    clearTimeout(this.#again);
    this.#source?.close();
    this.#source = null;
    this.link = 'locked';
    this.why = why;
    this.engine = null;
    this.runs = new Map();
    this.detail = null;
    this.pools = null;
  }

  async #who(): Promise<void> {
    try {
      this.session = (await get<Session>('session')).value;
    } catch {
      // The stream says what is wrong.
    }
  }

  /** After somebody has shown a token. */
  unlock(session: Session): void {
    this.session = session;
    this.link = 'connecting';
    this.open();
  }

  async leave(): Promise<void> {
    this.session = (await del<Session>('session')).value;
    this.#lock(null);
  }

  /** Whether who looks may change what belongs to runs; the engine decides again. */
  get mayOperate(): boolean {
    return this.session === null || this.session.role === 'operator' || this.session.role === 'admin';
  }

  /** Whether who looks may change what belongs to the engine. */
  get mayAdminister(): boolean {
    return this.session === null || (this.session.role === 'admin' && !this.session.dags);
  }
}

export const live = new Live();
