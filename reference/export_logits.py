#!/usr/bin/env python3
"""Check that transformers opens an exported model and computes what fathom computes.

For each folder (of `fathom train export`, or any other in Hugging Face layout): transformers loads it without a missing
weight; of those that it does not use, all belong to modules of multi-token prediction, which it does not have; its
tokenizer gives the same tokens as `fathom tokenize`, its chat template the same prompt as `fathom prompt`; and in f32,
on those tokens and on random ones, every logit agrees within 2e-3. Prints the largest difference; exit code 1 if
anything differs.

  python3 export_logits.py path/to/fathom EXPORTED ...
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 2e-3
TEXTS = ["The cat sat on 3 mats.\n\nThen 12+30=42.", "مع نبيل 9 صور. كم صورة معه؟", "  a\tb  <|user|> <think>\n"]
CHATS = [
    [{"role": "user", "content": "Make 43 from 4, 10 and 49."}],
    [
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "<think>\n2+2=4\n</think>\n4"},
        {"role": "user", "content": "كم 3+3؟"},
    ],
]


def fathom(binary, *arguments, stdin=None):
    command = [str(part) for part in (binary, *arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout


def differences(binary, folder, scratch):
    """What differs, a sentence each, and the largest difference of logits."""
    wrong, tokenizer = [], AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        ours = json.loads(fathom(binary, "tokenize", folder, stdin=text))
        if ours != theirs:
            wrong.append(f"tokens of {text!r}: {ours}, not {theirs}")
        rows += theirs
    for chat in CHATS if tokenizer.chat_template else []:
        theirs = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ours = fathom(binary, "prompt", folder, stdin=json.dumps(chat))
        if ours != theirs:
            wrong.append(f"the prompt is {ours!r}, not {theirs!r}")

    model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    layers = model.config.num_hidden_layers
    unused = [key for key in told["unexpected_keys"] if not key.startswith(f"model.layers.{layers}.")]
    if told["missing_keys"] or told["mismatched_keys"] or unused:
        wrong.append(f"weights: missing {told['missing_keys']}, of other shapes {told['mismatched_keys']}, unused {unused}")
    generator = torch.Generator().manual_seed(1)
    length = min(getattr(model.config, "max_position_embeddings", 64), 192)
    tokens = (rows + torch.randint(0, model.config.vocab_size, (length,), generator=generator).tolist())[:length]
    ids, out = scratch / "tokens.json", scratch / "logits.safetensors"
    ids.write_text(json.dumps(tokens))
    out.unlink(missing_ok=True)
    fathom(binary, "logits", folder, "--tokens", ids, "--out", out)
    with torch.no_grad():
        theirs = model.eval()(torch.tensor([tokens]), use_cache=False).logits[0]
    largest = (load_file(out)["logits"] - theirs).abs().max().item()
    if not largest <= TOLERANCE:
        wrong.append(f"logits differ by {largest:.2e}")
    return wrong, largest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fathom")
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for folder in options.folders:
            wrong, largest = differences(options.fathom, folder, Path(scratch))
            failed |= bool(wrong)
            print(f"{folder}: largest difference of a logit {largest:.1e}: {'; '.join(wrong) or 'the same'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
