/** Plain text of people and of reasoning: every line has its own direction, sums stay together. */

import { Component } from 'preact';
import type { ComponentChild } from 'preact';
import { dirOf, firstStrong } from '../dir.ts';
import type { Dir } from '../dir.ts';
import { plain } from '../md/view.tsx';

const LINES_PER_CHUNK = 40;

export function PlainText({ text, around }: { text: string; around: Dir }) {
  const lines = text.split('\n');
  const base = firstStrong(text.slice(0, 2000)) ?? around;
  const chunks: string[] = [];
  for (let i = 0; i < lines.length; i += LINES_PER_CHUNK) chunks.push(lines.slice(i, i + LINES_PER_CHUNK).join('\n'));
  return (
    <div class="plain">
      {chunks.map((chunk, index) => (
        <Chunk key={index} text={chunk} around={base} />
      ))}
    </div>
  );
}

/** A run of lines, drawn again only when its own text changed. */
class Chunk extends Component<{ text: string; around: Dir }> {
  override shouldComponentUpdate(next: { text: string; around: Dir }): boolean {
    return next.text !== this.props.text || next.around !== this.props.around;
  }

  override render(props: { text: string; around: Dir }): ComponentChild {
    return (
      <>
        {props.text.split('\n').map((line, index) => {
          const dir = dirOf(line, props.around);
          return (
            <p key={index} dir={dir}>
              {line === '' ? '\u00a0' : plain(line, dir)}
            </p>
          );
        })}
      </>
    );
  }
}
