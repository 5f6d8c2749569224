/**
 * A chat is a tree of messages: editing a question or asking again makes a sibling, and `choice` remembers which
 * sibling is shown. All functions are pure: they return a new chat and share what did not change, so that a message
 * that is the same object does not have to be drawn again.
 */

import type { Problem } from '../api/errors.ts';
import type { Measured, Usage, WireMessage } from '../api/types.ts';

export const CHAT_VERSION = 2;
/** The parent of the first message. */
export const ROOT = '';

export interface Attachment {
  name: string;
  text: string;
}

export type Status = 'done' | 'streaming' | 'stopped' | 'interrupted' | 'failed';

export interface Message {
  id: string;
  parent: string;
  role: 'user' | 'assistant';
  content: string;
  created: number;
  reasoning?: string;
  attachments?: Attachment[];
  model?: string;
  status: Status;
  finish?: string;
  problem?: Problem;
  usage?: Usage;
  measured?: Measured;
  /** Seconds of reasoning as the page saw them, for servers that do not say. */
  reasoningSeconds?: number;
}

export interface ChatSettings {
  model?: string;
  system?: string;
  temperature?: number;
  top_p?: number;
  max_tokens?: number;
  seed?: number;
  thinking?: boolean;
  /** Tokens; undefined: no limit. */
  budget?: number;
}

export interface Chat {
  version: typeof CHAT_VERSION;
  id: string;
  title: string;
  created: number;
  updated: number;
  settings: ChatSettings;
  messages: Record<string, Message>;
  children: Record<string, string[]>;
  choice: Record<string, string>;
}

/** 128 random bits as a UUID (RFC 9562, version 4); `crypto.randomUUID` is missing on plain HTTP. */
export function newId(): string {
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = (b[6]! & 0x0f) | 0x40;
  b[8] = (b[8]! & 0x3f) | 0x80;
  const hex = [...b].map((x) => x.toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export function newChat(settings: ChatSettings, now: number): Chat {
  return {
    version: CHAT_VERSION,
    id: newId(),
    title: '',
    created: now,
    updated: now,
    settings,
    messages: {},
    children: {},
    choice: {},
  };
}

/** Adds a message below its parent and shows it. */
export function append(chat: Chat, message: Message): Chat {
  if (message.parent !== ROOT && chat.messages[message.parent] === undefined) {
    throw new Error(`the parent ${message.parent} is not in the chat`);
  }
  if (chat.messages[message.id] !== undefined) throw new Error(`the message ${message.id} is there already`);
  const siblings = [...(chat.children[message.parent] ?? []), message.id];
  return {
    ...chat,
    title: chat.title === '' && message.role === 'user' ? titleOf(message) : chat.title,
    updated: Math.max(chat.updated, message.created),
    messages: { ...chat.messages, [message.id]: message },
    children: { ...chat.children, [message.parent]: siblings },
    choice: { ...chat.choice, [message.parent]: message.id },
  };
}

export function update(chat: Chat, id: string, change: Partial<Message>, now?: number): Chat {
  const old = chat.messages[id];
  if (old === undefined) return chat;
  return {
    ...chat,
    updated: now ?? chat.updated,
    messages: { ...chat.messages, [id]: { ...old, ...change } },
  };
}

/** The messages that are shown, first to last. */
export function path(chat: Chat): Message[] {
  const shown: Message[] = [];
  const seen = new Set<string>();
  let at = ROOT;
  for (;;) {
    const options = chat.children[at];
    if (options === undefined || options.length === 0) return shown;
    const picked = chat.choice[at];
    const next = picked !== undefined && options.includes(picked) ? picked : options[options.length - 1]!;
    const message = chat.messages[next];
    if (message === undefined || seen.has(next)) return shown;
    seen.add(next);
    shown.push(message);
    at = next;
  }
}

/** The messages from the first down to `id`, whatever is shown. */
export function pathTo(chat: Chat, id: string): Message[] {
  const up: Message[] = [];
  const seen = new Set<string>();
  let at = id;
  while (at !== ROOT && !seen.has(at)) {
    const message = chat.messages[at];
    if (message === undefined) break;
    seen.add(at);
    up.push(message);
    at = message.parent;
  }
  return up.reverse();
}

export interface Versions {
  ids: string[];
  index: number;
}

export function versions(chat: Chat, id: string): Versions {
  const message = chat.messages[id];
  const ids = message === undefined ? [] : (chat.children[message.parent] ?? []);
  return { ids, index: ids.indexOf(id) };
}

/** Shows another version of the same message; `step` is -1 or 1. */
export function turn(chat: Chat, id: string, step: number): Chat {
  const { ids, index } = versions(chat, id);
  const next = ids[index + step];
  const parent = chat.messages[id]?.parent;
  if (next === undefined || parent === undefined) return chat;
  return { ...chat, choice: { ...chat.choice, [parent]: next } };
}

/** The chat up to and including `id` as a new chat of its own. */
export function branchOff(chat: Chat, id: string, now: number): Chat {
  let copy: Chat = { ...newChat({ ...chat.settings }, now), title: chat.title };
  for (const message of pathTo(chat, id)) copy = append(copy, message);
  return { ...copy, updated: now };
}

/** What was streaming when the page went away did not finish. */
export function settle(chat: Chat, isLive: (id: string) => boolean): Chat {
  let result = chat;
  for (const message of Object.values(chat.messages)) {
    if (message.status === 'streaming' && !isLive(message.id)) {
      result = update(result, message.id, { status: 'interrupted' });
    }
  }
  return result;
}

/** Two copies of one chat that were changed apart: no message of either is lost; the later choice wins. */
export function merge(a: Chat, b: Chat): Chat {
  const [older, newer] = a.updated <= b.updated ? [a, b] : [b, a];
  const messages: Record<string, Message> = { ...older.messages };
  for (const [id, message] of Object.entries(newer.messages)) {
    const other = messages[id];
    messages[id] = other === undefined || weight(message) >= weight(other) ? message : other;
  }
  const children: Record<string, string[]> = {};
  for (const source of [older.children, newer.children]) {
    for (const [parent, ids] of Object.entries(source)) {
      children[parent] = [...new Set([...(children[parent] ?? []), ...ids])];
    }
  }
  return {
    ...newer,
    created: Math.min(a.created, b.created),
    messages,
    children,
    choice: { ...older.choice, ...newer.choice },
  };
}

function weight(message: Message): number {
  return message.content.length + (message.reasoning?.length ?? 0) + (message.status === 'streaming' ? 0 : 1);
}

/** The first words of the first question. */
export function titleOf(message: Message): string {
  const text = (message.content.trim() || (message.attachments?.[0]?.name ?? '')).replace(/\s+/gu, ' ');
  const points = [...text];
  if (points.length <= 60) return text;
  const cut = points.slice(0, 60).join('');
  const space = cut.lastIndexOf(' ');
  return `${space > 30 ? cut.slice(0, space) : cut}…`;
}

/** The text of a user's message with its files, as the model reads it. */
export function promptText(message: Message): string {
  const files = (message.attachments ?? []).map((file) => {
    const runs = file.text.match(/`+/gu) ?? [];
    const fence = '`'.repeat(Math.max(3, ...runs.map((run) => run.length + 1)));
    const kind = /\.([A-Za-z0-9]{1,12})$/u.exec(file.name)?.[1] ?? '';
    return `${file.name}:\n${fence}${kind}\n${file.text}${file.text.endsWith('\n') ? '' : '\n'}${fence}`;
  });
  return [...files, message.content].filter((part) => part !== '').join('\n\n');
}

/** The messages of a request that answers (or, with `prefix`, continues) the last of `shown`. */
export function wireMessages(shown: Message[], settings: ChatSettings, prefix: boolean): WireMessage[] {
  const wire: WireMessage[] = [];
  const system = settings.system?.trim() ?? '';
  if (system !== '') wire.push({ role: 'system', content: system });
  shown.forEach((message, index) => {
    const last = index === shown.length - 1;
    if (message.role === 'user') wire.push({ role: 'user', content: promptText(message) });
    else if (prefix && last) {
      const reasoning = message.reasoning ?? '';
      wire.push({
        role: 'assistant',
        content: message.content,
        prefix: true,
        ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
      });
    } else if (message.content !== '') wire.push({ role: 'assistant', content: message.content });
  });
  return wire;
}

/**
 * Text as a search compares it: case aside, marks over and under letters aside, and the letters that Arabic writers use
 * for one another made one. `at` gives the place of each character in the text as written.
 */
export function fold(text: string): { text: string; at: number[] } {
  const out: string[] = [];
  const at: number[] = [];
  let place = 0;
  for (const character of text) {
    const plain = character
      .normalize('NFKD')
      .replace(/[\p{M}\u0640]/gu, '')
      .toLocaleLowerCase()
      .replace(/[\u0622\u0623\u0625\u0671]/gu, '\u0627')
      .replace(/\u0649/gu, '\u064a')
      .replace(/\u0629/gu, '\u0647');
    for (const unit of plain.split('')) {
      out.push(unit);
      at.push(place);
    }
    place += character.length;
  }
  return { text: out.join(''), at };
}

export function searchWords(query: string): string[] {
  return fold(query)
    .text.split(/\s+/u)
    .filter((word) => word !== '');
}

/** Every word of `query` occurs in the title or in a message. */
export function matches(chat: Chat, query: string): boolean {
  const text = fold([chat.title, ...Object.values(chat.messages).map((m) => m.content)].join('\n')).text;
  return searchWords(query).every((word) => text.includes(word));
}

/** The figures of an answer that was written in two goes. */
export function addFigures(first: Message, second: Partial<Message>): Partial<Message> {
  const { usage, measured } = second;
  if (first.usage === undefined || usage === undefined) return second;
  const sum = (a: number | undefined, b: number | undefined): number => (a ?? 0) + (b ?? 0);
  const earlier = first.usage;
  const result: Partial<Message> = {
    ...second,
    usage: {
      ...usage,
      prompt_tokens: earlier.prompt_tokens ?? usage.prompt_tokens,
      prompt_cache_hit_tokens: earlier.prompt_cache_hit_tokens,
      completion_tokens: sum(earlier.completion_tokens, usage.completion_tokens),
      completion_tokens_details: {
        reasoning_tokens: sum(
          earlier.completion_tokens_details?.reasoning_tokens,
          usage.completion_tokens_details?.reasoning_tokens,
        ),
      },
    },
  };
  if (measured !== undefined && first.measured !== undefined) {
    const before = first.measured;
    result.measured = {
      ...measured,
      prompt_seconds: sum(before.prompt_seconds, measured.prompt_seconds),
      decode_seconds: sum(before.decode_seconds, measured.decode_seconds),
      cost: sum(Number(before.cost ?? 0), Number(measured.cost ?? 0)).toFixed(6),
      joules: measured.joules == null || before.joules == null ? null : before.joules + measured.joules,
    };
  }
  return result;
}
