/** Chats in this browser: IndexedDB, one record a chat and one small record for the list. */

import { ApiError } from '../api/errors.ts';
import type { ChatRow } from '../api/types.ts';
import { fold, matches, searchWords } from '../chat/model.ts';
import type { Chat } from '../chat/model.ts';
import { checkChat } from '../chat/transfer.ts';
import type { ChatStore, Page } from './store.ts';

const NAME = 'fathom';
const VERSION = 1;

export class BrowserStore implements ChatStore {
  readonly place = 'browser';
  private opening: Promise<IDBDatabase> | undefined;

  private open(): Promise<IDBDatabase> {
    this.opening ??= new Promise<IDBDatabase>((resolve, reject) => {
      const request = indexedDB.open(NAME, VERSION);
      request.onupgradeneeded = () => {
        request.result.createObjectStore('chats', { keyPath: 'id' });
        request.result.createObjectStore('rows', { keyPath: 'id' }).createIndex('updated', 'updated');
      };
      request.onsuccess = () => {
        request.result.onversionchange = () => {
          request.result.close();
          this.opening = undefined;
        };
        request.result.onclose = () => {
          this.opening = undefined;
        };
        resolve(request.result);
      };
      request.onerror = () => {
        this.opening = undefined;
        reject(storageError(request.error));
      };
    });
    this.opening.catch(() => {
      this.opening = undefined; // the next call tries again
    });
    return this.opening;
  }

  /** Runs one transaction over both tables; resolves when it is on disk. */
  private async transact<T>(
    mode: IDBTransactionMode,
    work: (tx: IDBTransaction, done: (value: T) => void) => void,
  ): Promise<T> {
    let db: IDBDatabase;
    try {
      db = await this.open();
    } catch (error) {
      throw error instanceof ApiError ? error : storageError(error);
    }
    return new Promise<T>((resolve, reject) => {
      let result: T;
      const tx = db.transaction(['chats', 'rows'], mode);
      tx.oncomplete = () => resolve(result);
      tx.onerror = () => reject(storageError(tx.error));
      tx.onabort = () => reject(storageError(tx.error));
      work(tx, (value) => {
        result = value;
      });
    });
  }

  list(query: string, before: string | null): Promise<Page> {
    const limit = 60;
    const words = query.trim();
    const upper = before === null ? null : IDBKeyRange.upperBound(Number(before), true);
    return this.transact<Page>('readonly', (tx, done) => {
      const rows: ChatRow[] = [];
      const cursor = tx.objectStore('rows').index('updated').openCursor(upper, 'prev');
      done({ rows, next: null });
      cursor.onsuccess = () => {
        const at = cursor.result;
        if (at === null) return;
        const row = at.value as ChatRow;
        if (rows.length >= limit && row.updated < rows[rows.length - 1]!.updated) {
          done({ rows, next: String(rows[rows.length - 1]!.updated) });
          return;
        }
        if (words === '') {
          rows.push(row);
          at.continue();
          return;
        }
        const get = tx.objectStore('chats').get(row.id) as IDBRequest<Chat | undefined>;
        get.onsuccess = () => {
          if (get.result !== undefined && matches(get.result, words))
            rows.push({ ...row, excerpt: excerpt(get.result, words) });
          at.continue();
        };
      };
    });
  }

  async get(id: string): Promise<Chat | null> {
    const value = await this.transact<unknown>('readonly', (tx, done) => {
      const request = tx.objectStore('chats').get(id) as IDBRequest<unknown>;
      request.onsuccess = () => done(request.result);
    });
    return value === undefined ? null : checkChat(value);
  }

  async put(chat: Chat): Promise<Chat> {
    await this.transact<void>('readwrite', (tx) => {
      tx.objectStore('chats').put(chat);
      tx.objectStore('rows').put(rowOf(chat));
    });
    return chat;
  }

  async rename(id: string, title: string): Promise<void> {
    const chat = await this.get(id);
    if (chat !== null) await this.put({ ...chat, title });
  }

  async remove(id: string): Promise<void> {
    await this.transact<void>('readwrite', (tx) => {
      tx.objectStore('chats').delete(id);
      tx.objectStore('rows').delete(id);
    });
  }

  async clear(): Promise<void> {
    await this.transact<void>('readwrite', (tx) => {
      tx.objectStore('chats').clear();
      tx.objectStore('rows').clear();
    });
  }

  async all(): Promise<Chat[]> {
    const values = await this.transact<unknown[]>('readonly', (tx, done) => {
      const request = tx.objectStore('chats').getAll() as IDBRequest<unknown[]>;
      request.onsuccess = () => done(request.result);
    });
    return values.map(checkChat);
  }
}

export function rowOf(chat: Chat): ChatRow {
  return { id: chat.id, title: chat.title, created: chat.created, updated: chat.updated };
}

/** A piece of text around the first place where a word of the query stands. */
export function excerpt(chat: Chat, query: string): string {
  const words = searchWords(query);
  for (const message of Object.values(chat.messages)) {
    const { text, at } = fold(message.content);
    const hit = Math.min(...words.map((word) => text.indexOf(word)).filter((index) => index >= 0));
    if (!Number.isFinite(hit)) continue;
    const start = at[Math.max(0, hit - 40)] ?? 0;
    const piece = message.content
      .slice(start, start + 140)
      .replace(/\s+/gu, ' ')
      .trim();
    return `${start > 0 ? '…' : ''}${piece}${start + 140 < message.content.length ? '…' : ''}`;
  }
  return '';
}

function storageError(error: unknown): ApiError {
  return new ApiError({ kind: 'storage', detail: error instanceof Error ? error.message : undefined });
}
