// Speed of llama.cpp beside `fathom bench`, by the build of it that the npm package node-llama-cpp carries:
//
//   npm install node-llama-cpp @node-llama-cpp/linux-x64      (in a folder outside the repository; this file copied there)
//   node peer_speed.mjs MODEL.gguf PROMPT DECODE THREADS [DEPTH]
//
// Prints one JSON line. Decoding is measured at depth DEPTH + PROMPT, greedy.
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';
const [file, prompt, decode, threads, depth = '0'] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, maxThreads: +threads });
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0, useMmap: true });
const context = await model.createContext({ contextSize: +prompt + +decode + +depth + 64, batchSize: 512, threads: +threads, flashAttention: false });
const sequence = context.getSequence();
const tokens = (n, s) => Array.from({ length: n }, (_, i) => (7919 * (i + s) + 13) % 50000 + 100);
await sequence.evaluateWithoutGeneratingNewTokens(tokens(+prompt, 1)); await sequence.clearHistory(); // warm
if (+depth) await sequence.evaluateWithoutGeneratingNewTokens(tokens(+depth, 5));
let t = performance.now();
await sequence.evaluateWithoutGeneratingNewTokens(tokens(+prompt, 7));
const pp = +prompt / ((performance.now() - t) / 1000);
let n = 0; t = 0; const times = [];
for await (const token of sequence.evaluate([123], { temperature: 0, yieldEogToken: true })) {
  const now = performance.now(); if (t) times.push(now - t); t = now; if (++n > +decode) break;
}
times.sort((a, b) => a - b);
console.log(JSON.stringify({ file, prompt: +prompt, depth: +depth, threads: +threads, prompt_tokens_per_second: pp, decode_best: 1000 / times[0], decode_median: 1000 / times[times.length >> 1] }));
process.exit(0);
