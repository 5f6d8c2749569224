/** Where the visitor is, in the fragment of the address: `#/`, `#/c/ID`, `#/usage`. */

import { signal } from '@preact/signals';
import { currentId, openChat } from './chats.ts';

export type Route = { view: 'chat'; id: string | null } | { view: 'usage' };

export const route = signal<Route>({ view: 'chat', id: null });

export function parseRoute(hash: string): Route {
  if (hash === '#/usage') return { view: 'usage' };
  const chat = /^#\/c\/([A-Za-z0-9_-]{8,64})$/u.exec(hash);
  return { view: 'chat', id: chat?.[1] ?? null };
}

export function go(to: Route, replace = false): void {
  const hash = to.view === 'usage' ? '#/usage' : to.id === null ? '#/' : `#/c/${to.id}`;
  if (replace) history.replaceState(null, '', hash);
  else if (location.hash !== hash) history.pushState(null, '', hash);
  enter(to);
}

function enter(to: Route): void {
  route.value = to;
  if (to.view === 'chat') void openChat(to.id);
}

/** The draft got its first message: the address names it from now on. */
export function settleAddress(id: string): void {
  history.replaceState(null, '', `#/c/${id}`);
  currentId.value = id;
  route.value = { view: 'chat', id };
}

export function startRoute(): void {
  const follow = (): void => enter(parseRoute(location.hash));
  addEventListener('popstate', follow);
  addEventListener('hashchange', follow);
  follow();
}
