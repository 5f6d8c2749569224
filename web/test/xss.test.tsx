import { render } from 'preact';
import { describe, expect, it } from 'vitest';
import { drawFormula } from '../src/md/formula.ts';
import { highlight } from '../src/md/highlight.ts';
import { isSafeAddress } from '../src/md/parse.ts';
import { Markdown } from '../src/md/view.tsx';
import { PlainText } from '../src/ui/text.tsx';

/** Everything that an answer may become. Nothing here runs, loads or navigates by itself. */
const ELEMENTS = new Set([
  'div',
  'p',
  'h2',
  'h3',
  'h4',
  'ul',
  'ol',
  'li',
  'blockquote',
  'hr',
  'br',
  'table',
  'thead',
  'tbody',
  'tr',
  'th',
  'td',
  'pre',
  'code',
  'strong',
  'em',
  's',
  'a',
  'bdi',
  'span',
  'figure',
  'figcaption',
  'button',
  'svg',
  'path',
]);
const ATTRIBUTES = new Set([
  'class',
  'dir',
  'start',
  'scope',
  'href',
  'target',
  'rel',
  'title',
  'tabindex',
  'role',
  'aria-label',
  'aria-hidden',
  'type',
  'focusable',
  'width',
  'height',
  'viewbox',
  'd',
]);

function check(root: Element, source: string): void {
  for (const element of root.querySelectorAll('*')) {
    const name = element.localName.toLowerCase();
    if (!ELEMENTS.has(name)) throw new Error(`<${name}> from ${JSON.stringify(source)}`);
    for (const attribute of element.attributes) {
      if (!ATTRIBUTES.has(attribute.name.toLowerCase()))
        throw new Error(`${attribute.name} from ${JSON.stringify(source)}`);
    }
    if (name === 'a') {
      const href = element.getAttribute('href') ?? '';
      if (!isSafeAddress(href) || !/^(?:https?|mailto):$/u.test(new URL(href).protocol))
        throw new Error(`${href} from ${JSON.stringify(source)}`);
      expect(element.getAttribute('rel')).toContain('noopener noreferrer');
      expect(element.getAttribute('target')).toBe('_blank');
    }
  }
}

const PAYLOADS = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '<svg onload=alert(1)>',
  '<svg><script>alert(1)</script></svg>',
  '<iframe src=javascript:alert(1)>',
  '<math><mtext><table><mglyph><style><!--</style><img title="--><img src=1 onerror=alert(1)>">',
  '<a href="javascript:alert(1)">x</a>',
  '<details open ontoggle=alert(1)>',
  '<style>*{background:url(https://e.example)}</style>',
  '<link rel=stylesheet href=https://e.example>',
  '<base href=https://e.example>',
  '<meta http-equiv=refresh content=0>',
  '<form action=https://e.example><button>',
  '<object data=x>',
  '<embed src=x>',
  '<video poster=https://e.example>',
  '<audio src=x onerror=alert(1)>',
  '<input autofocus onfocus=alert(1)>',
  '<template><img src=x></template>',
  '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
  '<![CDATA[<img src=x>]]>',
  '<!--><img src=x onerror=alert(1)>-->',
  '<?xml version="1.0"?>',
  '[x](javascript:alert(1))',
  '[x](JAVASCRIPT:alert(1))',
  '[x](java\tscript:alert(1))',
  '[x](<java\nscript:alert(1)>)',
  '[x](&#106;avascript:alert(1))',
  '[x](javascript&colon;alert(1))',
  '[x](data:text/html;base64,PHNjcmlwdD4=)',
  '[x](vbscript:x)',
  '[x](file:///etc/passwd)',
  '[x](//e.example)',
  '[x](\\\\e.example)',
  '[x](blob:https://e.example/1)',
  '[x](about:blank)',
  '![x](https://e.example/?q=secret)',
  '![x](javascript:alert(1))',
  '![x](data:image/svg+xml,<svg onload=alert(1)>)',
  '![x][r]\n\n[r]: https://e.example/?q=secret',
  '[x][r]\n\n[r]: javascript:alert(1)',
  '<javascript:alert(1)>',
  '<https://e.example/"onmouseover="alert(1)>',
  '[x](https://e.example "title\\" onload=alert(1)")',
  '[x](https://e.example/"><script>alert(1)</script>)',
  'https://e.example/<script>',
  'https://e.example/"onclick="x',
  'javascript:alert(1)',
  'www.e.example',
  '[a](https://u:p@e.example)',
  '[https://good.example](https://e.example)',
  '```js"><script>alert(1)</script>\nx\n```',
  '```<img src=x onerror=alert(1)>\nx\n```',
  '~~~ x onload=alert(1)\n</code></pre><script>alert(1)</script>\n~~~',
  '`<script>alert(1)</script>`',
  '    <script>x</script>',
  '$\\href{javascript:alert(1)}{x}$',
  '$\\url{javascript:alert(1)}$',
  '$\\includegraphics{https://e.example/x.png}$',
  '$\\htmlClass{x}{y}$',
  '$\\htmlStyle{background:url(https://e.example)}{y}$',
  '$\\htmlData{x=1}{y}$',
  '$\\def\\x{\\x\\x}\\x$',
  '$\\rule{100000em}{100000em}$',
  '$</span><script>alert(1)</script>$',
  '$$\\unicode{x3cscript}$$',
  '| <img src=x> | [x](javascript:1) |\n|---|---|\n| <script>1</script> | ![x](https://e.example) |',
  '1. <b onclick=x>x</b>',
  '> <i>x</i>',
  '# <u>x</u>',
  '<br><br/><br onclick=alert(1)>',
  '\u0000<script>',
  '\u202e<script>',
  '<scr<script>ipt>',
  '&lt;script&gt;alert(1)&lt;/script&gt;',
  '[__proto__](https://x.org)',
  '[x]: <javascript:1>\n\n[x]',
];
const PLACES: ((x: string) => string)[] = [
  (x) => x,
  (x) => `text ${x} text`,
  (x) => `- ${x}`,
  (x) => `> ${x}`,
  (x) => `## ${x}`,
  (x) => `**${x}**`,
  (x) => `[${x}](https://good.example)`,
  (x) => `[a](${x})`,
  (x) => `![${x}](https://good.example)`,
  (x) => `| a | ${x} |\n|---|---|\n| ${x} | b |`,
  (x) => `\`\`\`${x}\ncode\n\`\`\``,
  (x) => `\`\`\`html\n${x}\n\`\`\``,
  (x) => `$${x}$`,
  (x) => `$$\n${x}\n$$`,
  (x) => `سلام ${x} 3 + 4`,
  (x) => `[r]: ${x}\n\n[r] ![r]`,
  (x) => `<${x}>`,
  (x) => `https://e.example/${x}`,
];

describe('what a model writes', () => {
  it('becomes no element and no attribute outside the list, wherever it stands', () => {
    const host = document.createElement('div');
    let n = 0;
    for (const payload of PAYLOADS) {
      for (const place of PLACES) {
        const source = place(payload);
        render(<Markdown text={source} complete around="ltr" />, host);
        check(host, source);
        render(null, host);
        n++;
      }
    }
    expect(n).toBe(PAYLOADS.length * PLACES.length);
  });

  it('neither does so while it streams in, cut at every character', () => {
    const host = document.createElement('div');
    for (const payload of PAYLOADS) {
      const source = `A. ${payload}\n\nThen ${payload}`;
      for (let end = 1; end <= source.length; end++) {
        render(<Markdown text={source.slice(0, end)} complete={end === source.length} around="rtl" />, host);
        check(host, source.slice(0, end));
      }
      render(null, host);
    }
  });

  it('neither does so after any mutation', () => {
    const host = document.createElement('div');
    let seed = 11;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    const signs = [
      ...'<>"\'`[]()!\\&;:/$#|*_-=\n \t\u0000\u202e',
      'javascript:',
      'onerror=',
      '![',
      '](',
      '&#x',
      'data:',
      '```',
      '$$',
      '\\(',
      'س',
    ];
    for (let i = 0; i < 4000; i++) {
      let text = PLACES[random(PLACES.length)]!(PAYLOADS[random(PAYLOADS.length)]!);
      for (let k = random(6); k >= 0; k--) {
        const at = random(text.length + 1);
        text = text.slice(0, at) + signs[random(signs.length)]! + text.slice(at + random(4));
      }
      render(<Markdown text={text} complete={i % 2 === 0} around={i % 3 === 0 ? 'rtl' : 'ltr'} />, host);
      check(host, text);
      render(null, host);
    }
  });

  it('keeps all of its letters as text', () => {
    const host = document.createElement('div');
    render(<Markdown text={'a <img src=x onerror=alert(1)> b'} complete around="ltr" />, host);
    expect(host.textContent).toBe('a <img src=x onerror=alert(1)> b');
  });

  it('shows where a link goes, and loads no image', () => {
    const host = document.createElement('div');
    render(
      <Markdown
        text={'[bank](https://e.example/%E2%80%AEx) ![cat](https://e.example/cat.png)'}
        complete
        around="ltr"
      />,
      host,
    );
    expect(host.querySelector('a')?.textContent).toBe('bank');
    expect(host.textContent).toContain('https://e.example/');
    expect(host.textContent).toContain('cat');
    expect(host.querySelector('img')).toBeNull();
    expect(host.textContent).not.toContain('\u202e');
  });

  it('in plain text stays plain text', () => {
    const host = document.createElement('div');
    for (const payload of PAYLOADS) {
      render(<PlainText text={payload} around="rtl" />, host);
      check(host, payload);
      render(null, host);
    }
  });

  it('in a formula reaches nothing outside it', () => {
    const refused = [
      '\\href{javascript:alert(1)}{x}',
      '\\url{https://e.example}',
      '\\includegraphics{https://e.example/x.png}',
      '\\htmlClass{x}{y}',
      '\\htmlId{x}{y}',
      '\\htmlStyle{color:red}{y}',
      '\\htmlData{a=b}{y}',
      '\\def\\x{\\x\\x}\\x',
      'x'.repeat(4001),
      '\\frac{1}',
    ];
    for (const tex of refused) {
      const host = document.createElement('span');
      expect(drawFormula(tex, host, false), tex.slice(0, 40)).toBe(false);
      expect(host.childNodes).toHaveLength(0);
    }
    for (const tex of [
      'x^2',
      '\\frac{1}{2}',
      '\\sqrt{2}',
      '\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}',
      '\\text{<script>}',
      '\\rule{1000em}{1em}',
      '\\color{red}x',
    ]) {
      const host = document.createElement('span');
      expect(drawFormula(tex, host, true), tex).toBe(true);
      for (const element of host.querySelectorAll('*')) {
        expect([
          'span',
          'math',
          'semantics',
          'annotation',
          'svg',
          'path',
          'mrow',
          'mi',
          'mn',
          'mo',
          'mfrac',
          'msup',
          'msqrt',
          'mtable',
          'mtr',
          'mtd',
          'mtext',
          'mspace',
          'mstyle',
          'mpadded',
        ]).toContain(element.localName);
        for (const { name } of element.attributes) expect(name).not.toMatch(/^(?:on|href|src|xlink)/u);
      }
    }
  });

  it('in code is coloured without losing a character', () => {
    const text = (shades: ReturnType<typeof highlight>): string =>
      (shades ?? []).map((s) => ('text' in s ? s.text : text(s.children))).join('');
    for (const [language, code] of [
      ['js', 'let x = "<b>"; // <script>'],
      ['html', '<img src=x onerror=alert(1)>'],
      ['rust', "fn f<'a>(x: &'a str) {}"],
      ['python', 'def f(): return 1'],
    ] as const) {
      expect(text(highlight(language, code))).toBe(code);
    }
    expect(highlight('no-such-language', 'x')).toBeNull();
    expect(highlight('__proto__', 'x')).toBeNull();
  });
});

describe('the source', () => {
  it('never writes HTML from text', async () => {
    const files = import.meta.glob('../src/**/*.{ts,tsx}', { query: '?raw', import: 'default', eager: true }) as Record<
      string,
      string
    >;
    expect(Object.keys(files).length).toBeGreaterThan(30);
    for (const [name, text] of Object.entries(files)) {
      expect(text, name).not.toMatch(
        /innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySet|\beval\(|new Function|DOMParser|createContextualFragment/u,
      );
      expect(text, name).not.toMatch(/https?:\/\/(?!\[)/u); // no address of elsewhere in what is shipped
    }
  });
});
