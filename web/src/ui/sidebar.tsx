/** The list of chats: search, groups by day, rename, delete, export. */

import { useSignal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { ChatRow } from '../api/types.ts';
import { fileName, toJson, toMarkdown } from '../chat/transfer.ts';
import { fill, words } from '../i18n/index.ts';
import {
  currentId,
  loadMoreRows,
  loadRows,
  query,
  readChat,
  removeChat,
  renameChat,
  rows,
  rowsNext,
  rowsProblem,
} from '../state/chats.ts';
import { go, route } from '../state/route.ts';
import { runs } from '../state/runs.ts';
import { IconButton, Menu, ProblemNotice, saveFile } from './controls.tsx';
import { dialog, drawer, question } from './dialogs.ts';
import { Icon, Wordmark } from './icons.tsx';

export function Sidebar({ narrow }: { narrow: boolean }) {
  const w = words.value;
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    if (narrow && drawer.value) box.current?.querySelector<HTMLElement>('button')?.focus();
  }, [narrow, drawer.value]);
  return (
    <nav
      ref={box}
      id="chats"
      class={drawer.value ? 'sidebar shown' : 'sidebar'}
      aria-label={w.menu}
      inert={narrow && !drawer.value}
      onKeyDown={(event) => {
        if (event.key === 'Escape' && narrow) drawer.value = false;
      }}
    >
      <div class="top">
        <Wordmark />
        {narrow && <IconButton icon="close" label={w.closeMenu} onClick={() => (drawer.value = false)} />}
      </div>
      <button
        type="button"
        class="new"
        onClick={() => {
          drawer.value = false;
          go({ view: 'chat', id: null });
        }}
      >
        <Icon name="plus" size={18} /> {w.newChat}
      </button>
      <Search />
      <Rows />
      <div class="foot">
        <a
          href="#/usage"
          class="entry"
          aria-current={route.value.view === 'usage' ? 'page' : undefined}
          onClick={(event) => {
            event.preventDefault();
            drawer.value = false;
            go({ view: 'usage' });
          }}
        >
          <Icon name="chart" size={18} /> {w.usage}
        </a>
        <button
          type="button"
          class="entry"
          onClick={() => {
            drawer.value = false;
            dialog.value = 'settings';
          }}
        >
          <Icon name="gear" size={18} /> {w.settings}
        </button>
      </div>
    </nav>
  );
}

function Search() {
  const w = words.value;
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const set = (value: string): void => {
    query.value = value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void loadRows(), 150);
  };
  return (
    <div class="search" role="search">
      <Icon name="search" size={16} />
      <input
        id="search"
        type="search"
        dir={query.value === '' ? w.dir : 'auto'}
        autocomplete="off"
        spellcheck={false}
        value={query.value}
        placeholder={w.search}
        aria-label={w.search}
        onInput={(event) => set(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape' && query.value !== '') {
            event.stopPropagation();
            set('');
          }
          if (event.key === 'ArrowDown') {
            event.preventDefault();
            document.querySelector<HTMLElement>('.rows a')?.focus();
          }
        }}
      />
      {query.value !== '' && <IconButton icon="close" label={w.clearSearch} onClick={() => set('')} />}
    </div>
  );
}

function Rows() {
  const w = words.value;
  const list = rows.value;
  if (list === null) {
    return (
      <div class="rows" aria-busy="true">
        <span class="unseen">{w.loading}</span>
        <i class="bone" />
        <i class="bone" />
        <i class="bone" />
      </div>
    );
  }
  if (rowsProblem.value !== null) {
    return (
      <div class="rows">
        <ProblemNotice problem={rowsProblem.value} retry={() => void loadRows()} />
      </div>
    );
  }
  if (list.length === 0)
    return (
      <p class="rows none" role="status">
        {query.value.trim() === '' ? w.noChats : w.noHits}
      </p>
    );
  return (
    <div class="rows" onKeyDown={moveInRows}>
      {groups(list, Date.now()).map(([name, group]) => (
        <section key={name} aria-label={name}>
          <h2>{name}</h2>
          <ul>
            {group.map((row) => (
              <Row key={row.id} row={row} />
            ))}
          </ul>
        </section>
      ))}
      {rowsNext.value !== null && (
        <button type="button" class="more" onClick={() => void loadMoreRows()}>
          {w.more}
        </button>
      )}
    </div>
  );
}

function moveInRows(event: KeyboardEvent): void {
  if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
  const links = [...document.querySelectorAll<HTMLElement>('.rows a')];
  const at = links.indexOf(document.activeElement as HTMLElement);
  if (at < 0) return;
  event.preventDefault();
  const to = at + (event.key === 'ArrowDown' ? 1 : -1);
  if (to < 0) document.getElementById('search')?.focus();
  else links[to]?.focus();
}

function groups(list: ChatRow[], now: number): [string, ChatRow[]][] {
  const w = words.value;
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const day = 86_400_000;
  const named: [string, ChatRow[]][] = [
    [w.today, []],
    [w.yesterday, []],
    [w.week, []],
    [w.older, []],
  ];
  for (const row of list) {
    const index =
      row.updated >= midnight ? 0 : row.updated >= midnight - day ? 1 : row.updated >= midnight - 6 * day ? 2 : 3;
    named[index]![1].push(row);
  }
  return named.filter(([, group]) => group.length > 0);
}

function Row({ row }: { row: ChatRow }) {
  const w = words.value;
  const renaming = useSignal(false);
  const title = row.title === '' ? w.untitled : row.title;
  const running = [...runs.value.values()].some((run) => run.chat === row.id);
  if (renaming.value)
    return (
      <li>
        <Rename title={row.title} id={row.id} done={() => (renaming.value = false)} />
      </li>
    );
  const exportAs = async (kind: 'json' | 'md'): Promise<void> => {
    const chat = await readChat(row.id);
    if (chat === null) return;
    if (kind === 'json') saveFile(fileName(title, 'json'), 'application/json', toJson([chat]));
    else
      saveFile(
        fileName(title, 'md'),
        'text/markdown',
        toMarkdown(chat, { you: w.you, assistant: w.assistant, reasoning: w.reasonedPlain, system: w.system }),
      );
  };
  return (
    <li>
      <a
        href={`#/c/${row.id}`}
        aria-current={currentId.value === row.id && route.value.view === 'chat' ? 'page' : undefined}
        onClick={(event) => {
          event.preventDefault();
          drawer.value = false;
          go({ view: 'chat', id: row.id });
        }}
      >
        <bdi class="title" dir="auto">
          {title}
        </bdi>
        {running && <i class="pulse" role="img" aria-label={w.running} />}
        {row.excerpt !== undefined && row.excerpt !== '' && (
          <bdi class="excerpt" dir="auto">
            {row.excerpt}
          </bdi>
        )}
      </a>
      <Menu
        label={fill(w.chatMenu, { title })}
        items={[
          { label: w.rename, act: () => (renaming.value = true) },
          { label: w.exportMarkdown, act: () => void exportAs('md') },
          { label: w.exportJson, act: () => void exportAs('json') },
          {
            label: w.remove,
            danger: true,
            act: () =>
              (question.value = {
                text: fill(w.deleteAsk, { title }),
                action: w.remove,
                act: () => {
                  void removeChat(row.id);
                  if (currentId.peek() === row.id) go({ view: 'chat', id: null });
                },
              }),
          },
        ]}
      />
    </li>
  );
}

function Rename({ id, title, done }: { id: string; title: string; done: () => void }) {
  const [value, setValue] = useState(title);
  const field = useRef<HTMLInputElement>(null);
  const over = useRef(false);
  useEffect(() => field.current?.select(), []);
  const end = (keep: boolean): void => {
    if (over.current) return;
    over.current = true;
    if (keep && value.trim() !== '' && value !== title) void renameChat(id, value);
    done();
  };
  return (
    <input
      ref={field}
      class="rename"
      dir="auto"
      maxLength={200}
      value={value}
      aria-label={words.value.rename}
      onInput={(event) => setValue(event.currentTarget.value)}
      onBlur={() => end(true)}
      onKeyDown={(event) => {
        if (event.key === 'Enter') end(true);
        if (event.key === 'Escape') {
          event.stopPropagation();
          end(false);
        }
      }}
    />
  );
}
