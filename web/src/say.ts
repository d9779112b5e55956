/** Numbers and times as people read them, in their own time zone. */

const whole = new Intl.NumberFormat('en-US');
const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const clockWhole = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 });
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });
const whenLong = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });

export function count(value: number): string {
  return whole.format(value);
}

/** At most four digits, for places without room. */
export function short(value: number): string {
  if (value < 10_000) return whole.format(Math.round(value));
  if (value < 1_000_000) return `${(value / 1_000).toFixed(value < 100_000 ? 1 : 0)}k`;
  if (value < 1_000_000_000) return `${(value / 1_000_000).toFixed(1)}M`;
  return `${(value / 1_000_000_000).toFixed(1)}G`;
}

/** Events a second. */
export function rate(value: number): string {
  if (value === 0) return '0';
  return value < 10 ? value.toFixed(1) : short(value);
}

export function millis(value: number | null | undefined): string {
  if (value == null) return '–';
  if (value === 0) return '0 ms';
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1_000) return `${Math.round(value)} ms`;
  return seconds(value / 1_000);
}

/** How long something has lasted, in whole seconds at least. */
export function since(then: number, now: number): string {
  return seconds(Math.max(1, Math.round((now - then) / 1_000))).replace('.0', '');
}

function seconds(value: number): string {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 100) return `${Math.round(value)} s`;
  if (value < 5_400) return `${Math.round(value / 60)} min`;
  if (value < 172_800) return `${Math.round(value / 3_600)} h`;
  return `${Math.round(value / 86_400)} d`;
}

export function ago(then: number, now: number): string {
  const past = Math.max(0, now - then) / 1_000;
  return past < 2 ? 'just now' : `${seconds(past < 10 ? Math.round(past) : past).replace('.0', '')} ago`;
}

/** The time of day, with the day unless it is today. */
export function moment(at: number, now = Date.now()): string {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date(now).toDateString();
  return isToday ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

/** The time of day to the millisecond, with the day unless it is today. */
export function instant(at: number, now = Date.now()): string {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date(now).toDateString();
  return isToday ? clockWhole.format(date) : `${day.format(date)}, ${clockWhole.format(date)}`;
}

export function exactly(at: number): string {
  return whenLong.format(new Date(at));
}

/** A position: a number, or an instant where a clock counts nanoseconds. */
export function position(value: number | string): string {
  const number = Number(value);
  return number >= 1e17 ? moment(number / 1e6) : whole.format(number);
}

/** An event by its place. */
export function place(lane: string, at: number | string): string {
  return Number(at) >= 1e17 ? `${lane} ${position(at)}` : `${lane}@${at}`;
}

export function events(value: number, one = 'event', many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A version as people tell it apart. */
export function version(hash: string): string {
  return hash.slice(0, 8);
}

const REASONS: Record<string, [string, string]> = {
  failed: ['A task failed', 'It failed as often as its retries allow. Mend the cause or the payload, then retry.'],
  invalid: ['Invalid event', 'The event could not be read as the DAG wants it. Edit the payload, then retry.'],
  suspect_crash: [
    'Suspected of crashes',
    'It was under way at several unclean ends in a row. Look at the payload before you retry.',
  ],
  join_timeout: ['A join waited too long', 'What it waits for did not come in time. Retry once it is there.'],
  blocked: ['Blocked', 'An earlier event of the same order failed. Settle that one first.'],
  run_stopped: ['Run stopped', 'The run was stopped while this was under way.'],
};

/** What a reason of parking means, and what to do. */
export function reason(word: string): { name: string; cure: string } {
  const [name, cure] = REASONS[word] ?? [word, 'Look at the error, then retry or drop it.'];
  return { name, cure };
}
