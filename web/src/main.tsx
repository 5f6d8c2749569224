/** Start of the page. */

import { effect, untracked } from '@preact/signals';
import { render } from 'preact';
import { App } from './app.tsx';
import { loadRows, startChats } from './state/chats.ts';
import { startRoute } from './state/route.ts';
import { loadInfo } from './state/server.ts';
import { place, startSettings } from './state/settings.ts';
import './styles/fonts.css';
import './styles/page.css';
import './styles/parts.css';
import './styles/chat.css';
import './styles/text.css';
import './styles/usage.css';

startSettings();
startChats();
void loadInfo();
startRoute();
effect(() => {
  void place.value;
  untracked(() => void loadRows());
});
render(<App />, document.getElementById('app')!);
