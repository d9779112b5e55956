// What the page carries of others: under licences that somebody has agreed to, and with their texts.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { packageOf, told } from '../tools/licences.mjs';
import { Engine } from './harness.mjs';

test('s20 a package under a licence that nobody has agreed to ends the build', () => {
  const folder = mkdtempSync(join(tmpdir(), 'evermill-web-'));
  try {
    const one = join(folder, 'node_modules', 'one');
    mkdirSync(join(one, 'esm'), { recursive: true });
    const write = (license) => writeFileSync(join(one, 'package.json'), JSON.stringify({ name: 'one', version: '1.0.0', license }));
    writeFileSync(join(one, 'esm', 'package.json'), '{"type": "module"}');
    assert.throws(() => packageOf(join(one, 'esm', 'x.js')), /belongs to no package/);
    write('ISC');
    assert.equal(packageOf(join(one, 'esm', 'x.js?y')), one);
    assert.equal(packageOf(join(folder, 'src', 'x.ts')), null);
    writeFileSync(join(one, 'LICENSE.md'), 'Do as you like.\n');
    assert.equal(told(one), '== one 1.0.0, ISC ==\n\nDo as you like.\n');
    for (const licence of ['GPL-3.0-only', undefined, 'SEE LICENSE IN X', 'MIT OR GPL-2.0']) {
      write(licence);
      assert.throws(() => told(one), /one 1\.0\.0: the licence/);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('s20 the page tells whose code it carries', async () => {
  const engine = await Engine.start('serve');
  try {
    const answer = await fetch(`${engine.url}/licences.txt`);
    assert.equal(answer.headers.get('content-type'), 'text/plain; charset=utf-8');
    const text = await answer.text();
    for (const begin of ['== svelte ', '== @dagrejs/dagre ', 'Permission is hereby granted']) assert.ok(text.includes(begin), begin);
  } finally {
    await engine.close();
  }
});
