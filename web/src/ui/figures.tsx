/** What an answer took, and whether a rule on the server found it right. */

import type { Message } from '../chat/model.ts';
import { count, duration, energy, fill, money, number, words } from '../i18n/index.ts';
import { Icon } from './icons.tsx';

/** A number from the wire or from a file: anything else is not shown. */
function num(value: unknown): number | undefined {
  const x = typeof value === 'string' ? Number(value) : value;
  return typeof x === 'number' && Number.isFinite(x) && x >= 0 ? x : undefined;
}

export function Figures({ message }: { message: Message }) {
  const w = words.value;
  const { usage, measured } = message;
  if (usage === undefined && measured === undefined) return null;
  const rate = num(measured?.tokens_per_second);
  const tokens = num(usage?.completion_tokens);
  const cost = num(measured?.cost);
  const currency = typeof measured?.currency === 'string' ? measured.currency : 'USD';
  const price = cost === undefined ? undefined : cost === 0 ? w.free : money(cost, currency);
  const joules = num(measured?.joules);
  const seconds = (num(measured?.prompt_seconds) ?? 0) + (num(measured?.decode_seconds) ?? 0);
  const label =
    measured?.joules_label === 'measured' ? w.measured : measured?.joules_label === 'estimated' ? w.estimated : '';
  const rows: [string, string | undefined][] = [
    [w.promptTokens, num(usage?.prompt_tokens) === undefined ? undefined : count('tokens', num(usage?.prompt_tokens)!)],
    [
      w.fromCache,
      (num(usage?.prompt_cache_hit_tokens) ?? 0) > 0
        ? count('tokens', num(usage?.prompt_cache_hit_tokens)!)
        : undefined,
    ],
    [w.answerTokens, tokens === undefined ? undefined : count('tokens', tokens)],
    [
      w.reasoningTokens,
      num(usage?.completion_tokens_details?.reasoning_tokens) === undefined
        ? undefined
        : count('tokens', num(usage?.completion_tokens_details?.reasoning_tokens)!),
    ],
    [w.queue, timed(measured?.queue_seconds)],
    [w.prefill, timed(measured?.prompt_seconds)],
    [w.decode, timed(measured?.decode_seconds)],
    [w.energy, joules === undefined ? undefined : `${energy(joules)}${label === '' ? '' : ` (${label})`}`],
    [w.seed, num(measured?.seed) === undefined ? undefined : String(measured!.seed)],
  ];
  return (
    <details class="figures">
      <summary title={w.details}>
        {rate !== undefined && (
          <span title={fill(w.rateLong, { n: number(rate, 1) })}>{fill(w.rate, { n: number(rate, 1) })}</span>
        )}
        {tokens !== undefined && <span>{count('tokens', tokens)}</span>}
        {seconds > 0 && <span>{duration(seconds)}</span>}
        {price !== undefined && <span>{price}</span>}
        {joules !== undefined && (
          <span>
            {energy(joules)}
            {label !== '' && <small> {label}</small>}
          </span>
        )}
      </summary>
      <dl>
        {rows.map(
          ([name, value]) =>
            value !== undefined && (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ),
        )}
      </dl>
    </details>
  );
}

function timed(value: unknown): string | undefined {
  const seconds = num(value);
  return seconds === undefined || seconds === 0 ? undefined : duration(seconds);
}

/** The verifier's mark. It says what was checked, in words as well as by colour and sign. */
export function Verdict({ message }: { message: Message }) {
  const w = words.value;
  const verdict = message.measured?.verdict;
  if (typeof verdict !== 'object' || verdict === null || typeof verdict.ok !== 'boolean') return null;
  const given: unknown =
    typeof verdict.detail === 'object' && verdict.detail !== null
      ? (verdict.detail[w.code] ?? verdict.detail.en)
      : verdict.detail;
  const detail = typeof given === 'string' ? given : undefined;
  return (
    <span class={verdict.ok ? 'verdict good' : 'verdict bad'} title={w.verdictHelp}>
      <Icon name={verdict.ok ? 'check' : 'cross'} size={16} />
      <span>{verdict.ok ? w.verified : w.refuted}</span>
      {detail !== undefined && (
        <bdi dir="auto" class="why">
          {detail}
        </bdi>
      )}
    </span>
  );
}
