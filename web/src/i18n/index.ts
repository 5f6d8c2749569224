/**
 * The language of the page: that of the browser until another is chosen. Numbers and dates follow it too, always with
 * Western digits, because formulas, code and the models' answers have them.
 */

import { computed, signal } from '@preact/signals';
import { ar } from './ar.ts';
import { en } from './en.ts';
import type { Words } from './en.ts';

export type LanguageChoice = 'auto' | 'en' | 'ar';
export const LANGUAGES: Words[] = [en, ar];

export const languageChoice = signal<LanguageChoice>('auto');

/** The first of the browser's languages that the page has. */
export function pickLanguage(choice: LanguageChoice, wanted: readonly string[]): Words {
  if (choice !== 'auto') return choice === 'ar' ? ar : en;
  for (const tag of wanted) {
    const base = tag.toLowerCase().split('-')[0];
    const hit = LANGUAGES.find((words) => words.code === base);
    if (hit !== undefined) return hit;
  }
  return en;
}

export const words = computed(() => pickLanguage(languageChoice.value, navigator.languages ?? [navigator.language]));

/** Puts values in place of `{name}`. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/gu, (all, name: string) => (name in values ? String(values[name]) : all));
}

function locale(): string {
  return words.value.code === 'ar' ? 'ar-u-nu-latn' : 'en';
}

export function number(value: number, digits = 0): string {
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
}

export function compact(value: number): string {
  return new Intl.NumberFormat(locale(), { notation: 'compact', maximumFractionDigits: 1 }).format(value);
}

export function count(what: keyof Words['plural'], value: number): string {
  const forms = words.value.plural[what];
  const form = forms[new Intl.PluralRules(words.value.code).select(value)] ?? forms.other ?? '{n}';
  return fill(form, { n: number(value) });
}

/**
 * Money with as many places as it takes to see it: costs of one answer are far below a cent. The sign stands where
 * English has it, and the whole is held together left to right.
 */
export function money(value: number, currency: string): string {
  const small = value !== 0 && Math.abs(value) < 0.01;
  const style: Intl.NumberFormatOptions = {
    minimumFractionDigits: small ? 6 : 2,
    maximumFractionDigits: small ? 6 : Math.abs(value) < 1 ? 4 : 2,
  };
  const known = /^[A-Z]{3}$/u.test(currency);
  const text = known
    ? new Intl.NumberFormat('en', { ...style, style: 'currency', currency, currencyDisplay: 'narrowSymbol' }).format(
        value,
      )
    : `${new Intl.NumberFormat('en', style).format(value)} ${currency}`;
  return words.value.dir === 'rtl' ? `\u2066${text}\u2069` : text;
}

export function duration(seconds: number): string {
  const w = words.value;
  if (seconds < 60) return fill(w.secondsShort, { n: number(seconds, seconds < 10 ? 1 : 0) });
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return fill(w.minutesShort, { m: number(minutes), s: number(Math.floor(seconds % 60)) });
  return fill(w.hoursShort, { h: number(Math.floor(minutes / 60)), m: number(minutes % 60) });
}

export function energy(joules: number): string {
  const w = words.value;
  if (joules < 1000) return fill(w.joules, { n: number(joules, joules < 100 ? 1 : 0) });
  if (joules < 1e6) return fill(w.kilojoules, { n: number(joules / 1e3, 1) });
  return fill(w.megajoules, { n: number(joules / 1e6, 2) });
}

export function bytes(value: number): string {
  return value < 1024 * 1024 ? `${number(value / 1024)} KiB` : `${number(value / 1024 / 1024, 1)} MiB`;
}

/** `day` is `YYYY-MM-DD` in UTC. */
export function dayName(day: string): string {
  return new Intl.DateTimeFormat(locale(), { day: 'numeric', month: 'short', timeZone: 'UTC' }).format(
    new Date(`${day}T00:00:00Z`),
  );
}

export function dateTime(moment: number): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: 'medium', timeStyle: 'short' }).format(moment);
}
