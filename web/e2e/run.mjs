/**
 * The page in a real browser against the stand-in server, step by step as a visitor would: `node e2e/run.mjs [part]`.
 * Each test has a fresh browser profile; any script error, refused content or request to elsewhere fails it.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { startMock } from '../dev/mock.mjs';
import { ask, browserPath, newPage, openBrowser } from './tools.mjs';

if (browserPath === undefined) {
  console.log('e2e: skipped, no Chromium here (install it, or name it in CHROMIUM)');
  process.exit(process.env.CI ? 1 : 0);
}
const only = process.argv[2] ?? '';
const fast = await startMock({ port: 0, speed: 20 });
const slow = await startMock({ port: 0, speed: 1 });
const keyed = await startMock({ port: 0, speed: 20, key: 'sk-right' });
const browser = await openBrowser();

const last = '.message.assistant:last-child';
const answerText = (page) => page.locator(`${last} .md`).innerText();
const messages = (page) => page.locator('.message').count();
const goTo = (page, hash) =>
  page.evaluate((h) => {
    location.hash = h;
  }, hash);

const tests = {
  async "a suggestion is answered, with reasoning, figures and the verifier's mark"() {
    const { page, done } = await visit(fast);
    await page.getByRole('button', { name: /Make 43 from 4/u }).click();
    await page.waitForSelector(`${last} > footer`);
    await page.waitForSelector('.katex');
    assert.match(await page.locator('.reasoning > button').innerText(), /Reasoned for .*133 tokens/su);
    assert.equal(await page.locator('.depth').isVisible(), false);
    await page.locator('.reasoning > button').click();
    assert.match(await page.locator('.depth').innerText(), /Yes!/u);
    assert.match(await page.locator('.verdict.good').innerText(), /Checked: correct/u);
    assert.match(await page.locator('.figures summary').innerText(), /87\.4 tok\/s/u);
    assert.match(await page.url(), /#\/c\/[0-9a-f-]{36}$/u);
    assert.equal(await page.locator('.rows a[aria-current=page]').innerText(), 'Make 43 from 4, 10 and 49.');
    await done();
  },

  async 'stop keeps what arrived; continue goes on from there'() {
    const { page, done } = await visit(slow);
    await page.fill('#composer', '#slow');
    await page.press('#composer', 'Enter');
    await page.waitForSelector('.reasoning.active');
    await page.locator('.reasoning > button').click();
    const early = (await page.locator('.depth').innerText()).length;
    await page.waitForTimeout(700);
    assert.ok((await page.locator('.depth').innerText()).length > early, 'the reasoning streams while it is open');
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.waitForSelector('.note');
    const kept = await page.locator('.depth').innerText();
    assert.ok(kept.length > 10);
    await page.locator('.note').getByRole('button', { name: 'Continue' }).click();
    await page.waitForTimeout(600);
    const sent = slow.state.requests.at(-1).messages.at(-1);
    assert.equal(sent.prefix, true);
    assert.ok(sent.reasoning_content.replace(/\s/gu, '').startsWith(kept.replace(/\s/gu, '').slice(0, 20)));
    assert.equal(await messages(page), 2);
    await page.keyboard.press('Escape');
    await page.waitForSelector('.note');
    await done();
  },

  async 'edit and retry make versions with arrows'() {
    const { page, done } = await visit(fast);
    await ask(page, 'first');
    await ask(page, 'second');
    await page.locator('.message.user').first().hover();
    await page.locator('.message.user').first().getByRole('button', { name: 'Edit' }).click();
    await page.getByRole('textbox', { name: 'Edit your message' }).fill('first, edited');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelectorAll('.message').length === 2);
    await page.waitForSelector(`${last} > footer`);
    assert.equal(await page.locator('.turns').first().innerText(), '2/2');
    await page.getByRole('button', { name: 'Previous version' }).click();
    assert.equal(await messages(page), 4);
    await page.locator(last).getByRole('button', { name: 'Answer again' }).click();
    await page.waitForFunction(() => document.querySelectorAll('.turns').length === 2);
    assert.equal(await page.locator(`${last} .turns`).innerText(), '2/2');
    await page.reload();
    await page.waitForSelector('.message');
    assert.equal(await messages(page), 4);
    await page.locator('.message.assistant').first().getByRole('button', { name: 'Continue in a new chat' }).click();
    await page.waitForFunction(() => document.querySelectorAll('.message').length === 2);
    assert.equal(await page.locator('.rows a').count(), 2);
    await done();
  },

  async 'history: search, rename, delete, export, import'() {
    const { page, done } = await visit(fast);
    for (const text of ['a chat about lighthouses', 'a chat about harbours', 'محادثة عن البحر']) {
      await goTo(page, '#/');
      await ask(page, text);
    }
    await page.fill('#search', 'harbours');
    await page.waitForFunction(() => document.querySelectorAll('.rows a').length === 1);
    await page.fill('#search', 'البحر');
    await page.waitForFunction(() => document.querySelector('.rows a')?.textContent.includes('البحر'));
    await page.fill('#search', 'submarine');
    await page.getByText('No chat contains these words.').waitFor();
    await page.fill('#search', '');
    await page.waitForFunction(() => document.querySelectorAll('.rows a').length === 3);

    const menu = async (name, item) => {
      const row = page.locator('.rows li', { hasText: name });
      await row.hover();
      await row.getByRole('button').click();
      const download = item.startsWith('Export') ? page.waitForEvent('download') : null;
      await page.getByRole('menuitem', { name: item }).click();
      return download;
    };
    await menu('harbours', 'Rename');
    await page.locator('.rename').fill('Harbours and piers');
    await page.keyboard.press('Enter');
    await page.getByRole('link', { name: 'Harbours and piers' }).waitFor();
    const markdown = await menu('Harbours', 'Export as Markdown');
    assert.equal(markdown.suggestedFilename(), 'Harbours and piers.md');
    assert.match(
      readFileSync(await markdown.path(), 'utf8'),
      /^# Harbours and piers\n\n## You\n\na chat about harbours/u,
    );
    const json = await menu('Harbours', 'Export as JSON');
    const file = await json.path();
    assert.equal(JSON.parse(readFileSync(file, 'utf8')).format, 'fathom-chats-1');
    await menu('Harbours', 'Delete');
    await page.getByRole('button', { name: 'Delete', exact: true }).click();
    await page.waitForFunction(() => document.querySelectorAll('.rows a').length === 2);

    await page.keyboard.press('Control+,');
    await page.locator('dialog input[type=file]').setInputFiles(file);
    await page.getByText('1 chat imported.').waitFor();
    await page
      .locator('dialog input[type=file]')
      .setInputFiles({ name: 'x.json', mimeType: 'application/json', buffer: Buffer.from('{"no":1}') });
    await page.getByText('This file holds no chats').waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('link', { name: 'Harbours and piers' }).click();
    await page.waitForSelector('.message');
    assert.equal(await messages(page), 2);
    await done();
  },

  async 'errors say what to do'() {
    const { page, done } = await visit(fast);
    const table = [
      ['#401', /valid API key/u, 'Open settings'],
      ['#402', /balance of this key/u, 'See usage'],
      ['#413', /too large/u, null],
      ['#422', /temperature is 3/u, null],
      ['#500', /had an error/u, 'Try again'],
      ['#503', /busy/u, null],
      ['#midway', /engine was stopped/u, 'Continue'],
    ];
    for (const [word, text, button] of table) {
      await goTo(page, '#/');
      await ask(page, `${word} ${Math.random()}`, '.message .problem');
      assert.match(await page.locator('.message .problem').innerText(), text);
      if (button !== null)
        assert.equal(await page.locator('.message .problem').getByRole('button', { name: button }).count(), 1, word);
    }
    await goTo(page, '#/');
    await ask(page, '#429', '.message .problem');
    const again = page.locator('.problem button');
    assert.equal(await again.isDisabled(), true);
    assert.match(await again.innerText(), /Try again in \d s/u);
    await page.waitForFunction(() => !document.querySelector('.problem button').disabled);
    await goTo(page, '#/');
    await ask(page, '#break', '.message .problem');
    assert.match(await page.locator('.problem').innerText(), /broke off/u);
    await page.locator('.problem').getByRole('button', { name: 'Continue' }).click();
    await page.getByText('One sentence arrives, and then the line is whole again, to the end.').waitFor();
    await done();
  },

  async 'Arabic: the page turns round, blocks have their own direction, code and sums stay'() {
    const { page, done } = await visit(fast, { locale: 'ar-EG' });
    assert.deepEqual(await page.evaluate(() => [document.documentElement.lang, document.documentElement.dir]), [
      'ar',
      'rtl',
    ]);
    await page.getByRole('button', { name: /اشترت سلمى/u }).click();
    await page.waitForSelector(`${last} > footer`);
    await page.waitForSelector('.katex');
    assert.equal(await page.locator(`${last} .md > p`).first().getAttribute('dir'), 'rtl');
    assert.equal(await page.locator(`${last} .md > p bdi`).first().innerText(), '3 × 12 = 36');
    assert.equal(await page.locator('.code').evaluate((node) => getComputedStyle(node).direction), 'ltr');
    assert.equal(
      await page
        .locator('.katex')
        .first()
        .evaluate((node) => getComputedStyle(node).direction),
      'ltr',
    );
    const order = await page
      .locator(`${last} .md > p bdi`)
      .first()
      .evaluate((node) => {
        const range = document.createRange();
        const at = (i) => {
          range.setStart(node.firstChild, i);
          range.setEnd(node.firstChild, i + 1);
          return range.getBoundingClientRect().left;
        };
        return at(0) < at(node.textContent.length - 1);
      });
    assert.ok(order, 'the first figure of a sum stands left of the last');
    const side = await page.evaluate(
      () => document.querySelector('.sidebar').getBoundingClientRect().left > innerWidth / 2,
    );
    assert.ok(side);
    await ask(page, 'Show me quicksort');
    assert.equal(await page.locator(`${last} .md > p`).first().getAttribute('dir'), 'ltr');
    await page.keyboard.press('Control+,');
    await page.getByRole('radio', { name: 'English' }).check();
    assert.equal(await page.evaluate(() => document.documentElement.dir), 'ltr');
    await page.keyboard.press('Escape');
    await page.reload();
    await page.waitForSelector('#composer');
    assert.equal(await page.evaluate(() => document.documentElement.lang), 'en');
    await done();
  },

  async 'a reload in the middle keeps what arrived and offers to continue'() {
    const { page, done } = await visit(slow);
    await page.fill('#composer', '#slow');
    await page.press('#composer', 'Enter');
    await page.waitForSelector('.reasoning.active');
    await page.waitForTimeout(1500);
    await page.reload();
    await page.waitForSelector('.note');
    assert.match(await page.locator('.note').innerText(), /cut off when the page closed/u);
    await page.locator('.reasoning > button').click();
    assert.ok((await page.locator('.depth').innerText()).length > 10);
    assert.equal(await page.locator('.note button').innerText(), 'Continue');
    await done();
  },

  async 'without the server the page says so, keeps the text, and goes on when it is back'() {
    const own = await startMock({ port: 0, speed: 20 });
    const port = Number(new URL(own.url).port);
    const { page, done } = await visit(own);
    await ask(page, 'before');
    await own.close();
    await ask(page, 'during', '.message .problem');
    assert.match(await page.locator('.message .problem').innerText(), /does not answer/u);
    assert.equal(await page.locator('.rows a').count(), 1);
    const again = await startMock({ port, speed: 20 });
    await page.locator('.message .problem').getByRole('button', { name: 'Try again' }).click();
    await page.waitForSelector(`${last} .md`);
    await done();
    await again.close();
  },

  async 'a browser without storage says so and still chats'() {
    const { page, done } = await visit(fast, {}, () => {
      Object.defineProperty(window, 'indexedDB', { value: undefined });
      Object.defineProperty(window, 'localStorage', {
        get: () => {
          throw new Error('denied');
        },
      });
    });
    await ask(page, 'hello');
    await page.getByText('This browser could not store the chat.').first().waitFor();
    await ask(page, 'again');
    assert.equal(await messages(page), 4);
    await done();
  },

  async 'nothing a model writes runs or loads'() {
    const { page, done } = await visit(fast);
    await ask(page, '#xss');
    await page.waitForTimeout(300);
    assert.equal(await page.evaluate(() => window.__pwned), undefined);
    assert.equal(await page.locator('.md img, .md script, .md iframe').count(), 0);
    assert.deepEqual(
      await page.locator('.md a').evaluateAll((links) => links.map((link) => [link.getAttribute('href'), link.rel])),
      [['https://evil.example/a', 'noopener noreferrer nofollow']],
    );
    await done();
  },

  async 'the keyboard alone is enough'() {
    const { page, done } = await visit(fast);
    const focus = () =>
      page.evaluate(
        () =>
          document.activeElement?.id ||
          document.activeElement?.getAttribute('aria-label') ||
          document.activeElement?.textContent,
      );
    assert.equal(await focus(), 'composer');
    await page.keyboard.type('one');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('two');
    await page.keyboard.press('Enter');
    await page.waitForSelector(`${last} > footer`);
    assert.equal(await page.locator('.bubble').innerText(), 'one\n\ntwo');
    // Where the button says stop, the arrow is the writer's own.
    await page.waitForSelector('button.stop', { state: 'detached' });
    await page.keyboard.press('ArrowUp');
    await page.getByRole('textbox', { name: 'Edit your message' }).waitFor();
    assert.equal(await focus(), 'Edit your message');
    await page.keyboard.press('Escape');
    await page.keyboard.press('Control+k');
    await page.waitForTimeout(50);
    assert.equal(await focus(), 'search');
    await page.keyboard.press('ArrowDown');
    assert.equal(await focus(), 'one two');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.waitForSelector('[role=menuitem]');
    assert.equal(await focus(), 'Rename');
    await page.keyboard.press('ArrowUp');
    assert.equal(await focus(), 'Delete');
    await page.keyboard.press('Escape');
    assert.match(await focus(), /Actions for/u);
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Control+Shift+O');
    await page.waitForSelector('.welcome');
    // Every stop of the tab key can be seen and has a name.
    for (let i = 0; i < 25; i++) {
      await page.keyboard.press('Tab');
      const stop = await page.evaluate(() => {
        const node = document.activeElement;
        if (node === null || node === document.body) return null;
        const style = getComputedStyle(node);
        const around = node.closest('.search, .composer');
        const seen =
          style.outlineStyle !== 'none' ||
          (around !== null &&
            (getComputedStyle(around).outlineStyle !== 'none' || getComputedStyle(around).boxShadow !== 'none'));
        return {
          seen,
          name: node.getAttribute('aria-label') || node.textContent.trim() || node.getAttribute('title'),
          html: node.outerHTML.slice(0, 120),
        };
      });
      if (stop === null) continue;
      assert.ok(stop.seen, `no visible focus on ${stop.html}`);
      assert.ok(stop.name, `no name on ${stop.html}`);
    }
    await done();
  },

  async 'a screen reader is told'() {
    const { page, done } = await visit(fast);
    await ask(page, '#long');
    await page.waitForTimeout(200);
    const log = page.locator('[role=log]');
    assert.equal(await log.getAttribute('aria-live'), 'polite');
    assert.match(await log.innerText(), /The answer is complete\./u);
    const tree = await page.locator('body').ariaSnapshot();
    for (const part of [
      'navigation "Chats"',
      'main',
      'article "You wrote"',
      'article "nano answered"',
      'textbox "Message"',
      'button "Send"',
      'button "Copy"',
    ])
      assert.ok(tree.includes(part), part);
    await done();
  },

  async 'the rules of accessibility hold (axe), in both languages and themes'() {
    const axe = readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
    for (const [locale, colorScheme] of [
      ['en-GB', 'light'],
      ['ar-EG', 'dark'],
      ['en-GB', 'dark'],
      ['ar-EG', 'light'],
    ]) {
      const { page, done } = await visit(fast, { locale, colorScheme, reducedMotion: 'reduce' });
      const rules = async (where) => {
        await page.waitForTimeout(150);
        await page.evaluate(axe);
        const found = await page.evaluate(async () =>
          (await window.axe.run(document, { resultTypes: ['violations'] })).violations.map(
            (v) => `${v.id}: ${v.nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`,
          ),
        );
        assert.deepEqual(found, [], `${where}, ${locale}, ${colorScheme}`);
      };
      await rules('first visit');
      await ask(page, 'Use 3, 5, 8 and 12 to make 24.');
      await page.waitForSelector('.katex');
      await page.locator('.reasoning > button').click();
      await page.locator('.figures summary').click();
      await rules('an answer');
      await ask(page, 'Show me quicksort');
      await page.waitForSelector('.h-keyword');
      await ask(page, '#429 #xss', `${last} .problem`);
      await rules('code, table, problem');
      await page.locator('.chip').click();
      await rules('thinking');
      await page.keyboard.press('Escape');
      await page.keyboard.press('Control+,');
      await rules('settings');
      await page.keyboard.press('Escape');
      await page.locator('.head .right button').first().click();
      await rules('chat settings');
      await page.keyboard.press('Escape');
      await page.evaluate(() => {
        location.hash = '#/usage';
      });
      await page.waitForSelector('.plot');
      await page.locator('.table summary').click();
      await rules('usage');
      await done();
    }
  },

  async 'text files are dropped into a message; others are refused'() {
    const { page, done } = await visit(fast);
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(['let x = 1;\n'], 'code.js'));
      data.items.add(new File([new Uint8Array([0, 1, 2, 255])], 'picture.png'));
      for (const type of ['dragenter', 'dragover', 'drop'])
        document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    await page.getByText('picture.png is not a text file.').waitFor();
    await page.locator('.composer .files', { hasText: 'code.js' }).waitFor();
    await page.fill('#composer', 'What does it do?');
    await page.keyboard.press('Enter');
    await page.waitForSelector(`${last} > footer`);
    assert.equal(
      fast.state.requests.at(-1).messages[0].content,
      'code.js:\n```js\nlet x = 1;\n```\n\nWhat does it do?',
    );
    await done();
  },

  async 'settings of a chat reach the server'() {
    const { page, done } = await visit(fast);
    await page.getByRole('button', { name: 'Chat settings' }).click();
    await page.getByLabel('System prompt').fill('Answer in one word.');
    await page.getByLabel('Temperature').fill('0.3');
    await page.getByLabel('Seed').fill('7');
    await page.getByLabel('Longest answer, in tokens').fill('99');
    await page.getByRole('slider').fill('2');
    await page.getByRole('button', { name: 'Use these settings for new chats' }).click();
    await page.keyboard.press('Escape');
    await ask(page, 'hello');
    const { messages: sent, stream, stream_options, ...rest } = fast.state.requests.at(-1);
    assert.deepEqual(sent, [
      { role: 'system', content: 'Answer in one word.' },
      { role: 'user', content: 'hello' },
    ]);
    assert.deepEqual(
      [stream, stream_options, rest],
      [
        true,
        { include_usage: true },
        { model: 'nano', temperature: 0.3, max_tokens: 99, seed: 7, thinking: { type: 'enabled', budget_tokens: 256 } },
      ],
    );
    await goTo(page, '#/');
    await page.locator('select.model').selectOption('deepseek-v2-lite');
    await ask(page, 'again');
    assert.equal(fast.state.requests.at(-1).model, 'deepseek-v2-lite');
    assert.equal(fast.state.requests.at(-1).thinking, undefined);
    assert.equal(fast.state.requests.at(-1).seed, 7);
    await done();
  },

  async 'a server with keys asks for one; chats can live there'() {
    const { page, done } = await visit(keyed);
    await page.locator('.dock .problem').waitFor();
    assert.equal(await page.getByRole('button', { name: 'Send' }).isDisabled(), true);
    await page.locator('.dock').getByRole('button', { name: 'Open settings' }).click();
    await page.getByRole('textbox', { name: 'API key' }).fill('sk-right');
    await page.keyboard.press('Escape');
    await ask(page, 'kept in the browser');
    await page.keyboard.press('Control+,');
    await page.getByRole('radio', { name: /On the server/u }).check();
    await page.getByRole('button', { name: 'Move 1 chat there' }).click();
    await page.getByText('Moved.').waitFor();
    await page.keyboard.press('Escape');
    assert.equal(keyed.chats.size, 1);
    await ask(page, 'kept on the server');
    await page.waitForTimeout(300);
    assert.equal(keyed.chats.size, 2);
    await page.reload();
    await page.waitForSelector('.message');
    assert.equal(await messages(page), 2);
    assert.equal(await page.locator('.rows a').count(), 2);
    await done();
  },

  async 'usage has plots in both themes and a table'() {
    const { page, done } = await visit(fast, { colorScheme: 'dark' });
    await page.getByRole('link', { name: 'Usage' }).click();
    await page.waitForSelector('.plot');
    assert.equal(await page.locator('.plot').count(), 2);
    assert.ok((await page.locator('.plot rect').count()) > 60);
    await page.locator('.table summary').click();
    assert.ok((await page.locator('.table tbody tr').count()) > 30);
    await page.getByLabel('Period').selectOption('7');
    await page.waitForFunction(() => document.querySelectorAll('.plot rect').length < 40);
    await done();
  },

  async 'a long chat stays light while it streams'() {
    const { page, done } = await visit(fast);
    for (let i = 0; i < 3; i++) await ask(page, `#long ${i}`);
    await page.evaluate(() => {
      window.__tasks = [];
      new PerformanceObserver((list) =>
        window.__tasks.push(...list.getEntries().map((entry) => entry.duration)),
      ).observe({ type: 'longtask' });
    });
    await ask(page, '#long once more');
    const tasks = await page.evaluate(() => window.__tasks);
    console.log(
      `      tasks over 50 ms while 17,000 characters streamed: ${tasks.length}${tasks.length ? `, longest ${Math.round(Math.max(...tasks))} ms` : ''}`,
    );
    assert.equal(await page.locator(`${last} .md > p`).count(), 60);
    await done();
  },

  async 'on a phone the list is a drawer and nothing is wider than the screen'() {
    const { page, done } = await visit(fast, { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
    await ask(page, 'Show me quicksort');
    await page.waitForSelector('.katex');
    await page.locator('.figures summary').click();
    const wide = await page.evaluate(
      () => document.querySelector('.scroller').scrollWidth - document.querySelector('.scroller').clientWidth,
    );
    assert.ok(wide <= 0, `${wide} px too wide`);
    assert.equal(await page.locator('.sidebar').isVisible(), false);
    await page.getByRole('button', { name: 'Chats' }).click();
    await page.getByRole('link', { name: 'Show me quicksort' }).click();
    await page.waitForFunction(() => getComputedStyle(document.querySelector('.sidebar')).visibility === 'hidden');
    await done();
  },
};

async function visit(mock, options, before) {
  const { page, context, trouble } = await newPage(browser, mock, options, before);
  page.setDefaultTimeout(120_000);
  open = { page, context };
  const done = async () => {
    assert.deepEqual(trouble, []);
    await context.close();
    open = null;
  };
  return { page, done };
}

let open = null;
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  if (!name.includes(only)) continue;
  try {
    await test();
    console.log(`  ok  ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name}\n${error.stack}`);
    if (open !== null) {
      await open.page.screenshot({ path: `${import.meta.dirname}/shots/fail.png` }).catch(() => undefined);
      await open.context.close();
      open = null;
    }
  }
}
await browser.close();
for (const mock of [fast, slow, keyed]) await mock.close();
console.log(failed === 0 ? 'e2e: all passed' : `e2e: ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
