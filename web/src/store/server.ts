/** Chats on the server, under the key. A revision guards against two pages that write the same chat. */

import { call, callJson } from '../api/client.ts';
import { ApiError } from '../api/errors.ts';
import { merge } from '../chat/model.ts';
import type { Chat } from '../chat/model.ts';
import { checkChat } from '../chat/transfer.ts';
import type { ChatStore, Page } from './store.ts';

interface WireRow {
  id: string;
  title: string;
  created_ms: number;
  updated_ms: number;
  revision: number;
  excerpt?: string;
}

export class ServerStore implements ChatStore {
  readonly place = 'server';
  private revisions = new Map<string, number>();
  private chain = new Map<string, Promise<unknown>>();

  async list(query: string, before: string | null): Promise<Page> {
    const params = new URLSearchParams({ limit: '50' });
    if (query.trim() !== '') params.set('q', query.trim());
    if (before !== null) params.set('before', before);
    const page = await callJson<{ chats: WireRow[]; next: string | null }>(`/api/chats?${params}`);
    const rows = page.chats.map((row) => ({
      id: row.id,
      title: row.title,
      created: row.created_ms,
      updated: row.updated_ms,
      ...(row.excerpt === undefined ? {} : { excerpt: row.excerpt }),
    }));
    return { rows, next: page.next };
  }

  async get(id: string): Promise<Chat | null> {
    let answer: WireRow & { chat: unknown };
    try {
      answer = await callJson(`/api/chats/${encodeURIComponent(id)}`);
    } catch (error) {
      if (error instanceof ApiError && error.problem.kind === 'missing') return null;
      throw error;
    }
    this.revisions.set(id, answer.revision);
    const chat = checkChat(answer.chat);
    return { ...chat, id, title: typeof answer.title === 'string' ? answer.title : chat.title };
  }

  /** Writes of one chat go one after another, so that each knows the revision that the one before made. */
  put(chat: Chat): Promise<Chat> {
    const before = this.chain.get(chat.id) ?? Promise.resolve();
    const write = before.catch(() => undefined).then(() => this.write(chat));
    this.chain.set(chat.id, write);
    const forget = (): void => {
      if (this.chain.get(chat.id) === write) this.chain.delete(chat.id);
    };
    write.then(forget, forget);
    return write;
  }

  private async write(chat: Chat): Promise<Chat> {
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await callJson<WireRow>(`/api/chats/${encodeURIComponent(chat.id)}`, {
          method: 'PUT',
          keepalive: true,
          body: { revision: this.revisions.get(chat.id) ?? null, chat: { ...chat, title: chat.title.slice(0, 200) } },
        });
        this.revisions.set(chat.id, answer.revision);
        return chat;
      } catch (error) {
        if (!(error instanceof ApiError) || error.problem.kind !== 'conflict' || attempt >= 3) throw error;
        const other = await this.get(chat.id);
        if (other === null) this.revisions.delete(chat.id);
        else chat = merge(other, chat);
      }
    }
  }

  async rename(id: string, title: string): Promise<void> {
    const answer = await callJson<WireRow>(`/api/chats/${encodeURIComponent(id)}`, {
      method: 'PATCH',
      body: { title },
    });
    this.revisions.set(id, answer.revision);
  }

  async remove(id: string): Promise<void> {
    await call(`/api/chats/${encodeURIComponent(id)}`, { method: 'DELETE' });
    this.revisions.delete(id);
  }

  async clear(): Promise<void> {
    await call('/api/chats', { method: 'DELETE' });
    this.revisions.clear();
  }

  async all(): Promise<Chat[]> {
    const file = await callJson<{ chats: { id: string; chat: unknown }[] }>('/api/chats/export');
    return file.chats.map((row) => ({ ...checkChat(row.chat), id: row.id }));
  }
}
