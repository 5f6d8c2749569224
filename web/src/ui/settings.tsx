/** The dialogs: settings of the page, settings of a chat, the keyboard, and a question before something is deleted. */

import { useId, useRef, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { problemOf } from '../api/errors.ts';
import type { Problem } from '../api/errors.ts';
import type { ModelInfo } from '../api/types.ts';
import type { Chat, ChatSettings } from '../chat/model.ts';
import { fromJson, toJson } from '../chat/transfer.ts';
import { LANGUAGES, count, fill, languageChoice, words } from '../i18n/index.ts';
import type { LanguageChoice } from '../i18n/index.ts';
import { addTo, change, current, loadRows, moveAll, removeAllChats, storeOf } from '../state/chats.ts';
import { go } from '../state/route.ts';
import { info, loadInfo, modelOf } from '../state/server.ts';
import { apiKey, defaults, place, theme } from '../state/settings.ts';
import type { Place, Theme } from '../state/settings.ts';
import { ModelPicker } from './chat.tsx';
import { Dialog, ProblemNotice, saveFile } from './controls.tsx';
import { dialog, question } from './dialogs.ts';
import { ThinkingControls } from './thinking.tsx';

export function Dialogs() {
  const close = (): void => {
    dialog.value = null;
  };
  return (
    <>
      {dialog.value === 'settings' && <PageSettings onClose={close} />}
      {dialog.value === 'chat' && current.value != null && (
        <ChatSettingsDialog chat={current.value.value} onClose={close} />
      )}
      {dialog.value === 'keys' && <Keys onClose={close} />}
      {question.value !== null && <Ask />}
    </>
  );
}

function Ask() {
  const w = words.value;
  const asked = question.value!;
  const close = (): void => {
    question.value = null;
  };
  return (
    <Dialog title={asked.action} onClose={close}>
      <p>
        <bdi dir="auto">{asked.text}</bdi>
      </p>
      <div class="actions end">
        <button type="button" onClick={close}>
          {w.cancel}
        </button>
        <button
          type="button"
          class="danger"
          onClick={() => {
            close();
            asked.act();
          }}
        >
          {asked.action}
        </button>
      </div>
    </Dialog>
  );
}

function Keys({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title={words.value.shortcuts} onClose={onClose}>
      <KeyList />
    </Dialog>
  );
}

function KeyList() {
  return (
    <dl class="keys">
      {words.value.keys.map(([key, what]) => (
        <div key={key}>
          <dt>
            <kbd dir="ltr">{key}</kbd>
          </dt>
          <dd>{what}</dd>
        </div>
      ))}
    </dl>
  );
}

function Group({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <section class="group">
      <h3>{title}</h3>
      {children}
    </section>
  );
}

function Choices<T extends string>({
  name,
  value,
  options,
  set,
}: {
  name: string;
  value: T;
  options: { value: T; label: string; help?: string; off?: boolean }[];
  set: (value: T) => void;
}) {
  const id = useId();
  return (
    <div class="choices" role="radiogroup" aria-label={name}>
      {options.map((option) => (
        <label key={option.value} class="choice">
          <input
            type="radio"
            name={id}
            checked={option.value === value}
            disabled={option.off}
            onChange={() => set(option.value)}
          />
          <span>
            {option.label}
            {option.help !== undefined && <small class="help">{option.help}</small>}
          </span>
        </label>
      ))}
    </div>
  );
}

function PageSettings({ onClose }: { onClose: () => void }) {
  const w = words.value;
  return (
    <Dialog title={w.settings} onClose={onClose} wide>
      <Group title={w.language}>
        <Choices<LanguageChoice>
          name={w.language}
          value={languageChoice.value}
          set={(value) => (languageChoice.value = value)}
          options={[
            { value: 'auto', label: w.languageAuto },
            ...LANGUAGES.map((one) => ({ value: one.code as LanguageChoice, label: one.name })),
          ]}
        />
      </Group>
      <Group title={w.theme}>
        <Choices<Theme>
          name={w.theme}
          value={theme.value}
          set={(value) => (theme.value = value)}
          options={[
            { value: 'auto', label: w.themeAuto },
            { value: 'light', label: w.themeLight },
            { value: 'dark', label: w.themeDark },
          ]}
        />
      </Group>
      <KeyGroup />
      <PlaceGroup />
      <DataGroup />
      <Group title={w.shortcuts}>
        <KeyList />
      </Group>
      <Group title={w.about}>
        <p>
          {fill(w.aboutText, { version: info.value?.version ?? '' })}{' '}
          <a href="/licenses.txt" target="_blank" rel="noopener noreferrer">
            {w.licences}
          </a>
        </p>
      </Group>
    </Dialog>
  );
}

function KeyGroup() {
  const w = words.value;
  const [shown, setShown] = useState(false);
  const id = useId();
  return (
    <Group title={w.key}>
      <input
        class="wide"
        type={(shown ? 'text' : 'password') as 'password'}
        dir="ltr"
        autocomplete="off"
        spellcheck={false}
        value={apiKey.value}
        aria-label={w.key}
        aria-describedby={id}
        onInput={(event) => (apiKey.value = event.currentTarget.value.trim())}
        onChange={() => {
          void loadInfo();
          void loadRows();
        }}
      />
      <label class="choice">
        <input type="checkbox" checked={shown} onChange={() => setShown(!shown)} />
        <span>{w.keyShow}</span>
      </label>
      <small class="help" id={id}>
        {info.value?.key_needed === false ? w.keyNotNeeded : w.keyHelp}
      </small>
    </Group>
  );
}

function PlaceGroup() {
  const w = words.value;
  const [left, setLeft] = useState<{ from: Place; n: number } | null>(null);
  const [state, setState] = useState<'idle' | 'busy' | 'moved'>('idle');
  const [problem, setProblem] = useState<Problem | null>(null);
  const set = async (to: Place): Promise<void> => {
    const from = place.value;
    if (from === to) return;
    place.value = to;
    setState('idle');
    setProblem(null);
    go({ view: 'chat', id: null });
    await loadRows();
    try {
      const n = (await storeOf(from).all()).length;
      setLeft(n > 0 ? { from, n } : null);
    } catch {
      setLeft(null); // nothing can be moved from a place that does not answer
    }
  };
  const move = async (): Promise<void> => {
    if (left === null) return;
    setState('busy');
    try {
      await moveAll(left.from, place.value);
      setState('moved');
      setLeft(null);
    } catch (error) {
      setProblem(problemOf(error));
      setState('idle');
    }
    await loadRows();
  };
  return (
    <Group title={w.place}>
      <Choices<Place>
        name={w.place}
        value={place.value}
        set={(to) => void set(to)}
        options={[
          { value: 'browser', label: w.placeBrowser, help: w.placeBrowserHelp },
          {
            value: 'server',
            label: w.placeServer,
            help: info.value?.store === false ? w.placeServerOff : w.placeServerHelp,
            off: info.value?.store === false,
          },
        ]}
      />
      {left !== null && (
        <button type="button" onClick={() => void move()} disabled={state === 'busy'}>
          {fill(w.move, { chats: count('chats', left.n) })}
        </button>
      )}
      {state === 'moved' && <p role="status">{w.moved}</p>}
      {problem !== null && <ProblemNotice problem={problem} />}
    </Group>
  );
}

/** Takes the chats of a file in; gives back what to say about it. */
async function importFile(file: File): Promise<string> {
  const w = words.peek();
  let found: ReturnType<typeof fromJson>;
  try {
    found = fromJson(await file.text());
  } catch {
    return w.notChats;
  }
  for (const chat of found.chats) await addTo(storeOf(place.peek()), chat);
  await loadRows();
  if (found.chats.length === 0) return w.notChats;
  const rest = found.rejected.length === 0 ? '' : ` ${count('rejected', found.rejected.length)}.`;
  return `${fill(w.imported, { chats: count('chats', found.chats.length) })}${rest}`;
}

function askRemoveAll(act: () => Promise<void>): void {
  const w = words.peek();
  const where = place.peek() === 'server' ? w.placeServer : w.placeBrowser;
  question.value = { text: fill(w.removeAllAsk, { place: where }), action: w.removeAll, act: () => void act() };
}

function DataGroup() {
  const w = words.value;
  const chooser = useRef<HTMLInputElement>(null);
  const [said, setSaid] = useState('');
  const [problem, setProblem] = useState<Problem | null>(null);
  const guard = async (work: () => Promise<void>): Promise<void> => {
    setProblem(null);
    setSaid('');
    try {
      await work();
    } catch (error) {
      setProblem(problemOf(error));
    }
  };
  return (
    <Group title={w.data}>
      <div class="actions">
        <button
          type="button"
          onClick={() =>
            void guard(async () =>
              saveFile('fathom-chats.json', 'application/json', toJson(await storeOf(place.peek()).all())),
            )
          }
        >
          {w.exportAll}
        </button>
        <button type="button" onClick={() => chooser.current?.click()}>
          {w.import}
        </button>
        <button
          type="button"
          class="danger"
          onClick={() =>
            askRemoveAll(() =>
              guard(async () => {
                await removeAllChats();
                go({ view: 'chat', id: null });
              }),
            )
          }
        >
          {w.removeAll}
        </button>
      </div>
      <input
        ref={chooser}
        type="file"
        accept=".json,application/json"
        hidden
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          if (file !== undefined) void guard(async () => setSaid(await importFile(file)));
          event.currentTarget.value = '';
        }}
      />
      {said !== '' && <p role="status">{said}</p>}
      {problem !== null && <ProblemNotice problem={problem} />}
    </Group>
  );
}

function ChatSettingsDialog({ chat, onClose }: { chat: Chat; onClose: () => void }) {
  const w = words.value;
  const settings = chat.settings;
  const model = modelOf(settings.model);
  const [used, setUsed] = useState(false);
  const system = useId();
  const picker = useId();
  const set = (part: Partial<ChatSettings>): void => {
    setUsed(false);
    change(chat.id, (c) => ({ ...c, settings: { ...c.settings, ...part } }), 300);
  };
  return (
    <Dialog title={w.chatSettings} onClose={onClose} wide>
      <div class="field">
        <label for={picker}>{w.model}</label>
        <ModelPicker chat={chat} id={picker} />
      </div>
      <div class="field">
        <label for={system}>{w.system}</label>
        <textarea
          id={system}
          rows={4}
          dir="auto"
          value={settings.system ?? ''}
          onInput={(event) => set({ system: event.currentTarget.value || undefined })}
        />
        <small class="help">{w.systemHelp}</small>
      </div>
      <Group title={w.thinking}>
        <ThinkingControls model={model} settings={settings} set={set} />
      </Group>
      <Sampling settings={settings} model={model} set={set} />
      <div class="actions">
        <button
          type="button"
          onClick={() => {
            defaults.value = { ...settings };
            setUsed(true);
          }}
        >
          {w.useForNew}
        </button>
        <button
          type="button"
          onClick={() =>
            change(
              chat.id,
              (c) => ({ ...c, settings: c.settings.model === undefined ? {} : { model: c.settings.model } }),
              300,
            )
          }
        >
          {w.reset}
        </button>
      </div>
      {used && <p role="status">{w.usedForNew}</p>}
    </Dialog>
  );
}

function Sampling({
  settings,
  model,
  set,
}: {
  settings: ChatSettings;
  model: ModelInfo | undefined;
  set: (part: Partial<ChatSettings>) => void;
}) {
  const w = words.value;
  const given = (value: number | undefined): string =>
    value === undefined ? w.modelDefault : `${w.modelDefault} (${value})`;
  return (
    <Group title={w.sampling}>
      <div class="grid">
        <NumberField
          label={w.temperature}
          help={w.temperatureHelp}
          value={settings.temperature}
          min={0}
          max={2}
          step={0.1}
          placeholder={given(model?.defaults?.temperature)}
          set={(temperature) => set({ temperature })}
        />
        <NumberField
          label={w.topP}
          help={w.topPHelp}
          value={settings.top_p}
          min={0}
          max={1}
          step={0.05}
          placeholder={given(model?.defaults?.top_p)}
          set={(top_p) => set({ top_p })}
        />
        <NumberField
          label={w.maxTokens}
          value={settings.max_tokens}
          min={1}
          max={model?.context_tokens ?? 1_000_000}
          step={1}
          placeholder={w.unlimited}
          set={(max_tokens) => set({ max_tokens })}
        />
        <NumberField
          label={w.seed}
          help={w.seedHelp}
          value={settings.seed}
          min={0}
          max={Number.MAX_SAFE_INTEGER}
          step={1}
          placeholder={w.random}
          set={(seed) => set({ seed })}
        />
      </div>
    </Group>
  );
}

function NumberField(props: {
  label: string;
  help?: string;
  value: number | undefined;
  min: number;
  max: number;
  step: number;
  placeholder: string;
  set: (value: number | undefined) => void;
}) {
  const id = useId();
  const read = (text: string): void => {
    if (text.trim() === '') props.set(undefined);
    else {
      const value = Number(text);
      if (Number.isFinite(value))
        props.set(Math.min(props.max, Math.max(props.min, props.step >= 1 ? Math.round(value) : value)));
    }
  };
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      <input
        id={id}
        type="number"
        inputMode="decimal"
        min={props.min}
        max={props.max}
        step={props.step}
        placeholder={props.placeholder}
        value={props.value ?? ''}
        onChange={(event) => read(event.currentTarget.value)}
      />
      {props.help !== undefined && <small class="help">{props.help}</small>}
    </div>
  );
}
