/** Pictures of the page in its states, to be looked at: `node e2e/shots.mjs [name-part]` writes e2e/shots/*.png. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { startMock } from '../dev/mock.mjs';
import { ask, newPage, openBrowser } from './tools.mjs';

const only = process.argv[2] ?? '';
const out = join(import.meta.dirname, 'shots');
mkdirSync(out, { recursive: true });
const mock = await startMock({ port: 0, speed: 20 });
const slow = await startMock({ port: 0, speed: 1 });
const browser = await openBrowser();

const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };
const variants = [
  ['desk-light-en', { viewport: DESKTOP, colorScheme: 'light', locale: 'en-GB' }],
  ['desk-dark-en', { viewport: DESKTOP, colorScheme: 'dark', locale: 'en-GB' }],
  ['desk-light-ar', { viewport: DESKTOP, colorScheme: 'light', locale: 'ar-EG' }],
  ['phone-light-en', { viewport: PHONE, colorScheme: 'light', locale: 'en-GB', hasTouch: true, isMobile: true }],
  ['phone-dark-ar', { viewport: PHONE, colorScheme: 'dark', locale: 'ar-EG', hasTouch: true, isMobile: true }],
];

const scenes = {
  async welcome() {},
  async countdown(page) {
    await ask(page, 'Use 3, 5, 8 and 12 to make 24.');
    await page.locator('.reasoning > button').first().click();
    await page.locator('.figures summary').first().click();
  },
  async rich(page) {
    await ask(page, 'Show me quicksort');
    await page.waitForSelector('.katex');
    await page.waitForSelector('.h-keyword');
    await page.locator('.scroller').evaluate((node) => {
      node.scrollTop = 0;
    });
  },
  async arabic(page) {
    await ask(page, 'اشترت سلمى 3 علب أقلام، في كل علبة 12 قلمًا، ثم أعطت أخاها 9 أقلام. كم قلمًا بقي معها؟');
    await page.waitForSelector('.katex');
    await page.locator('.reasoning > button').first().click();
    await page.locator('.scroller').evaluate((node) => {
      node.scrollTop = 0;
    });
  },
  async problems(page) {
    await ask(page, '#429 please', '.problem');
    await ask(page, '#break please', '.message:last-child .problem');
  },
  async wrong(page) {
    await ask(page, '#wrong');
    await ask(page, '#xss', '.message:last-child footer');
  },
  async streaming(page) {
    await page.fill('#composer', '#slow one');
    await page.press('#composer', 'Enter');
    await page.waitForSelector('.reasoning.active');
    await page.waitForTimeout(1500);
  },
  async history(page) {
    for (const text of ['Who are you?', 'What is 4817 + 2965?', 'من أنت؟']) {
      await ask(page, text);
      await page.evaluate(() => {
        location.hash = '#/';
      });
    }
    if (await page.locator('.head button[aria-controls]').count())
      await page.locator('.head button[aria-controls]').click();
    await page.waitForTimeout(400);
    await page.locator('.rows .menu button').first().click({ force: true });
  },
  async settings(page) {
    await page.keyboard.press('Control+,');
    await page.waitForSelector('dialog');
  },
  async chatsettings(page) {
    await page.locator('.head .right button').first().click();
    await page.waitForSelector('dialog');
  },
  async thinking(page) {
    await page.locator('.chip').click();
    await page.locator('.popover input[type=range]').fill('3');
  },
  async usage(page) {
    await page.evaluate(() => {
      location.hash = '#/usage';
    });
    await page.waitForSelector('.plot');
    await page.locator('.table summary').click();
  },
};

for (const [variant, options] of variants) {
  for (const [scene, act] of Object.entries(scenes)) {
    const name = `${scene}-${variant}`;
    if (!name.includes(only)) continue;
    const { page, context, trouble } = await newPage(browser, scene === 'streaming' ? slow : mock, options);
    try {
      await act(page);
      await page.waitForTimeout(250);
      await page.screenshot({ path: join(out, `${name}.png`) });
    } catch (error) {
      console.log(`${name}: ${error.message.split('\n')[0]}`);
      await page.screenshot({ path: join(out, `${name}.png`) });
    }
    if (trouble.length > 0) console.log(name, trouble);
    await context.close();
  }
}
await browser.close();
await mock.close();
await slow.close();
