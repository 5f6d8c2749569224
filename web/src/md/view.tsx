/**
 * Markdown on the page: the tree of `parse.ts` as nodes. The elements that can come out are those written here, no
 * attribute takes text of the model except an address that `isSafeAddress` let through, and nothing loads by itself.
 */

import { Component, Fragment } from 'preact';
import type { ComponentChild, ComponentChildren } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { dirOf, pieces } from '../dir.ts';
import type { Dir } from '../dir.ts';
import { fill, words } from '../i18n/index.ts';
import { CopyButton } from '../ui/controls.tsx';
import type { Shade } from './highlight.ts';
import { GrowingMarkdown } from './incremental.ts';
import { isSafeAddress, plainText } from './parse.ts';
import type { Block, MdNode } from './parse.ts';

/** `complete` false: the text is still growing. `around` is the direction of blocks without a letter. */
export function Markdown({ text, complete, around }: { text: string; complete: boolean; around: Dir }) {
  const growing = useRef<GrowingMarkdown | null>(null);
  const blocks = useMemo(() => {
    growing.current ??= new GrowingMarkdown();
    const shown = growing.current.set(text);
    return complete ? growing.current.finish() : shown;
  }, [text, complete]);
  return (
    <div class="md">
      {blocks.map((block, index) => (
        <BlockView key={index} block={block} around={around} open={!complete && index === blocks.length - 1} />
      ))}
    </div>
  );
}

interface BlockProps {
  block: Block;
  around: Dir;
  open: boolean;
}

/** Drawn again only when its own block changed. */
class BlockView extends Component<BlockProps> {
  override shouldComponentUpdate(next: BlockProps): boolean {
    return next.block !== this.props.block || next.around !== this.props.around || next.open !== this.props.open;
  }

  override render(props: BlockProps): ComponentChild {
    return <>{blockNode(props.block.node, { dir: props.around, open: props.open })}</>;
  }
}

interface Context {
  dir: Dir;
  /** The block may still grow. */
  open: boolean;
}

function blocksOf(nodes: MdNode[], context: Context): ComponentChildren {
  return nodes.map((node, index) => <Fragment key={index}>{blockNode(node, context)}</Fragment>);
}

function blockNode(node: MdNode, context: Context): ComponentChild {
  const dir = dirOf(plainText(node), context.dir);
  const inner: Context = { ...context, dir };
  switch (node.type) {
    case 'paragraph':
      if (node.hidden) return <>{inlines(node.children, context)}</>;
      return <p dir={dir}>{inlines(node.children, inner)}</p>;
    case 'heading':
      return heading(node, inner);
    case 'blockquote':
      return <blockquote dir={dir}>{blocksOf(node.children, inner)}</blockquote>;
    case 'bullet_list':
      return <ul dir={dir}>{items(node, inner)}</ul>;
    case 'ordered_list':
      return (
        <ol dir={dir} start={safeStart(node.start)}>
          {items(node, inner)}
        </ol>
      );
    case 'fence':
    case 'code_block':
      return <CodeBlock code={node.text} language={(node.info ?? '').split(/\s/u)[0] ?? ''} open={context.open} />;
    case 'math_block':
      if (node.info === 'open')
        return (
          <pre class="source" dir="ltr" tabIndex={0}>
            {node.text}
          </pre>
        );
      return <Formula tex={node.text} display />;
    case 'table':
      return (
        <div class="scroll" dir={dir} role="region" tabIndex={0} aria-label={plainText(node).trim().slice(0, 60)}>
          <table>{node.children.map((part) => tablePart(part, inner))}</table>
        </div>
      );
    case 'hr':
      return <hr />;
    default:
      return node.children.length > 0 ? <p dir={dir}>{inlines(node.children, inner)}</p> : <p dir={dir}>{node.text}</p>;
  }
}

/** Headings of an answer stand below those of the page. */
function heading(node: MdNode, context: Context): ComponentChild {
  const content = inlines(node.children, context);
  switch (node.tag) {
    case 'h1':
      return (
        <h2 class="h1" dir={context.dir}>
          {content}
        </h2>
      );
    case 'h2':
      return (
        <h2 class="h2" dir={context.dir}>
          {content}
        </h2>
      );
    case 'h3':
      return (
        <h3 class="h3" dir={context.dir}>
          {content}
        </h3>
      );
    default:
      return (
        <h4 class="h4" dir={context.dir}>
          {content}
        </h4>
      );
  }
}

function items(list: MdNode, context: Context): ComponentChild[] {
  return list.children.map((item, index) => <li key={index}>{blocksOf(item.children, context)}</li>);
}

function safeStart(start: number | undefined): number | undefined {
  return start !== undefined && Number.isSafeInteger(start) && start !== 1 ? start : undefined;
}

function tablePart(part: MdNode, context: Context): ComponentChild {
  const rows = part.children.map((row, index) => (
    <tr key={index}>
      {row.children.map((cell, column) => {
        const inner = { ...context, dir: dirOf(plainText(cell), context.dir) };
        const content = inlines(cell.children, inner);
        const align = cell.align === undefined ? undefined : `to-${cell.align}`;
        return cell.tag === 'th' ? (
          <th key={column} dir={inner.dir} class={align} scope="col">
            {content}
          </th>
        ) : (
          <td key={column} dir={inner.dir} class={align}>
            {content}
          </td>
        );
      })}
    </tr>
  ));
  return part.tag === 'thead' ? <thead>{rows}</thead> : <tbody>{rows}</tbody>;
}

function inlines(nodes: MdNode[], context: Context): ComponentChildren {
  return nodes.map((node, index) => <Fragment key={index}>{inline(node, context)}</Fragment>);
}

function inline(node: MdNode, context: Context): ComponentChild {
  switch (node.type) {
    case 'text':
      return plain(node.text, context.dir);
    case 'softbreak':
      return '\n';
    case 'hardbreak':
      return <br />;
    case 'strong':
      return <strong>{inlines(node.children, context)}</strong>;
    case 'em':
      return <em>{inlines(node.children, context)}</em>;
    case 's':
      return <s>{inlines(node.children, context)}</s>;
    case 'code_inline':
      return <code dir="ltr">{node.text}</code>;
    case 'math':
      return <Formula tex={node.text} display={false} />;
    case 'math_display':
      return <Formula tex={node.text} display />;
    case 'link':
      return <Link node={node} context={context} />;
    case 'image':
      return <Unloaded node={node} context={context} />;
    default:
      return node.children.length > 0 ? <>{inlines(node.children, context)}</> : node.text;
  }
}

/** Text with its sums isolated where the line runs from right to left; `<br>` is the one tag that models use in tables. */
export function plain(text: string, dir: Dir): ComponentChild {
  const lines = text.split(/<br\s*\/?>/iu);
  const parts = lines.flatMap((line, index): ComponentChild[] => {
    const shown =
      dir === 'rtl'
        ? pieces(line).map((piece) => (piece.sum ? <bdi dir="ltr">{piece.text}</bdi> : piece.text))
        : [line];
    return index === 0 ? shown : [<br />, ...shown];
  });
  return <>{parts}</>;
}

function Link({ node, context }: { node: MdNode; context: Context }) {
  const href = node.href ?? '';
  const label = inlines(node.children, context);
  if (!isSafeAddress(href)) return <>{label}</>;
  const shown = readable(href);
  const same = plainText(node).trim() === href || plainText(node).trim() === shown;
  return (
    <>
      <a
        href={href}
        target="_blank"
        rel="noopener noreferrer nofollow"
        title={fill(words.value.opensAddress, { address: shown })}
      >
        {same ? <bdi dir="ltr">{shown}</bdi> : label}
      </a>
      {!same && (
        <bdi dir="ltr" class="address">
          {shown}
        </bdi>
      )}
    </>
  );
}

/** An image is never fetched: its description and its address are shown. */
function Unloaded({ node, context }: { node: MdNode; context: Context }) {
  const href = node.href ?? '';
  const description = node.children.map((child) => plainText(child)).join('') || node.text;
  return (
    <span class="unloaded">
      {words.value.imageNotLoaded}
      {description !== '' && (
        <>
          : <bdi dir={dirOf(description, context.dir)}>{description}</bdi>
        </>
      )}
      {isSafeAddress(href) && (
        <>
          {' '}
          <bdi dir="ltr" class="address">
            {readable(href)}
          </bdi>
        </>
      )}
    </span>
  );
}

function readable(href: string): string {
  try {
    return decodeURI(href).replace(/[\p{Cc}\p{Cf}]/gu, '');
  } catch {
    return href; // broken percent signs are shown as they are
  }
}

/** A formula is held left to right, apart from the text around it; its source is shown until KaTeX is there. */
function Formula({ tex, display }: { tex: string; display: boolean }) {
  const target = useRef<HTMLSpanElement>(null);
  const [state, setState] = useState<'source' | 'drawn' | 'bad'>('source');
  useEffect(() => {
    let gone = false;
    import('./formula.ts').then(
      ({ drawFormula }) => {
        if (!gone && target.current !== null) setState(drawFormula(tex, target.current, display) ? 'drawn' : 'bad');
      },
      () => setState('bad'),
    );
    return () => {
      gone = true;
    };
  }, [tex, display]);
  return (
    <span class={display ? 'formula display' : 'formula'} dir="ltr" tabIndex={display ? 0 : undefined}>
      <span ref={target} key={tex} />
      {state !== 'drawn' && <code title={state === 'bad' ? words.value.formulaBad : undefined}>{tex}</code>}
    </span>
  );
}

const HIGHLIGHT_CHARS_MAX = 60_000;
const HIGHLIGHT_OPEN_CHARS_MAX = 6_000;

function CodeBlock({ code, language, open }: { code: string; language: string; open: boolean }) {
  const [shaded, setShaded] = useState<{ code: string; shades: Shade[] } | null>(null);
  const wanted = language !== '' && code.length <= (open ? HIGHLIGHT_OPEN_CHARS_MAX : HIGHLIGHT_CHARS_MAX);
  useEffect(() => {
    if (!wanted) return undefined;
    let gone = false;
    import('./highlight.ts').then(
      ({ highlight }) => {
        const shades = gone ? null : highlight(language, code);
        if (shades !== null) setShaded({ code, shades });
      },
      () => undefined,
    );
    return () => {
      gone = true;
    };
  }, [code, language, wanted]);
  // While text comes in, what is coloured already stays coloured and the rest follows plain.
  const coloured = shaded !== null && code.startsWith(shaded.code) ? shaded : null;
  return (
    <figure class="code" dir="ltr">
      <figcaption>
        <span>{/^[\w+#.-]{1,24}$/u.test(language) ? language : ''}</span>
        <CopyButton text={() => code} label={words.value.copyCode} />
      </figcaption>
      <pre tabIndex={0}>
        <code>
          {coloured === null ? (
            code
          ) : (
            <>
              {shadeNodes(coloured.shades)}
              {code.slice(coloured.code.length)}
            </>
          )}
        </code>
      </pre>
    </figure>
  );
}

function shadeNodes(shades: Shade[]): ComponentChildren {
  return shades.map((shade) =>
    'text' in shade ? shade.text : <span class={shade.kind}>{shadeNodes(shade.children)}</span>,
  );
}
