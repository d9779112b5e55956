// What an operator sees and does, in a real browser, on the real binary with events that flow.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { assertClean, Engine, openBrowser, openPage, REFUNDS, SHOP, until } from './harness.mjs';

/** Fails once, and waits for a file when it is told to. */
const SLOW = `
import os
import time

import evermill


@evermill.task(retries=1, retry_delay=0.01)
def hold(event, ctx):
    if ctx.try_number == 1 and not event.json().get("waits"):
        raise ValueError("not at once")
    while event.json().get("waits") and not os.path.exists(os.environ["TMPDIR"] + "/go"):
        time.sleep(0.02)


@evermill.dag
def slow():
    hold(evermill.webhook(name="orders"))
`;

let browser;
let shop;

before(async () => {
  [browser, shop] = await Promise.all([openBrowser(), Engine.start('serve', { files: { 'shop.py': SHOP } })]);
  await until('the shop is open', async () => {
    const { runs } = await shop.ask('/api/v1/runs');
    return runs.some((run) => run.dag === 'shop' && run.state === 'running');
  });
});
after(async () => {
  await browser?.close();
  await shop?.close();
});

/** What of an order comes to be, one after another until `enough`. */
async function flow(from, enough) {
  for (let number = from; ; number += 1) {
    await shop.push({ number, amount: (number * 37) % 200 });
    if (await enough()) return;
  }
}

test('an empty engine says what to do first', async () => {
  const engine = await Engine.start('serve');
  try {
    const page = await openPage(browser, engine);
    await page.getByRole('heading', { name: 'No DAG is switched on yet' }).waitFor();
    await assertClean(page, 'the empty overview');
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('the overview says that data flows, and its numbers move by themselves', async () => {
  const page = await openPage(browser, shop);
  await page.getByRole('heading', { level: 1, name: /Nothing|Listening|quiet/ }).waitFor();
  const flows = page.getByRole('heading', { level: 1, name: 'Data flows' });
  await flow(1, () => flows.isVisible());
  await page.getByRole('link', { name: 'shop', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'shop' }).waitFor();
  const counters = page.getByRole('group', { name: 'Events by what became of them' });
  const number = async (name) => Number((await counters.locator('.part', { hasText: name }).locator('.value').textContent()).replaceAll(',', ''));
  const first = await number('events in');
  await shop.push({ number: 900, amount: 5 });
  await until('the counter moves', async () => (await number('events in')) > first);
  await until('everything has settled', async () => (await shop.run('shop')).in_flight === 0);
  const told = await shop.run('shop');
  await until('the page says what the API says', async () => (await number('done')) === told.done);
  // The parts are the whole.
  const parts = await Promise.all(['done', 'skipped', 'in flight', 'parked', 'dropped'].map(number));
  assert.equal(parts.reduce((sum, one) => sum + one, 0), await number('events in'));
  await page.context().close();
});

test('the graph has every node, and a node tells more when it is chosen by keyboard', async () => {
  const page = await openPage(browser, shop, { path: '#/runs/shop' });
  for (const name of ['source orders', 'task check', 'branch choose', 'task courier', 'task post', 'task thank']) {
    await page.getByRole('button', { name: new RegExp(`^${name}\\b`) }).waitFor();
  }
  await page.getByRole('button', { name: /^task check\b/ }).focus();
  await page.keyboard.press('Enter');
  const about = page.getByRole('complementary', { name: 'About check' });
  await about.getByText('succeeded').waitFor();
  await page.context().close();
});

test('pausing asks first, is done through the API, and can be taken back', async () => {
  const page = await openPage(browser, shop, { path: '#/runs/shop' });
  await page.getByRole('button', { name: 'Pause' }).click();
  const dialog = page.getByRole('dialog', { name: 'Pause shop?' });
  await assertClean(page, 'the question');
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  assert.equal((await shop.run('shop')).state, 'running', 'who says no changes nothing');
  await page.getByRole('button', { name: 'Pause' }).click();
  await dialog.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('Somebody paused this run').waitFor();
  assert.equal((await shop.run('shop')).state, 'paused');
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('button', { name: 'Pause' }).waitFor();
  await until('it runs again', async () => (await shop.run('shop')).state === 'running');
  await page.context().close();
});

test('stopping wants the name to be typed', async () => {
  const page = await openPage(browser, shop, { path: '#/runs/shop' });
  await page.getByRole('button', { name: 'Stop' }).click();
  const dialog = page.getByRole('dialog', { name: 'Stop shop for good?' });
  assert.ok(await dialog.getByRole('button', { name: 'Stop for good' }).isDisabled());
  await dialog.getByRole('textbox').fill('shop');
  assert.ok(await dialog.getByRole('button', { name: 'Stop for good' }).isEnabled());
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  assert.notEqual((await shop.run('shop')).state, 'stopped');
  await page.context().close();
});

test('what is parked can be understood, mended and run again', async () => {
  for (const amount of [-3, -4]) await shop.push({ number: amount, amount });
  await until('two are parked', async () => (await shop.run('shop')).parked === 2);
  const page = await openPage(browser, shop);
  await page.getByText('2 activations parked').waitFor();
  await page.getByRole('link', { name: /See why/ }).click();
  await page.getByRole('link', { name: '2 A task failed in check' }).waitFor();
  await page.getByRole('button', { name: /ValueError: an amount of -3/ }).click();
  const value = page.getByRole('textbox', { name: 'Value of the event' });
  await until('the payload is there', async () => (await value.inputValue()).includes('-3'));
  await assertClean(page, 'the parked page');
  await value.fill('{"number": -3, "amount": 3');
  await page.getByText('It was JSON and is not any more.').waitFor();
  await value.fill('{"number": -3, "amount": 3}');
  await page.getByRole('button', { name: 'Save the value' }).click();
  await page.getByText('It stays parked until you retry it.').waitFor();
  await page.getByRole('button', { name: 'Retry', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Retry 1' }).click();
  await until('one is parked', async () => (await shop.run('shop')).parked === 1);
  await page.getByRole('button', { name: /^Drop all/ }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Drop 1' }).click();
  await page.getByText('Nothing is parked').waitFor();
  const told = await shop.run('shop');
  assert.deepEqual([told.parked, told.dropped], [0, 1]);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test('a mended payload that somebody else has changed meanwhile is not written over', async () => {
  await shop.push({ number: 70, amount: -7 });
  await until('it is parked', async () => (await shop.run('shop')).parked === 1);
  const page = await openPage(browser, shop, { path: '#/runs/shop/parked' });
  await page.getByRole('button', { name: /an amount of -7/ }).click();
  const value = page.getByRole('textbox', { name: 'Value of the event' });
  await until('the payload is there', async () => (await value.inputValue()).includes('-7'));
  const { entries } = await shop.ask('/api/v1/runs/shop/parked');
  const other = '{"number": 70, "amount": 8}';
  await shop.ask(`/api/v1/runs/shop/parked/payload?id=${encodeURIComponent(entries[0].id)}&event=0`, { method: 'PUT', body: other });
  await value.fill('{"number": 70, "amount": 9}');
  await page.getByRole('button', { name: 'Save the value' }).click();
  await page.getByText('Somebody else has changed it meanwhile').waitFor();
  await page.getByRole('button', { name: 'Load again' }).click();
  await until('it shows what is there', async () => (await value.inputValue()) === other);
  await shop.ask('/api/v1/runs/shop/parked/retry', { method: 'POST', body: '{}' });
  await until('it has settled', async () => (await shop.run('shop')).parked === 0);
  await page.context().close();
});

test('the grid shows how tasks of recent activations ended, and one of them whole', async () => {
  await shop.push({ number: 4711, amount: 150 });
  const page = await openPage(browser, shop, { path: '#/runs/shop/activations' });
  const grid = page.getByRole('table').first();
  await grid.getByRole('rowheader', { name: 'courier' }).waitFor();
  const column = grid.getByRole('columnheader').getByRole('button').last();
  await until('the newest is there', async () => {
    await column.click();
    return page.getByText('"number": 4711').isVisible();
  });
  await page.getByText('4711 within the hour').waitFor();
  await assertClean(page, 'the activations page');
  await page.context().close();
});

test('activations are found by a text, and older ones page by page', async () => {
  for (let number = 5000; number < 5020; number++) await shop.push({ number, amount: 150 });
  await until('all have settled', async () => (await shop.ask('/api/v1/runs/shop/activations?text=5019')).activations.length === 1);
  const page = await openPage(browser, shop, { path: '#/runs/shop/activations', width: 390 });
  const columns = page.getByRole('table').first().getByRole('columnheader').getByRole('button');
  const newest = () => columns.last().textContent();
  await columns.first().waitFor();
  const first = await newest();
  await page.getByRole('button', { name: 'Older' }).click();
  await until('older ones are there', async () => (await newest()) !== first);
  assert.equal(await page.getByLabel('Follow').count(), 0, 'they stay while they are looked at');
  await page.getByRole('button', { name: 'Newest' }).click();
  await until('the newest are back', async () => (await newest()) === first);
  await page.getByLabel('Text in an event, an error or a result').fill('5007 within');
  await until('one is left', async () => (await columns.count()) === 1);
  await columns.click();
  await page.getByText('5007 within the hour').waitFor();
  await page.getByLabel('Text in an event, an error or a result').fill('nobody wrote this');
  await page.getByText('Nothing that is remembered matches.').waitFor();
  await page.context().close();
});

test('what waits for an answer is found from the overview, looked at and answered, each by itself', async () => {
  const engine = await Engine.start('serve', { files: { 'refunds.py': REFUNDS } });
  try {
    await until('it runs', async () => (await engine.ask('/api/v1/runs')).runs.some((run) => run.state === 'running'));
    const page = await openPage(browser, engine, { path: '#/approvals' });
    await page.getByText('Nothing waits for an answer').waitFor();
    await assertClean(page, 'no approvals');
    for (const number of [1, 2, 3]) await engine.push({ number }, 'refunds');
    await page.getByRole('link', { name: /^Approvals 3/ }).waitFor();
    await page.goto(`${engine.url}/#/`);
    await page.getByText('3 activations wait for an answer').waitFor();
    await page.getByRole('link', { name: /See them/ }).click();
    const second = page.getByRole('button', { name: /"number":\s?2/ });
    await second.focus();
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Fill in yes' }).click();
    for (const [width, height] of [[390, 844], [1280, 900]]) {
      await page.setViewportSize({ width, height });
      await assertClean(page, `an approval at ${width}`);
    }
    await page.getByRole('textbox').fill('{"yes"');
    await page.getByText('This is not JSON.').waitFor();
    await page.getByRole('textbox').fill('{"yes": true}');
    // Somebody else is faster.
    const { entries } = await engine.ask('/api/v1/runs/refunds/waits');
    await page.getByRole('button', { name: 'Answer…' }).click();
    const dialog = page.getByRole('dialog', { name: /^Answer approve of orders@1/ });
    await dialog.waitFor();
    await engine.ask(`/api/v1/runs/refunds/signals/approve?to=${encodeURIComponent(entries[1].id)}`, { method: 'POST', body: '{"yes": false}' });
    await dialog.getByRole('button', { name: 'Answer' }).click();
    await dialog.getByText('Nothing was sent').waitFor();
    await dialog.getByRole('button', { name: 'Cancel' }).click();
    page.faults.length = 0;
    await page.getByRole('button', { name: /"number":\s?3/ }).click();
    await page.getByRole('button', { name: 'Fill in yes' }).click();
    await page.getByRole('button', { name: 'Answer…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Answer' }).click();
    await page.getByText('is answered.').first().waitFor();
    await until('two are done and one waits', async () => {
      const { done, awaiting } = await engine.run('refunds');
      return done === 2 && awaiting === 1;
    });
    const { activations } = await engine.ask('/api/v1/runs/refunds/activations?payload=true');
    const paid = activations.map((one) => one.tasks.find((task) => task.task === 'pay').result).sort();
    assert.deepEqual(paid, ['"2 False"', '"3 True"']);
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('a connection is kept, tried and forgotten, and its password is nowhere on the page', async () => {
  const page = await openPage(browser, shop, { path: '#/connections' });
  await page.getByRole('heading', { name: 'No connection has an address' }).waitFor();
  await page.getByRole('button', { name: 'New connection' }).click();
  await page.getByLabel(/^Id,/).fill('warehouse');
  const place = new URL(shop.url).host;
  await page.getByLabel(/^Address,/).fill(`postgresql://app:hunter2hunter2@${place}/sales`);
  await assertClean(page, 'a new connection');
  await page.getByRole('button', { name: 'Keep…' }).click();
  await page.getByRole('dialog', { name: 'Keep the address of warehouse?' }).getByRole('button', { name: 'Keep' }).click();
  await page.getByText(`postgresql://app:***@${place}/sales`).waitFor();
  await page.getByRole('button', { name: 'Try warehouse' }).click();
  await page.getByText('It answers.').waitFor();
  assert.ok(!(await page.content()).includes('hunter2'));
  // What the engine does not take is said where it was asked.
  await page.getByRole('button', { name: 'Set warehouse' }).click();
  await page.getByLabel(/^Address,/).fill('secret:api_key');
  await page.getByRole('button', { name: 'Keep…' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Replace' }).click();
  await page.getByRole('alert').getByText('no references').waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Cancel' }).click();
  page.faults.length = 0;
  for (const [width, height] of [[390, 844], [1280, 900]]) {
    await page.setViewportSize({ width, height });
    await assertClean(page, `connections at ${width}`);
  }
  await page.getByRole('button', { name: 'Forget warehouse' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Forget' }).click();
  await page.getByRole('heading', { name: 'No connection has an address' }).waitFor();
  await page.goto(`${shop.url}/#/audit`);
  await page.getByText('PUT /connections/warehouse').first().waitFor();
  await page.getByRole('checkbox', { name: 'Refused only' }).check();
  await page.getByRole('cell', { name: '409' }).first().waitFor();
  await page.getByRole('searchbox', { name: 'Who' }).fill('nobody');
  await page.getByText('Nothing on record matches this.').waitFor();
  await page.context().close();
});

test('one activation shows when its tasks ran, and the tries that failed', async () => {
  const page = await openPage(browser, shop, { path: '#/runs/shop/activations' });
  await shop.push({ number: 4712, amount: 150 });
  const column = page.getByRole('table').first().getByRole('columnheader').getByRole('button').last();
  await until('the newest is there', async () => {
    await column.click();
    return page.getByText('"number": 4712').isVisible();
  });
  await page.getByRole('img', { name: /^When its tasks ran: check from .*courier from/ }).waitFor();
  await page.getByRole('columnheader', { name: 'Began after' }).waitFor();
  await page.setViewportSize({ width: 390, height: 844 });
  await assertClean(page, 'one activation at 390');
  await page.context().close();
});

test('from an activation that is parked one step leads to where it is mended, and to its version', async () => {
  await shop.push({ number: 71, amount: -8 });
  await until('it is parked', async () => (await shop.run('shop')).parked >= 1);
  const { activations } = await shop.ask('/api/v1/runs/shop/activations?state=parked&limit=1');
  const { lane, position, version } = activations[0];
  const page = await openPage(browser, shop, { path: `#/runs/shop/activations?lane=${lane}&position=${position}` });
  const about = page.getByRole('region', { name: `${lane}@${position}` });
  assert.equal(version, (await shop.run('shop')).version);
  await about.getByRole('link', { name: version.slice(0, 8) }).waitFor();
  await about.getByRole('link', { name: 'Mend or retry it' }).click();
  await page.getByRole('textbox', { name: 'Value of the event' }).waitFor();
  await page.getByText('Only one is shown.').waitFor();
  await assertClean(page, 'one that is parked');
  await page.getByRole('button', { name: 'Drop', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Drop 1' }).click();
  await page.getByText('It is not parked any more').waitFor();
  assert.ok(page.faults.every((fault) => fault.includes('404')), page.faults.join());
  await page.context().close();
});

test('tries of an activation are told with their worker, and what is with a worker now', async () => {
  const engine = await Engine.start('serve', { files: { 'slow.py': SLOW } });
  try {
    await until('it runs', async () => (await engine.ask('/api/v1/runs')).runs.some((run) => run.state === 'running'));
    await engine.push({ number: 1 }, 'slow');
    await until('it is done', async () => (await engine.run('slow')).done === 1);
    const page = await openPage(browser, engine, { path: '#/runs/slow/activations?lane=orders&position=0' });
    const tries = page.getByRole('region', { name: 'orders@0' }).getByRole('listitem');
    await tries.filter({ hasText: /hold, try 1\s+failed after[\s\S]*worker 0, process \d+; began[\s\S]*ValueError: not at once/ }).waitFor();
    await tries.filter({ hasText: /hold, try 2\s+succeeded after[\s\S]*worker 0, process \d+/ }).waitFor();
    await assertClean(page, 'tries');
    await page.setViewportSize({ width: 390, height: 844 });
    await assertClean(page, 'tries at 390');
    await page.setViewportSize({ width: 1280, height: 900 });
    await engine.push({ number: 2, waits: true }, 'slow');
    await page.goto(`${engine.url}/#/runs/slow`);
    await page.getByRole('button', { name: /^task hold\b/ }).click();
    const about = page.getByRole('complementary', { name: 'About hold' });
    await about.getByText(/orders@1,\s+try 1\s+is with a worker/).waitFor();
    await assertClean(page, 'what is with a worker');
    writeFileSync(join(engine.folder, 'go'), '');
    await about.getByText('is with a worker').waitFor({ state: 'hidden' });
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('the first token is made on the page, shown once, and then asked for', async () => {
  const engine = await Engine.start('serve', { files: { 'shop.py': SHOP } });
  try {
    const page = await openPage(browser, engine, { path: '#/access' });
    await page.getByRole('heading', { name: 'Nobody has a token' }).waitFor();
    await page.getByRole('button', { name: 'New token' }).click();
    await page.getByLabel('Whose it will be').fill('anna');
    await page.getByLabel('Role').selectOption('admin');
    await assertClean(page, 'a new token');
    await page.getByRole('button', { name: 'Make it…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Make a token for anna?' });
    await dialog.getByText('It is the first one').waitFor();
    await dialog.getByRole('button', { name: 'Make it' }).click();
    await page.getByText('Keep it now: it is not shown again.').waitFor();
    const token = /evermill_\w{20,}/.exec(await page.content())[0];
    await page.getByRole('heading', { name: 'Who are you?' }).waitFor();
    await page.getByRole('textbox', { name: 'Token' }).fill(token);
    await page.getByRole('button', { name: 'Go on' }).click();
    await page.getByRole('button', { name: 'Take back anna' }).waitFor();
    await page.getByRole('button', { name: 'I have kept it' }).click();
    assert.ok(!(await page.content()).includes(token));
    page.faults.length = 0;
    await assertClean(page, 'access');
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('a pool is made smaller by asking first', async () => {
  const page = await openPage(browser, shop, { path: '#/pools' });
  await page.getByRole('button', { name: 'Change slots of carriers' }).click();
  await page.getByRole('spinbutton', { name: 'Slots of carriers' }).fill('3');
  await page.getByRole('button', { name: 'Set', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Set 3' }).click();
  await page.getByText('3 slots, by an operator').waitFor();
  assert.equal((await shop.ask('/api/v1/pools/carriers')).slots, 3);
  await page.context().close();
});

test('keys lead from page to page', async () => {
  const page = await openPage(browser, shop);
  await page.getByRole('link', { name: 'shop', exact: true }).waitFor();
  await page.keyboard.press('g');
  await page.keyboard.press('p');
  await page.getByRole('heading', { level: 1, name: 'Pools' }).waitFor();
  await page.keyboard.press('g');
  await page.keyboard.press('o');
  await page.getByRole('link', { name: 'shop', exact: true }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'shop' }).waitFor();
  await page.keyboard.press('3');
  await page.getByText('Nothing is parked').waitFor();
  await page.keyboard.press('?');
  await page.getByRole('dialog', { name: 'Keys' }).waitFor();
  await page.context().close();
});

const PAGES = ['#/', '#/runs/shop', '#/runs/shop/activations', '#/runs/shop/parked', '#/runs/shop/versions', '#/pools', '#/alerts', '#/approvals', '#/connections', '#/audit', '#/access', '#/nowhere', '#/runs/nowhere'];
for (const [width, scheme] of [
  [1280, 'light'],
  [1280, 'dark'],
  [390, 'light'],
]) {
  test(`every page is accessible and fits at ${width} pixels, ${scheme}`, async () => {
    const page = await openPage(browser, shop, { width, scheme });
    for (const path of PAGES) {
      await page.goto(`${shop.url}/${path}`);
      await page.getByRole('heading').first().waitFor();
      await page.getByText(/Asking|Looking/).waitFor({ state: 'hidden' });
      await assertClean(page, `${path} at ${width}, ${scheme}`);
    }
    await page.context().close();
  });
}

test('a page that loses the engine says so, and goes on when it is back', async () => {
  const files = { 'shop.py': SHOP };
  const engine = await Engine.start('serve', { files });
  let next;
  try {
    const page = await openPage(browser, engine);
    await page.getByRole('link', { name: 'shop', exact: true }).waitFor();
    await engine.end();
    await page.getByRole('alert').getByText('The engine does not answer.').waitFor();
    next = await Engine.start('serve', { files, folder: engine.folder, listen: new URL(engine.url).host });
    await page.getByRole('status').getByText('live').waitFor();
    await page.getByRole('alert').waitFor({ state: 'hidden' });
    await page.context().close();
  } finally {
    await next?.close();
    await engine.close();
  }
});

test('where tokens are used the page asks for one, and who may only look can change nothing', async () => {
  const engine = await Engine.start('serve', { files: { 'shop.py': SHOP } });
  try {
    const token = /evermill_\w+/.exec(engine.command('token', 'create', 'anna', '--role', 'viewer'))[0];
    const page = await openPage(browser, engine);
    await page.getByRole('heading', { name: 'Who are you?' }).waitFor();
    const field = page.getByLabel('Token');
    await field.fill('nonsense');
    await page.getByRole('button', { name: 'Go on' }).click();
    await page.getByRole('alert').waitFor();
    await field.fill(token);
    await page.getByRole('button', { name: 'Go on' }).click();
    await page.getByRole('link', { name: 'shop', exact: true }).click();
    await page.getByRole('group', { name: 'Events by what became of them' }).waitFor();
    assert.equal(await page.getByRole('button', { name: 'Pause' }).count(), 0);
    // The browser tells of each refusal; that is all it may tell of.
    assert.ok(page.faults.every((fault) => fault.includes('401')), page.faults.join());
    page.faults.length = 0;
    await assertClean(page, 'what a viewer sees');
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Who are you?' }).waitFor();
    assert.equal(await page.getByText('You were logged out').count(), 0, 'who leaves knows that he did');
    await field.fill(token);
    await page.getByRole('button', { name: 'Go on' }).click();
    await page.getByRole('link', { name: 'All runs' }).waitFor();
    await page.goto(`${engine.url}/#/`);
    await page.getByRole('link', { name: 'shop', exact: true }).waitFor();
    engine.command('token', 'revoke', 'anna');
    await page.getByText('You were logged out: the token has expired or was taken back').waitFor();
    await field.fill(token);
    await page.getByRole('button', { name: 'Go on' }).click();
    await page.getByRole('alert').getByText('This token is not good here').waitFor();
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('the demo shows orders from Kafka as they flow', async () => {
  const engine = await Engine.start('demo');
  try {
    const page = await openPage(browser, engine);
    await page.getByRole('heading', { level: 1, name: 'Data flows' }).waitFor();
    await page.getByRole('link', { name: 'shop', exact: true }).click();
    await page.getByRole('button', { name: /^task charge .*runs/ }).waitFor();
    await page.getByRole('cell', { name: 'orders/2' }).waitFor();
    await assertClean(page, 'the demo');
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('files of the page are kept by browsers for as long as they may be, and come compressed', async () => {
  const index = await fetch(shop.url, { headers: { 'accept-encoding': 'br' } });
  assert.equal(index.headers.get('content-encoding'), 'br');
  assert.equal(index.headers.get('cache-control'), 'no-cache');
  const script = /\.\/assets\/[^"]+\.js/.exec(await index.text())[0];
  const asset = await fetch(new URL(script, shop.url));
  assert.match(asset.headers.get('cache-control'), /immutable/);
  assert.match(asset.headers.get('content-type'), /javascript/);
  const again = await fetch(shop.url, { headers: { 'if-none-match': index.headers.get('etag'), 'accept-encoding': 'br' } });
  assert.equal(again.status, 304);
});
