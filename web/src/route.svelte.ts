/** Where we are: behind the `#`, so that the engine serves one page and a reverse proxy may put it anywhere. */
export type Tab = 'now' | 'activations' | 'parked' | 'logs' | 'versions';
/** Pages whose address is their name. */
const PLAIN = ['pools', 'alerts', 'connections', 'audit', 'access'] as const;
export type Route =
  | { page: 'overview' }
  | { page: (typeof PLAIN)[number] }
  | { page: 'approvals'; query: URLSearchParams }
  | { page: 'run'; run: string; tab: Tab; query: URLSearchParams }
  | { page: 'unknown'; path: string };

const TABS: Tab[] = ['now', 'activations', 'parked', 'logs', 'versions'];

export function read(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#/, '').split('?');
  const parts = path.split('/').filter(Boolean).map(decodeURIComponent);
  const [first, run, tab = 'now'] = parts;
  if (first === undefined) return { page: 'overview' };
  const plain = PLAIN.find((one) => one === first);
  if (parts.length === 1 && plain) return { page: plain };
  if (parts.length === 1 && first === 'approvals') return { page: first, query: new URLSearchParams(query) };
  const known = TABS.find((one) => one === tab);
  if (first === 'runs' && run !== undefined && known && parts.length <= 3) {
    return { page: 'run', run, tab: known, query: new URLSearchParams(query) };
  }
  return { page: 'unknown', path };
}

export const here = $state<{ route: Route }>({ route: read(location.hash) });

export function runHref(run: string, tab: Tab = 'now', query: Record<string, string> = {}): string {
  const text = new URLSearchParams(query).toString();
  const place = tab === 'now' ? '' : `/${tab}`;
  return `#/runs/${encodeURIComponent(run)}${place}${text ? `?${text}` : ''}`;
}

export function go(href: string): void {
  location.hash = href;
}

window.addEventListener('hashchange', () => {
  here.route = read(location.hash);
});
