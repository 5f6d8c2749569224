/** Colours for code: highlight.js through lowlight, which gives a tree and no HTML. Loaded when code first appears. */

import { createLowlight } from 'lowlight';
import bash from 'highlight.js/lib/languages/bash';
import c from 'highlight.js/lib/languages/c';
import cpp from 'highlight.js/lib/languages/cpp';
import csharp from 'highlight.js/lib/languages/csharp';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import go from 'highlight.js/lib/languages/go';
import ini from 'highlight.js/lib/languages/ini';
import java from 'highlight.js/lib/languages/java';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import kotlin from 'highlight.js/lib/languages/kotlin';
import lua from 'highlight.js/lib/languages/lua';
import makefile from 'highlight.js/lib/languages/makefile';
import php from 'highlight.js/lib/languages/php';
import python from 'highlight.js/lib/languages/python';
import r from 'highlight.js/lib/languages/r';
import ruby from 'highlight.js/lib/languages/ruby';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import swift from 'highlight.js/lib/languages/swift';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';

const lowlight = createLowlight({
  bash,
  c,
  cpp,
  csharp,
  css,
  diff,
  go,
  ini,
  java,
  javascript,
  json,
  kotlin,
  lua,
  makefile,
  php,
  python,
  r,
  ruby,
  rust,
  sql,
  swift,
  typescript,
  xml,
  yaml,
});

export type Shade = { text: string } | { kind: string; children: Shade[] };

interface HastNode {
  type: string;
  value?: string;
  properties?: { className?: unknown };
  children?: HastNode[];
}

/** The code in coloured pieces; null for a language that is not known here. */
export function highlight(language: string, code: string): Shade[] | null {
  const name = language.toLowerCase();
  if (!lowlight.registered(name)) return null;
  return shades((lowlight.highlight(name, code, { prefix: 'h-' }) as HastNode).children ?? []);
}

function shades(nodes: HastNode[]): Shade[] {
  return nodes.map((node) => {
    if (node.type === 'text') return { text: node.value ?? '' };
    const classes = node.properties?.className;
    const kind = Array.isArray(classes) ? classes.filter((x) => typeof x === 'string').join(' ') : '';
    return { kind, children: shades(node.children ?? []) };
  });
}
