/** Asks the engine. Everything goes through `/api/v1`, below wherever this page is. */
import type { Problem } from './types';

const root = new URL('api/v1/', document.baseURI);

export function address(path: string, query: Record<string, string | string[] | undefined> = {}): string {
  const url = new URL(path, root);
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== '') url.searchParams.append(name, one);
    }
  }
  return url.href;
}

/** A part of a path. */
export const part = encodeURIComponent;

/** What the engine does not do, in its own words. */
export class Refusal extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

export interface Told<T> {
  value: T;
  /** What changing it later may be made to depend on. */
  tag: string | null;
}

interface Ask {
  query?: Record<string, string | string[] | undefined>;
  json?: unknown;
  bytes?: Uint8Array<ArrayBuffer>;
  ifMatch?: string | null;
  signal?: AbortSignal;
}

/** Positions of clocks are nanoseconds, and numbers of this language do not hold them: such are kept as text. */
const LONG_POSITION = /"(position|from|to)":(\d{16,})/g;

/** JSON as the engine writes it. A quote inside of a text has a stroke before it, so only real names match. */
export function parse<T>(text: string): T {
  return JSON.parse(text.replace(LONG_POSITION, '"$1":"$2"')) as T;
}

async function send<T>(method: string, path: string, ask: Ask): Promise<Told<T>> {
  const headers = new Headers({ accept: 'application/json' });
  if (ask.json !== undefined) headers.set('content-type', 'application/json');
  if (ask.bytes !== undefined) headers.set('content-type', 'application/octet-stream');
  if (ask.ifMatch) headers.set('if-match', ask.ifMatch);
  if (method === 'POST') headers.set('idempotency-key', key());
  let response: Response;
  try {
    response = await fetch(address(path, ask.query), {
      method,
      headers,
      body: ask.bytes ?? (ask.json === undefined ? null : JSON.stringify(ask.json)),
      ...(ask.signal ? { signal: ask.signal } : {}),
    });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === 'AbortError') throw cause;
    throw new Refusal({
      code: 'unreachable',
      title: 'The engine does not answer',
      status: 0,
      detail: 'It may have stopped, or the connection is gone. Nothing was changed as far as we know.',
    });
  }
  if (!response.ok) throw new Refusal(await problemOf(response));
  const text = await response.text();
  return { value: text ? parse<T>(text) : (null as T), tag: response.headers.get('etag') };
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    const said = (await response.json()) as Partial<Problem>;
    if (typeof said.detail === 'string' && typeof said.title === 'string') return said as Problem;
  } catch {
    // Something between us and the engine answered.
  }
  return {
    code: 'no_answer',
    title: `HTTP ${response.status}`,
    status: response.status,
    detail: 'The answer did not come from evermill; is there a proxy in between?',
  };
}

function key(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export const get = <T>(path: string, query: Ask['query'] = {}, signal?: AbortSignal): Promise<Told<T>> =>
  send<T>('GET', path, { query, ...(signal ? { signal } : {}) });
export const post = <T>(path: string, json?: unknown, query: Ask['query'] = {}): Promise<Told<T>> => send<T>('POST', path, { json, query });
export const del = <T>(path: string): Promise<Told<T>> => send<T>('DELETE', path, {});
export const put = <T>(path: string, ask: Ask): Promise<Told<T>> => send<T>('PUT', path, ask);

/** One sentence for whoever pressed the button. */
export function sentence(cause: unknown): string {
  if (cause instanceof Refusal) return `${cause.problem.title}: ${cause.problem.detail}`;
  return cause instanceof Error ? cause.message : String(cause);
}
