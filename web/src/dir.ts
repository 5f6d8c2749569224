/**
 * Direction of text. A block takes the direction of its first strong letter (Unicode bidirectional algorithm, rule
 * P2), code and formulas aside; a block without any letter takes that of its surroundings. Sums such as `12 - 3 = 9`
 * are held together left to right, because in a right-to-left line their parts would change places.
 */

export type Dir = 'ltr' | 'rtl';

const STRONG =
  /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\u200F\u061C]|\p{L}|\u200E/u;
const RTL = /^[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\u200F\u061C]$/u;

/** The direction of the first strong character; null when there is none. Arabic digits are not strong. */
export function firstStrong(text: string): Dir | null {
  // Marks and digits of the Arabic script are not letters and carry no direction of their own.
  const plain = text.replace(
    /[\u0600-\u0607\u0609\u060A\u060C\u060E-\u061A\u064B-\u0669\u06DE\u06E9\u06F0-\u06F9]/gu,
    ' ',
  );
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

type Kind = 'term' | 'sign' | 'open' | 'close' | 'space' | 'other';

interface Part {
  kind: Kind;
  text: string;
}

const PART = /\d+(?:[.,_٫٬]\d+)*%?|[a-zA-Z]+|==|[<>!]=|[-−+*/×÷·^=<>≤≥≠≈]|[([{]|[)\]}]|\s+|[^]/gu;

function kindOf(text: string): Kind {
  if (/^(?:\d|[a-zA-Z]$)/u.test(text)) return 'term';
  if (/^[-−+*/×÷·^=<>≤≥≠≈!]/u.test(text)) return text === '!' ? 'other' : 'sign';
  if (/^[([{]/u.test(text)) return 'open';
  if (/^[)\]}]/u.test(text)) return 'close';
  return text === ' ' ? 'space' : 'other';
}

/** Cuts plain text into sums and the rest, in one pass. */
export function pieces(text: string): Piece[] {
  const result: Piece[] = [];
  const put = (parts: Part[], sum: boolean): void => {
    const joined = parts.map((part) => part.text).join('');
    if (joined === '') return;
    const last = result[result.length - 1];
    if (last !== undefined && !last.sum && !sum) last.text += joined;
    else result.push({ text: joined, sum });
  };
  let run: Part[] = [];
  const close = (): void => {
    const [before, sum, after] = trim(run);
    put(before, false);
    put(sum, isSum(sum));
    put(after, false);
    run = [];
  };
  let ended = false; // the run's last part that is not a space ended a term
  for (const [part] of text.matchAll(PART)) {
    const kind = kindOf(part);
    const begins = kind === 'term' || kind === 'open';
    if (kind === 'other' || (begins && ended)) close();
    if (kind === 'other') put([{ kind, text: part }], false);
    else run.push({ kind, text: part });
    if (kind !== 'space') ended = kind === 'term' || kind === 'close';
  }
  close();
  return result;
}

/** A run without the signs before it, what follows its last term (one sign aside), and brackets without a partner. */
function trim(run: Part[]): [Part[], Part[], Part[]] {
  let from = 0;
  let to = run.length;
  const signed = (at: number): boolean => /^[-−+]$/u.test(run[at]!.text) && run[at + 1]?.kind === 'term';
  let depth = 0;
  let lost = 0; // closing brackets without an opening one
  for (const part of run) {
    if (part.kind === 'open') depth++;
    else if (part.kind === 'close' && depth > 0) depth--;
    else if (part.kind === 'close') lost++;
  }
  while (
    from < to &&
    (run[from]!.kind === 'space' ||
      run[from]!.kind === 'close' ||
      (run[from]!.kind === 'sign' && !signed(from)) ||
      (run[from]!.kind === 'open' && depth > 0))
  ) {
    if (run[from]!.kind === 'open') depth--;
    if (run[from]!.kind === 'close') lost--;
    from++;
  }
  while (
    to > from &&
    (run[to - 1]!.kind === 'space' || run[to - 1]!.kind === 'open' || (run[to - 1]!.kind === 'close' && lost > 0))
  ) {
    if (run[to - 1]!.kind === 'close') lost--;
    to--;
  }
  return [run.slice(0, from), run.slice(from, to), run.slice(to)];
}

/** Two terms with a sign between them, or a number with its sign; a number must be in it. */
function isSum(parts: Part[]): boolean {
  const solid = parts.filter((part) => part.kind !== 'space');
  if (!solid.some((part) => /^\d/u.test(part.text)) || !solid.some((part) => part.kind === 'sign')) return false;
  return solid.filter((part) => part.kind === 'term').length > 1 || solid[0]!.kind === 'sign';
}
