/** The page: list of chats beside the open view, dialogs above, keys for all of it. */

import { useEffect, useState } from 'preact/hooks';
import { words } from './i18n/index.ts';
import { currentId, flush, saveProblem } from './state/chats.ts';
import { go, route } from './state/route.ts';
import { stop } from './state/runs.ts';
import { infoProblem, loadInfo } from './state/server.ts';
import { current } from './state/chats.ts';
import { ChatView } from './ui/chat.tsx';
import { takeFiles } from './ui/composer.tsx';
import { Announcer, ProblemNotice } from './ui/controls.tsx';
import { dialog, drawer, question } from './ui/dialogs.ts';
import { Dialogs } from './ui/settings.tsx';
import { Sidebar } from './ui/sidebar.tsx';
import { UsageView } from './ui/usage.tsx';

const NARROW = '(max-width: 52rem)';

export function App() {
  const w = words.value;
  const narrow = useMedia(NARROW);
  useShortcuts();
  const dropping = useDrop();
  return (
    <>
      {route.value.view === 'chat' && (
        <a
          class="skip"
          href="#composer"
          onClick={(event) => {
            event.preventDefault();
            document.getElementById('composer')?.focus();
          }}
        >
          {w.skip}
        </a>
      )}
      <div class="shell">
        <Sidebar narrow={narrow} />
        {narrow && drawer.value && <div class="shade" onClick={() => (drawer.value = false)} />}
        <div class="view" inert={narrow && drawer.value}>
          <Banners />
          {route.value.view === 'usage' ? <UsageView narrow={narrow} /> : <ChatView narrow={narrow} />}
        </div>
      </div>
      {dropping && (
        <div class="drop" aria-hidden="true">
          {w.dropHere}
        </div>
      )}
      <Dialogs />
      <Announcer />
    </>
  );
}

function Banners() {
  return (
    <>
      {infoProblem.value !== null && <ProblemNotice problem={infoProblem.value} retry={() => void loadInfo()} />}
      {saveProblem.value !== null && (
        <ProblemNotice
          problem={saveProblem.value}
          retry={() => {
            if (current.value != null) void flush(current.value.peek().id);
          }}
        />
      )}
    </>
  );
}

function useMedia(query: string): boolean {
  const [hit, setHit] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const follow = (): void => setHit(media.matches);
    media.addEventListener('change', follow);
    return () => media.removeEventListener('change', follow);
  }, [query]);
  return hit;
}

function useShortcuts(): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (dialog.peek() !== null || question.peek() !== null || event.defaultPrevented) return;
      const control = event.ctrlKey || event.metaKey;
      const target = event.target as HTMLElement;
      const writing = target.matches?.('input, textarea, select') ?? false;
      const act = actionOf(event, control, writing);
      if (act === null) return;
      event.preventDefault();
      act();
    };
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);
}

function actionOf(event: KeyboardEvent, control: boolean, writing: boolean): (() => void) | null {
  if (control && !event.shiftKey && event.code === 'KeyK') {
    return () => {
      drawer.value = true;
      setTimeout(() => document.getElementById('search')?.focus(), 0);
    };
  }
  if (control && event.shiftKey && event.code === 'KeyO') return () => go({ view: 'chat', id: null });
  if (control && event.code === 'Comma') return () => (dialog.value = 'settings');
  if (event.key === 'Escape' && currentId.peek() !== null) return () => stop(currentId.peek()!);
  if (control || writing) return null;
  if (event.key === '/') return () => document.getElementById('composer')?.focus();
  if (event.key === '?') return () => (dialog.value = 'keys');
  return null;
}

/** Text files can be dropped anywhere. */
function useDrop(): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => {
    let depth = 0;
    const files = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;
    const enter = (event: DragEvent): void => {
      if (!files(event)) return;
      event.preventDefault();
      depth++;
      setOver(true);
    };
    const leave = (event: DragEvent): void => {
      if (!files(event)) return;
      depth = Math.max(0, depth - 1);
      if (depth === 0) setOver(false);
    };
    const hover = (event: DragEvent): void => {
      if (files(event)) event.preventDefault();
    };
    const drop = (event: DragEvent): void => {
      if (!files(event)) return;
      event.preventDefault();
      depth = 0;
      setOver(false);
      void takeFiles([...(event.dataTransfer?.files ?? [])]);
    };
    addEventListener('dragenter', enter);
    addEventListener('dragleave', leave);
    addEventListener('dragover', hover);
    addEventListener('drop', drop);
    return () => {
      removeEventListener('dragenter', enter);
      removeEventListener('dragleave', leave);
      removeEventListener('dragover', hover);
      removeEventListener('drop', drop);
    };
  }, []);
  return over;
}
