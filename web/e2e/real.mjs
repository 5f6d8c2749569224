/**
 * The page in a real browser against the real server on the tiny model of the command line's tests:
 * `node e2e/real.mjs` starts `FATHOM` (or ../target/{release,debug}/fathom) and takes pictures to e2e/shots/real-*.png.
 */

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ask, browserPath, newPage, openBrowser } from './tools.mjs';

const root = join(import.meta.dirname, '../..');
const places = [process.env.FATHOM, join(root, 'target/release/fathom'), join(root, 'target/debug/fathom')];
const fathom = places.find((place) => place !== undefined && existsSync(place));
if (browserPath === undefined || fathom === undefined) {
  console.log('e2e: skipped, no Chromium or no built fathom here');
  process.exit(process.env.CI ? 1 : 0);
}
const shots = join(import.meta.dirname, 'shots');
mkdirSync(shots, { recursive: true });
const data = mkdtempSync(join(tmpdir(), 'fathom-real-'));
const model = join(root, 'crates/fathom/tests/fixtures/tiny-chat');

/** A server of its own; `port` 0 takes any. */
async function serve(port = 0) {
  const flags = ['serve', model, '--listen', `127.0.0.1:${port}`, '--data', data, '--no-browser', '--watts', '20'];
  const child = spawn(fathom, flags, { stdio: ['ignore', 'pipe', 'inherit'] });
  const url = await new Promise((found, failed) => {
    let text = '';
    child.stdout.on('data', (bytes) => {
      text += bytes;
      const match = /(http:\/\/[0-9.:]+)\n/u.exec(text);
      if (match) found(match[1]);
    });
    child.on('exit', (code) => failed(new Error(`fathom ended with ${code}`)));
  });
  const stop = () =>
    new Promise((ended) => {
      child.removeAllListeners('exit');
      child.on('exit', ended);
      child.kill('SIGINT');
    });
  return { url, stop };
}

const last = '.message.assistant:last-child';
const done = `${last} > footer`;
let server = await serve();
const browser = await openBrowser();
const goTo = (page, hash) =>
  page.evaluate((h) => {
    location.hash = h;
  }, hash);
const shot = (page, name) => page.screenshot({ path: join(shots, `real-${name}.png`) });
const step = async (name, walk) => {
  const start = Date.now();
  try {
    await walk();
    console.log(`ok  ${name} (${Date.now() - start} ms)`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`NOT ok  ${name}: ${error.stack}`);
  }
};

try {
  await step('a known question is answered with its reasoning and its figures', async () => {
    const { page, context, trouble } = await newPage(browser, server);
    await shot(page, 'welcome');
    // What the built-in model was made for is not suggested to others.
    assert.doesNotMatch(await page.locator('.suggestions').innerText(), /Countdown/u);
    await ask(page, 'What is 2 + 3?', done);
    assert.match(await page.locator(`${last} .md`).innerText(), /The answer is 5\./u);
    await page.locator('.figures summary').first().click();
    await shot(page, 'answer');
    assert.match(await page.locator('.figures').first().innerText(), /tok\/s/u);
    // The rule's mark stands on what it can check.
    assert.match(await page.locator(`${last} .verdict.good`).innerText(), /2\+3 = 5/u);
    await ask(page, 'Hello', done);
    assert.equal(await page.locator(`${last} .verdict`).count(), 0);
    await shot(page, 'second');
    await page.reload();
    await page.waitForSelector('.message');
    assert.equal(await page.locator('.message').count(), 4);
    await context.close();
    assert.deepEqual(trouble, []);
  });

  await step('an answer is stopped, answered again and edited', async () => {
    const { page, context, trouble } = await newPage(browser, server);
    // The model is small: only a long prompt takes long enough to be stopped.
    await page.fill('#composer', 'A long story, please. '.repeat(400));
    await page.press('#composer', 'Enter');
    await page.locator('button.stop').click();
    await page.waitForSelector('.note, footer');
    await shot(page, 'stopped');
    await page.locator(last).getByRole('button', { name: 'Answer again' }).first().click();
    await page.waitForFunction(() => document.querySelectorAll('.turns').length === 1);
    await page.keyboard.press('Escape');
    await context.close();
    assert.deepEqual(trouble, []);
  });

  await step('the page in Arabic', async () => {
    const { page, context, trouble } = await newPage(browser, server, { locale: 'ar-EG' });
    assert.equal(await page.evaluate(() => document.documentElement.dir), 'rtl');
    await ask(page, 'احسب 12+7.', done);
    assert.equal(await page.locator(`${last} .verdict.bad`).count(), 1);
    await goTo(page, '#/');
    await ask(page, 'مرحبا', done);
    await shot(page, 'arabic');
    await context.close();
    assert.deepEqual(trouble, []);
  });

  await step('usage counts what was asked', async () => {
    const { page, context, trouble } = await newPage(browser, server);
    await page.goto(`${server.url}/#/usage`);
    await page.waitForSelector('.usage');
    await page.getByText('tiny-chat').first().waitFor();
    await page.waitForTimeout(300);
    await shot(page, 'usage');
    await context.close();
    assert.deepEqual(trouble, []);
  });

  await step('a server that stops and comes back', async () => {
    const { page, context } = await newPage(browser, server);
    await ask(page, 'Hello', done);
    const port = Number(new URL(server.url).port);
    await server.stop();
    await ask(page, 'during', '.message .problem');
    await shot(page, 'offline');
    server = await serve(port);
    await page.locator('.message .problem').getByRole('button', { name: 'Try again' }).click();
    await page.waitForSelector(done);
    await context.close();
  });

  await step('chats under a key', async () => {
    const made = spawnSync(fathom, ['keys', 'new', 'page', '--balance', '5', '--price-output', '1', '--data', data]);
    const key = /fk-[0-9a-f]{64}/u.exec(made.stdout.toString())[0];
    const { page, context, trouble } = await newPage(browser, server);
    await shot(page, 'key-needed');
    await page.keyboard.press('Control+,');
    await page.locator('dialog input[type=password]').fill(key);
    await page.keyboard.press('Enter');
    await page.waitForTimeout(500);
    await shot(page, 'settings');
    await page.keyboard.press('Escape');
    await ask(page, 'Hello', done);
    await shot(page, 'with-key');
    await context.close();
    assert.deepEqual(trouble, []);
  });
} finally {
  await browser.close();
  await server.stop();
  rmSync(data, { recursive: true, force: true });
}
