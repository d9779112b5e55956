// What the overview says of many runs, and of those that do not get on.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { assertClean, Engine, openBrowser, openPage, until } from './harness.mjs';

/** The only worker does not come back from the first event of one DAG. */
const ENDLESS = `
import time

import evermill


@evermill.task
def call_api(event):
    time.sleep(3600)


@evermill.dag
def invoices():
    call_api(evermill.webhook(name="orders"))
`;
const LETTERS = `
import evermill


@evermill.task
def post(event):
    pass


@evermill.dag
def letters():
    post(evermill.webhook(name="orders"))
`;
const LONG_NAME = 'customer_master_data_synchronisation_between_the_old_warehouse_and_the_new_one';

let browser;

before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

async function running(engine, count) {
  await until(`${count} runs are on`, async () => {
    const { runs } = await engine.ask('/api/v1/runs');
    return runs.filter((run) => run.state === 'running').length === count;
  });
}

test('of many runs all can be found, and those out of sight follow as soon as they are in it', async () => {
  const dag = (name) => `dag: ${name}\nsources: { orders: { webhook: {} } }\ntasks:\n  t0: { after: [orders], run: 'true' }\n`;
  const names = Array.from({ length: 118 }, (_, number) => `d${number}`).concat(LONG_NAME, 'größe');
  const engine = await Engine.start('serve', { files: Object.fromEntries(names.map((name, number) => [`f${number}.yaml`, dag(name)])) });
  try {
    await running(engine, names.length);
    const page = await openPage(browser, engine);
    const rows = page.getByRole('row').filter({ has: page.getByRole('link') });
    await page.getByRole('link', { name: 'd0', exact: true }).waitFor();
    assert.equal(await rows.count(), 100);
    await page.getByRole('button', { name: 'Show all 120 runs' }).click();
    await until('every run has a row', async () => (await rows.count()) === names.length);
    // By number, not letter by letter.
    assert.deepEqual((await rows.getByRole('link').allTextContents()).slice(0, 3), [LONG_NAME, 'd0', 'd1']);
    // The button was at the end, so that the beginning is out of sight.
    const row = rows.filter({ has: page.getByRole('link', { name: 'd1', exact: true }) });
    const isDrawn = () => row.evaluate((one) => one.checkVisibility({ contentVisibilityAuto: true }));
    await until('what is out of sight costs nothing', async () => !(await isDrawn()));
    await engine.push({ number: 1 }, 'd1');
    await until('it is done', async () => (await engine.run('d1')).done === 1);
    await row.getByRole('link').focus();
    await until('its row is drawn', isDrawn);
    await row.getByText(/ago|just now/).waitFor();
    await page.getByRole('searchbox', { name: 'Filter runs' }).fill('größe');
    await until('one is left', async () => (await rows.count()) === 1);
    await page.getByRole('searchbox', { name: 'Filter runs' }).fill('no such run');
    await page.getByText('No run matches “no such run”.').waitFor();
    await page.getByRole('searchbox', { name: 'Filter runs' }).fill('');

    // What is alike in many is told once.
    for (const name of names.slice(0, 5)) await engine.ask(`/api/v1/runs/${name}/pause`, { method: 'POST' });
    const paused = page.getByRole('listitem').filter({ hasText: 'Paused in 5 runs: d0, d1, d2, d3 and 1 more' });
    await paused.waitFor();
    await page.getByRole('heading', { level: 1, name: /[Oo]ne thing waits for you/ }).waitFor();
    await paused.getByRole('button', { name: 'Show each' }).click();
    await paused.getByRole('link', { name: 'Open the run of d4' }).waitFor();
    for (const [width, scheme] of [[1280, 'light'], [1280, 'dark'], [390, 'light']]) {
      await page.setViewportSize({ width, height: 844 });
      await page.emulateMedia({ colorScheme: scheme });
      await assertClean(page, `many runs at ${width}, ${scheme}`);
    }
    await page.goto(`${engine.url}/#/runs/${LONG_NAME}`);
    await page.getByRole('heading', { level: 1, name: LONG_NAME }).waitFor();
    await assertClean(page, 'a long name at 390');
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('what keeps the workers is named wherever it keeps something from getting on', async () => {
  const engine = await Engine.start('serve', { files: { 'invoices.py': ENDLESS, 'letters.py': LETTERS }, more: ['--workers', '1'] });
  try {
    await running(engine, 2);
    await engine.push({ number: 1 }, 'invoices');
    await until('a worker is at it', async () => (await engine.run('invoices')).longest?.task === 'call_api');
    const page = await openPage(browser, engine);
    // More come in all the while: that nothing settles is what counts.
    let number = 0;
    const stuck = page.getByRole('listitem').filter({ hasText: /Nothing gets on in letters.*with no worker.*Workers are kept by call_api of invoices/s });
    await until('it is told', async () => {
      await engine.push({ number: (number += 1) }, 'letters');
      return stuck.isVisible();
    });
    await page.getByText('none has settled in the last seconds').waitFor();
    await stuck.getByRole('link', { name: 'See the graph' }).click();
    await page.getByRole('button', { name: /^task post queued/ }).waitFor();
    await page.goto(`${engine.url}/#/runs/invoices`);
    await page.getByRole('button', { name: /^task call_api\b.*1 running/ }).waitFor();
    await until('it is told where it happens, too', () => page.getByText(/A worker has been at call_api for \d+ s, and nothing has settled/).isVisible());
    await page.getByRole('button', { name: /^task call_api runs for long.*1 running for \d+ s/ }).waitFor();
    await assertClean(page, 'a task that does not end');
    await page.context().close();
  } finally {
    await engine.close();
  }
});

test('a DAG file in error is told with its line until it is mended', async () => {
  const engine = await Engine.start('serve', { files: { 'letters.py': LETTERS, 'invoices.py': 'import evermill\nimport nowhere_at_all\n' } });
  try {
    await running(engine, 1);
    const page = await openPage(browser, engine);
    const told = page.getByRole('listitem').filter({ hasText: /A DAG file is broken.*invoices\.py: in error.*line 2: .*nowhere_at_all/s });
    await told.waitFor();
    await assertClean(page, 'a DAG file in error');
    writeFileSync(join(engine.folder, 'dags/invoices.py'), LETTERS.replace('def letters', 'def invoices'));
    await running(engine, 2);
    await told.waitFor({ state: 'detached' });
    await page.context().close();
  } finally {
    await engine.close();
  }
});
