/** Answers that are being written. A run goes on while another chat is shown. */

import { batch, signal } from '@preact/signals';
import type { Signal } from '@preact/signals';
import { complete } from '../api/completion.ts';
import type { StreamFact } from '../api/completion.ts';
import { problemOf } from '../api/errors.ts';
import type { Problem } from '../api/errors.ts';
import type { ChatRequest, Measured, Usage } from '../api/types.ts';
import { ROOT, addFigures, append, newId, path, pathTo, update, wireMessages } from '../chat/model.ts';
import type { Attachment, Chat, ChatSettings, Message, Status } from '../chat/model.ts';
import { change, flush, held, partials, saveSoon, streamSaveWait } from './chats.ts';
import { modelOf } from './server.ts';

export type Phase = 'waiting' | 'queued' | 'reasoning' | 'answering';

export interface Run {
  chat: string;
  message: string;
  content: Signal<string>;
  reasoning: Signal<string>;
  phase: Signal<Phase>;
  /** Moments in ms; 0: not yet. */
  reasoningFrom: number;
  reasoningTo: number;
  abort: AbortController;
}

const LONG_CHARS = 60_000;

export const runs = signal<ReadonlyMap<string, Run>>(new Map());

export function runOfChat(chat: string): Run | undefined {
  for (const run of runs.value.values()) if (run.chat === chat) return run;
  return undefined;
}

/** Adds a message of the user below what is shown, and has it answered. */
export function send(chatId: string, content: string, attachments: Attachment[]): void {
  const chat = held(chatId);
  if (chat === undefined || runOfChat(chatId) !== undefined) return;
  ask(chatId, path(chat).at(-1)?.id ?? ROOT, content, attachments);
}

/** A new version of a message of the user, beside the old one. */
export function sendEdited(chatId: string, id: string, content: string): void {
  const old = held(chatId)?.messages[id];
  if (old === undefined || runOfChat(chatId) !== undefined) return;
  ask(chatId, old.parent, content, old.attachments ?? []);
}

function ask(chatId: string, parent: string, content: string, attachments: Attachment[]): void {
  const question: Message = {
    id: newId(),
    parent,
    role: 'user',
    content,
    created: Date.now(),
    status: 'done',
    ...(attachments.length === 0 ? {} : { attachments }),
  };
  change(chatId, (chat) => append(chat, question));
  answer(chatId, question.id);
}

/** Another answer beside `id`. */
export function retry(chatId: string, id: string): void {
  const old = held(chatId)?.messages[id];
  if (old === undefined || runOfChat(chatId) !== undefined) return;
  answer(chatId, old.role === 'assistant' ? old.parent : old.id);
}

function answer(chatId: string, question: string): void {
  const chat = held(chatId);
  if (chat === undefined) return;
  const model = modelOf(chat.settings.model)?.id ?? chat.settings.model ?? '';
  const message: Message = {
    id: newId(),
    parent: question,
    role: 'assistant',
    content: '',
    created: Date.now(),
    model,
    status: 'streaming',
  };
  const request = requestOf(pathTo(chat, question), chat.settings, false);
  change(chatId, (c) => append(c, message));
  void start(chatId, message, request);
}

/** Goes on writing an answer that was cut off. */
export function resume(chatId: string, id: string): void {
  const chat = held(chatId);
  const message = chat?.messages[id];
  if (chat === undefined || message === undefined || runOfChat(chatId) !== undefined) return;
  if (message.content === '' && (message.reasoning ?? '') === '') {
    retry(chatId, id);
    return;
  }
  const request = requestOf(pathTo(chat, id), chat.settings, true);
  const { problem: _problem, finish: _finish, ...rest } = message;
  const again: Message = { ...rest, status: 'streaming' };
  change(chatId, (c) => ({ ...c, messages: { ...c.messages, [id]: again } }));
  void start(chatId, again, request);
}

export function stop(chatId: string): void {
  runOfChat(chatId)?.abort.abort();
}

/** What goes to the server. Settings that were not made are not sent: the model's own hold. */
export function requestOf(shown: Message[], settings: ChatSettings, prefix: boolean): ChatRequest {
  const model = modelOf(settings.model);
  const request: ChatRequest = {
    model: model?.id ?? settings.model ?? '',
    messages: wireMessages(shown, settings, prefix),
  };
  if (settings.temperature !== undefined) request.temperature = settings.temperature;
  if (settings.top_p !== undefined) request.top_p = settings.top_p;
  if (settings.max_tokens !== undefined) request.max_tokens = settings.max_tokens;
  if (settings.seed !== undefined) request.seed = settings.seed;
  if (model?.reasoning === true) {
    if (settings.thinking === false && model.thinking_switch !== false) request.thinking = { type: 'disabled' };
    else if (settings.budget !== undefined) request.thinking = { type: 'enabled', budget_tokens: settings.budget };
    else if (settings.thinking === true) request.thinking = { type: 'enabled' };
  }
  return request;
}

interface Outcome {
  status: Status;
  finish?: string;
  problem?: Problem;
  usage?: Usage;
  measured?: Measured;
}

async function start(chatId: string, message: Message, request: ChatRequest): Promise<void> {
  const run: Run = {
    chat: chatId,
    message: message.id,
    content: signal(message.content),
    reasoning: signal(message.reasoning ?? ''),
    phase: signal<Phase>('waiting'),
    reasoningFrom: 0,
    reasoningTo: 0,
    abort: new AbortController(),
  };
  runs.value = new Map(runs.peek()).set(message.id, run);
  const own = partials.get(chatId) ?? new Map();
  partials.set(
    chatId,
    own.set(message.id, () => textOf(run, message)),
  );
  const release = holdLock(message.id);
  const outcome = await follow(run, request);
  release();
  own.delete(message.id);
  batch(() => {
    change(chatId, (chat) => conclude(chat, run, message, outcome));
    const left = new Map(runs.peek());
    left.delete(message.id);
    runs.value = left;
  });
  await flush(chatId);
}

function conclude(chat: Chat, run: Run, message: Message, outcome: Outcome): Chat {
  const changes: Partial<Message> = { ...textOf(run, message), status: outcome.status };
  if (outcome.finish !== undefined) changes.finish = outcome.finish;
  if (outcome.problem !== undefined) changes.problem = outcome.problem;
  if (outcome.usage !== undefined) changes.usage = outcome.usage;
  if (outcome.measured !== undefined) changes.measured = outcome.measured;
  return update(chat, message.id, addFigures(message, changes), Date.now());
}

function textOf(run: Run, message: Message): Partial<Message> {
  const text: Partial<Message> = { content: run.content.peek() };
  const reasoning = run.reasoning.peek();
  if (reasoning !== '') text.reasoning = reasoning;
  if (run.reasoningFrom > 0) {
    const seconds = ((run.reasoningTo || Date.now()) - run.reasoningFrom) / 1000;
    text.reasoningSeconds = (message.reasoningSeconds ?? 0) + Math.round(seconds * 10) / 10;
  }
  return text;
}

/** Reads the stream to its end. Text is put on the page once a frame, however small the pieces are. */
async function follow(run: Run, request: ChatRequest): Promise<Outcome> {
  const outcome: Outcome = { status: 'done' };
  let content = run.content.peek();
  let reasoning = run.reasoning.peek();
  let cancel: (() => void) | null = null;
  const draw = (): void => {
    cancel?.();
    cancel = null;
    batch(() => {
      run.content.value = content;
      run.reasoning.value = reasoning;
    });
    saveSoon(run.chat, streamSaveWait(run.chat));
  };
  try {
    for await (const fact of complete(request, run.abort.signal)) {
      if (fact.type === 'reasoning') reasoning += fact.text;
      if (fact.type === 'content') content += fact.text;
      note(run, fact, outcome);
      if (cancel === null && (fact.type === 'reasoning' || fact.type === 'content'))
        cancel = nextFrame(draw, content.length + reasoning.length);
    }
    if (content === '' && reasoning === '' && outcome.finish === undefined) outcome.problem = { kind: 'broken' };
  } catch (error) {
    if (run.abort.signal.aborted) outcome.status = 'stopped';
    else {
      outcome.status = 'failed';
      outcome.problem = problemOf(error);
    }
  }
  draw();
  if (run.reasoningFrom > 0 && run.reasoningTo === 0) run.reasoningTo = Date.now();
  return outcome;
}

function note(run: Run, fact: StreamFact, outcome: Outcome): void {
  switch (fact.type) {
    case 'queued':
      if (run.phase.peek() === 'waiting') run.phase.value = 'queued';
      break;
    case 'reasoning':
      if (run.reasoningFrom === 0) run.reasoningFrom = Date.now();
      run.phase.value = 'reasoning';
      break;
    case 'content':
      if (run.reasoningFrom > 0 && run.reasoningTo === 0) run.reasoningTo = Date.now();
      run.phase.value = 'answering';
      break;
    case 'finish':
      outcome.finish = fact.reason;
      break;
    case 'usage':
      outcome.usage = fact.usage;
      outcome.measured = fact.measured;
      break;
    case 'open':
      break;
  }
}

/**
 * The next frame, or a quarter of a second: a page in the background gets no frames. Very long answers are drawn less
 * often, so that reading and writing stay smooth beside them.
 */
function nextFrame(work: () => void, chars: number): () => void {
  const timer = setTimeout(work, 250);
  const frame = chars < LONG_CHARS ? requestAnimationFrame(work) : 0;
  return () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
  };
}

/** Tells other tabs, for as long as it is held, that this message is still being received. */
function holdLock(id: string): () => void {
  let release = (): void => undefined;
  const until = new Promise<void>((resolve) => {
    release = resolve;
  });
  if (navigator.locks !== undefined) void navigator.locks.request(`fathom:${id}`, () => until).catch(() => undefined);
  return release;
}
