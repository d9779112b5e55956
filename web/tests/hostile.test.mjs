// What strangers write into events is shown as they wrote it, and does nothing.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Engine, openBrowser, openPage, until } from './harness.mjs';

/** Each sets `evil` if anything takes it for more than text. */
const TEXTS = [
  '<script>globalThis.evil = 1</script>',
  '<img src=x onerror="globalThis.evil = 1">',
  '"><svg onload=globalThis.evil=1>',
  `'-(globalThis.evil=1)-'`,
  '</script><script>globalThis.evil = 1</script>',
  '</textarea><img src=x onerror=globalThis.evil=1>',
  '<iframe srcdoc="<script>parent.evil = 1</script>"></iframe>',
  '<a href="javascript:globalThis.evil=1">javascript:globalThis.evil=1</a>',
  '<style>* { display: none }</style><link rel=stylesheet href=//evil.example>',
  `{{constructor.constructor('globalThis.evil=1')()}} \${globalThis.evil=1} {@html 1}`,
  '<math><mtext><table><mglyph><style><img src=x onerror=globalThis.evil=1>',
  '&lt;img src=x onerror=globalThis.evil=1&gt; <img/src/onerror=globalThis.evil=1>',
  '<form action=//evil.example><button autofocus onfocus=globalThis.evil=1>x',
  '\u202e<b onmouseover=globalThis.evil=1>\u0000\u2028\ufeff<base href=//evil.example>',
];
const IMAGE = TEXTS[1];

const EVIL = `
import logging

import evermill


@evermill.task
def tell(event, ctx):
    text = event.json()["text"]
    print("printed", text)
    logging.error("logged %s", text)
    ctx.progress({text: text})
    if event.json()["bad"]:
        raise ValueError(text)
    return {text: text}


@evermill.task
def heard(tell, answer):
    return tell


@evermill.dag
def evil():
    told = tell(evermill.webhook(name="orders"))
    heard(told, evermill.wait(signal="approve", after=told))
`;

let browser;
let engine;
let asked;

before(async () => {
  [browser, engine] = await Promise.all([openBrowser(), Engine.start('serve', { files: { 'evil.py': EVIL } })]);
  await until('it runs', async () => (await engine.ask('/api/v1/runs')).runs.some((run) => run.state === 'running'));
  for (const text of TEXTS) {
    for (const bad of [true, false]) await engine.push({ text, bad }, 'evil');
  }
  // From here on everybody shows a token.
  const token = /evermill_\w+/.exec(engine.command('token', 'create', IMAGE, '--role', 'admin'))[0];
  asked = { token, headers: { authorization: `Bearer ${token}` } };
  await until('all of it has come to rest', async () => {
    const run = await engine.ask('/api/v1/runs/evil', asked);
    return run.parked === TEXTS.length && run.awaiting === TEXTS.length;
  });
  const address = 'https://h.example/?x=<img%20src=x%20onerror=globalThis.evil=1>';
  await engine.ask('/api/v1/connections/evil', { ...asked, method: 'PUT', body: JSON.stringify({ address }) });
});
after(async () => {
  await browser?.close();
  await engine?.close();
});

/** A page whose user has logged in. */
async function known(path) {
  const page = await openPage(browser, engine, { path });
  await page.getByLabel('Token').fill(asked.token);
  await page.getByRole('button', { name: 'Go on' }).click();
  await page.getByRole('heading', { name: 'Who are you?' }).waitFor({ state: 'hidden' });
  // The browser tells of what was refused before.
  page.faults.length = 0;
  return page;
}

/** Nothing of a text became more than text, and the page's own policy had nothing to keep out. */
async function assertInert(page, what) {
  const found = await page.evaluate(() => {
    const made = ['img', 'iframe', 'math', 'base', 'form[action]', 'script:not([src])', 'style:not([data-vite-dev-id])', 'a[href^="javascript" i]', 'object', 'embed'];
    const handles = ['onerror', 'onload', 'onfocus', 'onmouseover', 'onclick'].map((name) => `[${name}]`);
    return {
      evil: globalThis.evil ?? null,
      made: [...document.querySelectorAll([...made, ...handles].join())].map((node) => node.outerHTML.slice(0, 200)),
    };
  });
  assert.deepEqual(found, { evil: null, made: [] }, what);
  // Of what is not there the browser tells by itself.
  assert.deepEqual(page.faults.filter((fault) => !fault.startsWith('Failed to load resource')), [], what);
}

test('s06 k06 no text of an event becomes more than text on any page', async () => {
  const page = await known('#/');
  const shows = async (path, texts, open = async () => {}) => {
    await page.goto(`${engine.url}/${path}`);
    await page.getByRole('heading').first().waitFor();
    await page.getByText(/Asking|Looking/).waitFor({ state: 'hidden' });
    await open();
    for (const text of texts) {
      await until(`${path} shows ${text}`, async () => {
        const values = await page.locator('textarea, input').evaluateAll((fields) => fields.map((field) => field.value));
        return [await page.locator('body').innerText(), ...values].some((shown) => shown.includes(text));
      });
    }
    await assertInert(page, path);
  };
  // As JSON writes them, quotes are escaped.
  const inJson = TEXTS.map((text) => JSON.stringify(text).slice(1, -1)).filter((text) => !/[\u0000\u2028]|\\u/.test(text));
  const plain = TEXTS.filter((text) => !/[\u0000\u2028]/.test(text));
  await shows('#/', []);
  await shows('#/runs/evil', []);
  await shows('#/runs/evil/parked', plain.slice(0, 3), async () => {
    await page.getByRole('button', { name: /ValueError/ }).first().click();
    await page.getByRole('textbox', { name: 'Value of the event' }).waitFor();
  });
  await shows('#/runs/evil/activations', ['globalThis.evil'], async () => {
    await page.getByRole('table').first().getByRole('columnheader').getByRole('button').last().click();
  });
  await shows('#/runs/evil/logs', plain.map((text) => `printed ${text}`));
  await shows('#/runs/evil/versions', []);
  await shows('#/approvals', inJson.slice(0, 3), async () => {
    await page.getByRole('button', { name: /globalThis/ }).first().click();
  });
  await shows('#/connections', ['h.example']);
  await shows('#/audit', [IMAGE]);
  await shows('#/access', [IMAGE]);
  for (const path of ['#/pools', '#/alerts']) await shows(path, []);
  for (const text of TEXTS) {
    for (const begin of ['#/', '#/runs/', '#/runs/evil/', '#/runs/evil/logs?task=', '#/runs/evil/activations?state=']) {
      await shows(`${begin}${encodeURIComponent(text)}`, []);
      page.faults.length = 0;
    }
  }
  await page.context().close();
});

test('s06 the policy of the page keeps out what would get in', async () => {
  const page = await openPage(browser, engine);
  await page.getByRole('heading', { name: 'Who are you?' }).waitFor();
  page.faults.length = 0;
  await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'globalThis.evil = 1';
    const far = document.createElement('script');
    far.src = 'https://evil.example/x.js';
    const image = document.createElement('div');
    image.innerHTML = '<img src="data:," onerror="globalThis.evil = 1"><iframe src="https://evil.example"></iframe>';
    document.body.append(script, far, image);
    fetch('https://evil.example/').catch(() => {});
  });
  const kept = (what) => page.faults.some((fault) => fault.startsWith(`kept out: ${what}`));
  for (const what of ['script-src-elem inline', 'script-src-elem https://evil.example', 'script-src-attr inline', 'frame-src https://evil.example', 'connect-src https://evil.example']) {
    await until(`${what} is kept out`, () => kept(what));
  }
  assert.equal(await page.evaluate(() => globalThis.evil ?? null), null);
  const cookies = await page.context().cookies();
  assert.ok(cookies.every(({ httpOnly, sameSite }) => httpOnly && sameSite === 'Strict'), JSON.stringify(cookies));
  await page.context().close();
});
