import { describe, expect, it } from 'vitest';
import { GrowingMarkdown } from '../src/md/incremental.ts';
import { isSafeAddress, parseBlocks, plainText } from '../src/md/parse.ts';
import type { MdNode } from '../src/md/parse.ts';

const nodes = (source: string): MdNode[] => parseBlocks(source, {}).map((block) => block.node);

function all(list: MdNode[]): MdNode[] {
  return list.flatMap((node) => [node, ...all(node.children)]);
}
const types = (source: string): string[] => all(nodes(source)).map((node) => node.type);
const math = (source: string): string[] =>
  all(nodes(source))
    .filter((node) => node.type.startsWith('math'))
    .map((node) => `${node.type}:${node.text}`);

const SAMPLE =
  '# Title\n\nA *b* **c** `d` [e](https://x.org) https://y.org\n\n- one\n- two\n\n  more\n  1. deep\n\n\n1. a\n\n2. b\n\n```js\nlet x = 1;\n\n// still\n```\n\n' +
  '| a | b |\n|---|--:|\n| 1 | $x|y$ |\n\n> quote\nlazy\n\n$$\nx^2\n\ny\n$$\n\nText \\(a+b\\) and $c$.\n\nSetext\n===\n\n[ref]: https://z.org\n\nuse [ref] here\n\n    indented\n\n---\nend';

describe('mathematics', () => {
  it('is found in all four forms', () => {
    expect(math('$x$')).toEqual(['math:x']);
    expect(math('a \\(x+1\\) b')).toEqual(['math:x+1']);
    expect(math('a $$x$$ b')).toEqual(['math_display:x']);
    expect(math('$$\nx\n$$')).toEqual(['math_block:x']);
    expect(math('\\[ x \\]')).toEqual(['math_block:x']);
    expect(math('text:\n$$x$$\nmore')).toEqual(['math_block:x']);
    expect(math('- item\n\n  $$\n  x\n  $$')).toEqual(['math_block:x']);
    expect(math('$a_1*b*c_2$')).toEqual(['math:a_1*b*c_2']);
  });

  it('is not seen in money, code or words', () => {
    for (const source of ['$5 and $6', 'costs $5', '`$x$`', '```\n$x$\n```', 'a$b$c', '$ x $', '$$ $$', '\\$x\\$'])
      expect(math(source), source).toEqual([]);
  });

  it('stays source while its end is missing', () => {
    const [block] = nodes('$$\nx^2');
    expect([block!.type, block!.info, block!.text]).toEqual(['math_block', 'open', 'x^2']);
  });
});

describe('blocks', () => {
  it('are those of Markdown', () => {
    const seen = new Set(types(SAMPLE));
    for (const type of [
      'heading',
      'paragraph',
      'bullet_list',
      'ordered_list',
      'fence',
      'table',
      'blockquote',
      'math_block',
      'code_block',
      'hr',
      'link',
      'strong',
      'em',
      'code_inline',
      'math',
    ]) {
      expect(seen, type).toContain(type);
    }
  });

  it('never hold HTML', () => {
    for (const source of [
      '<b>x</b>',
      '<script>alert(1)</script>',
      '<!-- x -->',
      '<div>\n\n<p onclick=x>',
      '&lt;b&gt;',
    ]) {
      expect(
        types(source).filter((type) => type.startsWith('html')),
        source,
      ).toEqual([]);
      expect(plainText(nodes(source)[0]!)).toContain('<');
    }
  });

  it('have a limit of nesting', () => {
    const depth = (list: MdNode[]): number =>
      list.length === 0 ? 0 : 1 + Math.max(...list.map((node) => depth(node.children)));
    for (const unit of ['> ', '- ', '**', '[', '*a **b ', '1. '])
      expect(depth(nodes(unit.repeat(5000))), unit).toBeLessThan(80);
  });

  it('give their own lines as source', () => {
    const blocks = parseBlocks(SAMPLE, {});
    for (const block of blocks) expect(SAMPLE.slice(block.start, block.end)).toBe(block.source);
  });
});

describe('addresses', () => {
  it('are those of web and mail only', () => {
    for (const good of ['https://x.org', 'http://x.org/a?b#c', 'mailto:a@b.org', 'HTTPS://X.org'])
      expect(isSafeAddress(good), good).toBe(true);
    const bad = [
      'javascript:alert(1)',
      'JaVaScRiPt:alert(1)',
      'java\nscript:alert(1)',
      ' javascript:alert(1)',
      'data:text/html,x',
      'vbscript:x',
      'file:///etc/passwd',
      '//evil.example',
      '/relative',
      '#x',
      '',
      'blob:https://x',
      'https:///',
      'intent://x',
      'https://x\\@evil',
      'https://a\u202eb',
      'http:x',
      'javascript&colon;alert(1)',
    ];
    for (const address of bad) expect(isSafeAddress(address), JSON.stringify(address)).toBe(false);
  });
});

describe('text that grows', () => {
  it('shows, after any growth, what the whole text parsed at once shows', () => {
    for (const step of [1, 2, 3, 7, 31]) {
      const growing = new GrowingMarkdown();
      for (let end = step; end < SAMPLE.length + step; end += step) growing.set(SAMPLE.slice(0, end));
      expect(
        growing.finish().map((b) => b.node),
        `step ${step}`,
      ).toEqual(nodes(SAMPLE));
    }
  });

  it('shows at every point what the text so far shows (references aside)', () => {
    const text = SAMPLE.replace('[ref]: https://z.org', 'no reference');
    const growing = new GrowingMarkdown();
    for (let end = 1; end <= text.length; end++) {
      const shown = growing.set(text.slice(0, end)).map((b) => b.node);
      expect(shown, `after ${end} characters`).toEqual(nodes(text.slice(0, end)));
    }
  });

  it('keeps blocks that are complete as the same objects, also at the end', () => {
    const growing = new GrowingMarkdown();
    const first = growing.set('one\n\ntwo\n\nthree\n');
    const second = growing.set('one\n\ntwo\n\nthree\n\nfour and');
    expect(second[0]).toBe(first[0]);
    expect(second[1]).toBe(first[1]);
    const last = growing.finish();
    expect(last[0]).toBe(first[0]);
  });

  it('parses little more than what is new', () => {
    const growing = new GrowingMarkdown();
    const text = 'A paragraph of some length that ends.\n\n'.repeat(1000);
    for (let end = 20; end <= text.length; end += 20) growing.set(text.slice(0, end));
    expect(growing.parsedChars).toBeLessThan(text.length * 8);
  });

  it('starts anew when the text is another one', () => {
    const growing = new GrowingMarkdown();
    growing.set('one\n\ntwo\n\nthree');
    expect(growing.set('other').map((b) => b.source)).toEqual(['other']);
  });

  it('resolves a reference that comes after its use, when it is finished', () => {
    const growing = new GrowingMarkdown();
    growing.set('see [x]\n\nmore\n\n[x]: https://x.org\n');
    expect(all(growing.finish().map((b) => b.node)).some((node) => node.type === 'link')).toBe(true);
  });

  it('takes text made to exhaust a reader', () => {
    const bombs = [
      '`'.repeat(60_000),
      '> '.repeat(5000),
      '- '.repeat(5000),
      '['.repeat(30_000),
      '*'.repeat(30_000),
      '$'.repeat(30_000),
      '\\('.repeat(15_000),
      '| a '.repeat(10_000),
      '![]('.repeat(10_000),
      '<'.repeat(30_000),
      '$a '.repeat(10_000),
      '[a]: x\n'.repeat(5000),
      '$$\n'.repeat(8000),
    ];
    for (const bomb of bombs) expect(() => new GrowingMarkdown().set(bomb), bomb.slice(0, 6)).not.toThrow();
  });
});
