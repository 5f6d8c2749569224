/** Small parts that are used everywhere: copy button, dialog, menu, problem notice, announcements. */

import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Problem } from '../api/errors.ts';
import { duration, fill, words } from '../i18n/index.ts';
import { go } from '../state/route.ts';
import { dialog } from './dialogs.ts';
import { Icon } from './icons.tsx';
import type { IconName } from './icons.tsx';

/** What a screen reader is told, politely, one after another. */
const told = signal<{ id: number; text: string }[]>([]);
let tellings = 0;

export function tell(text: string): void {
  const clean = text.trim();
  if (clean === '') return;
  told.value = [...told.peek().slice(-7), { id: ++tellings, text: clean.slice(0, 2000) }];
}

export function Announcer() {
  return (
    <div class="unseen" role="log" aria-live="polite" aria-relevant="additions">
      {told.value.map((item) => (
        <p key={item.id}>{item.text}</p>
      ))}
    </div>
  );
}

export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text); // no clipboard object on plain HTTP
  }
}

function copyOldWay(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'unseen';
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return done;
}

export function CopyButton({ text, label }: { text: () => string; label: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1600);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = async (): Promise<void> => {
    if (await copyText(text())) {
      setDone(true);
      tell(words.value.copied);
    }
  };
  return (
    <button
      type="button"
      class="quiet"
      onClick={() => void copy()}
      aria-label={label}
      title={done ? words.value.copied : label}
    >
      <Icon name={done ? 'check' : 'copy'} size={18} />
    </button>
  );
}

export function IconButton(props: {
  icon: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  pressed?: boolean;
  class?: string;
  title?: string;
}) {
  return (
    <button
      type="button"
      class={`quiet ${props.class ?? ''}`}
      aria-label={props.label}
      title={props.title ?? props.label}
      onClick={props.onClick}
      disabled={props.disabled}
      aria-pressed={props.pressed}
    >
      <Icon name={props.icon} size={18} />
    </button>
  );
}

/** A modal dialog: the browser keeps the focus inside and gives it back. */
export function Dialog({
  title,
  onClose,
  children,
  wide,
}: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}) {
  const element = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const node = element.current;
    if (node !== null && !node.open) node.showModal();
    return () => node?.close();
  }, []);
  return (
    <dialog
      ref={element}
      class={wide ? 'wide' : undefined}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onPointerDown={(event) => {
        if (event.target === element.current) onClose();
      }}
    >
      <div class="sheet">
        <header>
          <h2 id={heading}>{title}</h2>
          <IconButton icon="close" label={words.value.close} onClick={onClose} />
        </header>
        <div class="body">{children}</div>
      </div>
    </dialog>
  );
}

export interface MenuItem {
  label: string;
  act: () => void;
  danger?: boolean;
}

/** Closes what is open when something outside it is touched or gets the focus. */
export function useOutside(open: boolean, box: { current: HTMLElement | null }, close: () => void): void {
  useEffect(() => {
    if (!open) return undefined;
    const outside = (event: Event): void => {
      if (!box.current?.contains(event.target as Node)) close();
    };
    document.addEventListener('pointerdown', outside);
    document.addEventListener('focusin', outside);
    return () => {
      document.removeEventListener('pointerdown', outside);
      document.removeEventListener('focusin', outside);
    };
  }, [open]);
}

function moveInMenu(event: KeyboardEvent, close: () => void): void {
  const box = event.currentTarget as HTMLElement;
  const all = [...box.querySelectorAll<HTMLElement>('[role=menuitem]')];
  const at = all.indexOf(document.activeElement as HTMLElement);
  const to: Record<string, number> = {
    ArrowDown: (at + 1) % all.length,
    ArrowUp: (at - 1 + all.length) % all.length,
    Home: 0,
    End: all.length - 1,
  };
  if (event.key === 'Escape') {
    event.preventDefault();
    event.stopPropagation();
    close();
  } else if (to[event.key] !== undefined) {
    event.preventDefault();
    all[to[event.key]!]?.focus();
  }
}

/** A button that opens a list of actions; arrows move, Escape closes. */
export function Menu({ label, items }: { label: string; items: MenuItem[] }) {
  const [open, setOpen] = useState(false);
  const [up, setUp] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useOutside(open, box, () => setOpen(false));
  useLayoutEffect(() => {
    if (open) box.current?.querySelector<HTMLElement>('[role=menuitem]')?.focus();
  }, [open]);
  const close = (): void => {
    setOpen(false);
    button.current?.focus();
  };
  return (
    <div class="menu" ref={box} onKeyDown={open ? (event) => moveInMenu(event, close) : undefined}>
      <button
        ref={button}
        type="button"
        class="quiet"
        aria-haspopup="menu"
        aria-expanded={open}
        aria-label={label}
        title={label}
        onClick={() => {
          setUp((button.current?.getBoundingClientRect().bottom ?? 0) > innerHeight - 220);
          setOpen(!open);
        }}
      >
        <Icon name="more" size={18} />
      </button>
      {open && (
        <div role="menu" class={up ? 'list up' : 'list'} aria-label={label}>
          {items.map((item) => (
            <button
              key={item.label}
              type="button"
              role="menuitem"
              tabIndex={-1}
              class={item.danger ? 'danger' : undefined}
              onClick={() => {
                close();
                item.act();
              }}
            >
              {item.label}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

/** What went wrong, what to do, and a button that does it. */
export function ProblemNotice({
  problem,
  retry,
  more,
}: {
  problem: Problem;
  retry?: () => void;
  more?: ComponentChildren;
}) {
  const w = words.value;
  const [title, advice] = w.problems[problem.kind] ?? w.problems.server!;
  const left = useCountdown(problem.retryAt);
  return (
    <div class="problem" role="alert">
      <Icon name="alert" />
      <div>
        <p>
          <strong>{title}</strong> {advice}
        </p>
        {problem.detail !== undefined && problem.detail !== '' && (
          <p class="detail">
            {w.serverSays} <bdi dir="auto">{problem.detail}</bdi>
          </p>
        )}
        <div class="actions">
          {problem.kind === 'key' && (
            <button type="button" onClick={() => (dialog.value = 'settings')}>
              {w.openSettings}
            </button>
          )}
          {problem.kind === 'balance' && (
            <button type="button" onClick={() => go({ view: 'usage' })}>
              {w.openUsage}
            </button>
          )}
          {retry !== undefined && (
            <button type="button" onClick={retry} disabled={left > 0}>
              {left > 0 ? fill(w.tryAgainIn, { time: duration(left) }) : w.tryAgain}
            </button>
          )}
          {more}
        </div>
      </div>
    </div>
  );
}

function useCountdown(until: number | undefined): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (until === undefined || until <= Date.now()) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [until]);
  return until === undefined ? 0 : Math.max(0, Math.ceil((until - now) / 1000));
}

/** Gives the browser a file to save. */
export function saveFile(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
