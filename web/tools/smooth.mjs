// How the page keeps up with a server of many DAGs, in a real browser: `node tools/smooth.mjs BROWSER URL DAG`. The caller
// lets events flow meanwhile. Prints rows of Markdown; milliseconds, unless a row says otherwise.
import { chromium } from 'playwright-core';

const [executablePath, url, dag] = process.argv.slice(2);
/** How long each view is watched. */
const WATCHED_MS = 10_000;

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
await page.addInitScript(() => {
  window.longest = [];
  new PerformanceObserver((list) => window.longest.push(...list.getEntries().map((one) => one.duration))).observe({ type: 'longtask' });
});

/**
 * Scrolls up and down all the while: the spans between frames, and tasks of over 50 ms that nothing else could interrupt.
 * What `act` does counts as well.
 */
async function watch(what, act = async () => {}) {
  const watched = page.evaluate(async (span) => {
    window.longest.length = 0;
    const frames = [];
    const begun = performance.now();
    let last = begun;
    while (last - begun < span) {
      const now = await new Promise(requestAnimationFrame);
      frames.push(now - last);
      last = now;
      window.scrollBy(0, Math.floor((now - begun) / 2_000) % 2 ? -15 : 15);
    }
    return { frames: frames.slice(1), long: window.longest };
  }, WATCHED_MS);
  await act();
  const { frames, long } = await watched;
  frames.sort((a, b) => a - b);
  const at = (part) => frames[Math.floor((frames.length - 1) * part)].toFixed(0);
  const most = long.length ? Math.max(...long).toFixed(0) : 'none';
  console.log(`| ${what}, scrolled for ${WATCHED_MS / 1_000} s: between frames | p50 ${at(0.5)}, p99 ${at(0.99)}, longest ${at(1)} |`);
  console.log(`| … tasks of over 50 ms | ${long.length}, longest ${most} |`);
}

async function seen(what, hash, ready) {
  const begun = performance.now();
  await page.goto(`${url}/#/${hash}`);
  if (hash) await page.reload();
  await ready();
  console.log(`| ${what}, until it shows what it has | ${(performance.now() - begun).toFixed(0)} |`);
}

try {
  await seen('overview', '', () => page.locator('main tbody tr').first().waitFor());
  await watch('overview');
  const more = page.getByRole('button', { name: /Show all .* runs/ });
  if (await more.count()) await watch('overview with every run, from when they are asked for', () => more.evaluate((button) => button.click()));
  await seen('run with its graph', `runs/${dag}`, () => page.locator('.node').first().waitFor());
  await watch('run with its graph');
  const heap = await page.evaluate(() => performance.memory?.usedJSHeapSize ?? 0);
  console.log(`| memory of the page's objects, MB | ${(heap / 1e6).toFixed(0)} |`);
} finally {
  await browser.close();
}
