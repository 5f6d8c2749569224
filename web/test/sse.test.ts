import { describe, expect, it } from 'vitest';
import { EVENT_CHARS_MAX, SseParser } from '../src/api/sse.ts';
import type { SseItem } from '../src/api/sse.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function whole(text: string): SseItem[] {
  const parser = new SseParser();
  return [...parser.push(bytes(text)), ...parser.end()];
}

const STREAM =
  ': keep-alive\n\ndata: {"a":"سلام 👋 é"}\n\r\ndata: one\r\ndata:two\n\nevent: x\nid: 7\ndata:  padded\r\n\r\ndata\n\ndata: [DONE]\n\n';
const EXPECTED: SseItem[] = [
  { type: 'comment', text: 'keep-alive' },
  { type: 'data', data: '{"a":"سلام 👋 é"}' },
  { type: 'data', data: 'one\ntwo' },
  { type: 'data', data: ' padded' },
  { type: 'data', data: '' },
  { type: 'data', data: '[DONE]' },
];

describe('server-sent events', () => {
  it('reads events, comments, several data lines and all three line ends', () => {
    expect(whole(STREAM)).toEqual(EXPECTED);
    expect(whole(STREAM.replace(/\r?\n/gu, '\r'))).toEqual(EXPECTED);
  });

  it('gives the same for every cut into two and for single bytes', () => {
    const data = bytes(STREAM);
    for (let cut = 0; cut <= data.length; cut++) {
      const parser = new SseParser();
      const items = [...parser.push(data.subarray(0, cut)), ...parser.push(data.subarray(cut)), ...parser.end()];
      expect(items, `cut at ${cut}`).toEqual(EXPECTED);
    }
    const parser = new SseParser();
    const items = [...data].flatMap((byte) => parser.push(new Uint8Array([byte])));
    expect([...items, ...parser.end()]).toEqual(EXPECTED);
  });

  it('leaves out a byte order mark and an event without its blank line', () => {
    expect(whole('\ufeffdata: a\n\ndata: lost\n')).toEqual([{ type: 'data', data: 'a' }]);
    expect(whole('data: lost')).toEqual([]);
  });

  it('puts the replacement sign for bytes that are no UTF-8', () => {
    const parser = new SseParser();
    const items = parser.push(new Uint8Array([...bytes('data: '), 0xff, ...bytes('x\n\n')]));
    expect(items).toEqual([{ type: 'data', data: '\ufffdx' }]);
  });

  it('refuses an event without end', () => {
    const parser = new SseParser();
    const piece = bytes('x'.repeat(1024 * 1024));
    expect(() => {
      for (let i = 0; i <= EVENT_CHARS_MAX / piece.length; i++) parser.push(piece);
    }).toThrow(/too long/u);
  });
});
