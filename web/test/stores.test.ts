import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ApiError } from '../src/api/errors.ts';
import { ROOT, append, newChat } from '../src/chat/model.ts';
import type { Chat } from '../src/chat/model.ts';
import { BrowserStore, excerpt } from '../src/store/browser.ts';
import { ServerStore } from '../src/store/server.ts';

function chatOf(text: string, updated: number): Chat {
  const chat = append(newChat({}, 1), {
    id: `m${updated}`,
    parent: ROOT,
    role: 'user',
    content: text,
    created: updated,
    status: 'done',
  });
  return { ...chat, updated };
}

describe('chats in the browser', () => {
  const store = new BrowserStore();
  beforeEach(() => store.clear());

  it('come back equal, newest first', async () => {
    const chats = [chatOf('one', 10), chatOf('two', 30), chatOf('three', 20)];
    for (const chat of chats) await store.put(chat);
    expect((await store.list('', null)).rows.map((row) => row.title)).toEqual(['two', 'three', 'one']);
    expect(await store.get(chats[0]!.id)).toEqual(chats[0]);
    expect((await store.all()).length).toBe(3);
    expect(await store.get('nobody-00')).toBeNull();
  });

  it('are listed in pages that leave none out', async () => {
    for (let i = 0; i < 150; i++) await store.put(chatOf(`chat ${i}`, 1000 + Math.floor(i / 3)));
    const seen: string[] = [];
    let before: string | null = null;
    do {
      const page = await store.list('', before);
      seen.push(...page.rows.map((row) => row.id));
      before = page.next;
    } while (before !== null);
    expect(new Set(seen).size).toBe(150);
    expect(seen).toHaveLength(150);
  });

  it('are found by their words, with a piece of the text', async () => {
    await store.put(chatOf(`The title stands here. ${'filler '.repeat(30)} needle in the text`, 1));
    await store.put(chatOf('something else', 2));
    const { rows } = await store.list('NEEDLE text', null);
    expect(rows).toHaveLength(1);
    expect(rows[0]!.excerpt).toContain('needle');
    expect(excerpt(chatOf('abc', 1), 'zzz')).toBe('');
  });

  it('are renamed and deleted', async () => {
    const chat = chatOf('one', 1);
    await store.put(chat);
    await store.rename(chat.id, 'other');
    expect((await store.get(chat.id))!.title).toBe('other');
    await store.remove(chat.id);
    expect((await store.list('', null)).rows).toEqual([]);
    expect(await store.get(chat.id)).toBeNull();
  });
});

/** A server that keeps chats with revisions, as the real one answers. */
function fakeServer() {
  const chats = new Map<string, { revision: number; chat: Chat }>();
  const answer = (status: number, body?: unknown): Response =>
    new Response(body === undefined ? null : JSON.stringify(body), { status });
  const handle = vi.fn(async (path: string, options: RequestInit): Promise<Response> => {
    const id = decodeURIComponent(path.split('/')[3] ?? '');
    const old = chats.get(id);
    const row = (): unknown => ({
      id,
      title: chats.get(id)!.chat.title,
      created_ms: 1,
      updated_ms: 2,
      revision: chats.get(id)!.revision,
    });
    if (options.method === 'PUT') {
      const body = JSON.parse(options.body as string) as { revision: number | null; chat: Chat };
      if ((old?.revision ?? null) !== body.revision)
        return answer(409, { error: { message: 'changed', code: 'revision_conflict' } });
      chats.set(id, { revision: (old?.revision ?? 0) + 1, chat: body.chat });
      return answer(200, row());
    }
    if (old === undefined) return answer(404, { error: { message: 'none' } });
    return answer(200, { ...(row() as object), chat: old.chat });
  });
  return { chats, handle };
}

describe('chats on the server', () => {
  afterEach(() => vi.unstubAllGlobals());

  it('are written with the revision that the page knows', async () => {
    const server = fakeServer();
    vi.stubGlobal('fetch', server.handle);
    const store = new ServerStore();
    const chat = chatOf('one', 1);
    await Promise.all([store.put(chat), store.put({ ...chat, title: 'two' }), store.put({ ...chat, title: 'three' })]);
    expect(server.chats.get(chat.id)).toMatchObject({ revision: 3, chat: { title: 'three' } });
  });

  it('are merged when another page wrote first', async () => {
    const server = fakeServer();
    vi.stubGlobal('fetch', server.handle);
    const [here, there] = [new ServerStore(), new ServerStore()];
    const chat = chatOf('one', 1);
    await here.put(chat);
    await there.get(chat.id);
    await there.put({
      ...append(chat, { id: 'there', parent: 'm1', role: 'user', content: 'x', created: 5, status: 'done' }),
    });
    const merged = await here.put(
      append(chat, { id: 'here', parent: 'm1', role: 'user', content: 'y', created: 6, status: 'done' }),
    );
    expect(merged.children.m1).toEqual(['there', 'here']);
    expect(server.chats.get(chat.id)!.chat.children.m1).toEqual(['there', 'here']);
  });

  it('tell what went wrong', async () => {
    vi.stubGlobal('fetch', async () => {
      throw new TypeError('Failed to fetch');
    });
    await expect(new ServerStore().get('abcdefgh')).rejects.toSatisfy(
      (error) => (error as ApiError).problem.kind === 'unreachable',
    );
    vi.stubGlobal('fetch', async () => new Response('{"error":{"message":"no"}}', { status: 402 }));
    await expect(new ServerStore().put(chatOf('x', 1))).rejects.toSatisfy(
      (error) => (error as ApiError).problem.kind === 'balance' && (error as ApiError).message === 'no',
    );
  });
});
