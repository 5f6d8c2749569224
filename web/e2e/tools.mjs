/** What the browser tests share: one Chromium, one page that reports everything that should not happen. */

import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const PLACES = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
export const browserPath = PLACES.find((place) => place !== undefined && existsSync(place));

export function openBrowser() {
  if (browserPath === undefined) throw new Error('no Chromium here: install it or name it in CHROMIUM');
  return chromium.launch({
    executablePath: browserPath,
    args: [
      '--headless',
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

/** A fresh visitor. `trouble` collects errors, refused content and requests to anywhere but the server. */
export async function newPage(browser, mock, options = {}, before = undefined) {
  const context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1280, height: 800 }, ...options });
  if (before !== undefined) await context.addInitScript(before);
  const page = await context.newPage();
  const trouble = [];
  page.on('pageerror', (error) => trouble.push(`error: ${error.message}`));
  page.on('console', (message) => {
    const text = message.text();
    if (message.type() === 'error' && !/Failed to load resource/u.test(text)) trouble.push(`console: ${text}`);
  });
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(mock.url) && !url.startsWith('blob:')) trouble.push(`request: ${url}`);
  });
  await page.goto(`${mock.url}/`);
  await page.waitForSelector('#composer, .usage, .blank');
  await page.waitForFunction(
    () => document.querySelector('select.model') !== null || document.querySelector('.blank') !== null,
  );
  return { page, context, trouble };
}

/** Sends a question and waits until its answer stands. */
export async function ask(page, text, until = '.message.assistant:last-child > footer') {
  const before = await page.locator('.message').count();
  await page.fill('#composer', text);
  await page.press('#composer', 'Enter');
  await page.waitForFunction((n) => document.querySelectorAll('.message').length >= n + 2, before);
  await page.waitForSelector(until);
}
