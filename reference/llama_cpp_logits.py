#!/usr/bin/env python3
"""Logits that llama.cpp computes for a GGUF file and given token ids: another engine's reading of our files.

  python3 llama_cpp_logits.py MODEL.gguf tokens.json out.safetensors

tokens.json is a JSON list of ids; the output has `logits` f32 [T, vocab], as `fathom logits` writes it. Needs the
packages llama-cpp-python, numpy and safetensors. Keys and values are kept in F32 and flash attention is off, so that
what remains is llama.cpp's own rounding; `--one-by-one` feeds the tokens one at a time instead of in one batch.
"""
import argparse
import ctypes
import json
import sys

import llama_cpp
import numpy as np
from safetensors.numpy import save_file


def load(path, context_tokens):
    """(model, context), or an exit with one sentence."""
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    if hasattr(parameters, "use_extra_bufts"):
        parameters.use_extra_bufts = False  # no repacked weights: they change the order of sums
    model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    if not model:
        raise SystemExit(f"llama.cpp does not load {path}")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = max(context_tokens, 32)
    settings.n_threads = settings.n_threads_batch = 1
    settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
    if hasattr(settings, "flash_attn_type"):
        settings.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit(f"llama.cpp makes no context for {path}")
    return model, context


def logits_of(model, context, tokens, one_by_one):
    vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    if min(tokens) < 0 or max(tokens) >= vocab_size:
        raise SystemExit(f"token ids must be in 0..{vocab_size - 1}")
    rows = np.empty((len(tokens), vocab_size), dtype=np.float32)
    step = 1 if one_by_one else len(tokens)
    batch = llama_cpp.llama_batch_init(step, 0, 1)
    for start in range(0, len(tokens), step):
        batch.n_tokens = step
        for i in range(step):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = tokens[start + i], start + i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, 1
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit(f"llama.cpp fails at token {start}")
        for i in range(step):
            row = llama_cpp.llama_get_logits_ith(context, i)
            rows[start + i] = np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (vocab_size,))
    llama_cpp.llama_batch_free(batch)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("tokens")
    parser.add_argument("out")
    parser.add_argument("--one-by-one", action="store_true", help="feed the tokens one at a time")
    options = parser.parse_args()
    with open(options.tokens) as file:
        tokens = json.load(file)
    if not tokens or not all(isinstance(t, int) for t in tokens):
        raise SystemExit(f"{options.tokens} is not a JSON list of ids")
    model, context = load(options.model, len(tokens))
    save_file({"logits": logits_of(model, context, tokens, options.one_by_one)}, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
