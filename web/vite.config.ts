/// <reference types="vitest/config" />
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig } from 'vite';
import type { Plugin } from 'vite';

/** KaTeX names each font in three formats; every browser that can run the page reads the first. */
function onlyWoff2(): Plugin {
  return {
    name: 'only-woff2',
    enforce: 'pre',
    transform(code, id) {
      if (!id.includes('katex') || !id.includes('.css')) return null;
      return { code: code.replace(/,url\([^)]+\.(?:woff|ttf)\) ?format\("(?:woff|truetype)"\)/gu, ''), map: null };
    },
  };
}

/** The licences of what is bundled, as their authors ask, in one file. */
function licences(): Plugin {
  return {
    name: 'licences',
    apply: 'build',
    generateBundle() {
      const names = new Set<string>();
      for (const id of this.getModuleIds()) {
        const hit = /node_modules\/((?:@[^/]+\/)?[^/]+)\//u.exec(id.split('\0').pop()!);
        if (hit !== null) names.add(hit[1]!);
      }
      for (const font of ['@fontsource/ibm-plex-sans', '@fontsource/ibm-plex-sans-arabic', '@fontsource/ibm-plex-mono'])
        names.add(font);
      const texts = [...names].sort().map((name) => {
        const folder = join(import.meta.dirname, 'node_modules', name);
        const about = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
          version: string;
          license: string;
        };
        const file = readdirSync(folder)
          .sort()
          .find((entry) => /^licen[cs]e/iu.test(entry));
        if (file === undefined || !existsSync(join(folder, file))) this.error(`${name} has no licence file`);
        const rule = '-'.repeat(78);
        return `${rule}\n${name} ${about.version} (${about.license})\n${rule}\n${readFileSync(join(folder, file!), 'utf8').replace(/\r\n?/gu, '\n').trim()}\n`;
      });
      this.emitFile({
        type: 'asset',
        fileName: 'licenses.txt',
        source: `Parts of this page by others, and their licences.\n\n${texts.join('\n')}`,
      });
    },
  };
}

export default defineConfig({
  base: '/',
  plugins: [onlyWoff2(), licences()],
  build: {
    target: 'es2022',
    // Browsers that know light-dark() and :dir(): lowered, both would follow the language of the page, not the text's.
    cssTarget: ['chrome123', 'safari17.5', 'firefox120'],
    outDir: 'dist',
    assetsInlineLimit: 0,
    cssCodeSplit: true,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    sourcemap: false,
  },
  server: { proxy: { '/api': 'http://127.0.0.1:8091', '/v1': 'http://127.0.0.1:8091' } },
  test: {
    environment: 'jsdom',
    include: ['test/**/*.test.{ts,tsx}'],
    setupFiles: ['test/setup.ts'],
    // No test is judged by its time; this only ends one that hangs.
    testTimeout: 900_000,
  },
});
