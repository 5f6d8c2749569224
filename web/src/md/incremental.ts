/**
 * Markdown that grows at its end. Blocks are decided line by line, so once the line after a block is complete, the
 * block cannot change any more: it is kept, and only what follows it is parsed again. `finish` parses all of it once
 * more, because a reference such as `[1]: address` may come after its use; blocks that came out equal stay the same
 * objects, so that nothing is drawn twice.
 */

import { parseBlocks } from './parse.ts';
import type { Block, LinkTable } from './parse.ts';

export class GrowingMarkdown {
  private source = '';
  private fixed: Block[] = [];
  private fixedChars = 0;
  private links: LinkTable = {};
  private shown: Block[] = [];
  /** Characters given to the parser in all: what the tests of the cost look at. */
  parsedChars = 0;

  /** `source` is the whole text so far; text that does not continue the last one starts anew. */
  set(source: string): Block[] {
    if (source === this.source) return this.shown;
    if (!source.startsWith(this.source)) {
      this.fixed = [];
      this.fixedChars = 0;
      this.links = {};
    }
    this.source = source;
    const tail = source.slice(this.fixedChars);
    this.parsedChars += tail.length;
    const blocks = parseBlocks(tail, this.links);
    const lineEnd = tail.lastIndexOf('\n') + 1;
    let keep = 0;
    // A block is fixed when the one after it has a complete line.
    while (keep + 1 < blocks.length && firstLineEnd(tail, blocks[keep + 1]!.start) <= lineEnd) keep++;
    if (!tail.includes('\r') && keep > 0) {
      this.fixed = [...this.fixed, ...blocks.slice(0, keep)];
      this.fixedChars += blocks[keep]!.start;
      blocks.splice(0, keep);
    }
    this.shown = reuse([...this.fixed, ...blocks], this.shown);
    this.fixed = this.shown.slice(0, this.fixed.length);
    return this.shown;
  }

  finish(): Block[] {
    this.parsedChars += this.source.length;
    this.shown = reuse(parseBlocks(this.source, {}), this.shown);
    return this.shown;
  }
}

function firstLineEnd(text: string, start: number): number {
  const end = text.indexOf('\n', start);
  return end < 0 ? Number.POSITIVE_INFINITY : end + 1;
}

/** The old object for each block that is the same as at its place before. */
function reuse(blocks: Block[], old: Block[]): Block[] {
  return blocks.map((block, index) => {
    const before = old[index];
    if (before === block || before === undefined) return block;
    return before.source === block.source && JSON.stringify(before.node) === JSON.stringify(block.node)
      ? before
      : block;
  });
}
