/** What the visitor chose, kept in this browser: language, appearance, place of the chats, key, defaults. */

import { effect, signal } from '@preact/signals';
import { setKey } from '../api/client.ts';
import type { ChatSettings } from '../chat/model.ts';
import { checkSettings } from '../chat/transfer.ts';
import { languageChoice, words } from '../i18n/index.ts';
import type { LanguageChoice } from '../i18n/index.ts';

export type Theme = 'auto' | 'light' | 'dark';
export type Place = 'browser' | 'server';

const NAME = 'fathom.settings';

export const theme = signal<Theme>('auto');
export const place = signal<Place>('browser');
export const apiKey = signal('');
/** What a new chat starts with. */
export const defaults = signal<ChatSettings>({});

export function readSettings(text: string | null): void {
  let given: Record<string, unknown> = {};
  try {
    const value: unknown = JSON.parse(text ?? '{}');
    if (typeof value === 'object' && value !== null) given = value as Record<string, unknown>;
  } catch {
    given = {}; // settings that cannot be read are settings not made
  }
  const one = <T extends string>(value: unknown, of: readonly T[], otherwise: T): T =>
    of.includes(value as T) ? (value as T) : otherwise;
  languageChoice.value = one<LanguageChoice>(given.language, ['auto', 'en', 'ar'], 'auto');
  theme.value = one<Theme>(given.theme, ['auto', 'light', 'dark'], 'auto');
  place.value = one<Place>(given.place, ['browser', 'server'], 'browser');
  apiKey.value = typeof given.key === 'string' ? given.key.slice(0, 400) : '';
  defaults.value = checkSettings(given.defaults);
}

/** Reads the settings, and from then on writes each change back and puts it on the page. */
export function startSettings(): void {
  let stored: string | null = null;
  try {
    stored = localStorage.getItem(NAME);
  } catch {
    stored = null; // storage switched off: settings last as long as the page
  }
  readSettings(stored);
  effect(() => {
    const text = JSON.stringify({
      language: languageChoice.value,
      theme: theme.value,
      place: place.value,
      key: apiKey.value,
      defaults: defaults.value,
    });
    try {
      localStorage.setItem(NAME, text);
    } catch {
      return;
    }
  });
  effect(() => setKey(apiKey.value));
  effect(() => {
    const root = document.documentElement;
    root.lang = words.value.code;
    root.dir = words.value.dir;
    if (theme.value === 'auto') delete root.dataset.theme;
    else root.dataset.theme = theme.value;
  });
}
