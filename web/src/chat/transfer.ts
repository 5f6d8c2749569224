/**
 * Chats as files. JSON holds everything and comes back equal; Markdown is for reading. What is read from a file or
 * from a store is hostile until checked: every field is looked at, unknown ones are dropped, sizes are limited.
 */

import { CHAT_VERSION, ROOT, newId, path } from './model.ts';
import type { Attachment, Chat, ChatSettings, Message, Status } from './model.ts';
import type { ErrorKind, Problem } from '../api/errors.ts';

export const FORMAT = 'fathom-chats-1';
const MESSAGES_MAX = 100_000;

export interface Rejected {
  index: number;
  reason: string;
}

export interface Imported {
  chats: Chat[];
  rejected: Rejected[];
}

/** The same envelope as the server's own export: either file can be read by either side. */
export function toJson(chats: Chat[]): string {
  const rows = chats.map((chat) => ({
    id: chat.id,
    title: chat.title,
    created_ms: chat.created,
    updated_ms: chat.updated,
    chat: checkChat(chat),
  }));
  return `${JSON.stringify({ format: FORMAT, chats: rows }, null, 1)}\n`;
}

export function fromJson(text: string): Imported {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error('not_json');
  }
  const rows = isObject(file) && Array.isArray(file.chats) ? file.chats : Array.isArray(file) ? file : undefined;
  if (rows === undefined) throw new Error('not_chats');
  const result: Imported = { chats: [], rejected: [] };
  rows.forEach((row: unknown, index) => {
    const inner = isObject(row) && isObject(row.chat) ? { ...row.chat, id: row.chat.id ?? row.id } : row;
    try {
      result.chats.push(checkChat(inner));
    } catch (error) {
      result.rejected.push({ index, reason: error instanceof Error ? error.message : String(error) });
    }
  });
  return result;
}

/** A chat of any version that this page ever wrote, as one of today's; throws a sentence when it is none. */
export function checkChat(value: unknown): Chat {
  if (!isObject(value)) throw new Error('a chat is not an object');
  if (value.version === 1) return checkChat(fromVersion1(value));
  if (value.version !== CHAT_VERSION) throw new Error(`version ${String(value.version)} of a chat is not known`);
  const messages: Record<string, Message> = Object.create(null);
  const given = isObject(value.messages) ? Object.entries(value.messages) : [];
  if (given.length > MESSAGES_MAX) throw new Error(`a chat has ${given.length} messages, the limit is ${MESSAGES_MAX}`);
  for (const [id, message] of given) messages[id] = checkMessage(id, message);
  const children: Record<string, string[]> = Object.create(null);
  const order = isObject(value.children) ? value.children : {};
  const placed = new Set<string>();
  for (const [parent, ids] of Object.entries(order)) {
    if (!Array.isArray(ids)) continue;
    const good = ids.filter(
      (id): id is string => typeof id === 'string' && messages[id]?.parent === parent && !placed.has(id),
    );
    good.forEach((id) => placed.add(id));
    if (good.length > 0) children[parent] = good;
  }
  for (const message of Object.values(messages)) {
    if (placed.has(message.id)) continue;
    if (message.parent !== ROOT && messages[message.parent] === undefined) throw new Error('a message has no parent');
    (children[message.parent] ??= []).push(message.id);
  }
  const choice: Record<string, string> = Object.create(null);
  for (const [parent, id] of Object.entries(isObject(value.choice) ? value.choice : {})) {
    if (typeof id === 'string' && children[parent]?.includes(id)) choice[parent] = id;
  }
  const created = moment(value.created);
  return {
    version: CHAT_VERSION,
    id: typeof value.id === 'string' && /^[A-Za-z0-9_-]{8,64}$/u.test(value.id) ? value.id : newId(),
    title: text(value.title, 200) ?? '',
    created,
    updated: Math.max(created, moment(value.updated)),
    settings: checkSettings(value.settings),
    messages: { ...messages },
    children: { ...children },
    choice: { ...choice },
  };
}

/** Version 1 (a plain list of messages, as other programs export it). */
function fromVersion1(old: Record<string, unknown>): Record<string, unknown> {
  const list = Array.isArray(old.messages) ? old.messages : [];
  const messages: Record<string, unknown> = {};
  const children: Record<string, string[]> = {};
  let parent: string = ROOT;
  let system: string | undefined;
  for (const item of list) {
    if (!isObject(item)) throw new Error('a message is not an object');
    if (item.role === 'system' && typeof item.content === 'string') {
      system = item.content;
      continue;
    }
    const id = newId();
    messages[id] = {
      id,
      parent,
      role: item.role,
      content: item.content,
      created: item.created ?? old.created ?? 0,
      status: 'done',
      reasoning: item.reasoning ?? item.reasoning_content,
      model: old.model,
    };
    children[parent] = [id];
    parent = id;
  }
  const settings = { ...(isObject(old.settings) ? old.settings : {}), system, model: old.model };
  return { ...old, version: CHAT_VERSION, settings, messages, children, choice: {} };
}

const STATUSES: Status[] = ['done', 'streaming', 'stopped', 'interrupted', 'failed'];
const KINDS: ErrorKind[] = [
  'unreachable',
  'broken',
  'key',
  'balance',
  'missing',
  'conflict',
  'too_large',
  'refused',
  'rate',
  'busy',
  'server',
  'storage',
];

function checkMessage(id: string, value: unknown): Message {
  if (!isObject(value)) throw new Error('a message is not an object');
  // A name that every object has from its birth would be found where no message is.
  if (id === ROOT || id.length > 64 || id in Object.prototype)
    throw new Error('a message has an id that cannot be used');
  if (value.role !== 'user' && value.role !== 'assistant')
    throw new Error(`the role ${String(value.role)} is not known`);
  if (typeof value.content !== 'string') throw new Error('a message has no text');
  const message: Message = {
    id,
    parent: typeof value.parent === 'string' ? value.parent : ROOT,
    role: value.role,
    content: value.content,
    created: moment(value.created),
    status: STATUSES.includes(value.status as Status) ? (value.status as Status) : 'done',
  };
  if (message.parent === id) throw new Error('a message is its own parent');
  if (typeof value.reasoning === 'string' && value.reasoning !== '') message.reasoning = value.reasoning;
  const files = Array.isArray(value.attachments) ? value.attachments.filter(isAttachment) : [];
  if (files.length > 0) message.attachments = files.map(({ name, text: body }) => ({ name, text: body }));
  const model = text(value.model, 200);
  if (model !== undefined) message.model = model;
  const finish = text(value.finish, 100);
  if (finish !== undefined) message.finish = finish;
  if (isObject(value.problem) && KINDS.includes(value.problem.kind as ErrorKind)) {
    message.problem = {
      kind: value.problem.kind as ErrorKind,
      ...(typeof value.problem.status === 'number' ? { status: value.problem.status } : {}),
      ...(typeof value.problem.detail === 'string' ? { detail: value.problem.detail.slice(0, 600) } : {}),
    } satisfies Problem;
  }
  if (isObject(value.usage)) message.usage = value.usage as Message['usage'];
  if (isObject(value.measured)) message.measured = value.measured as Message['measured'];
  if (typeof value.reasoningSeconds === 'number') message.reasoningSeconds = value.reasoningSeconds;
  return message;
}

export function checkSettings(value: unknown): ChatSettings {
  const given = isObject(value) ? value : {};
  const settings: ChatSettings = {};
  const model = text(given.model, 200);
  if (model !== undefined) settings.model = model;
  if (typeof given.system === 'string' && given.system !== '') settings.system = given.system;
  const number = (
    name: 'temperature' | 'top_p' | 'max_tokens' | 'seed' | 'budget',
    low: number,
    high: number,
  ): void => {
    const x = given[name];
    if (typeof x === 'number' && x >= low && x <= high) settings[name] = x;
  };
  number('temperature', 0, 2);
  number('top_p', 0, 1);
  number('max_tokens', 1, 10_000_000);
  number('seed', 0, Number.MAX_SAFE_INTEGER);
  number('budget', 0, 10_000_000);
  if (typeof given.thinking === 'boolean') settings.thinking = given.thinking;
  return settings;
}

export interface MarkdownWords {
  you: string;
  assistant: string;
  reasoning: string;
  system: string;
}

/** The shown path of a chat as Markdown; the reasoning in a folded block that common viewers know. */
export function toMarkdown(chat: Chat, words: MarkdownWords): string {
  const parts = [`# ${chat.title.replace(/\n/gu, ' ')}`];
  if (chat.settings.system !== undefined) parts.push(`**${words.system}**\n\n${chat.settings.system}`);
  for (const message of path(chat)) {
    parts.push(
      `## ${message.role === 'user' ? words.you : `${words.assistant}${message.model === undefined ? '' : ` (${message.model})`}`}`,
    );
    for (const file of message.attachments ?? []) parts.push(`- ${file.name}`);
    if (message.reasoning !== undefined) {
      parts.push(`<details><summary>${words.reasoning}</summary>\n\n${message.reasoning.trim()}\n\n</details>`);
    }
    if (message.content.trim() !== '') parts.push(message.content.trim());
  }
  return `${parts.join('\n\n')}\n`;
}

/** A file name that every system takes. */
export function fileName(title: string, extension: string): string {
  const base = title
    .replace(/[\\/:*?"<>|\p{Cc}\p{Cf}]+/gu, ' ')
    .replace(/\s+/gu, ' ')
    .trim()
    .replace(/^\.+/u, '')
    .slice(0, 60)
    .trim();
  return `${base === '' ? 'chat' : base}.${extension}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isAttachment(value: unknown): value is Attachment {
  return isObject(value) && typeof value.name === 'string' && typeof value.text === 'string';
}

function text(value: unknown, max: number): string | undefined {
  return typeof value === 'string' && value !== '' ? value.slice(0, max) : undefined;
}

function moment(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? Math.floor(value) : 0;
}
