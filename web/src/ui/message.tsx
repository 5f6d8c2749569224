/** One message: what was asked, or the reasoning, the answer and its figures. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { branchOff, turn, versions } from '../chat/model.ts';
import type { Chat, Message } from '../chat/model.ts';
import { dirOf } from '../dir.ts';
import { duration, fill, number, words } from '../i18n/index.ts';
import { Markdown } from '../md/view.tsx';
import { adopt, change } from '../state/chats.ts';
import { go } from '../state/route.ts';
import { resume, retry, runs, sendEdited } from '../state/runs.ts';
import type { Run } from '../state/runs.ts';
import { CopyButton, IconButton, ProblemNotice, tell } from './controls.tsx';
import { Figures, Verdict } from './figures.tsx';
import { Icon } from './icons.tsx';
import { PlainText } from './text.tsx';

interface Props {
  chat: Chat;
  message: Message;
  busy: boolean;
}

export function MessageView({ chat, message, busy }: Props) {
  return message.role === 'user' ? (
    <Question chat={chat} message={message} busy={busy} />
  ) : (
    <Answer chat={chat} message={message} busy={busy} />
  );
}

function Turns({ chat, message, busy }: Props) {
  const w = words.value;
  const { ids, index } = versions(chat, message.id);
  if (ids.length < 2) return null;
  const to = (step: number): void => change(chat.id, (c) => turn(c, message.id, step));
  return (
    <span class="turns" role="group" aria-label={fill(w.version, { n: number(index + 1), of: number(ids.length) })}>
      <IconButton icon="back" label={w.previous} onClick={() => to(-1)} disabled={busy || index === 0} />
      <span aria-hidden="true">
        {number(index + 1)}/{number(ids.length)}
      </span>
      <IconButton icon="forward" label={w.next} onClick={() => to(1)} disabled={busy || index === ids.length - 1} />
    </span>
  );
}

function BranchButton({ chat, message }: { chat: Chat; message: Message }) {
  const branch = async (): Promise<void> => {
    const copy = branchOff(chat, message.id, Date.now());
    await adopt(copy);
    go({ view: 'chat', id: copy.id });
  };
  return <IconButton icon="branch" label={words.value.branch} onClick={() => void branch()} />;
}

function Question({ chat, message, busy }: Props) {
  const w = words.value;
  const [editing, setEditing] = useState(false);
  return (
    <article class="message user" aria-label={w.saidYou} data-id={message.id}>
      {(message.attachments ?? []).length > 0 && (
        <ul class="files" aria-label={w.attached}>
          {message.attachments!.map((file) => (
            <li key={file.name}>
              <details>
                <summary>
                  <Icon name="file" size={16} /> <bdi dir="auto">{file.name}</bdi>
                </summary>
                <pre dir="auto" tabIndex={0}>
                  {file.text}
                </pre>
              </details>
            </li>
          ))}
        </ul>
      )}
      {editing ? (
        <Editor chat={chat} message={message} done={() => setEditing(false)} />
      ) : (
        message.content !== '' && (
          <div class="bubble">
            <PlainText text={message.content} around={w.dir} />
          </div>
        )
      )}
      {!editing && (
        <footer>
          <Turns chat={chat} message={message} busy={busy} />
          <CopyButton text={() => message.content} label={w.copy} />
          <IconButton icon="edit" label={w.edit} onClick={() => setEditing(true)} disabled={busy} class="edit" />
        </footer>
      )}
    </article>
  );
}

function Editor({ chat, message, done }: { chat: Chat; message: Message; done: () => void }) {
  const w = words.value;
  const [text, setText] = useState(message.content);
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(text.length, text.length);
  }, []);
  const submit = (): void => {
    if (text.trim() === '') return;
    sendEdited(chat.id, message.id, text);
    done();
    document.getElementById('composer')?.focus();
  };
  return (
    <div class="editor">
      <textarea
        ref={field}
        dir="auto"
        aria-label={w.editing}
        value={text}
        rows={Math.min(12, text.split('\n').length + 1)}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape') {
            event.stopPropagation();
            done();
          }
          if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            submit();
          }
        }}
      />
      <div class="actions">
        <button type="button" class="primary" onClick={submit} disabled={text.trim() === ''}>
          {w.sendEdited}
        </button>
        <button type="button" onClick={done}>
          {w.cancel}
        </button>
      </div>
    </div>
  );
}

function Answer({ chat, message, busy }: Props) {
  const w = words.value;
  const run = runs.value.get(message.id);
  const content = run === undefined ? message.content : run.content.value;
  const reasoning = run === undefined ? (message.reasoning ?? '') : run.reasoning.value;
  useSpoken(run, content);
  const around = dirOf(content || (chat.messages[message.parent]?.content ?? ''), w.dir);
  return (
    <article
      class="message assistant"
      aria-label={fill(w.saidModel, { model: message.model ?? '' })}
      aria-busy={run !== undefined}
      data-id={message.id}
    >
      {reasoning !== '' && <Reasoning message={message} text={reasoning} run={run} around={around} />}
      {run !== undefined && content === '' && reasoning === '' && <Waiting run={run} />}
      {content !== '' && <Markdown text={content} complete={run === undefined} around={around} />}
      {run === undefined && <Ending chat={chat} message={message} busy={busy} />}
      {run === undefined && (
        <footer>
          <Verdict message={message} />
          <span class="tools">
            <Turns chat={chat} message={message} busy={busy} />
            <CopyButton text={() => message.content} label={w.copy} />
            <IconButton icon="retry" label={w.retry} onClick={() => retry(chat.id, message.id)} disabled={busy} />
            <BranchButton chat={chat} message={message} />
          </span>
          <Figures message={message} />
        </footer>
      )}
    </article>
  );
}

/** Tells a screen reader each paragraph as it is complete. */
function useSpoken(run: Run | undefined, content: string): void {
  const said = useRef(-1);
  useEffect(() => {
    if (run !== undefined) {
      if (said.current < 0) {
        said.current = content.length;
        tell(words.value.answering);
      }
      const end = content.lastIndexOf('\n\n');
      if (end > said.current) {
        tell(content.slice(said.current, end).replace(/[*_`#$|]+/gu, ''));
        said.current = end;
      }
    } else if (said.current >= 0) {
      tell(`${content.slice(said.current).replace(/[*_`#$|]+/gu, '')} ${words.value.answered}`);
      said.current = -1;
    }
  }, [run, content]);
}

function Waiting({ run }: { run: Run }) {
  const w = words.value;
  return (
    <p class="waiting">
      <i class="pulse" /> {run.phase.value === 'queued' ? w.queued : w.waiting}
    </p>
  );
}

/** The reasoning, folded: its time and length in the line, the last words while it goes on, all of it when open. */
function Reasoning({
  message,
  text,
  run,
  around,
}: {
  message: Message;
  text: string;
  run: Run | undefined;
  around: 'ltr' | 'rtl';
}) {
  const w = words.value;
  const [open, setOpen] = useState(false);
  const active = run !== undefined && run.phase.value === 'reasoning';
  const seconds = useSeconds(run, active) ?? message.measured?.reasoning_seconds ?? message.reasoningSeconds;
  const tokens = message.usage?.completion_tokens_details?.reasoning_tokens;
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const node = box.current;
    if (active && open && node !== null && node.scrollHeight - node.scrollTop - node.clientHeight < 80)
      node.scrollTop = node.scrollHeight;
  }, [text, open, active]);
  const lastLine = active && !open ? (text.trimEnd().split('\n').at(-1) ?? '').slice(-160) : '';
  return (
    <section class={active ? 'reasoning active' : 'reasoning'} dir={around}>
      <button type="button" aria-expanded={open} aria-controls={`r-${message.id}`} onClick={() => setOpen(!open)}>
        <Icon name="lead" size={18} />
        <span class="label" dir={w.dir}>
          {active
            ? w.reasoningNow
            : typeof seconds === 'number' && seconds > 0
              ? fill(w.reasoned, { time: duration(seconds) })
              : w.reasonedPlain}
        </span>
        <span class="length" dir={w.dir}>
          {active && typeof seconds === 'number' && seconds > 0 && duration(seconds)}
          {!active && typeof tokens === 'number' && fillTokens(tokens)}
        </span>
        <Icon name="chevron" size={16} />
      </button>
      {lastLine !== '' && (
        <p class="last" dir={dirOf(lastLine, around)} aria-hidden="true">
          <bdi>{lastLine}</bdi>
        </p>
      )}
      <div
        id={`r-${message.id}`}
        ref={box}
        class="depth"
        hidden={!open}
        tabIndex={open ? 0 : undefined}
        role="region"
        aria-label={w.reasonedPlain}
      >
        {open && <PlainText text={text.trim()} around={around} />}
      </div>
    </section>
  );
}

function fillTokens(tokens: number): string {
  const forms = words.value.plural.tokens;
  const form = forms[new Intl.PluralRules(words.value.code).select(tokens)] ?? forms.other!;
  return fill(form, { n: number(tokens) });
}

function useSeconds(run: Run | undefined, active: boolean): number | undefined {
  const [, setTick] = useState(0);
  useEffect(() => {
    if (!active) return undefined;
    const timer = setInterval(() => setTick((tick) => tick + 1), 200);
    return () => clearInterval(timer);
  }, [active]);
  if (run === undefined || run.reasoningFrom === 0) return undefined;
  return ((run.reasoningTo || Date.now()) - run.reasoningFrom) / 1000;
}

/** How the answer ended, where it did not end well, and what can be done. */
function Ending({ chat, message, busy }: Props) {
  const w = words.value;
  const started = message.content !== '' || (message.reasoning ?? '') !== '';
  const goOn = started && (
    <button type="button" onClick={() => resume(chat.id, message.id)} disabled={busy}>
      {w.continue}
    </button>
  );
  if (message.status === 'failed' && message.problem !== undefined) {
    return (
      <ProblemNotice
        problem={message.problem}
        retry={busy ? undefined : () => retry(chat.id, message.id)}
        more={goOn}
      />
    );
  }
  const note =
    message.status === 'stopped'
      ? w.stopped
      : message.status === 'interrupted'
        ? w.interrupted
        : message.finish === 'length'
          ? w.lengthEnd
          : message.finish === 'insufficient_system_resource'
            ? w.resourceEnd
            : message.status === 'done' && message.content === ''
              ? w.empty
              : '';
  if (note === '') return null;
  return (
    <p class="note" role="status">
      <span>{note}</span>
      {goOn}
      {!started && (
        <button type="button" onClick={() => retry(chat.id, message.id)} disabled={busy}>
          {w.retry}
        </button>
      )}
    </p>
  );
}
