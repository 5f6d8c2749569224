/**
 * Direction of text. A block takes the direction of its first strong letter (Unicode bidirectional algorithm, rule
 * P2), code and formulas aside; a block without any letter takes that of its surroundings. Sums such as `12 - 3 = 9`
 * are held together left to right, because in a right-to-left line their parts would change places.
 */

export type Dir = 'ltr' | 'rtl';

const STRONG = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\u200F\u061C]|\p{L}|\u200E/u;
const RTL = /^[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\u200F\u061C]$/u;

/** The direction of the first strong character; null when there is none. Arabic digits are not strong. */
export function firstStrong(text: string): Dir | null {
  // Marks and digits of the Arabic script are not letters and carry no direction of their own.
  const plain = text.replace(/[\u0600-\u0607\u0609\u060A\u060C\u060E-\u061A\u064B-\u0669\u06DE\u06E9\u06F0-\u06F9]/gu, ' ');
  const hit = STRONG.exec(plain);
  if (hit === null) return null;
  return RTL.test(hit[0]) ? 'rtl' : 'ltr';
}

export function dirOf(text: string, around: Dir): Dir {
  return firstStrong(text) ?? around;
}

export interface Piece {
  text: string;
  /** A sum or a formula in plain text: to be isolated, left to right. */
  sum: boolean;
}

const NUMBER = String.raw`[-−+]?\d+(?:[,._٫٬]\d+)*%?`;
const OPEN = String.raw`[([{]\s?`;
const CLOSE = String.raw`\s?[)\]}]`;
const TERM = String.raw`(?:${OPEN})*(?:${NUMBER}|\b[a-zA-Z]\b)(?:${CLOSE})*`;
const OPERATOR = String.raw`\s?(?:[-−+*/×÷·^=<>≤≥≠≈]|==|<=|>=|!=)\s?`;
const SUM = new RegExp(String.raw`${TERM}(?:${OPERATOR}${TERM})+(?:${OPERATOR}(?=$|[\s.،؟?!]))?|[-−+]\d+(?:[.,]\d+)*`, 'gu');

/** Cuts plain text into sums and the rest. */
export function pieces(text: string): Piece[] {
  const result: Piece[] = [];
  let at = 0;
  for (const hit of text.matchAll(SUM)) {
    if (!/\d/u.test(hit[0])) continue;
    if (hit.index > at) result.push({ text: text.slice(at, hit.index), sum: false });
    result.push({ text: hit[0], sum: true });
    at = hit.index + hit[0].length;
  }
  if (at < text.length) result.push({ text: text.slice(at), sum: false });
  return result;
}
