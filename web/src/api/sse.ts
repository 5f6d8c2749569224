/**
 * Server-sent events from bytes (WHATWG HTML, section 9.2.6). Bytes may be cut anywhere: inside a UTF-8 sequence,
 * between CR and LF, in the middle of a field. Comments are reported, because the server sends them while a request
 * waits in its queue.
 */

export type SseItem = { type: 'data'; data: string } | { type: 'comment'; text: string };

/** An event that grows beyond this is refused: a stream without line ends must not fill the memory. */
export const EVENT_CHARS_MAX = 8 * 1024 * 1024;

export class SseParser {
  private decoder = new TextDecoder('utf-8');
  private rest = '';
  private data: string[] = [];
  private size = 0;
  private afterCr = false;

  push(bytes: Uint8Array): SseItem[] {
    return this.feed(this.decoder.decode(bytes, { stream: true }));
  }

  /** The end of the stream: an event without its blank line is dropped, as the standard says. */
  end(): SseItem[] {
    const items = this.feed(this.decoder.decode());
    this.rest = '';
    this.data = [];
    return items;
  }

  private feed(text: string): SseItem[] {
    const items: SseItem[] = [];
    if (this.afterCr && text.startsWith('\n')) text = text.slice(1);
    if (text !== '') this.afterCr = false;
    let start = 0;
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i);
      if (c !== 10 && c !== 13) continue;
      this.line(this.rest + text.slice(start, i), items);
      this.rest = '';
      if (c === 13) {
        if (i + 1 === text.length) this.afterCr = true;
        else if (text.charCodeAt(i + 1) === 10) i++;
      }
      start = i + 1;
    }
    this.rest += text.slice(start);
    if (this.rest.length + this.size > EVENT_CHARS_MAX) throw new Error('an event of the stream is too long');
    return items;
  }

  private line(line: string, items: SseItem[]): void {
    if (line === '') {
      if (this.data.length > 0) items.push({ type: 'data', data: this.data.join('\n') });
      this.data = [];
      this.size = 0;
      return;
    }
    if (line.startsWith(':')) {
      items.push({ type: 'comment', text: line.slice(1).trim() });
      return;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    if (field !== 'data') return;
    const value = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1));
    this.data.push(value);
    this.size += value.length;
  }
}
