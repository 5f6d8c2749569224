// Tokens per second of many streams at once: fathom's server over HTTP, and llama.cpp with as many slots.
//
//   node slots.mjs fathom URL MODEL SLOTS PROMPT DECODE
//   node slots.mjs llama  MODEL.gguf SLOTS PROMPT DECODE THREADS
//
// llama.cpp is the build that the npm package node-llama-cpp carries (see peer_speed.mjs): one context with SLOTS
// sequences, whose tokens it computes in common batches. Each stream has a prompt of its own and is decoded greedily to
// DECODE tokens. Prints one JSON line: generated tokens by the seconds from the first request to the last token,
// prompts included, and the seconds after the last of the prompts.
const [engine, ...rest] = process.argv.slice(2);
const tokens = (n, s) => Array.from({ length: n }, (_, i) => (7919 * (i + 31 * s) + 13) % 50000 + 100);
const spans = [];

async function fathom(url, model, prompt, decode, s) {
  const options = { temperature: 0, stream: true, stream_options: { include_usage: true } };
  const body = { model, prompt: tokens(prompt, s), max_tokens: decode, ...options };
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(url + '/v1/completions', { method: 'POST', headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  let text = '', first = 0, last = 0, n = 0;
  for await (const piece of answer.body) {
    text += Buffer.from(piece).toString();
    const lines = text.split('\n'); text = lines.pop();
    for (const line of lines.filter(line => line.startsWith('data: {'))) {
      const event = JSON.parse(line.slice(6));
      if (event.usage) n = event.usage.completion_tokens;
      if (event.choices?.length) { last = performance.now(); first ||= last; }
    }
  }
  spans.push({ first, last, n });
}

async function llama(sequence, prompt, decode, s) {
  let first = 0, n = 0;
  for await (const _ of sequence.evaluate(tokens(prompt, s), { temperature: 0, yieldEogToken: true })) {
    first ||= performance.now();
    if (++n >= decode) break;
  }
  spans.push({ first, last: performance.now(), n });
}

let one, slots;
if (engine === 'fathom') {
  const [url, model, count, prompt, decode] = rest;
  slots = +count;
  one = s => fathom(url, model, +prompt, +decode, s);
} else {
  const { getLlama, LlamaLogLevel } = await import('node-llama-cpp');
  const [file, count, prompt, decode, threads] = rest;
  slots = +count;
  const library = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, maxThreads: +threads });
  const model = await library.loadModel({ modelPath: file, gpuLayers: 0, useMmap: true });
  const contextSize = +prompt + +decode + 64;
  const context = await model.createContext({ sequences: slots, contextSize, batchSize: 512, threads: +threads });
  const sequences = Array.from({ length: slots }, () => context.getSequence());
  await llama(sequences[0], 64, 2, 999); // warm
  await sequences[0].clearHistory();
  spans.length = 0;
  one = s => llama(sequences[s], +prompt, +decode, s);
}
const start = performance.now();
await Promise.all(Array.from({ length: slots }, (_, s) => one(s)));
const all = spans.reduce((sum, span) => sum + span.n, 0);
const seconds = (Math.max(...spans.map(span => span.last)) - start) / 1000;
const decoding = (Math.max(...spans.map(span => span.last)) - Math.max(...spans.map(span => span.first))) / 1000;
const rate = all / seconds;
console.log(JSON.stringify({ engine, slots, tokens: all, seconds, tokens_per_second: rate, seconds_all_decode: decoding }));
process.exit(0);
