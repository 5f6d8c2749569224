#!/usr/bin/env python3
"""Measure how fast PyTorch and fathom train the same model, in turns on one machine.

The model is that of a recipe's table [model] (a DeepseekV3ForCausalLM), which transformers builds from the same keys.
PyTorch computes with bf16 autocast, f32 weights and fused AdamW, on sequences of the recipe's length; each way that
transformers has to run experts, and each size of a micro-batch, is tried, and the best counts. Multi-token prediction,
which transformers does not have, is switched off in fathom's runs. Both use --threads threads.

Printed is, for each recipe, a line for each setting of PyTorch and one for fathom: tokens a second, the best of the
rounds, and the ratio to the best of PyTorch.

  python3 train_speed.py path/to/fathom recipes/nano-pretrain.toml recipes/nano-dense.toml [--rounds 3] [--seconds 30]
"""
import argparse
import json
import re
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

EXPERTS = ["eager", "batched_mm", "grouped_mm"]
MICRO_BATCHES = [2048, 8192]


def build(table, experts):
    table = {key: value for key, value in table.items() if key not in ("architectures", "model_type")}
    table["q_lora_rank"] = table.get("q_lora_rank") or None
    table["num_nextn_predict_layers"] = 0
    config = DeepseekV3Config(**table)
    torch.manual_seed(1)
    model = DeepseekV3ForCausalLM._from_config(config, dtype=torch.float32, experts_implementation=experts)
    return model.train()


def torch_speed(table, sequence, micro, experts, seconds):
    """Tokens a second of whole steps: forward, backward, optimiser."""
    model = build(table, experts)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(0, table["vocab_size"], (max(micro // sequence, 1), sequence))

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimiser.step()

    step()
    begun, steps, best = time.perf_counter(), 0, float("inf")
    while steps < 2 or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
        steps += 1
    return tokens.numel() / best


def fathom_speed(fathom, recipe, threads, seconds, folder):
    """The best step of a run of this recipe, without multi-token prediction."""
    text = recipe.read_text()
    text = re.sub(r"(?m)^mtp_weight = .*$", "", text)
    text = re.sub(r"(?m)^num_nextn_predict_layers = .*$", "num_nextn_predict_layers = 0", text)
    text = re.sub(r'(?m)^folder = "(.*)"', lambda m: f'folder = "{(recipe.parent / m[1]).resolve()}"', text)
    text = re.sub(r"(?m)^(decay_)?tokens = ([0-9_]+)$", lambda m: f"{m[1] or ''}tokens = {int(m[2]) // 20}", text)
    text = re.sub(r"(?m)^warmup_steps = .*$", "warmup_steps = 1", text)
    copy = folder / recipe.name
    copy.write_text(text)
    run = folder / f"run-{time.monotonic_ns()}"
    command = [fathom, "train", "pretrain", copy, "--run", run, "--threads", str(threads), "--stop-after", f"{seconds}s"]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return max(line["tokens_per_second"] for line in lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fathom")
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for recipe in options.recipes:
        recipe = recipe.resolve()
        parsed = tomllib.loads(recipe.read_text())
        table, sequence = parsed["model"], parsed["data"]["sequence"]
        routed = table["first_k_dense_replace"] < table["num_hidden_layers"]
        settings = [(e, m) for e in (EXPERTS if routed else EXPERTS[:1]) for m in MICRO_BATCHES]
        best = {}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.rounds):
                ours = fathom_speed(options.fathom, recipe, options.threads, options.seconds, Path(folder))
                best["fathom"] = max(best.get("fathom", 0), ours)
                for experts, micro in settings:
                    name = f"torch {experts if routed else 'dense'}, {micro} tokens at once"
                    try:
                        speed = torch_speed(table, sequence, micro, experts, options.seconds)
                    except (NotImplementedError, RuntimeError, ValueError) as error:
                        print(f"{parsed['name']}: {name}: {str(error).splitlines()[0]}")
                        speed = 0
                    best[name] = max(best.get(name, 0), speed)
        top = max(speed for name, speed in best.items() if name != "fathom")
        for name, speed in best.items():
            print(f"{parsed['name']}: {name}: {speed:.0f} tokens/s")
        print(f"{parsed['name']}: fathom / best of torch = {best['fathom'] / top:.1f}", flush=True)


if __name__ == "__main__":
    main()
