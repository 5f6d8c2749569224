/** Where chats are kept: in this browser, or on the server under the key. Both keep the same object. */

import type { ChatRow } from '../api/types.ts';
import type { Chat } from '../chat/model.ts';

export interface Page {
  rows: ChatRow[];
  next: string | null;
}

export interface ChatStore {
  readonly place: 'browser' | 'server';
  /** Newest change first; `query`: each word occurs in the title or a message. */
  list(query: string, before: string | null): Promise<Page>;
  get(id: string): Promise<Chat | null>;
  /** Keeps the chat; may give back another one when somebody else changed it meanwhile (both are merged). */
  put(chat: Chat): Promise<Chat>;
  rename(id: string, title: string): Promise<void>;
  remove(id: string): Promise<void>;
  clear(): Promise<void>;
  all(): Promise<Chat[]>;
}
