// Versions of a DAG on the page of a run: where each stands, and what is different between two.
import assert from 'node:assert/strict';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { assertClean, Engine, openBrowser, openPage, SHOP, until } from './harness.mjs';

/** The check is tried again and has a limit, a task is gone and another one there; a token stands where none should. */
const LATER = SHOP.replace('@evermill.task\ndef check', '@evermill.task(retries=2, retry_delay=0.01, timeout="5m", env={"TOKEN": "tulips"})\ndef check')
  .replace('@evermill.task(pool="carriers")\ndef post', '@evermill.task(pool="carriers")\ndef pigeon')
  .replace('post()', 'pigeon()')
  .replace('else "post"', 'else "pigeon"')
  .replace('@evermill.dag', '@evermill.dag(tags=["<img src=x onerror=globalThis.evil=1>"])');

let browser;
let engine;
let versions;

/** As editors do, so that nobody reads half of it. */
function save(text) {
  const path = join(engine.folder, 'dags', 'shop.py');
  writeFileSync(`${path}.half`, text);
  renameSync(`${path}.half`, path);
}

before(async () => {
  [browser, engine] = await Promise.all([openBrowser(), Engine.start('serve', { files: { 'shop.py': SHOP } })]);
  await until('it runs', async () => (await engine.ask('/api/v1/runs')).runs.some((run) => run.state === 'running'));
  save(LATER);
  versions = await until('it has gone over', async () => {
    const found = await engine.ask('/api/v1/runs/shop/versions');
    return found.length === 2 && found;
  });
});
after(async () => {
  await browser?.close();
  await engine?.close();
});

const difference = (page) => page.getByRole('region', { name: 'What is different', exact: true });

test('what a swap has changed is told by task, option and edge, and the lines when asked for', async () => {
  const page = await openPage(browser, engine, { path: '#/runs/shop/versions' });
  const card = difference(page);
  await card.getByText('3 tasks, 4 edges, 1 option and 1 file are different.').waitFor();
  const items = card.getByRole('listitem');
  const check = items.filter({ hasText: /check\s+changed/ });
  await check.getByText('retries', { exact: true }).waitFor();
  await check.getByText('300000 (5 min)').waitFor();
  await check.getByText('env.TOKEN').waitFor();
  await check.getByText('value not shown: passwords may be in it').waitFor();
  await items.filter({ hasText: /pigeon\s+added/ }).first().waitFor();
  await items.filter({ hasText: /post\s+removed/ }).first().waitFor();
  assert.ok(!(await page.content()).includes('tulips'), 'a value out of an environment is on the page');
  await card.getByRole('button', { name: 'Show the lines' }).focus();
  await page.keyboard.press('Enter');
  await page.getByRole('region', { name: 'What is different in shop.py' }).getByText('+def pigeon(check):').waitFor();
  // What happens to events meanwhile changes nothing of what somebody reads.
  await engine.push({ number: 1, amount: -5 });
  await page.getByRole('link', { name: 'Parked 1' }).waitFor();
  await card.getByText('+def pigeon(check):').waitFor();
  assert.equal(await card.getByText('onerror=globalThis.evil').count(), 2, 'as an option and as a line, and as nothing else');
  assert.equal(await page.evaluate(() => globalThis.evil ?? null), null);
  await assertClean(page, 'the difference with its lines');
  await page.context().close();
});

test('any two versions are chosen by keyboard, and the address leads to the same comparison', async () => {
  const [now, before] = versions.map((one) => one.version);
  const page = await openPage(browser, engine, { path: '#/runs/shop/versions' });
  const card = difference(page);
  await card.getByText('4 edges').waitFor();
  await card.getByLabel('To').selectOption(before);
  await card.getByText('They are the same version.').waitFor();
  await card.getByLabel('From').selectOption(now);
  const items = card.getByRole('listitem');
  await items.filter({ hasText: /pigeon\s+removed/ }).first().waitFor();
  await page.reload();
  await items.filter({ hasText: /post\s+added/ }).first().waitFor();
  await page.goto(`${engine.url}/#/runs/shop/versions?to=ffff`);
  await page.getByRole('alert').getByText("no version of DAG 'shop' begins with 'ffff'").waitFor();
  // The browser tells of the refusal; that is all it may tell of.
  assert.ok(page.faults.every((fault) => fault.includes('404')), page.faults.join());
  await page.context().close();
});

for (const [width, scheme] of [
  [1280, 'light'],
  [1280, 'dark'],
  [390, 'light'],
]) {
  test(`versions and their difference are accessible and fit at ${width} pixels, ${scheme}`, async () => {
    const page = await openPage(browser, engine, { width, scheme, path: '#/runs/shop/versions' });
    await difference(page).getByRole('button', { name: 'Show the lines' }).click();
    await page.getByText('+def pigeon(check):').waitFor();
    await assertClean(page, `versions at ${width}, ${scheme}`);
    const shots = process.env.EVERMILL_TEST_SHOTS;
    if (shots) await page.screenshot({ path: `${shots}/versions-${width}-${scheme}.png`, fullPage: true });
    await page.context().close();
  });
}

test('after a rollback the page says who went back, and which version stays away', async () => {
  const page = await openPage(browser, engine, { path: '#/runs/shop/versions' });
  const table = page.getByRole('region', { name: 'Table of versions' });
  await table.getByRole('button', { name: /^Go back to/ }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Go back' }).click();
  await table.getByText('put away until its file changes').waitFor();
  await table.getByText(/somebody went back.*, by local/).waitFor();
  assert.equal(await table.getByRole('button', { name: /^Go back to/ }).count(), 1, 'only to what is not current');
  await difference(page).getByRole('listitem').filter({ hasText: /pigeon\s+removed/ }).first().waitFor();
  await page.context().close();
});

test('who may only look is told what is different, and sees no line of a file', async () => {
  const token = /evermill_\w+/.exec(engine.command('token', 'create', 'anna', '--role', 'viewer'))[0];
  const page = await openPage(browser, engine);
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Go on' }).click();
  await page.getByRole('link', { name: 'shop', exact: true }).click();
  await page.getByRole('link', { name: 'Versions' }).click();
  const card = difference(page);
  await card.getByText('Who may only look sees no files; an operator does.').waitFor();
  assert.equal(await page.getByRole('button', { name: /Show the lines|Go back/ }).count(), 0);
  const answer = await fetch(`${engine.url}/api/v1/runs/shop/versions/files`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(answer.status, 403);
  assert.ok(!(await page.content()).includes('def pigeon'));
  await page.context().close();
});
