// What tasks print, on the page of a run: as it comes, back to the oldest line, and of one event alone.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertClean, Engine, openBrowser, openPage, until } from './harness.mjs';

const TALK = `
import logging

import evermill

log = logging.getLogger("till")


@evermill.task
def say(event):
    order = event.json()
    for line in range(order.get("lines", 1)):
        print(f"order {order['number']} line {line}")
    if order.get("bad"):
        log.error("order %s is bad: <b>%s</b>", order["number"], order["bad"])
        raise ValueError(order["bad"])


@evermill.dag
def talk():
    say(evermill.webhook(name="orders"))
`;

let browser;
let engine;

before(async () => {
  [browser, engine] = await Promise.all([openBrowser(), Engine.start('serve', { files: { 'talk.py': TALK } })]);
  await until('it runs', async () => (await engine.ask('/api/v1/runs')).runs.some((run) => run.state === 'running'));
});
after(async () => {
  await browser?.close();
  await engine?.close();
});

test('lines show up as they are printed, older ones when asked for, and those of one event alone', async () => {
  const page = await openPage(browser, engine, { path: '#/runs/talk/logs' });
  await page.getByText('Its tasks have printed nothing yet.').waitFor();
  await assertClean(page, 'the empty log');
  await engine.push({ number: 1 }, 'talk');
  await page.getByText('order 1 line 0').waitFor();
  await engine.push({ number: 2, lines: 450 }, 'talk');
  await page.getByText('order 2 line 449').waitFor();

  // A page that is opened later has the newest, and gets the others one page after another.
  await page.reload();
  await page.getByText('order 2 line 449').waitFor();
  assert.equal(await page.getByText('order 1 line 0').count(), 0);
  const lines = page.getByRole('region', { name: 'Lines, oldest first' });
  assert.equal(await lines.getByRole('listitem').count(), 200);
  for (const count of [400, 451]) {
    await page.getByRole('button', { name: 'Older lines' }).click();
    await until('there are more', async () => (await lines.getByRole('listitem').count()) === count);
  }
  await page.getByText('Nothing older is kept.').waitFor();

  // Who reads further up is left in peace, and hears that there is more.
  await lines.evaluate((box) => (box.scrollTop = 0));
  await page.getByRole('button', { name: 'Follow' }).waitFor();
  await engine.push({ number: 3 }, 'talk');
  await page.getByRole('button', { name: '1 new line' }).waitFor();
  assert.equal(await lines.evaluate((box) => box.scrollTop), 0);
  await page.getByRole('button', { name: '1 new line' }).click();
  await until('the end is in sight', () => lines.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight < 24));
  await page.getByRole('button', { name: 'Follow' }).waitFor({ state: 'hidden' });

  await lines.getByRole('listitem').last().getByRole('link').click();
  await page.getByText('Only what was printed for').waitFor();
  await until('one line is left', async () => (await lines.getByRole('listitem').count()) === 1);
  await page.getByRole('link', { name: 'All events' }).click();
  await page.getByRole('searchbox', { name: 'Text of the line' }).fill('no such line');
  await page.getByText('No line that is kept matches.').waitFor();
  await page.getByRole('button', { name: 'Show all lines' }).click();
  await page.getByText('order 3 line 0').waitFor();
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test('what an activation that gave up has printed is one step away, and its text is only text', async () => {
  await engine.push({ number: 9, bad: 'torn' }, 'talk');
  await until('it is parked', async () => (await engine.run('talk')).parked === 1);
  const page = await openPage(browser, engine, { path: '#/runs/talk/parked' });
  await page.getByRole('button', { name: /ValueError: torn/ }).click();
  await page.getByRole('link', { name: 'Logs of this activation' }).click();
  await page.getByText('order 9 is bad: <b>torn</b>').waitFor();
  await page.getByLabel('Level').selectOption('error');
  await page.getByText('order 9 line 0').waitFor({ state: 'hidden' });
  await page.getByText('order 9 is bad: <b>torn</b>').waitFor();
  await page.getByRole('link', { name: 'What became of it' }).click();
  await page.getByRole('link', { name: 'Logs of this activation' }).waitFor();
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

for (const [width, scheme] of [
  [1280, 'light'],
  [1280, 'dark'],
  [390, 'light'],
]) {
  test(`the log is accessible and fits at ${width} pixels, ${scheme}`, async () => {
    await engine.push({ number: 20, bad: `a long word ${'x'.repeat(400)}` }, 'talk');
    const page = await openPage(browser, engine, { width, scheme, path: '#/runs/talk/logs' });
    await page.getByText(/order 20 is bad/).first().waitFor();
    await assertClean(page, `the log at ${width}, ${scheme}`);
    const shots = process.env.EVERMILL_TEST_SHOTS;
    if (shots) await page.screenshot({ path: `${shots}/logs-${width}-${scheme}.png` });
    await page.context().close();
  });
}
