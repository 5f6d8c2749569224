/** Which dialog is open. */

import { signal } from '@preact/signals';

export type DialogName = 'settings' | 'chat' | 'keys' | null;
export const dialog = signal<DialogName>(null);

/** A question before something is deleted. */
export interface Question {
  text: string;
  action: string;
  act: () => void;
}
export const question = signal<Question | null>(null);

/** The list of chats on a narrow screen. */
export const drawer = signal(false);
