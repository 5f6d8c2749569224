#!/usr/bin/env python3
"""Measure how fast PyTorch and fathom train the same model, in turns on one machine.

The model is that of a recipe's table [model] (a DeepseekV3ForCausalLM), which transformers builds from the same keys.
PyTorch computes with bf16 autocast, f32 weights and fused AdamW on sequences of the recipe's length; each way that
transformers has to run experts, and each size of a micro-batch, is tried, and the best step of the best setting counts.
fathom trains the recipe itself, changed so that both do the same work: no multi-token prediction (transformers has
none), sequences that are not masked by document, AdamW. Its best step counts. Both use --threads threads, and fathom is
measured before and after PyTorch.

Printed is, for each recipe, a line for each setting of PyTorch, one for fathom, and the ratio to the best of PyTorch,
beside the share of the measured f32 peak that fathom's log tells. What goes wrong with one setting is printed and the
others go on. The whole takes about --seconds, most of it PyTorch's steps.

  python3 train_speed.py path/to/fathom recipes/nano-pretrain.toml recipes/nano-dense.toml [--seconds 150]
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

EXPERTS = ["eager", "batched_mm", "grouped_mm"]
# Tokens of fathom's run: so many steps of the recipe, of which the best counts.
STEPS = 6


class Setting:
    """A way for PyTorch to train the model: its whole step, and the best time so far."""

    def __init__(self, table, sequence, micro, experts, compiled):
        table = {key: value for key, value in table.items() if key not in ("architectures", "model_type")}
        table["q_lora_rank"] = table.get("q_lora_rank") or None
        table["num_nextn_predict_layers"] = 0
        config = DeepseekV3Config(**table)
        torch.manual_seed(1)
        options = {"experts_implementation": experts} if experts else {}
        model = DeepseekV3ForCausalLM._from_config(config, dtype=torch.float32, **options).train()
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.run = torch.compile(model) if compiled else model
        self.tokens = torch.randint(0, table["vocab_size"], (max(micro // sequence, 1), sequence))
        self.name = f"torch {experts or 'dense'}{' compiled' if compiled else ''}, {self.tokens.numel()} tokens at once"
        self.best = float("inf")
        self.step()
        self.best = float("inf")  # the first step also allocates

    def step(self):
        """One optimiser step: forward, backward, update."""
        start = time.perf_counter()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.run(input_ids=self.tokens, labels=self.tokens, use_cache=False).loss
        loss.backward()
        self.optimiser.step()
        self.last = time.perf_counter() - start
        self.best = min(self.best, self.last)

    def speed(self):
        return self.tokens.numel() / self.best


def torch_settings(table, sequence, micro_batches, compiled):
    """The settings, cheapest first, as long as PyTorch can run them."""
    routed = table["first_k_dense_replace"] < table["num_hidden_layers"]
    for micro in micro_batches:
        for experts in EXPERTS if routed else [None]:
            try:
                yield Setting(table, sequence, micro, experts, compiled)
            except Exception as error:  # whatever a version of torch does not have
                line = (str(error).splitlines() or [repr(error)])[0]
                print(f"torch {experts}, {micro} tokens at once: not run: {line[:160]}", flush=True)


def torch_speeds(table, sequence, micro_batches, seconds, compiled):
    """Tokens a second of every setting: in turns, at least one step each, until the time is over."""
    begun, settings = time.perf_counter(), []
    left = lambda: seconds - (time.perf_counter() - begun)
    for setting in torch_settings(table, sequence, micro_batches, compiled):
        setting.step()
        settings.append(setting)
        # A larger micro-batch of the slow ones would take the time of all rounds.
        if len(settings) >= 3 and setting.last * 4 > left():
            break
    while settings and left() > min(s.last for s in settings):
        for setting in settings:
            if setting.last < left():
                setting.step()
    return {setting.name: setting.speed() for setting in settings}


def same_work(text, recipe, steps):
    """The recipe's text for a short run that does the work that PyTorch does."""
    text = re.sub(r"(?m)^(mtp_weight|bias_speed) = .*$", "", text)
    text = re.sub(r"(?m)^num_nextn_predict_layers = .*$", "num_nextn_predict_layers = 0", text)
    text = re.sub(r"(?m)^mask_documents = .*$", "mask_documents = false", text)
    text = re.sub(r'(?m)^kind = "muon"$', 'kind = "adamw"', text)
    text = re.sub(r"(?m)^(momentum|update_rms) = .*$", "", text)
    text = re.sub(r'(?m)^folder = "(.*)"', lambda m: f'folder = "{(recipe.parent / m[1]).resolve()}"', text)
    text = re.sub(r"(?m)^decay_share = .*$", "", text, count=1)
    text = re.sub(r"(?m)^decay_tokens = .*$", "", text)
    head, train = text.split("[train]")
    head = re.sub(r"(?m)^tokens = .*$", f"tokens = {30_000}", head)
    batch = int(re.search(r"(?m)^batch_tokens = ([0-9_]+)", train)[1])
    train = re.sub(r"(?m)^tokens = .*$", f"tokens = {steps * batch}", train, count=1)
    train = re.sub(r"(?m)^warmup_steps = .*$", "warmup_steps = 1", train)
    return head + "[train]" + train


def fathom_speed(fathom, recipe, threads, folder, steps):
    """Tokens a second of the best step of a short run, and its share of the peak."""
    copy = folder / recipe.name
    copy.write_text(same_work(recipe.read_text(), recipe, steps))
    run = folder / f"run-{time.monotonic_ns()}"
    command = [fathom, "train", "pretrain", copy, "--run", run, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{recipe.name}: fathom: {done.stderr.strip()[-500:]}")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return max((line["tokens_per_second"], line.get("peak_share") or 0.0) for line in lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fathom")
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=150, help="of PyTorch's steps, all recipes together")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each of fathom's runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro", type=int, nargs="+", default=[2048, 8192], help="PyTorch's tokens at once")
    parser.add_argument("--compile", action="store_true", help="through torch.compile, which takes minutes more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for recipe in (path.resolve() for path in options.recipes):
            parsed = tomllib.loads(recipe.read_text())
            measure = lambda: fathom_speed(options.fathom, recipe, options.threads, Path(folder), options.steps)
            before = measure()
            seconds = options.seconds / len(options.recipes)
            best = torch_speeds(parsed["model"], parsed["data"]["sequence"], options.micro, seconds, options.compile)
            ours, share = max(before, measure())
            for name, speed in best.items():
                print(f"{parsed['name']}: {name}: {speed:.0f} tokens/s")
            print(f"{parsed['name']}: fathom: {ours:.0f} tokens/s, {share:.2f} of the f32 peak")
            if best:
                print(f"{parsed['name']}: fathom / best of torch = {ours / max(best.values()):.1f}", flush=True)


if __name__ == "__main__":
    main()
