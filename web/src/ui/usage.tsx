/** What was used: sums, two plots drawn here, and all figures in a table. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { callJson } from '../api/client.ts';
import { problemOf } from '../api/errors.ts';
import type { Problem } from '../api/errors.ts';
import type { UsageReport, UsageRow } from '../api/types.ts';
import { compact, count, dayName, duration, energy, fill, money, number, words } from '../i18n/index.ts';
import { go } from '../state/route.ts';
import { IconButton, ProblemNotice } from './controls.tsx';
import { drawer } from './dialogs.ts';
import { Icon } from './icons.tsx';

const RANGES = [7, 30, 90];

export function isoDay(moment: number): string {
  return new Date(moment).toISOString().slice(0, 10);
}

/** The last `days` days up to `now`, in UTC, oldest first. */
export function daysUpTo(now: number, days: number): string[] {
  return Array.from({ length: days }, (_, index) => isoDay(now - (days - 1 - index) * 86_400_000));
}

export function UsageView({ narrow }: { narrow: boolean }) {
  const w = words.value;
  const [range, setRange] = useState(30);
  const [report, setReport] = useState<UsageReport | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [turn, setTurn] = useState(0);
  const days = daysUpTo(Date.now(), range);
  useEffect(() => {
    let gone = false;
    setProblem(null);
    callJson<UsageReport>(`/api/usage?from=${days[0]!}&to=${days.at(-1)!}`).then(
      (value) => {
        if (!gone) setReport({ ...value, rows: Array.isArray(value.rows) ? value.rows : [] });
      },
      (error: unknown) => {
        if (!gone) setProblem(problemOf(error));
      },
    );
    return () => {
      gone = true;
    };
  }, [range, turn]);
  useEffect(() => {
    document.title = `${words.value.usageTitle} · fathom`;
  }, []);
  return (
    <main>
      <header class="head">
        {narrow && (
          <button
            type="button"
            class="quiet"
            aria-label={w.menu}
            aria-expanded={drawer.value}
            aria-controls="chats"
            onClick={() => (drawer.value = true)}
          >
            <Icon name="menu" />
          </button>
        )}
        <h1>{w.usageTitle}</h1>
        <div class="right">
          <select
            class="model"
            aria-label={w.range}
            value={String(range)}
            onChange={(event) => setRange(Number(event.currentTarget.value))}
          >
            {RANGES.map((n) => (
              <option key={n} value={String(n)}>
                {fill(w.lastDays, { n: number(n) })}
              </option>
            ))}
          </select>
          <IconButton icon="close" label={w.back} onClick={() => go({ view: 'chat', id: null })} />
        </div>
      </header>
      <div class="scroller">
        <div class="column usage">
          {problem !== null && <ProblemNotice problem={problem} retry={() => setTurn(turn + 1)} />}
          {problem === null && report === null && (
            <div aria-busy="true">
              <span class="unseen">{w.loading}</span>
              <i class="bone wide" />
              <i class="bone tall" />
            </div>
          )}
          {problem === null && report !== null && <Report report={report} days={days} />}
        </div>
      </div>
    </main>
  );
}

/** Whether energy was measured or estimated. */
function label(row: Omit<UsageRow, 'day' | 'model'>): string {
  return row.joules_label === 'measured' ? words.value.measured : words.value.estimated;
}

function Report({ report, days }: { report: UsageReport; days: string[] }) {
  const w = words.value;
  const { rows, total, currency } = report;
  const tokens = (row: Omit<UsageRow, 'day' | 'model'>): number =>
    row.cache_hit_tokens + row.cache_miss_tokens + row.completion_tokens;
  const priced = Number(total.cost) > 0;
  const sums: [string, string, string?][] = [
    [w.totalTokens, compact(tokens(total)), count('requests', total.requests)],
    [w.totalCost, priced ? money(Number(total.cost), currency) : w.free],
    [w.totalTime, duration(total.seconds), w.measuredTime],
  ];
  if (total.joules !== null) sums.push([w.totalEnergy, energy(total.joules), label(total)]);
  if (report.balance !== null) sums.push([w.balance, money(Number(report.balance), currency)]);
  return (
    <>
      <dl class="sums">
        {sums.map(([name, value, more]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              {value}
              {more !== undefined && <small>{more}</small>}
            </dd>
          </div>
        ))}
      </dl>
      {rows.length === 0 ? (
        <div class="blank" role="status">
          <h2>{w.noUsage}</h2>
          <p>{w.noUsageHelp}</p>
        </div>
      ) : (
        <>
          <Bars title={w.tokensByDay} days={days} rows={rows} value={tokens} show={compact} />
          {priced && (
            <Bars
              title={w.costByDay}
              days={days}
              rows={rows}
              value={(row) => Number(row.cost)}
              show={(x) => money(x, currency)}
            />
          )}
          <UsageTable rows={rows} currency={currency} />
        </>
      )}
    </>
  );
}

/** A round number at or above `max`, and the steps up to it. */
export function scale(max: number): number[] {
  if (!(max > 0)) return [0, 1];
  const power = 10 ** Math.floor(Math.log10(max / 3));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => max / s <= 4) ?? 10 * power;
  const ticks = [0];
  while (ticks.at(-1)! < max) ticks.push(ticks.length * step);
  return ticks;
}

function Bars({
  title,
  days,
  rows,
  value,
  show,
}: {
  title: string;
  days: string[];
  rows: UsageRow[];
  value: (row: UsageRow) => number;
  show: (value: number) => string;
}) {
  const w = words.value;
  const models = [...new Set(rows.map((row) => row.model))].sort();
  const cell = new Map(rows.map((row) => [`${row.day} ${row.model}`, value(row)]));
  const at = (day: string, model: string): number => cell.get(`${day} ${model}`) ?? 0;
  const totals = days.map((day) => models.reduce((sum, model) => sum + at(day, model), 0));
  const ticks = scale(Math.max(...totals));
  const top = ticks.at(-1)!;
  const [figure, width] = useWidth();
  const [height, left, bottom] = [width < 500 ? 180 : 220, 60, 26];
  const flip = w.dir === 'rtl';
  const right = 18;
  const slot = (width - left - right) / days.length;
  const x = (index: number): number => (flip ? width - left - (index + 1) * slot : left + index * slot);
  const y = (v: number): number => 8 + (height - bottom - 8) * (1 - v / top);
  const every = Math.ceil(days.length / Math.max(2, Math.floor(width / 110)));
  return (
    <figure class="plot" ref={figure}>
      <figcaption>
        <h2>{title}</h2>
        <ul class="legend">
          {models.map((model, index) => (
            <li key={model}>
              <i class={`s${index % 6}`} />
              <bdi dir="ltr">{model}</bdi>
            </li>
          ))}
        </ul>
      </figcaption>
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={title} class={flip ? 'flip' : undefined}>
        {ticks.map((tick) => (
          <g key={tick} class="tick">
            <path d={flip ? `M${right} ${y(tick)}H${width - left}` : `M${left} ${y(tick)}H${width - right}`} />
            <text x={flip ? width - left + 8 : left - 8} y={y(tick) + 4} text-anchor="end">
              {tick === 0 ? '0' : show(tick)}
            </text>
          </g>
        ))}
        {days.map((day, index) => {
          let under = 0;
          return (
            <g key={day}>
              {models.map((model, series) => {
                const v = at(day, model);
                if (v === 0) return null;
                const rect = (
                  <rect
                    key={model}
                    class={`s${series % 6}`}
                    x={x(index) + slot * 0.14}
                    width={slot * 0.72}
                    y={y(under + v)}
                    height={y(under) - y(under + v)}
                  >
                    <title>{`${dayName(day)} · ${model}: ${show(v)}`}</title>
                  </rect>
                );
                under += v;
                return rect;
              })}
              {(days.length - 1 - index) % every === 0 && (
                <text class="day" x={x(index) + slot / 2} y={height - 8} text-anchor="middle">
                  {dayName(day)}
                </text>
              )}
            </g>
          );
        })}
      </svg>
    </figure>
  );
}

/** The width of an element in pixels, so that a plot's letters keep their size on every screen. */
function useWidth(): [{ current: HTMLElement | null }, number] {
  const box = useRef<HTMLElement>(null);
  const [width, setWidth] = useState(720);
  useEffect(() => {
    const node = box.current;
    if (node === null) return undefined;
    const watch = new ResizeObserver(() => setWidth(Math.max(240, Math.round(node.clientWidth))));
    watch.observe(node);
    return () => watch.disconnect();
  }, []);
  return [box, width];
}

function UsageTable({ rows, currency }: { rows: UsageRow[]; currency: string }) {
  const w = words.value;
  const sorted = [...rows].sort((a, b) =>
    a.day === b.day ? a.model.localeCompare(b.model) : b.day.localeCompare(a.day),
  );
  return (
    <details class="table">
      <summary>{w.table}</summary>
      <div class="scroll" role="region" aria-label={w.table} tabIndex={0}>
        <table>
          <thead>
            <tr>
              {[
                w.day,
                w.model,
                w.totalRequests,
                w.input,
                w.cached,
                w.output,
                w.reasoningTokens,
                w.totalTime,
                w.totalEnergy,
                w.totalCost,
              ].map((name) => (
                <th key={name} scope="col">
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {sorted.map((row) => (
              <tr key={`${row.day} ${row.model}`}>
                <th scope="row">{dayName(row.day)}</th>
                <td>
                  <bdi dir="ltr">{row.model}</bdi>
                </td>
                <td>{number(row.requests)}</td>
                <td>{number(row.cache_hit_tokens + row.cache_miss_tokens)}</td>
                <td>{number(row.cache_hit_tokens)}</td>
                <td>{number(row.completion_tokens)}</td>
                <td>{number(row.reasoning_tokens)}</td>
                <td>{duration(row.seconds)}</td>
                <td>{row.joules === null ? '' : `${energy(row.joules)} (${label(row)})`}</td>
                <td>{money(Number(row.cost), currency)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
