/** What the server says about itself. */

import { computed, signal } from '@preact/signals';
import { callJson } from '../api/client.ts';
import { problemOf } from '../api/errors.ts';
import type { Problem } from '../api/errors.ts';
import type { Info, ModelInfo } from '../api/types.ts';

export const info = signal<Info | null>(null);
export const infoProblem = signal<Problem | null>(null);

export const chatModels = computed<ModelInfo[]>(() =>
  (info.value?.models ?? []).filter((model) => model.chat !== false),
);

export function modelOf(id: string | undefined): ModelInfo | undefined {
  return chatModels.value.find((model) => model.id === id) ?? chatModels.value[0];
}

let waiting: ReturnType<typeof setTimeout> | undefined;

/** Asks again by itself, ever more slowly, until the server answers. */
export async function loadInfo(attempt = 0): Promise<void> {
  clearTimeout(waiting);
  try {
    const value = await callJson<Info>('/api/info');
    info.value = { ...value, models: Array.isArray(value.models) ? value.models : [] };
    infoProblem.value = null;
  } catch (error) {
    infoProblem.value = problemOf(error);
    waiting = setTimeout(() => void loadInfo(attempt + 1), Math.min(15_000, 1000 * 2 ** attempt));
  }
}
