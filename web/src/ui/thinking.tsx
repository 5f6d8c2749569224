/** The switch and the budget of thinking, with the measured curve behind the slider where the server has one. */

import { useId } from 'preact/hooks';
import type { ModelInfo } from '../api/types.ts';
import type { ChatSettings } from '../chat/model.ts';
import { compact, fill, number, words } from '../i18n/index.ts';

const STEPS = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768];

/** The budgets of the slider: powers of two below the model's context, then no limit. */
export function budgetSteps(model: ModelInfo | undefined): (number | undefined)[] {
  const max = model?.context_tokens ?? 8192;
  return [...STEPS.filter((step) => step < max), undefined];
}

export function ThinkingControls({
  model,
  settings,
  set,
}: {
  model: ModelInfo | undefined;
  settings: ChatSettings;
  set: (change: Partial<ChatSettings>) => void;
}) {
  const w = words.value;
  const id = useId();
  if (model?.reasoning !== true) return <p class="help">{w.noThinking}</p>;
  const steps = budgetSteps(model);
  const at = settings.budget === undefined ? steps.length - 1 : nearest(steps, settings.budget);
  const on = settings.thinking !== false;
  const share = curveOf(model).find(([budget]) => budget === steps[at])?.[1];
  const limit = steps[at] === undefined ? w.unlimited : number(steps[at]!);
  const label = share === undefined ? limit : `${limit} · ${number(share * 100)}%`;
  return (
    <div class="thinking">
      {model.thinking_switch !== false && (
        <label class="switch">
          <input
            type="checkbox"
            role="switch"
            checked={on}
            onChange={(event) => set({ thinking: event.currentTarget.checked })}
          />
          <span>
            {w.thinking}
            <small class="help">{w.thinkingHelp}</small>
          </span>
        </label>
      )}
      <div class="field">
        <label for={id}>
          {w.budget} <output>{label}</output>
        </label>
        <div class="gauge">
          <Curve model={model} steps={steps} at={at} />
          <input
            id={id}
            type="range"
            min={0}
            max={steps.length - 1}
            step={1}
            value={at}
            disabled={!on}
            aria-valuetext={label}
            onInput={(event) => set({ budget: steps[Number(event.currentTarget.value)] })}
          />
          <div class="marks" aria-hidden="true">
            {steps.map((step, index) => (
              <i key={index}>
                {index % 2 === 0 || step === undefined ? (step === undefined ? '∞' : compact(step)) : ''}
              </i>
            ))}
          </div>
        </div>
        <small class="help">{w.budgetHelp}</small>
        {curveOf(model).length > 1 && (
          <small class="help">
            {fill(w.budgetCurve, { task: model.budget_curve!.task[w.code] ?? model.budget_curve!.task.en ?? '' })}
          </small>
        )}
      </div>
    </div>
  );
}

function nearest(steps: (number | undefined)[], budget: number): number {
  const index = steps.findIndex((step) => step === undefined || step >= budget);
  return index < 0 ? steps.length - 1 : index;
}

function curveOf(model: ModelInfo): [number, number][] {
  const points = model.budget_curve?.points;
  if (!Array.isArray(points)) return [];
  return points.filter((p) => Array.isArray(p) && p[0] > 0 && p[1] >= 0 && p[1] <= 1).sort((a, b) => a[0] - b[0]);
}

/** Share of right answers over the slider's own scale (steps of a factor two). */
function Curve({ model, steps, at }: { model: ModelInfo; steps: (number | undefined)[]; at: number }) {
  const points = curveOf(model);
  if (points.length < 2) return null;
  const width = 100;
  const height = 40;
  const flip = words.value.dir === 'rtl';
  const x = (budget: number): number => {
    const place = Math.min(1, Math.max(0, Math.log2(budget / STEPS[0]!) / (steps.length - 1)));
    return (flip ? 1 - place : place) * width;
  };
  const y = (share: number): number => height - share * (height - 4) - 2;
  const line = points
    .map(([budget, share], index) => `${index === 0 ? 'M' : 'L'}${x(budget).toFixed(2)} ${y(share).toFixed(2)}`)
    .join('');
  const here = (flip ? 1 - at / (steps.length - 1) : at / (steps.length - 1)) * width;
  const area = `${line}L${x(points.at(-1)![0]).toFixed(2)} ${height}L${x(points[0]![0]).toFixed(2)} ${height}Z`;
  const spoken = points.map(([budget, share]) => `${number(budget)}: ${number(share * 100, 1)} %`).join(', ');
  return (
    <svg class="curve" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={spoken}>
      <path class="area" d={area} />
      <path class="line" d={line} />
      <path class="here" d={`M${here} 0V${height}`} />
    </svg>
  );
}
