/** Where a message is written: text, files, the switch of thinking, send and stop. */

import { signal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Attachment, Chat } from '../chat/model.ts';
import { bytes, fill, number, words } from '../i18n/index.ts';
import { change } from '../state/chats.ts';
import { route, settleAddress } from '../state/route.ts';
import { runOfChat, send, stop } from '../state/runs.ts';
import { modelOf } from '../state/server.ts';
import { IconButton, useOutside } from './controls.tsx';
import { readTextFile } from './files.ts';
import { Icon, StopMark } from './icons.tsx';
import { ThinkingControls } from './thinking.tsx';

/** Unsent text by chat, so that looking at another chat does not lose it. */
const drafts = signal<ReadonlyMap<string, { text: string; files: Attachment[] }>>(new Map());
const NEW = '';

function draftKey(): string {
  return route.value.view === 'chat' ? (route.value.id ?? NEW) : NEW;
}

export function setDraft(change: Partial<{ text: string; files: Attachment[] }>): void {
  const key = draftKey();
  const old = drafts.peek().get(key) ?? { text: '', files: [] };
  drafts.value = new Map(drafts.peek()).set(key, { ...old, ...change });
}

const fileTrouble = signal('');

/** Takes dropped, pasted or chosen files; says which could not be taken and why. */
export async function takeFiles(list: Iterable<File>): Promise<void> {
  const key = draftKey();
  const w = words.peek();
  const trouble: string[] = [];
  const taken: Attachment[] = [];
  const had = (drafts.peek().get(key)?.files ?? []).reduce((sum, file) => sum + file.text.length, 0);
  let size = had;
  for (const file of list) {
    const result = await readTextFile(file, size);
    if (result.ok) {
      taken.push(result.file);
      size += file.size;
    } else if (result.why === 'size') {
      trouble.push(fill(w.fileTooLarge, { name: file.name, size: bytes(file.size), max: bytes(result.max) }));
    } else trouble.push(fill(w.fileNotText, { name: file.name }));
  }
  fileTrouble.value = trouble.join(' ');
  if (draftKey() === key) setDraft({ files: [...(drafts.peek().get(key)?.files ?? []), ...taken] });
  document.getElementById('composer')?.focus();
}

/** Sends what is given in the open chat, and gives a new chat its address. */
export function submit(chat: Chat, text: string, files: Attachment[]): void {
  send(chat.id, text, files);
  if (route.peek().view === 'chat' && (route.peek() as { id: string | null }).id === null) settleAddress(chat.id);
}

/**
 * The focus goes to the place to write when a chat opens, and when a button that started or stopped an answer went
 * away with the focus on it. On a touch screen it does not: the keyboard would cover the answer.
 */
function useComposerFocus(field: { current: HTMLElement | null }, chat: string, running: boolean): void {
  useEffect(() => {
    if (matchMedia('(pointer: fine)').matches) field.current?.focus();
  }, [chat]);
  useEffect(() => {
    const timer = setTimeout(() => {
      const nowhere = document.activeElement === null || document.activeElement === document.body;
      if (nowhere && matchMedia('(pointer: fine)').matches) field.current?.focus();
    }, 60);
    return () => clearTimeout(timer);
  }, [running]);
}

export function Composer({ chat, ready }: { chat: Chat; ready: boolean }) {
  const w = words.value;
  const field = useRef<HTMLTextAreaElement>(null);
  const chooser = useRef<HTMLInputElement>(null);
  const draft = drafts.value.get(draftKey()) ?? { text: '', files: [] };
  const run = runOfChat(chat.id);
  useLayoutEffect(() => {
    const node = field.current;
    if (node === null) return;
    node.style.height = 'auto';
    node.style.height = `${Math.min(node.scrollHeight, innerHeight * 0.4)}px`;
  }, [draft.text, chat.id]);
  useComposerFocus(field, chat.id, run !== undefined);
  const can = ready && run === undefined && (draft.text.trim() !== '' || draft.files.length > 0);
  const go = (): void => {
    if (!can) return;
    const { text, files } = draft;
    setDraft({ text: '', files: [] });
    fileTrouble.value = '';
    submit(chat, text.trim(), files);
  };
  const key = (event: KeyboardEvent): void => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      go();
    } else if (event.key === 'ArrowUp' && draft.text === '' && run === undefined) {
      const buttons = document.querySelectorAll<HTMLElement>('.message.user .edit');
      if (buttons.length > 0) {
        event.preventDefault();
        buttons[buttons.length - 1]!.click();
      }
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        go();
      }}
    >
      <Files files={draft.files} />
      <textarea
        id="composer"
        ref={field}
        rows={1}
        dir={draft.text === '' ? w.dir : 'auto'}
        value={draft.text}
        placeholder={w.placeholder}
        aria-label={w.message}
        aria-describedby="composer-hint"
        onInput={(event) => setDraft({ text: event.currentTarget.value })}
        onKeyDown={key}
        onPaste={(event) => {
          const files = event.clipboardData?.files;
          if (files !== undefined && files.length > 0) {
            event.preventDefault();
            void takeFiles(files);
          }
        }}
      />
      <div class="bar">
        <input
          ref={chooser}
          type="file"
          multiple
          hidden
          onChange={(event) => {
            void takeFiles([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = '';
          }}
        />
        <IconButton icon="attach" label={w.attach} onClick={() => chooser.current?.click()} />
        <ThinkingChip chat={chat} />
        <span id="composer-hint" class="hint">
          {w.enterHint}
        </span>
        {run === undefined ? (
          <button type="submit" class="send" aria-label={w.send} title={w.send} disabled={!can}>
            <Icon name="send" />
          </button>
        ) : (
          <button type="button" class="send stop" aria-label={w.stop} title={w.stop} onClick={() => stop(chat.id)}>
            <StopMark />
          </button>
        )}
      </div>
    </form>
  );
}

function Files({ files }: { files: Attachment[] }) {
  const w = words.value;
  return (
    <>
      {files.length > 0 && (
        <ul class="files" aria-label={w.attached}>
          {files.map((file, index) => (
            <li key={index}>
              <Icon name="file" size={16} /> <bdi dir="auto">{file.name}</bdi>
              <IconButton
                icon="close"
                label={fill(w.detach, { name: file.name })}
                onClick={() => setDraft({ files: files.filter((_, i) => i !== index) })}
              />
            </li>
          ))}
        </ul>
      )}
      {fileTrouble.value !== '' && (
        <p class="trouble" role="alert">
          {fileTrouble.value}
        </p>
      )}
    </>
  );
}

function ThinkingChip({ chat }: { chat: Chat }) {
  const w = words.value;
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const model = modelOf(chat.settings.model);
  useOutside(open, box, () => setOpen(false));
  if (model?.reasoning !== true) return null;
  const on = chat.settings.thinking !== false;
  return (
    <div
      class="chipbox"
      ref={box}
      onKeyDown={(event) => {
        if (event.key === 'Escape' && open) {
          event.stopPropagation();
          setOpen(false);
          box.current?.querySelector('button')?.focus();
        }
      }}
    >
      <button
        type="button"
        class={on ? 'chip on' : 'chip'}
        aria-expanded={open}
        title={on ? w.thinkOn : w.thinkOff}
        onClick={() => setOpen(!open)}
      >
        <Icon name="lead" size={16} />
        <span>{w.think}</span>
        {on && chat.settings.budget !== undefined && <small>≤ {number(chat.settings.budget)}</small>}
        {!on && <span class="unseen">{w.thinkOff}</span>}
      </button>
      {open && (
        <div class="popover" role="group" aria-label={w.thinking}>
          <ThinkingControls
            model={model}
            settings={chat.settings}
            set={(part) => change(chat.id, (c) => ({ ...c, settings: { ...c.settings, ...part } }), 300)}
          />
        </div>
      )}
    </div>
  );
}
