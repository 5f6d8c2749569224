/** The signs of the page, drawn on a grid of 20 with a line of 1.6. Those with a direction turn with the language. */

const PATHS = {
  menu: 'M3 5h14M3 10h14M3 15h14',
  plus: 'M10 4v12M4 10h12',
  search: 'M9 4a5 5 0 1 1 0 10A5 5 0 0 1 9 4zM13 13l4 4',
  close: 'M5 5l10 10M15 5L5 15',
  more: 'M4.5 10h.01M10 10h.01M15.5 10h.01',
  send: 'M10 16V4M5 9l5-5 5 5',
  attach: 'M13.5 6.5l-6 6a2 2 0 0 0 3 3l6-6.2a3.7 3.7 0 0 0-5.3-5.2L5 10.4a5.2 5.2 0 0 0 7.4 7.3',
  copy: 'M7 7h9v9H7zM4 13V4h9',
  check: 'M4 10.5l4 4 8-9',
  cross: 'M6 6l8 8M14 6l-8 8',
  edit: 'M4 16l.8-3.4L13 4.4l2.6 2.6-8.2 8.2zM11.5 6l2.6 2.6',
  retry: 'M15.5 8A6 6 0 1 0 16 11.5M16 4v4h-4',
  branch: 'M6 4v12M6 12c0-4 8-2 8-7M14 5V4M4.5 16h3M12.5 4h3',
  back: 'M12.5 4.5L7 10l5.5 5.5',
  forward: 'M7.5 4.5L13 10l-5.5 5.5',
  down: 'M10 4v12M5 11l5 5 5-5',
  chevron: 'M6 8l4 4 4-4',
  sliders: 'M4 6h7M15 6h1M4 14h1M9 14h7M13 4v4M7 12v4',
  gear: 'M10 7.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6zM10 3v2M10 15v2M3 10h2M15 10h2M5 5l1.5 1.5M13.5 13.5L15 15M15 5l-1.5 1.5M6.5 13.5L5 15',
  chart: 'M4 16V9M8.5 16V4M13 16v-5M17 16H3',
  file: 'M5 3h7l3 3v11H5zM12 3v3h3',
  lead: 'M10 2.5v8M6.5 4.5H10M6.5 8H10',
  alert: 'M10 4l7 12H3zM10 9v3M10 14h.01',
} as const;

export type IconName = keyof typeof PATHS;

const TURNS = new Set<IconName>(['back', 'forward', 'retry']);

export function Icon({ name, size = 20 }: { name: IconName; size?: number }) {
  return (
    <svg
      class={TURNS.has(name) ? 'icon mirrored' : 'icon'}
      width={size}
      height={size}
      viewBox="0 0 20 20"
      aria-hidden="true"
      focusable="false"
    >
      <path d={PATHS[name]} />
      {name === 'lead' && <path class="solid" d="M10 10l2.9 5.2a3.2 3.2 0 0 1-5.8 0z" />}
    </svg>
  );
}

export function StopMark() {
  return (
    <svg class="icon" width="20" height="20" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <rect x="5.5" y="5.5" width="9" height="9" rx="1.5" class="solid" />
    </svg>
  );
}

/** The name of the program: a sounding line with its marks, and the lead at its end. */
export function Wordmark() {
  return (
    <span class="wordmark" dir="ltr">
      <svg width="18" height="24" viewBox="0 0 18 24" aria-hidden="true" focusable="false">
        <path class="line" d="M9 1v14M4.5 4H9M6 7.5h3M4.5 11H9" />
        <path class="lead" d="M9 14l3 6a3.2 3.2 0 0 1-6 0z" />
      </svg>
      fathom
    </span>
  );
}
