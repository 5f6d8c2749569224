/** Wire types of the server, as far as the page reads them. Everything from the wire is checked where it is used. */

export interface ModelInfo {
  id: string;
  context_tokens?: number;
  reasoning?: boolean;
  thinking_switch?: boolean;
  chat?: boolean;
  built_in?: boolean;
  defaults?: { temperature?: number; top_p?: number };
  /** Measured share of right answers by thinking budget, where the server knows it. */
  budget_curve?: { task: Record<string, string>; points: [number, number][] } | null;
}

export interface Info {
  name: string;
  version: string;
  key_needed: boolean;
  store: boolean;
  models: ModelInfo[];
  limits?: { body_bytes_max?: number; chat_bytes_max?: number };
  prices?: { currency: string; cache_hit: number; cache_miss: number; output: number } | null;
  joules?: 'measured' | 'estimated' | null;
}

export interface Usage {
  prompt_tokens?: number;
  completion_tokens?: number;
  total_tokens?: number;
  prompt_cache_hit_tokens?: number;
  completion_tokens_details?: { reasoning_tokens?: number };
}

export interface Verdict {
  task?: string;
  ok: boolean;
  detail?: Record<string, string> | string | null;
}

/** The `fathom` extension beside `usage` in the last chunk. */
export interface Measured {
  queue_seconds?: number;
  prompt_seconds?: number;
  decode_seconds?: number;
  tokens_per_second?: number;
  reasoning_seconds?: number | null;
  cost?: string;
  currency?: string;
  joules?: number | null;
  joules_label?: 'measured' | 'estimated' | null;
  seed?: number;
  verdict?: Verdict | null;
}

export interface WireMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
  reasoning_content?: string;
  prefix?: boolean;
}

export interface ChatRequest {
  model: string;
  messages: WireMessage[];
  temperature?: number;
  top_p?: number;
  max_tokens?: number;
  seed?: number;
  thinking?: { type: 'enabled' | 'disabled'; budget_tokens?: number };
}

export interface UsageRow {
  day: string;
  model: string;
  requests: number;
  cache_hit_tokens: number;
  cache_miss_tokens: number;
  completion_tokens: number;
  reasoning_tokens: number;
  cost: string;
  seconds: number;
  joules: number | null;
  joules_label: 'measured' | 'estimated' | null;
}

export interface UsageReport {
  currency: string;
  balance: string | null;
  rows: UsageRow[];
  total: Omit<UsageRow, 'day' | 'model'>;
}

export interface ChatRow {
  id: string;
  title: string;
  created: number;
  updated: number;
  excerpt?: string;
}
