import { describe, expect, it } from 'vitest';
import { dirOf, firstStrong, pieces } from '../src/dir.ts';

describe('direction', () => {
  it('is that of the first letter', () => {
    const table: [string, 'ltr' | 'rtl' | null][] = [
      ['hello', 'ltr'],
      ['سلام', 'rtl'],
      ['12 + 3 سلام x', 'rtl'],
      ['12 + 3', null],
      ['', null],
      ['؟ ، ؛', null],
      ['٣ + ٤', null],
      ['٣ apples', 'ltr'],
      ['Ελληνικά', 'ltr'],
      ['שלום', 'rtl'],
      ['— «نعم»', 'rtl'],
      ['👋 hi', 'ltr'],
      ['\u200fabc', 'rtl'],
      ['日本', 'ltr'],
      ['(a) ثم', 'ltr'],
      ['\u064e', null],
    ];
    for (const [text, dir] of table) expect(firstStrong(text), JSON.stringify(text)).toBe(dir);
  });

  it('is that of the surroundings where no letter is', () => {
    expect(dirOf('= 24', 'rtl')).toBe('rtl');
    expect(dirOf('x = 24', 'rtl')).toBe('ltr');
  });
});

const sums = (text: string): string[] =>
  pieces(text)
    .filter((piece) => piece.sum)
    .map((piece) => piece.text);

describe('sums in plain text', () => {
  it('are held together, with their brackets and signs, without the full stop after them', () => {
    const table: [string, string[]][] = [
      ['الناتج 12 - 3 = 9.', ['12 - 3 = 9']],
      ['(3 + 5) * (12 - 9) = 24', ['(3 + 5) * (12 - 9) = 24']],
      ['بقي معها 36-9=27، صحيح', ['36-9=27']],
      ['درجة الحرارة -5 اليوم', ['-5']],
      ['2.5 × 4 = 10 ثم 7/2 ≈ 3.5', ['2.5 × 4 = 10', '7/2 ≈ 3.5']],
      ['س = 4', []],
      ['x = 4 هو الحل', ['x = 4']],
      ['في سنة 2025', []],
      ['50% + 25% = 75%', ['50% + 25% = 75%']],
      ['1,000 + 2,500 = 3,500.', ['1,000 + 2,500 = 3,500']],
      ['٣ + ٤', []],
      ['أ - ب', []],
    ];
    for (const [text, expected] of table) expect(sums(text), text).toEqual(expected);
  });

  it('lose no character, whatever the text', () => {
    let seed = 3;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    const signs = [...'0123456789+-*/=().,% سلامabx؟\n×÷٣'];
    for (let i = 0; i < 3000; i++) {
      const text = Array.from({ length: random(40) }, () => signs[random(signs.length)]!).join('');
      expect(
        pieces(text)
          .map((piece) => piece.text)
          .join(''),
      ).toBe(text);
    }
  });

  it('are found in linear time', () => {
    for (const unit of ['1+', '((((', '1 ', '-', '(1', '1.1,', 'a ']) {
      const text = unit.repeat(20_000);
      expect(
        pieces(text)
          .map((piece) => piece.text)
          .join(''),
      ).toBe(text);
    }
  });
});
