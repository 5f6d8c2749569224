/**
 * Markdown to a tree of plain values; nothing here makes HTML. CommonMark with tables, strike-through, bare links and
 * mathematics ($..$, $$..$$, \(..\), \[..\]), by markdown-it with HTML switched off. Links keep only addresses of the
 * web and of mail; nesting is limited, so that text made to exhaust a reader does not.
 */

import MarkdownIt from 'markdown-it';

export interface MdNode {
  /** markdown-it's token type without `_open`, or `text`, `math`, `math_block`. */
  type: string;
  tag: string;
  text: string;
  info?: string;
  href?: string;
  align?: string;
  start?: number;
  hidden?: boolean;
  children: MdNode[];
}

export interface Block {
  /** The lines of the block in the source, as written: equal text is an equal block. */
  source: string;
  node: MdNode;
}

type Token = ReturnType<InstanceType<typeof MarkdownIt>['parse']>[number];

const NESTING_MAX = 24;

const parser = new MarkdownIt({
  html: false,
  linkify: true,
  typographer: false,
  breaks: false,
  maxNesting: NESTING_MAX,
} as never);
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
parser.validateLink = isSafeAddress;
parser.inline.ruler.before('escape', 'math', inlineMath as never);
parser.block.ruler.before('fence', 'math_block', blockMath as never, {
  alt: ['paragraph', 'reference', 'blockquote', 'list'],
});

/** Web and mail addresses only; no address that a browser could read as script, data or file. */
export function isSafeAddress(address: string): boolean {
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u0020\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069\\]/u.test(address)) return false;
  if (!/^(?:https?:\/\/[^/]|mailto:[^/])/iu.test(address)) return false;
  try {
    return ['http:', 'https:', 'mailto:'].includes(new URL(address).protocol);
  } catch {
    return false; // no address that a browser could open
  }
}

export interface LinkTable {
  references?: Record<string, unknown>;
}

/** The top-level blocks of `source`; `links` carries reference definitions from call to call. */
export function parseBlocks(source: string, links: LinkTable): (Block & { start: number; end: number })[] {
  const clean = source.replace(/\r\n?/gu, '\n').replace(/\u0000/gu, '\ufffd');
  const tokens = parser.parse(clean, links as never);
  const lines = lineStarts(clean);
  const result: (Block & { start: number; end: number })[] = [];
  let at = 0;
  while (at < tokens.length) {
    const first = tokens[at]!;
    let last = at;
    if (first.nesting === 1) {
      let depth = 1;
      while (depth > 0 && last + 1 < tokens.length) depth += tokens[++last]!.nesting;
    }
    const [from, to] = first.map ?? [0, 0];
    const start = lines[from] ?? clean.length;
    const end = lines[to] ?? clean.length;
    const node = tree(tokens.slice(at, last + 1))[0];
    if (node !== undefined) result.push({ source: clean.slice(start, end), node, start, end });
    at = last + 1;
  }
  return result;
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) starts.push(i + 1);
  return starts;
}

function tree(tokens: Token[]): MdNode[] {
  const root: MdNode = { type: 'root', tag: '', text: '', children: [] };
  const stack = [root];
  for (const token of tokens) {
    if (token.nesting === -1) {
      if (stack.length > 1) stack.pop();
      continue;
    }
    const node = nodeOf(token);
    stack[stack.length - 1]!.children.push(...(token.type === 'inline' ? node.children : [node]));
    if (token.nesting === 1) stack.push(node);
  }
  return root.children;
}

function nodeOf(token: Token): MdNode {
  const node: MdNode = {
    type: token.type.replace(/_open$/u, ''),
    tag: token.tag,
    text: token.content,
    children: token.children === null ? [] : tree(token.children),
  };
  if (token.info !== '') node.info = token.info.trim();
  if (token.hidden) node.hidden = true;
  const href = token.attrGet('href') ?? token.attrGet('src');
  if (href !== null) node.href = String(href);
  const style = token.attrGet('style');
  if (style !== null) node.align = /text-align:(left|right|center)/u.exec(String(style))?.[1];
  const start = token.attrGet('start');
  if (start !== null) node.start = Number(start);
  return node;
}

interface InlineState {
  src: string;
  pos: number;
  posMax: number;
  push(type: string, tag: string, nesting: number): { content: string; markup: string };
}

/** `$x$`, `$$x$$`, `\(x\)` and `\[x\]` inside a line. Money is left alone: `$5 and $6` is no formula. */
function inlineMath(state: InlineState, silent: boolean): boolean {
  const { src, pos } = state;
  const c = src[pos];
  let close: string;
  let open: number;
  let display = false;
  if (c === '$') {
    display = src[pos + 1] === '$';
    close = display ? '$$' : '$';
    open = close.length;
    if (!display && /\s/u.test(src[pos + 1] ?? ' ')) return false;
    if (!display && /[\p{L}\d]/u.test(src[pos - 1] ?? '')) return false;
  } else if (c === '\\' && (src[pos + 1] === '(' || src[pos + 1] === '[')) {
    display = src[pos + 1] === '[';
    close = display ? '\\]' : '\\)';
    open = 2;
  } else return false;
  const end = findClose(src, pos + open, state.posMax, close);
  if (end < 0) return false;
  const content = src.slice(pos + open, end);
  if (content.trim() === '') return false;
  if (close === '$' && (/\s/u.test(content.at(-1)!) || /\d/u.test(src[end + 1] ?? ''))) return false;
  if (!silent) {
    const token = state.push(display ? 'math_display' : 'math', '', 0);
    token.content = content.trim();
    token.markup = close;
  }
  state.pos = end + close.length;
  return true;
}

/** Looks a bounded way ahead, so that many openers without a closer stay cheap. */
function findClose(src: string, from: number, max: number, close: string): number {
  const near = src.slice(from, Math.min(max, from + 2000));
  const blank = near.indexOf('\n\n');
  for (let at = near.indexOf(close); at >= 0; at = near.indexOf(close, at + 1)) {
    if (blank >= 0 && blank < at) return -1;
    if (!close.startsWith('$') || !escaped(near, at)) return from + at;
  }
  return -1;
}

/** An odd number of backslashes stands before `at`. */
function escaped(text: string, at: number): boolean {
  let slashes = 0;
  while (text[at - 1 - slashes] === '\\') slashes++;
  return slashes % 2 === 1;
}

interface BlockState {
  src: string;
  bMarks: number[];
  tShift: number[];
  eMarks: number[];
  sCount: number[];
  blkIndent: number;
  line: number;
  push(
    type: string,
    tag: string,
    nesting: number,
  ): { content: string; map: [number, number] | null; block: boolean; info: string };
}

/** A block that begins with `$$` or `\[`. Without its end it is shown as source (`info` = open): it may still come. */
function blockMath(state: BlockState, startLine: number, endLine: number, silent: boolean): boolean {
  if (state.sCount[startLine]! - state.blkIndent >= 4) return false;
  const lineAt = (n: number): string => state.src.slice(state.bMarks[n]! + state.tShift[n]!, state.eMarks[n]);
  const first = lineAt(startLine);
  const open = first.startsWith('$$') ? '$$' : first.startsWith('\\[') ? '\\[' : undefined;
  if (open === undefined) return false;
  const close = open === '$$' ? '$$' : '\\]';
  const body: string[] = [];
  let line = startLine;
  let closed = false;
  for (let text = first.slice(2); ; text = lineAt(line)) {
    const end = text.indexOf(close);
    if (end >= 0) {
      if (text.slice(end + 2).trim() !== '') return false; // goes on after the formula: a formula inside a line
      body.push(text.slice(0, end));
      closed = true;
      break;
    }
    body.push(text);
    if (line + 1 >= endLine || (state.sCount[line + 1]! < state.blkIndent && lineAt(line + 1) !== '')) break;
    line++;
  }
  if (body.join('').trim() === '' && (closed || line > startLine)) return false;
  if (silent) return true;
  const token = state.push('math_block', '', 0);
  token.block = true;
  token.content = body.join('\n').trim();
  token.info = closed ? '' : 'open';
  token.map = [startLine, line + 1];
  state.line = line + 1;
  return true;
}

/** All letters of a node, code and formulas left out: what its direction is taken from. */
export function plainText(node: MdNode, limit = 400): string {
  if (/^(?:code_inline|code_block|fence|math|math_display|math_block)$/u.test(node.type)) return ' ';
  let text = node.type === 'text' || node.type === 'image' ? node.text : '';
  for (const child of node.children) {
    if (text.length > limit) break;
    text += plainText(child, limit - text.length);
  }
  return text;
}
