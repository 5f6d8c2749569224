/** KaTeX with its style and fonts, loaded when a formula first appears. It builds nodes, no HTML. */

import katex from 'katex';
import 'katex/dist/katex.min.css';

export const FORMULA_CHARS_MAX = 4000;

/** Links, images and HTML in a formula: the formula is not drawn at all. */
function refuse(): never {
  throw new Error('a formula may not reach outside itself');
}

/** Draws `tex` into `target`; false when it is no formula that KaTeX knows. */
export function drawFormula(tex: string, target: HTMLElement, displayMode: boolean): boolean {
  if (tex.length > FORMULA_CHARS_MAX) return false;
  try {
    katex.render(tex, target, {
      displayMode,
      throwOnError: true,
      strict: 'ignore',
      trust: refuse,
      output: 'htmlAndMathml',
      maxSize: 20,
      maxExpand: 300,
    });
    return true;
  } catch {
    return false; // the source stays on the page instead
  }
}
