/** Text files that are put into a message. */

import type { Attachment } from '../chat/model.ts';

export const FILE_BYTES_MAX = 1024 * 1024;
export const FILES_BYTES_MAX = 4 * 1024 * 1024;

export type FileResult =
  { ok: true; file: Attachment } | { ok: false; why: 'size'; max: number } | { ok: false; why: 'binary' };

/** Reads UTF-8 (or UTF-16 with its mark); anything with bytes that are no text is refused. */
export async function readTextFile(file: File, taken_bytes: number): Promise<FileResult> {
  if (file.size > FILE_BYTES_MAX) return { ok: false, why: 'size', max: FILE_BYTES_MAX };
  if (taken_bytes + file.size > FILES_BYTES_MAX) return { ok: false, why: 'size', max: FILES_BYTES_MAX };
  const text = decode(new Uint8Array(await file.arrayBuffer()));
  return text === null ? { ok: false, why: 'binary' } : { ok: true, file: { name: file.name.slice(0, 200), text } };
}

export function decode(data: Uint8Array): string | null {
  const mark =
    data[0] === 0xff && data[1] === 0xfe ? 'utf-16le' : data[0] === 0xfe && data[1] === 0xff ? 'utf-16be' : 'utf-8';
  let text: string;
  try {
    text = new TextDecoder(mark, { fatal: true }).decode(data);
  } catch {
    return null;
  }
  return text.includes('\u0000') ? null : text.replace(/\r\n?/gu, '\n');
}
