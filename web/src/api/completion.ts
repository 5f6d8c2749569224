/** One streamed chat completion as a sequence of small facts. */

import { call } from './client.ts';
import { ApiError, detailOf } from './errors.ts';
import { SseParser } from './sse.ts';
import type { ChatRequest, Measured, Usage } from './types.ts';

export type StreamFact =
  | { type: 'open' }
  | { type: 'queued' }
  | { type: 'reasoning'; text: string }
  | { type: 'content'; text: string }
  | { type: 'finish'; reason: string }
  | { type: 'usage'; usage: Usage; measured?: Measured };

/** Starts the request and yields until `[DONE]`. A stream that ends earlier is a `broken` error. */
export async function* complete(request: ChatRequest, signal: AbortSignal): AsyncGenerator<StreamFact> {
  const response = await call('/v1/chat/completions', {
    body: { ...request, stream: true, stream_options: { include_usage: true } },
    signal,
  });
  yield { type: 'open' };
  if (response.body === null) throw new ApiError({ kind: 'broken' });
  yield* readFacts(response.body.getReader(), signal);
}

interface ByteReader {
  read(): Promise<{ done: boolean; value?: Uint8Array }>;
  cancel(): Promise<void>;
}

export async function* readFacts(reader: ByteReader, signal: AbortSignal): AsyncGenerator<StreamFact> {
  const parser = new SseParser();
  try {
    for (;;) {
      let part: { done: boolean; value?: Uint8Array };
      try {
        part = await reader.read();
      } catch (error) {
        if (signal.aborted) throw error;
        throw new ApiError({ kind: 'broken' });
      }
      const items = part.done ? parser.end() : parser.push(part.value ?? new Uint8Array());
      for (const item of items) {
        if (item.type === 'comment') {
          yield { type: 'queued' };
          continue;
        }
        if (item.data.trim() === '[DONE]') return;
        yield* factsOf(item.data);
      }
      if (part.done) throw new ApiError({ kind: 'broken' });
    }
  } finally {
    reader.cancel().catch(() => undefined); // the stream is over either way
  }
}

/** The facts in one chunk. Fields of the wrong type are ignored; an `error` object is thrown. */
export function* factsOf(data: string): Generator<StreamFact> {
  let chunk: unknown;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new ApiError({ kind: 'broken', detail: 'A part of the stream is not JSON.' });
  }
  if (!isObject(chunk)) return;
  if (isObject(chunk.error)) throw new ApiError({ kind: 'server', detail: detailOf(chunk) });
  const choice = Array.isArray(chunk.choices) ? (chunk.choices[0] as unknown) : undefined;
  if (isObject(choice)) {
    const delta = choice.delta;
    if (isObject(delta)) {
      if (isText(delta.reasoning_content)) yield { type: 'reasoning', text: delta.reasoning_content };
      if (isText(delta.content)) yield { type: 'content', text: delta.content };
    }
    if (isText(choice.finish_reason)) yield { type: 'finish', reason: choice.finish_reason };
  }
  if (isObject(chunk.usage)) {
    const measured = isObject(chunk.fathom)
      ? chunk.fathom
      : isObject(chunk.usage.fathom)
        ? chunk.usage.fathom
        : undefined;
    yield { type: 'usage', usage: chunk.usage as Usage, measured: measured as Measured | undefined };
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}
