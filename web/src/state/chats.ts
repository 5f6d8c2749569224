/**
 * The chats of the page: the list, the open one, and the ways they change. A chat that is shown or being answered
 * lives in `open`; every change goes through `change`, which also has it written to the store soon.
 */

import { computed, signal } from '@preact/signals';
import type { Signal } from '@preact/signals';
import { problemOf } from '../api/errors.ts';
import type { Problem } from '../api/errors.ts';
import type { ChatRow } from '../api/types.ts';
import { merge, newChat, settle, update } from '../chat/model.ts';
import type { Chat } from '../chat/model.ts';
import { BrowserStore, rowOf } from '../store/browser.ts';
import { ServerStore } from '../store/server.ts';
import type { ChatStore } from '../store/store.ts';
import { defaults, place } from './settings.ts';

const stores: Record<'browser' | 'server', ChatStore> = { browser: new BrowserStore(), server: new ServerStore() };
export const store = computed<ChatStore>(() => stores[place.value]);
export function storeOf(which: 'browser' | 'server'): ChatStore {
  return stores[which];
}

export const rows = signal<ChatRow[] | null>(null);
export const rowsNext = signal<string | null>(null);
export const rowsProblem = signal<Problem | null>(null);
export const query = signal('');
export const saveProblem = signal<Problem | null>(null);

interface Open {
  chat: Signal<Chat>;
  store: ChatStore;
  /** A draft is not stored before its first message. */
  draft: boolean;
  timer?: ReturnType<typeof setTimeout>;
}

const open = new Map<string, Open>();
export const currentId = signal<string | null>(null);
/** `undefined` while it is being fetched, null when it is not there. */
export const current = signal<Signal<Chat> | null | undefined>(undefined);
export const currentProblem = signal<Problem | null>(null);

/** Text that is still streaming, by chat: told by `runs.ts`, written along with each save. */
export const partials = new Map<string, Map<string, () => Partial<Chat['messages'][string]>>>();

const channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel('fathom');

export function isRunning(chatId: string): boolean {
  return (partials.get(chatId)?.size ?? 0) > 0;
}

let listTurn = 0;

export async function loadRows(): Promise<void> {
  const turn = ++listTurn;
  try {
    const page = await store.value.list(query.value, null);
    if (turn !== listTurn) return;
    rows.value = page.rows;
    rowsNext.value = page.next;
    rowsProblem.value = null;
  } catch (error) {
    if (turn !== listTurn) return;
    rows.value = [];
    rowsNext.value = null;
    rowsProblem.value = problemOf(error);
  }
}

export async function loadMoreRows(): Promise<void> {
  if (rowsNext.value === null) return;
  const turn = listTurn;
  try {
    const page = await store.value.list(query.value, rowsNext.value);
    if (turn !== listTurn) return;
    rows.value = [...(rows.value ?? []), ...page.rows];
    rowsNext.value = page.next;
  } catch (error) {
    rowsProblem.value = problemOf(error);
  }
}

/** Opens a chat by id; null opens a new one. */
export async function openChat(id: string | null): Promise<void> {
  currentId.value = id;
  currentProblem.value = null;
  if (id === null) {
    current.value = draft();
    return;
  }
  const there = open.get(id);
  if (there !== undefined) {
    current.value = there.chat;
    return;
  }
  current.value = undefined;
  const from = store.value;
  try {
    const chat = await from.get(id);
    if (currentId.value !== id) return;
    if (chat === null) current.value = null;
    else {
      const live = await liveElsewhere();
      current.value = keep(
        settle(chat, (message) => live.has(message)),
        from,
        false,
      );
    }
  } catch (error) {
    if (currentId.value !== id) return;
    current.value = null;
    currentProblem.value = problemOf(error);
  }
  prune();
}

let draftChat: Signal<Chat> | undefined;

function draft(): Signal<Chat> {
  const usable = draftChat !== undefined && open.get(draftChat.peek().id)?.draft === true;
  if (!usable) draftChat = keep(newChat({ ...defaults.peek() }, Date.now()), store.peek(), true);
  return draftChat!;
}

function keep(chat: Chat, from: ChatStore, isDraft: boolean): Signal<Chat> {
  const held = signal(chat);
  open.set(chat.id, { chat: held, store: from, draft: isDraft });
  return held;
}

/** Takes in a chat that was made here (a branch, an import) and stores it. */
export async function adopt(chat: Chat): Promise<void> {
  keep(chat, store.value, false);
  await flush(chat.id);
}

function prune(): void {
  for (const [id, entry] of open) {
    const shown = current.value?.peek().id === id;
    if (!shown && !isRunning(id) && entry.timer === undefined && !entry.draft) open.delete(id);
  }
}

export function held(id: string): Chat | undefined {
  return open.get(id)?.chat.peek();
}

/** Applies a change and has it stored: at once, or within `wait_ms`. */
export function change(id: string, edit: (chat: Chat) => Chat, wait_ms = 0): void {
  const entry = open.get(id);
  if (entry === undefined) return;
  const before = entry.chat.peek();
  const after = edit(before);
  if (after === before) return;
  entry.chat.value = after;
  if (entry.draft && Object.keys(after.messages).length === 0) return;
  if (entry.draft) {
    entry.draft = false;
    entry.store = store.peek();
  }
  saveSoon(id, wait_ms);
}

export function saveSoon(id: string, wait_ms: number): void {
  const entry = open.get(id);
  if (entry === undefined || entry.draft) return;
  if (entry.timer !== undefined) {
    if (wait_ms > 0) return;
    clearTimeout(entry.timer);
  }
  entry.timer = setTimeout(() => void flush(id), wait_ms);
}

/** How long text may stream before it is written down. */
export function streamSaveWait(id: string): number {
  return open.get(id)?.store.place === 'server' ? 3000 : 600;
}

export async function flush(id: string): Promise<void> {
  const entry = open.get(id);
  if (entry === undefined || entry.draft) return;
  clearTimeout(entry.timer);
  entry.timer = undefined;
  const chat = withPartials(entry.chat.peek());
  try {
    const stored = await entry.store.put(chat);
    if (stored !== chat && !isRunning(id)) entry.chat.value = stored;
    saveProblem.value = null;
    channel?.postMessage({ changed: id });
  } catch (error) {
    saveProblem.value = problemOf(error);
    return;
  }
  if (entry.store === store.peek()) noteRow(rowOf(chat));
}

function withPartials(chat: Chat): Chat {
  let result = chat;
  for (const [message, read] of partials.get(chat.id) ?? []) result = update(result, message, read());
  return result;
}

function noteRow(row: ChatRow): void {
  if (rows.peek() === null || query.peek() !== '') return;
  const old = rows.peek()!.find((r) => r.id === row.id);
  if (old !== undefined && old.title === row.title && old.updated === row.updated) return;
  rows.value = [row, ...rows.peek()!.filter((r) => r.id !== row.id)].sort((a, b) => b.updated - a.updated);
}

export async function renameChat(id: string, title: string): Promise<void> {
  const clean = title.trim().slice(0, 200);
  if (clean === '') return;
  const entry = open.get(id);
  if (entry !== undefined) {
    change(id, (chat) => ({ ...chat, title: clean }));
    await flush(id);
  } else await store.value.rename(id, clean);
  await loadRows();
}

export async function removeChat(id: string): Promise<void> {
  const entry = open.get(id);
  clearTimeout(entry?.timer);
  open.delete(id);
  await (entry?.store ?? store.value).remove(id);
  channel?.postMessage({ changed: id });
  await loadRows();
}

export async function removeAllChats(): Promise<void> {
  for (const [id, entry] of open) {
    clearTimeout(entry.timer);
    if (!entry.draft) open.delete(id);
  }
  await store.value.clear();
  channel?.postMessage({ changed: '' });
  await loadRows();
}

/** A chat as it is now, from memory or from the store. */
export async function readChat(id: string): Promise<Chat | null> {
  const entry = open.get(id);
  return entry === undefined ? store.value.get(id) : withPartials(entry.chat.peek());
}

/** Copies all chats of one place to the other, then deletes them where they were. */
export async function moveAll(from: 'browser' | 'server', to: 'browser' | 'server'): Promise<void> {
  const chats = await stores[from].all();
  for (const chat of chats) await addTo(stores[to], chat);
  for (const chat of chats) await stores[from].remove(chat.id);
  for (const chat of chats) {
    const entry = open.get(chat.id);
    if (entry !== undefined) entry.store = stores[to];
  }
}

/** Puts a chat in; one with the same id that is there already loses nothing. */
export async function addTo(target: ChatStore, chat: Chat): Promise<void> {
  const there = await target.get(chat.id);
  await target.put(there === null ? chat : merge(there, chat));
}

/** Messages that another tab of this browser is receiving right now. */
async function liveElsewhere(): Promise<Set<string>> {
  if (navigator.locks === undefined) return new Set();
  const state = await navigator.locks.query();
  return new Set((state.held ?? []).flatMap((lock) => (lock.name?.startsWith('fathom:') ? [lock.name.slice(7)] : [])));
}

/** Listens to the other tabs, and writes down what is open when the page goes away. */
export function startChats(): void {
  channel?.addEventListener('message', (event: MessageEvent) => {
    const id = (event.data as { changed?: unknown }).changed;
    void loadRows();
    if (typeof id !== 'string' || isRunning(id)) return;
    const entry = open.get(id);
    if (entry === undefined || entry.draft || entry.timer !== undefined) return;
    void entry.store.get(id).then(
      async (chat) => {
        const live = await liveElsewhere();
        if (chat !== null && !isRunning(id)) entry.chat.value = settle(chat, (message) => live.has(message));
      },
      () => undefined,
    );
  });
  addEventListener('pagehide', () => {
    for (const [id, entry] of open) if (entry.timer !== undefined || isRunning(id)) void flush(id);
  });
}
