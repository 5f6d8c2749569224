import { beforeEach, describe, expect, it } from 'vitest';
import { ar } from '../src/i18n/ar.ts';
import { en } from '../src/i18n/en.ts';
import {
  compact,
  count,
  duration,
  energy,
  fill,
  languageChoice,
  money,
  number,
  pickLanguage,
} from '../src/i18n/index.ts';
import { parseRoute } from '../src/state/route.ts';
import { requestOf } from '../src/state/runs.ts';
import { info } from '../src/state/server.ts';
import { apiKey, defaults, place, readSettings, theme } from '../src/state/settings.ts';
import { FILE_BYTES_MAX, decode, readTextFile } from '../src/ui/files.ts';
import { budgetSteps } from '../src/ui/thinking.tsx';
import { daysUpTo, scale } from '../src/ui/usage.tsx';

function leaves(value: unknown, path = ''): [string, string][] {
  if (typeof value === 'string') return [[path, value]];
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, `${path}.${key}`));
}

describe('the languages', () => {
  it('say the same things, with the same values in them', () => {
    const english = new Map(leaves(en).filter(([path]) => !path.startsWith('.plural')));
    const arabic = new Map(leaves(ar).filter(([path]) => !path.startsWith('.plural')));
    expect([...arabic.keys()].sort()).toEqual([...english.keys()].sort());
    for (const [path, text] of english) {
      const names = (t: string): string[] => (t.match(/\{\w+\}/gu) ?? []).sort();
      expect(names(arabic.get(path)!), path).toEqual(names(text));
    }
  });

  it('have a form for every number', () => {
    for (const words of [en, ar]) {
      const rules = new Intl.PluralRules(words.code);
      for (const forms of Object.values(words.plural)) {
        for (const category of rules.resolvedOptions().pluralCategories)
          expect(forms[category], `${words.code} ${category}`).toBeTypeOf('string');
      }
    }
  });

  it('in Arabic hold no English sentence', () => {
    const kept =
      /^(?:\.code|\.noChatModel|\.name|\.dir|\.keys|\.keyHelp|\.aboutText|\.problems\.key|\.export|\.enterHint|\.topP|\.assistant)/u;
    for (const [path, text] of leaves(ar))
      if (!kept.test(path)) expect(text.replace(/\{\w+\}|JSON|Markdown/gu, ''), path).not.toMatch(/[A-Za-z]{4}/u);
  });

  it('follow the browser until one is chosen', () => {
    expect(pickLanguage('auto', ['fr-FR', 'ar-EG', 'en']).code).toBe('ar');
    expect(pickLanguage('auto', ['fr-FR']).code).toBe('en');
    expect(pickLanguage('auto', []).code).toBe('en');
    expect(pickLanguage('en', ['ar']).code).toBe('en');
  });

  it('write numbers, money and times', () => {
    languageChoice.value = 'en';
    expect([number(1234.56, 1), compact(12_300), count('tokens', 1), count('tokens', 2)]).toEqual([
      '1,234.6',
      '12.3K',
      '1 token',
      '2 tokens',
    ]);
    expect([money(0.000123, 'USD'), money(12.5, 'USD'), money(0.25, 'EUR'), money(1, 'credits')]).toEqual([
      '$0.000123',
      '$12.50',
      '€0.25',
      '1.00 credits',
    ]);
    expect([duration(0.42), duration(12.6), duration(125), duration(7300)]).toEqual([
      '0.4 s',
      '13 s',
      '2 min 5 s',
      '2 h 1 min',
    ]);
    expect([energy(15.51), energy(244_200), energy(3_200_000)]).toEqual(['15.5 J', '244.2 kJ', '3.2 MJ']);
    languageChoice.value = 'ar';
    expect([
      count('tokens', 0),
      count('tokens', 2),
      count('tokens', 5),
      count('tokens', 33),
      count('tokens', 100),
    ]).toEqual(['لا رموز', 'رمزان', '5 رموز', '33 رمزًا', '100 رمز']);
    expect(money(0.000123, 'USD')).toBe('\u2066$0.000123\u2069');
    languageChoice.value = 'auto';
    expect(fill('{a} {b} {a}', { a: 1 })).toBe('1 {b} 1');
  });
});

describe('settings', () => {
  beforeEach(() => readSettings(null));

  it('are read with everything else left at its default', () => {
    readSettings(
      JSON.stringify({
        theme: 'dark',
        place: 'server',
        key: 'sk-1',
        defaults: { temperature: 0.5, top_p: 9 },
        language: 'xx',
      }),
    );
    expect([theme.value, place.value, apiKey.value, defaults.value, languageChoice.value]).toEqual([
      'dark',
      'server',
      'sk-1',
      { temperature: 0.5 },
      'auto',
    ]);
  });

  it('that cannot be read are settings not made', () => {
    for (const bad of ['', '{', 'null', '3', '[]', '{"theme":{}}']) {
      readSettings(bad);
      expect([theme.value, place.value, apiKey.value, defaults.value]).toEqual(['auto', 'browser', '', {}]);
    }
  });
});

describe('requests', () => {
  beforeEach(() => {
    info.value = {
      name: 'fathom',
      version: '0',
      key_needed: false,
      store: true,
      models: [
        { id: 'deep', reasoning: true, thinking_switch: true },
        { id: 'plain', reasoning: false },
        { id: 'vectors', chat: false },
      ],
    };
  });
  const shown = [{ id: 'q', parent: '', role: 'user', content: 'x', created: 1, status: 'done' } as const];

  it('hold only what was chosen', () => {
    expect(requestOf([...shown], {}, false)).toEqual({ model: 'deep', messages: [{ role: 'user', content: 'x' }] });
    expect(
      requestOf(
        [...shown],
        { model: 'plain', temperature: 0, top_p: 0.5, max_tokens: 9, seed: 0, thinking: false, budget: 64 },
        false,
      ),
    ).toEqual({
      model: 'plain',
      messages: [{ role: 'user', content: 'x' }],
      temperature: 0,
      top_p: 0.5,
      max_tokens: 9,
      seed: 0,
    });
  });

  it('say how much to think only to a model that does', () => {
    expect(requestOf([...shown], { thinking: false, budget: 64 }, false).thinking).toEqual({ type: 'disabled' });
    expect(requestOf([...shown], { budget: 64 }, false).thinking).toEqual({ type: 'enabled', budget_tokens: 64 });
    expect(requestOf([...shown], { thinking: true }, false).thinking).toEqual({ type: 'enabled' });
    expect(requestOf([...shown], { model: 'gone' }, false).model).toBe('deep');
  });
});

describe('small parts', () => {
  it('read addresses of the page', () => {
    const table: [string, unknown][] = [
      ['', { view: 'chat', id: null }],
      ['#/', { view: 'chat', id: null }],
      ['#/usage', { view: 'usage' }],
      ['#/c/abcdefgh-1', { view: 'chat', id: 'abcdefgh-1' }],
      ['#/c/../x', { view: 'chat', id: null }],
      ['#/c/short', { view: 'chat', id: null }],
    ];
    for (const [hash, route] of table) expect(parseRoute(hash), hash).toEqual(route);
  });

  it('take text files and refuse the rest', async () => {
    const file = (data: BlobPart, name = 'a.txt'): File => new File([data], name);
    expect(decode(new Uint8Array([0xff, 0xfe, 0x34, 0x06]))).toBe('ش');
    expect(decode(new TextEncoder().encode('a\r\nb\rc'))).toBe('a\nb\nc');
    for (const bad of [[0xff, 0xd8, 0xff], [0x61, 0, 0x62], [0xc3]]) expect(decode(new Uint8Array(bad))).toBeNull();
    const big = { size: FILE_BYTES_MAX + 1, name: 'big' } as File;
    expect(await readTextFile(big, 0)).toMatchObject({ ok: false, why: 'size' });
    expect(await readTextFile({ size: 10, name: 'x' } as File, 4 * 1024 * 1024)).toMatchObject({
      ok: false,
      why: 'size',
    });
    expect(file('x').size).toBe(1);
  });

  it('draw scales that end at or above the largest value', () => {
    for (const max of [0, 1e-7, 0.02, 1, 7, 99, 100, 101, 12_345, 4e9]) {
      const ticks = scale(max);
      expect(ticks.at(-1)!, String(max)).toBeGreaterThanOrEqual(max);
      expect(ticks.length).toBeLessThanOrEqual(6);
      expect(ticks[0]).toBe(0);
    }
    expect(daysUpTo(Date.UTC(2026, 2, 1), 3)).toEqual(['2026-02-27', '2026-02-28', '2026-03-01']);
  });

  it('offer budgets below the context, then none', () => {
    expect(budgetSteps({ id: 'x', context_tokens: 1024 })).toEqual([64, 128, 256, 512, undefined]);
  });
});
