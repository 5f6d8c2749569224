/** The open chat: its head, its messages, the place to write. */

import type { Signal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { path } from '../chat/model.ts';
import type { Chat } from '../chat/model.ts';
import { dirOf } from '../dir.ts';
import { fill, number, words } from '../i18n/index.ts';
import { change, current, currentProblem, openChat } from '../state/chats.ts';
import { go, route } from '../state/route.ts';
import { runOfChat } from '../state/runs.ts';
import { chatModels, info, modelOf } from '../state/server.ts';
import { apiKey, place } from '../state/settings.ts';
import { Composer, submit } from './composer.tsx';
import { IconButton, ProblemNotice } from './controls.tsx';
import { dialog, drawer } from './dialogs.ts';
import { Icon } from './icons.tsx';
import { MessageView } from './message.tsx';

export function ChatView({ narrow }: { narrow: boolean }) {
  const open = current.value;
  if (open === undefined) {
    return (
      <Frame narrow={narrow}>
        <div class="scroller" aria-busy="true">
          <div class="column">
            <i class="bone wide" />
            <i class="bone" />
            <i class="bone" />
          </div>
        </div>
      </Frame>
    );
  }
  if (open === null)
    return (
      <Frame narrow={narrow}>
        <Gone />
      </Frame>
    );
  return <Open key={open.peek().id} chat={open} narrow={narrow} />;
}

function Frame({ narrow, children }: { narrow: boolean; children: preact.ComponentChildren }) {
  return (
    <main>
      <ChatHead narrow={narrow} chat={null} />
      {children}
    </main>
  );
}

function Gone() {
  const w = words.value;
  const problem = currentProblem.value;
  const id = route.value.view === 'chat' ? route.value.id : null;
  return (
    <div class="scroller">
      <div class="column">
        {problem !== null ? (
          <ProblemNotice problem={problem} retry={() => void openChat(id)} />
        ) : (
          <div class="blank" role="status">
            <h2>{w.chatGone}</h2>
            <p>{w.chatGoneHelp}</p>
            <button type="button" onClick={() => go({ view: 'chat', id: null })}>
              {w.newChat}
            </button>
          </div>
        )}
      </div>
    </div>
  );
}

function Open({ chat: held, narrow }: { chat: Signal<Chat>; narrow: boolean }) {
  const chat = held.value;
  const shown = path(chat);
  const run = runOfChat(chat.id);
  const ready = info.value !== null && modelOf(chat.settings.model) !== undefined;
  const keyMissing = info.value?.key_needed === true && apiKey.value === '';
  useEffect(() => {
    document.title = chat.title === '' ? 'fathom' : `${chat.title} · fathom`;
  }, [chat.title]);
  return (
    <main>
      <ChatHead narrow={narrow} chat={chat} />
      <Scroller following={run !== undefined} count={shown.length}>
        {shown.length === 0 && <Welcome chat={chat} ready={ready && !keyMissing} />}
        {shown.map((message) => (
          <MessageView key={message.id} chat={chat} message={message} busy={run !== undefined} />
        ))}
      </Scroller>
      <div class="dock">
        <Fullness chat={chat} />
        {info.value !== null && chatModels.value.length === 0 && <p class="note">{words.value.noChatModel}</p>}
        {keyMissing && <ProblemNotice problem={{ kind: 'key' }} />}
        <Composer chat={chat} ready={ready && !keyMissing} />
        <p class="fine">{words.value.mayErr}</p>
      </div>
    </main>
  );
}

/** Says in time that the model's context runs out. */
function Fullness({ chat }: { chat: Chat }) {
  const context = modelOf(chat.settings.model)?.context_tokens;
  const total = path(chat).at(-1)?.usage?.total_tokens;
  if (typeof total !== 'number' || context === undefined || total < 0.75 * context) return null;
  return (
    <p class="note" role="status">
      {fill(words.value.nearlyFull, { share: number(Math.min(100, (100 * total) / context)) })}
    </p>
  );
}

function ChatHead({ narrow, chat }: { narrow: boolean; chat: Chat | null }) {
  const w = words.value;
  const title = chat === null ? '' : chat.title === '' ? w.newChat : chat.title;
  return (
    <header class="head">
      {narrow && (
        <button
          type="button"
          class="quiet"
          aria-label={w.menu}
          title={w.menu}
          aria-expanded={drawer.value}
          aria-controls="chats"
          onClick={() => (drawer.value = true)}
        >
          <Icon name="menu" />
        </button>
      )}
      <h1 dir={dirOf(title, w.dir)}>{title}</h1>
      {chat !== null && (
        <div class="right">
          <ModelPicker chat={chat} />
          <IconButton icon="sliders" label={w.chatSettings} onClick={() => (dialog.value = 'chat')} />
          {narrow && <IconButton icon="plus" label={w.newChat} onClick={() => go({ view: 'chat', id: null })} />}
        </div>
      )}
    </header>
  );
}

export function ModelPicker({ chat, id }: { chat: Chat; id?: string }) {
  const w = words.value;
  const models = chatModels.value;
  const chosen = modelOf(chat.settings.model)?.id ?? '';
  if (models.length === 0) return <span class="model">{info.value === null ? '' : w.noModel}</span>;
  return (
    <select
      id={id}
      class="model"
      dir="ltr"
      aria-label={id === undefined ? w.model : undefined}
      title={chosen}
      value={chosen}
      onChange={(event) => {
        const model = event.currentTarget.value;
        change(chat.id, (c) => ({ ...c, settings: { ...c.settings, model } }));
      }}
    >
      {models.map((model) => (
        <option key={model.id} value={model.id}>
          {model.id}
        </option>
      ))}
    </select>
  );
}

function Welcome({ chat, ready }: { chat: Chat; ready: boolean }) {
  const w = words.value;
  // What a model was not made for it should not be asked first.
  const suggestions = modelOf(chat.settings.model)?.built_in === false ? w.suggestAny : w.suggest;
  return (
    <section class="welcome">
      <h2>{w.greeting}</h2>
      <p>
        {w.greetingLocal} {place.value === 'server' ? w.keptServer : w.keptBrowser}{' '}
        <button type="button" class="link" onClick={() => (dialog.value = 'settings')}>
          {w.changePlace}
        </button>
      </p>
      <ul class="suggestions" aria-label={w.suggestions}>
        {suggestions.map((one) => (
          <li key={one.label}>
            <button type="button" disabled={!ready} onClick={() => submit(chat, one.text, [])}>
              <span class="what">{one.label}</span>
              <span class="ask" dir={dirOf(one.text, w.dir)} lang={dirOf(one.text, w.dir) === 'rtl' ? 'ar' : 'en'}>
                {one.text}
              </span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Follows the text as it grows, unless the reader has scrolled away from its end. */
function Scroller({
  children,
  following,
  count,
}: {
  children: preact.ComponentChildren;
  following: boolean;
  count: number;
}) {
  const w = words.value;
  const box = useRef<HTMLDivElement>(null);
  const column = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const [away, setAway] = useState(false);
  const toEnd = (): void => {
    if (box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  };
  useLayoutEffect(() => {
    atEnd.current = true;
    toEnd();
  }, [count]);
  useEffect(() => {
    const watch = new ResizeObserver(() => {
      if (atEnd.current) toEnd();
    });
    if (column.current !== null) watch.observe(column.current);
    if (box.current !== null) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const scrolled = (): void => {
    const node = box.current;
    if (node === null) return;
    atEnd.current = node.scrollHeight - node.scrollTop - node.clientHeight < 60;
    setAway(!atEnd.current);
  };
  return (
    <div class="scrollbox">
      <div class="scroller" ref={box} onScroll={scrolled}>
        <div class="column" ref={column} aria-live="off" data-following={following ? 'yes' : 'no'}>
          {children}
        </div>
      </div>
      {away && (
        <button
          type="button"
          class="latest"
          onClick={() => {
            atEnd.current = true;
            toEnd();
          }}
          aria-label={w.toLatest}
          title={w.toLatest}
        >
          <Icon name="down" size={18} />
        </button>
      )}
    </div>
  );
}
