#!/usr/bin/env python3
"""Write what PyTorch's autograd says about the loss and the gradients of the checkpoints that the tests already have.

For each named fixture of crates/model/tests/fixtures/{models,variants}, Hugging Face transformers computes in f32, from
the stored weights, a weighted loss over two sequences and the gradient of every parameter. Written is one file,
OUT_DIR/NAME.safetensors:

  tokens, targets i64 [48]; sequences i64 [2]; weights f32 [48]; logprobs f32 [48]
  one f32 tensor for each parameter, under the name it has in a published checkpoint (experts one by one):
  the gradient's norm, its sum weighted by a fixed pattern, then some of its elements: number (j * 7919) mod n

With --curve also `curve` f32 [100]: the mean loss of 100 steps of torch's AdamW on those rows, each with weight 1/48.

  python3 gradients.py [--curve] FIXTURES OUT_DIR NAME ...
"""
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

ROWS, SEQUENCES, SAMPLES = 48, [29, 19], 24


def batch(vocab, tokens):
    """Targets are arbitrary; some rows count against, some not at all."""
    t = torch.arange(ROWS)
    targets = (tokens * 31 + 7 + t) % vocab
    weights = ((t * 7) % 5 - 1).float() / ROWS
    return targets, weights


def summary(gradient):
    g = gradient.double().flatten()
    n = g.numel()
    i = torch.arange(n, dtype=torch.float64)
    pattern = torch.remainder(i * 0.6180339887498949, 1.0) - 0.5
    picks = torch.tensor([(j * 7919) % n for j in range(SAMPLES)])
    return torch.cat([torch.stack([g.norm(), (g * pattern).sum()]), g[picks]]).float()


def published(name, gradient):
    """Names and parts as checkpoints have them: transformers 5 stacks experts."""
    if name.endswith("experts.gate_up_proj"):
        for e, both in enumerate(gradient):
            gate, up = both.chunk(2, dim=0)
            stem = name.removesuffix("gate_up_proj")
            yield f"{stem}{e}.gate_proj.weight", gate
            yield f"{stem}{e}.up_proj.weight", up
    elif name.endswith("experts.down_proj"):
        for e, down in enumerate(gradient):
            yield f"{name.removesuffix('down_proj')}{e}.down_proj.weight", down
    else:
        yield name, gradient


def curve(model, tokens, targets):
    """AdamW on one batch; matrices decay, vectors do not. V3's correction bias stays as it is."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [dict(params=decayed, weight_decay=0.1), dict(params=others, weight_decay=0.0)]
    optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for _ in range(100):
        optimiser.zero_grad()
        loss = -row_logprobs(model, tokens, targets).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def row_logprobs(model, tokens, targets):
    """Of every row's target; each sequence sees itself alone."""
    logprobs, start = [], 0
    for n in SEQUENCES:
        rows = slice(start, start + n)
        logits = model(tokens[rows][None], use_cache=False).logits[0].float()
        logprobs.append(torch.log_softmax(logits, -1).gather(1, targets[rows][:, None])[:, 0])
        start += n
    return torch.cat(logprobs)


def write(fixture, out, with_curve):
    model = AutoModelForCausalLM.from_pretrained(fixture, dtype=torch.float32, attn_implementation="eager")
    tokens = load_file(fixture / "expected.safetensors")["tokens"]
    vocab = json.loads((fixture / "config.json").read_text())["vocab_size"]
    targets, weights = batch(vocab, tokens)
    logprobs = row_logprobs(model, tokens, targets)
    (-(weights * logprobs).sum()).backward()
    told = dict(tokens=tokens, targets=targets, sequences=torch.tensor(SEQUENCES), weights=weights,
                logprobs=logprobs.detach())
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for key, part in published(name, gradient):
            told[key] = summary(part)
    if with_curve:
        told["curve"] = curve(model, tokens, targets)
    save_file(told, out / f"{fixture.name}.safetensors")
    print(f"{fixture.name}: {len(told)} tensors, loss {-(weights * logprobs).sum():.5f}")


def main():
    arguments = [a for a in sys.argv[1:] if a != "--curve"]
    fixtures, out = Path(arguments[0]), Path(arguments[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments[2:]:
        write(next(fixtures.glob(f"*/{name}/")), out, "--curve" in sys.argv)


if __name__ == "__main__":
    main()
