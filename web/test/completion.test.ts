import { describe, expect, it } from 'vitest';
import { factsOf, readFacts } from '../src/api/completion.ts';
import type { StreamFact } from '../src/api/completion.ts';
import { ApiError, detailOf, kindOfStatus, problemOf, retryMoment } from '../src/api/errors.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function reader(parts: (Uint8Array | Error)[]) {
  let at = 0;
  const state = { cancelled: false };
  return {
    state,
    read: async () => {
      const part = parts[at++];
      if (part instanceof Error) throw part;
      return part === undefined ? { done: true } : { done: false, value: part };
    },
    cancel: async () => {
      state.cancelled = true;
    },
  };
}

async function collect(
  parts: (Uint8Array | Error)[],
  signal = new AbortController().signal,
): Promise<{ facts: StreamFact[]; error: unknown; cancelled: boolean }> {
  const facts: StreamFact[] = [];
  const source = reader(parts);
  let error: unknown = null;
  try {
    for await (const fact of readFacts(source, signal)) facts.push(fact);
  } catch (e) {
    error = e;
  }
  return { facts, error, cancelled: source.state.cancelled };
}

const chunk = (delta: unknown, finish: string | null = null): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;

describe('a streamed completion', () => {
  it('tells queue, reasoning, content, end and figures in order', async () => {
    const usage = { usage: { completion_tokens: 3 }, fathom: { tokens_per_second: 9, cost: '0.000001' }, choices: [] };
    const text =
      `: keep-alive\n\n${chunk({ role: 'assistant', content: '' })}${chunk({ reasoning_content: 'hm' })}${chunk({ content: 'نعم' })}` +
      `${chunk({}, 'stop')}data: ${JSON.stringify(usage)}\n\ndata: [DONE]\n\n`;
    const { facts, error, cancelled } = await collect([bytes(text)]);
    expect(error).toBeNull();
    expect(facts).toEqual([
      { type: 'queued' },
      { type: 'reasoning', text: 'hm' },
      { type: 'content', text: 'نعم' },
      { type: 'finish', reason: 'stop' },
      { type: 'usage', usage: { completion_tokens: 3 }, measured: { tokens_per_second: 9, cost: '0.000001' } },
    ]);
    expect(cancelled).toBe(true);
  });

  it('calls a stream without its end mark broken, and keeps what came before', async () => {
    const ended = await collect([bytes(chunk({ content: 'half' }))]);
    expect(ended.facts).toEqual([{ type: 'content', text: 'half' }]);
    expect((ended.error as ApiError).problem.kind).toBe('broken');
    const cut = await collect([bytes(chunk({ content: 'half' })), new TypeError('network error')]);
    expect((cut.error as ApiError).problem.kind).toBe('broken');
  });

  it('does not call a stop of the visitor an error of the line', async () => {
    const stop = new AbortController();
    stop.abort();
    const { error } = await collect([new DOMException('stopped', 'AbortError') as unknown as Error], stop.signal);
    expect(error).not.toBeInstanceOf(ApiError);
  });

  it('throws an error that comes inside the stream, with its sentence', async () => {
    const { facts, error } = await collect([
      bytes(`${chunk({ content: 'a' })}data: {"error":{"message":"The engine stopped."}}\n\n`),
    ]);
    expect(facts).toHaveLength(1);
    expect((error as ApiError).problem).toEqual({ kind: 'server', detail: 'The engine stopped.' });
  });

  it('ignores fields of a wrong type and refuses what is no JSON', () => {
    for (const data of [
      'null',
      '3',
      '[]',
      '{}',
      '{"choices":{}}',
      '{"choices":[null]}',
      '{"choices":[{"delta":{"content":5}}]}',
      '{"choices":[{"delta":null,"finish_reason":{}}]}',
    ]) {
      expect([...factsOf(data)], data).toEqual([]);
    }
    expect(() => [...factsOf('{"choices":')]).toThrow(ApiError);
  });
});

describe('errors', () => {
  it('names a kind for every status', () => {
    const table: [number, string][] = [
      [400, 'refused'],
      [401, 'key'],
      [402, 'balance'],
      [403, 'key'],
      [404, 'missing'],
      [409, 'conflict'],
      [413, 'too_large'],
      [422, 'refused'],
      [429, 'rate'],
      [500, 'server'],
      [502, 'server'],
      [503, 'busy'],
    ];
    for (const [status, kind] of table) expect(kindOfStatus(status), String(status)).toBe(kind);
  });

  it('reads Retry-After in both forms and limits it', () => {
    expect(retryMoment('3', 1000)).toBe(4000);
    expect(retryMoment(new Date(60_000).toUTCString(), 1000)).toBe(60_000);
    expect(retryMoment('1e12', 0)).toBe(86_400_000);
    for (const bad of [null, 'soon', '-4']) expect(retryMoment(bad, 0), String(bad)).toBeUndefined();
  });

  it('takes the sentence of the server only as text, and not without limit', () => {
    expect(detailOf({ error: { message: 'x'.repeat(5000) } })).toHaveLength(600);
    for (const bad of [null, 'x', { error: 'x' }, { error: { message: 4 } }]) expect(detailOf(bad)).toBeUndefined();
    expect(problemOf(new TypeError('Failed to fetch'))).toEqual({ kind: 'unreachable' });
  });
});
