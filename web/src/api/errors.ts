/** What can go wrong between the page and the server, in kinds that the page can answer with advice. */

export type ErrorKind =
  | 'unreachable' // no answer at all
  | 'broken' // the stream ended before its end mark
  | 'key' // 401
  | 'balance' // 402
  | 'missing' // 404
  | 'conflict' // 409
  | 'too_large' // 413
  | 'refused' // 400, 422: the server names the field
  | 'rate' // 429
  | 'busy' // 503
  | 'server' // 500 and the rest
  | 'storage'; // this browser's own database

/** The plain form that is kept beside a message; `detail` is the server's own sentence. */
export interface Problem {
  kind: ErrorKind;
  status?: number;
  detail?: string;
  /** Moment (ms since 1970) before which trying again is pointless. */
  retryAt?: number;
}

export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail ?? problem.kind);
    this.name = 'ApiError';
  }
}

export function kindOfStatus(status: number): ErrorKind {
  switch (status) {
    case 401:
    case 403:
      return 'key';
    case 402:
      return 'balance';
    case 404:
      return 'missing';
    case 409:
      return 'conflict';
    case 413:
      return 'too_large';
    case 400:
    case 415:
    case 422:
      return 'refused';
    case 429:
      return 'rate';
    case 503:
      return 'busy';
    default:
      return 'server';
  }
}

/** The sentence in an OpenAI-shaped error body, if it is one. */
export function detailOf(body: unknown): string | undefined {
  if (typeof body !== 'object' || body === null) return undefined;
  const error = (body as { error?: unknown }).error;
  if (typeof error !== 'object' || error === null) return undefined;
  const message = (error as { message?: unknown }).message;
  return typeof message === 'string' ? message.slice(0, 600) : undefined;
}

/** Seconds or an HTTP date, as the moment in ms; undefined when absent or not understood. */
export function retryMoment(header: string | null, now: number): number | undefined {
  if (header === null) return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds) && seconds >= 0) return now + Math.min(seconds, 86_400) * 1000;
  const date = /[A-Za-z]{3}/u.test(header) ? Date.parse(header) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.min(date, now + 86_400_000);
}

export function problemOf(error: unknown): Problem {
  if (error instanceof ApiError) return error.problem;
  if (error instanceof TypeError) return { kind: 'unreachable' };
  return { kind: 'server', detail: error instanceof Error ? error.message : String(error) };
}
