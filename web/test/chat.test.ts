import { describe, expect, it } from 'vitest';
import {
  ROOT,
  addFigures,
  append,
  branchOff,
  matches,
  merge,
  newChat,
  newId,
  path,
  pathTo,
  promptText,
  settle,
  titleOf,
  turn,
  update,
  versions,
  wireMessages,
} from '../src/chat/model.ts';
import type { Chat, Message } from '../src/chat/model.ts';
import { checkChat, checkSettings, fileName, fromJson, toJson, toMarkdown } from '../src/chat/transfer.ts';

function message(
  id: string,
  parent: string,
  role: 'user' | 'assistant',
  content: string,
  more: Partial<Message> = {},
): Message {
  return { id, parent, role, content, created: 1, status: 'done', ...more };
}

/** q1 - a1 - q2 - a2, then q1 asked again (q1b - a1b), then a second answer to q2 (a2b). */
function grown(): Chat {
  let chat = newChat({}, 1);
  chat = append(chat, message('q1', ROOT, 'user', 'first question'));
  chat = append(chat, message('a1', 'q1', 'assistant', 'first answer'));
  chat = append(chat, message('q2', 'a1', 'user', 'second question'));
  chat = append(chat, message('a2', 'q2', 'assistant', 'second answer'));
  chat = append(chat, message('a2b', 'q2', 'assistant', 'second answer again'));
  chat = append(chat, message('q1b', ROOT, 'user', 'first question, edited'));
  return append(chat, message('a1b', 'q1b', 'assistant', 'another first answer'));
}
const ids = (list: Message[]): string => list.map((m) => m.id).join(' ');

describe('branches', () => {
  it('shows the newest version, and every other one by turning', () => {
    let chat = grown();
    expect(ids(path(chat))).toBe('q1b a1b');
    expect(versions(chat, 'q1b')).toEqual({ ids: ['q1', 'q1b'], index: 1 });
    chat = turn(chat, 'q1b', -1);
    expect(ids(path(chat))).toBe('q1 a1 q2 a2b');
    chat = turn(chat, 'a2b', -1);
    expect(ids(path(chat))).toBe('q1 a1 q2 a2');
    expect(turn(chat, 'a2', -1)).toBe(chat);
    chat = turn(turn(chat, 'q1', 1), 'q1b', -1);
    expect(ids(path(chat))).toBe('q1 a1 q2 a2'); // the choice below is remembered
  });

  it('shares what did not change', () => {
    const chat = grown();
    const next = update(chat, 'a1b', { content: 'new' });
    expect(next.messages.q1).toBe(chat.messages.q1);
    expect(chat.messages.a1b!.content).toBe('another first answer');
    expect(update(chat, 'nobody', { content: 'x' })).toBe(chat);
  });

  it('refuses a message without parent and one that is there already', () => {
    expect(() => append(newChat({}, 1), message('x', 'nobody', 'user', ''))).toThrow(/parent/u);
    expect(() => append(grown(), message('q1', ROOT, 'user', ''))).toThrow(/already/u);
  });

  it('ends on circles and on lost messages', () => {
    const chat = grown();
    const circle: Chat = {
      ...chat,
      messages: { ...chat.messages, q1: { ...chat.messages.q1!, parent: 'a1' } },
      children: { [ROOT]: ['q1'], q1: ['a1'], a1: ['q1'] },
    };
    expect(ids(path(circle))).toBe('q1 a1');
    expect(pathTo(circle, 'a1').length).toBeLessThanOrEqual(2);
    expect(path({ ...chat, children: { [ROOT]: ['gone'] } })).toEqual([]);
  });

  it('branches off with the way down to a message and nothing else', () => {
    const chat = grown();
    const copy = branchOff(chat, 'a2', 9);
    expect(copy.id).not.toBe(chat.id);
    expect(ids(path(copy))).toBe('q1 a1 q2 a2');
    expect(Object.keys(copy.messages)).toHaveLength(4);
    expect(copy.title).toBe(chat.title);
  });

  it('calls what was streaming interrupted, unless another tab still receives it', () => {
    const chat = update(update(grown(), 'a2', { status: 'streaming' }), 'a1b', { status: 'streaming' });
    const settled = settle(chat, (id) => id === 'a1b');
    expect(settled.messages.a2!.status).toBe('interrupted');
    expect(settled.messages.a1b!.status).toBe('streaming');
  });

  it('merges two copies without losing a message of either', () => {
    const base = grown();
    const left = { ...append(base, message('q3', 'a1b', 'user', 'left')), updated: 5 };
    const right = {
      ...append(update(base, 'a2', { content: 'second answer, longer' }), message('q4', 'a1b', 'user', 'right')),
      title: 'renamed',
      updated: 7,
    };
    for (const merged of [merge(left, right), merge(right, left)]) {
      expect(Object.keys(merged.messages).sort()).toEqual(['a1', 'a1b', 'a2', 'a2b', 'q1', 'q1b', 'q2', 'q3', 'q4']);
      expect(merged.children.a1b).toEqual(['q3', 'q4']);
      expect(merged.title).toBe('renamed');
      expect(merged.messages.a2!.content).toBe('second answer, longer');
      expect(checkChat(merged)).toEqual(merged);
    }
  });

  it('makes ids that are UUIDs and differ', () => {
    const made = new Set(Array.from({ length: 500 }, newId));
    expect(made.size).toBe(500);
    for (const id of made) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u);
  });
});

describe('what the model reads', () => {
  it('sends the shown path, the system prompt first, reasoning left out', () => {
    const shown = [
      message('q', ROOT, 'user', 'hello'),
      message('a', 'q', 'assistant', 'hi', { reasoning: 'a greeting' }),
      message('e', 'a', 'assistant', ''),
      message('q2', 'e', 'user', 'again'),
    ];
    expect(wireMessages(shown, { system: '  be kind ' }, false)).toEqual([
      { role: 'system', content: 'be kind' },
      { role: 'user', content: 'hello' },
      { role: 'assistant', content: 'hi' },
      { role: 'user', content: 'again' },
    ]);
  });

  it('continues a cut answer with what arrived, reasoning too', () => {
    const shown = [message('q', ROOT, 'user', 'hello'), message('a', 'q', 'assistant', '', { reasoning: 'a gre' })];
    expect(wireMessages(shown, {}, true).at(-1)).toEqual({
      role: 'assistant',
      content: '',
      prefix: true,
      reasoning_content: 'a gre',
    });
  });

  it('puts files in fences that their text cannot close', () => {
    const text = promptText(
      message('q', ROOT, 'user', 'what is this?', { attachments: [{ name: 'a.md', text: '```js\nx\n```\n````' }] }),
    );
    expect(text).toBe('a.md:\n`````md\n```js\nx\n```\n````\n`````\n\nwhat is this?');
  });

  it('takes a title from the first words, by whole characters', () => {
    expect(titleOf(message('q', ROOT, 'user', '  a\n b  '))).toBe('a b');
    expect(titleOf(message('q', ROOT, 'user', '', { attachments: [{ name: 'x.txt', text: '' }] }))).toBe('x.txt');
    const long = titleOf(message('q', ROOT, 'user', '👋'.repeat(100)));
    expect([...long]).toHaveLength(61);
    expect(long.endsWith('👋…')).toBe(true);
  });

  it('finds chats by all words, in any message of any branch, case aside', () => {
    expect(matches(grown(), 'SECOND again')).toBe(true);
    expect(matches(grown(), 'second nowhere')).toBe(false);
    const arabic = append(newChat({}, 1), message('q', ROOT, 'user', 'أعطت أخاها ٩ أقلامٍ مكتبةً على الطاولة؛ Café'));
    for (const query of ['اقلام', 'أقلام', 'مكتبه', 'علي', 'cafe', 'اخاها الطاولة'])
      expect(matches(arabic, query), query).toBe(true);
  });

  it('adds up an answer that was written in two goes', () => {
    const first = message('a', ROOT, 'assistant', 'x', {
      usage: { prompt_tokens: 9, completion_tokens: 4, completion_tokens_details: { reasoning_tokens: 3 } },
      measured: { cost: '0.000002', decode_seconds: 1, joules: 2, tokens_per_second: 5 },
    });
    const second = {
      usage: { prompt_tokens: 13, completion_tokens: 6, total_tokens: 19 },
      measured: { cost: '0.000003', decode_seconds: 2, joules: 1, tokens_per_second: 7 },
    };
    expect(addFigures(first, second)).toEqual({
      usage: {
        prompt_tokens: 9,
        prompt_cache_hit_tokens: undefined,
        completion_tokens: 10,
        total_tokens: 19,
        completion_tokens_details: { reasoning_tokens: 3 },
      },
      measured: { cost: '0.000005', decode_seconds: 3, prompt_seconds: 0, joules: 3, tokens_per_second: 7 },
    });
    expect(addFigures(message('a', ROOT, 'assistant', 'x'), second)).toBe(second);
  });
});

describe('files of chats', () => {
  const rich = (): Chat =>
    update({ ...grown(), title: 'رحلة' }, 'a1', {
      reasoning: 'hm',
      model: 'nano',
      usage: { completion_tokens: 3 },
      measured: { cost: '0.1', verdict: { ok: true } },
      problem: { kind: 'rate', detail: 'x' },
      reasoningSeconds: 2.5,
    });

  it('come back equal', () => {
    const chats = [rich(), grown()];
    const back = fromJson(toJson(chats));
    expect(back).toEqual({ chats, rejected: [] });
    expect(toJson(back.chats)).toBe(toJson(chats));
  });

  it('of version 1 and plain lists of messages become chats of today', () => {
    const old = {
      version: 1,
      id: 'chat-0001',
      title: 'old',
      created: 5,
      updated: 6,
      model: 'm',
      messages: [
        { role: 'system', content: 's' },
        { role: 'user', content: 'q' },
        { role: 'assistant', content: 'a', reasoning_content: 'r' },
      ],
    };
    const { chats } = fromJson(JSON.stringify([old]));
    expect(chats[0]!.settings).toEqual({ system: 's', model: 'm' });
    expect(path(chats[0]!).map((m) => [m.role, m.content, m.reasoning])).toEqual([
      ['user', 'q', undefined],
      ['assistant', 'a', 'r'],
    ]);
    expect(checkChat(chats[0])).toEqual(chats[0]);
  });

  it('of anything else are refused one by one, with the reason', () => {
    expect(() => fromJson('{')).toThrow('not_json');
    expect(() => fromJson('{"x":1}')).toThrow('not_chats');
    const bad: unknown[] = [
      null,
      5,
      {},
      { version: 3 },
      { version: 2, messages: { a: null } },
      { version: 2, messages: { a: { role: 'system', content: '' } } },
      { version: 2, messages: { a: { role: 'user', content: 5 } } },
      { version: 2, messages: { a: { role: 'user', content: '', parent: 'a' } } },
      { version: 2, messages: { a: { role: 'user', content: '', parent: 'lost' } } },
      { version: 1, messages: [7] },
    ];
    const { chats, rejected } = fromJson(JSON.stringify({ chats: [...bad, grown()] }));
    expect(chats).toHaveLength(1);
    expect(rejected.map((r) => r.index)).toEqual(bad.map((_, i) => i));
    for (const r of rejected) expect(r.reason.length).toBeGreaterThan(5);
  });

  it('cannot reach prototypes, and lose unknown fields', () => {
    const text =
      '{"chats":[{"version":2,"id":"abcdefgh","extra":1,"title":"t","messages":{"__proto__":{"role":"user","content":"x","parent":""}},"children":{"__proto__":["toString"],"constructor":["x"]},"choice":{"":"__proto__"}}]}';
    const { chats, rejected } = fromJson(text);
    expect([chats.length, rejected.length]).toEqual([0, 1]);
    const clean = fromJson(text.replaceAll('__proto__', 'm-1')).chats;
    expect(Object.keys(clean[0]!)).not.toContain('extra');
    expect(path(clean[0]!)).toHaveLength(1);
    expect(({} as Record<string, unknown>).role).toBeUndefined();
  });

  it('survive any damage to a good file without an error that is not caught', () => {
    const good = toJson([rich()]);
    let seed = 7;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    const words = ['null', '{}', '[]', '-1', '1e999', '"x"', 'true', ''];
    let read = 0;
    for (let i = 0; i < 3000; i++) {
      const at = random(good.length);
      const text = good.slice(0, at) + words[random(words.length)]! + good.slice(at + random(12));
      try {
        read += fromJson(text).chats.map((chat) => path(checkChat(chat))).length;
      } catch (error) {
        expect((error as Error).message).toMatch(/^not_/u);
      }
    }
    expect(read).toBeGreaterThan(100);
  });

  it('in Markdown hold the shown path, files and folded reasoning', () => {
    const text = toMarkdown(turn(rich(), 'q1b', -1), {
      you: 'You',
      assistant: 'Answer',
      reasoning: 'Reasoning',
      system: 'System',
    });
    expect(text).toBe(
      '# رحلة\n\n## You\n\nfirst question\n\n## Answer (nano)\n\n<details><summary>Reasoning</summary>\n\nhm\n\n</details>\n\nfirst answer\n\n## You\n\nsecond question\n\n## Answer\n\nsecond answer again\n',
    );
  });

  it('have names that every system takes', () => {
    expect(fileName('a/b\\c:"*?<>|\u202e\n', 'md')).toBe('a b c.md');
    expect(fileName('...', 'json')).toBe('chat.json');
    expect(fileName('لغز الأعداد', 'md')).toBe('لغز الأعداد.md');
  });

  it('keep settings only within their limits', () => {
    expect(
      checkSettings({
        temperature: 3,
        top_p: 0.5,
        max_tokens: -1,
        seed: 1.5e300,
        budget: 64,
        thinking: 'yes',
        system: '',
        model: 'm',
        other: 1,
      }),
    ).toEqual({ top_p: 0.5, budget: 64, model: 'm' });
  });
});
