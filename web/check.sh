#!/bin/sh
# What CI runs for the page: types, tests, and that dist/ is exactly what the sources build to.
# Needs Node 20 or later with npm. `./check.sh e2e` also drives the page in Chromium.
set -eu
cd "$(dirname "$0")"
[ -d node_modules ] && [ "${1:-}" != ci ] || npm ci --no-audit --no-fund
if grep -n '"resolved"' package-lock.json; then
    echo "web: package-lock.json names registry hosts: run 'npm install --package-lock-only' with the .npmrc here" >&2
    exit 1
fi
npx prettier --check --log-level warn .
npx tsc --noEmit
npx vitest run
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
npx vite build --outDir "$fresh/dist" --emptyOutDir --logLevel warn
if ! diff -r dist "$fresh/dist"; then
    echo "web: dist/ is not what the sources build to: run 'npm run build' and commit dist/" >&2
    exit 1
fi
bytes="$(find dist -type f -exec cat {} + | wc -c)"
if [ "$bytes" -gt 1572864 ]; then
    echo "web: dist/ has $bytes bytes, the limit is 1572864" >&2
    exit 1
fi
echo "web: dist/ is up to date, $bytes bytes"
if [ "${1:-}" = e2e ]; then node e2e/run.mjs; fi
