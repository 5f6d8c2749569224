/** Requests to the server of this page, and to nothing else: every path is relative to the page's own origin. */

import { ApiError, detailOf, kindOfStatus, retryMoment } from './errors.ts';

let key = '';

export function setKey(value: string): void {
  key = value.trim();
}

export interface CallOptions {
  method?: string;
  body?: unknown;
  signal?: AbortSignal;
  keepalive?: boolean;
}

/** The response with a 2xx status; anything else, and no answer at all, is thrown as an `ApiError`. */
export async function call(path: string, options: CallOptions = {}): Promise<Response> {
  const headers: Record<string, string> = {};
  if (key !== '') headers.Authorization = `Bearer ${key}`;
  if (options.body !== undefined) headers['Content-Type'] = 'application/json';
  const text = options.body === undefined ? undefined : JSON.stringify(options.body);
  let response: Response;
  try {
    response = await fetch(path, {
      method: options.method ?? (options.body === undefined ? 'GET' : 'POST'),
      headers,
      body: text,
      signal: options.signal,
      // Small writes are finished even when the page is closed meanwhile (browsers allow 64 KiB).
      keepalive: options.keepalive === true && (text?.length ?? 0) < 20_000,
      credentials: 'omit',
      cache: 'no-store',
      redirect: 'error',
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError({ kind: 'unreachable' });
  }
  if (response.ok) return response;
  let body: unknown;
  try {
    body = await response.json();
  } catch {
    body = undefined; // a body that is no JSON says nothing beyond its status
  }
  throw new ApiError({
    kind: kindOfStatus(response.status),
    status: response.status,
    detail: detailOf(body),
    retryAt: retryMoment(response.headers.get('Retry-After'), Date.now()),
  });
}

export async function callJson<T>(path: string, options: CallOptions = {}): Promise<T> {
  const response = await call(path, options);
  try {
    return (await response.json()) as T;
  } catch {
    throw new ApiError({ kind: 'server', detail: 'The answer of the server is not JSON.' });
  }
}
