// The real binary, a real browser, and what the tests ask of both.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** A condition that does not come true for so long is a failure. */
export const PATIENCE_MS = 30_000;

function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; \`cargo xtask test --only web\` sets it`);
  return value;
}
const binary = needed('EVERMILL_TEST_BIN');
const python = needed('EVERMILL_TEST_PYTHON');
const browserPath = needed('EVERMILL_TEST_BROWSER');

/** Orders come by HTTP; one with a negative amount fails in its first task. */
export const SHOP = `
import evermill


@evermill.task
def check(event):
    order = event.json()
    if order["amount"] < 0:
        raise ValueError(f"an amount of {order['amount']}")
    return order


@evermill.task.branch
def choose(check):
    return "courier" if check["amount"] > 100 else "post"


@evermill.task(pool="carriers")
def courier(check):
    return f"{check['number']} within the hour"


@evermill.task(pool="carriers")
def post(check):
    return f"{check['number']} tomorrow"


@evermill.task(trigger_rule="none_failed_min_one_success")
def thank(check):
    return "thanks"


@evermill.dag
def shop():
    check(evermill.webhook(name="orders")) >> choose() >> [courier(), post()] >> thank()
`;

/** Refunds come by HTTP and wait for somebody's word. */
export const REFUNDS = `
import evermill


@evermill.task
def ask(event):
    return event.json()


@evermill.task
def pay(order, answer):
    return f"{order['number']} {answer['yes']}"


@evermill.dag
def refunds():
    order = ask(evermill.webhook(name="orders"))
    pay(order, evermill.wait(signal="approve", after=order))
`;

/** An engine in a process of its own. */
export class Engine {
  static async start(command, { files = {}, folder = mkdtempSync(join(tmpdir(), 'evermill-web-')), listen = '127.0.0.1:0', more = [] } = {}) {
    const where = [];
    if (command === 'serve') {
      const dags = join(folder, 'dags');
      mkdirSync(dags, { recursive: true });
      for (const [name, text] of Object.entries(files)) writeFileSync(join(dags, name), text);
      where.push('--dags', dags, '--data-dir', join(folder, 'data'));
    }
    const child = spawn(binary, [command, ...where, '--listen', listen, ...more], {
      cwd: folder,
      env: { ...process.env, EVERMILL_PYTHON: python, TMPDIR: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const engine = new Engine(child, folder);
    await until('the engine says where it listens', () => {
      assert.equal(child.exitCode, null, `it ended: ${engine.output}`);
      engine.url = /http:\/\/127\.0\.0\.1:\d+/.exec(engine.output)?.[0];
      return engine.url;
    });
    return engine;
  }

  constructor(child, folder) {
    this.child = child;
    this.folder = folder;
    this.output = '';
    this.ended = new Promise((resolve) => child.once('exit', resolve));
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (this.output += data));
  }

  async ask(path, options = {}) {
    const response = await fetch(`${this.url}${path}`, options);
    const text = await response.text();
    assert.ok(response.ok, `${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  run(dag) {
    return this.ask(`/api/v1/runs/${dag}`);
  }

  push(order, dag = 'shop') {
    const headers = { 'content-type': 'application/json' };
    return this.ask(`/hooks/${dag}/orders`, { method: 'POST', body: JSON.stringify(order), headers });
  }

  /** Runs another command on its data directory; what it printed. */
  command(...words) {
    const ended = spawnSync(binary, [...words, '--data-dir', join(this.folder, 'data')], { encoding: 'utf8' });
    assert.equal(ended.status, 0, `${words.join(' ')}: ${ended.stderr}`);
    return ended.stdout + ended.stderr;
  }

  /** Ends it as an operator does; the folder stays. */
  async end() {
    this.child.kill('SIGTERM');
    await this.ended;
  }

  async close() {
    this.child.kill('SIGKILL');
    await this.ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits until `what` is so. */
export async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await holds();
    if (found) return found;
    if (Date.now() > end) assert.fail(`for ${PATIENCE_MS} ms it was not so that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function openBrowser() {
  return chromium.launch({
    executablePath: browserPath,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** A page that remembers everything that went wrong in it. */
export async function openPage(browser, engine, { width = 1280, height = 900, scheme = 'light', path = '#/' } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    reducedMotion: 'reduce',
    locale: 'en-GB',
    timezoneId: 'Europe/Berlin',
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && page.faults.push(message.text()));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', ({ effectiveDirective, blockedURI }) => {
      console.error(`kept out: ${effectiveDirective} ${blockedURI}`);
    });
  });
  await page.goto(`${engine.url}/${path}`);
  return page;
}

/** Nothing that axe finds, nothing that runs over the side, nothing in the console. */
export async function assertClean(page, what) {
  // As a tool of the browser's, which the page's own policy does not keep out.
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const { violations } = await globalThis.axe.run(document, { runOnly: rules });
    return violations.map(({ id, help, nodes }) => {
      const places = nodes.map((node) => `  ${node.html.slice(0, 200)} ${node.any.map((one) => one.message).join('; ')}`);
      return `${id}: ${help}\n${places.join('\n')}`;
    });
  });
  assert.equal(found.length, 0, `${what}: ${found.join('\n')}`);
  const [room, taken] = await page.evaluate(() => [
    document.documentElement.clientWidth,
    document.documentElement.scrollWidth,
  ]);
  assert.ok(taken <= room, `${what}: ${taken} pixels wide in a window of ${room}`);
  assert.deepEqual(page.faults, [], what);
}
