#!/usr/bin/env python3
"""Write what PyTorch's autograd says about the gradients of low-rank adapters on the checkpoints that the tests have.

For each named fixture of crates/model/tests/fixtures/{models,variants}, every projection W of attention and of the
networks becomes W + (4 / 2) B A with adapters of rank 2. Hugging Face transformers computes in f32, from the stored
weights, a weighted loss over two sequences (that of gradients.py) and the gradients of all A and B. Written is one file,
OUT_DIR/lora-NAME.safetensors:

  tokens, targets i64 [48]; sequences i64 [2]; weights f32 [48]; logprobs f32 [48]
  for each projection, under its published name with .A, .B, .dA and .dB behind it: values and gradients, f32

  python3 lora.py FIXTURES OUT_DIR NAME ...
"""
import json
import sys
from pathlib import Path

from gradients import SEQUENCES, batch, row_logprobs

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoModelForCausalLM

RANK, ALPHA = 2, 4.0


class Adapter(nn.Module):
    def __init__(self, rows, cols, generator):
        super().__init__()
        self.a = nn.Parameter(torch.randn(RANK, cols, generator=generator) * 0.2)
        self.b = nn.Parameter(torch.randn(rows, RANK, generator=generator) * 0.1)

    def forward(self, weight):
        return weight + (ALPHA / RANK) * self.b @ self.a


def write(fixture, out):
    model = AutoModelForCausalLM.from_pretrained(fixture, dtype=torch.float32, attn_implementation="eager")
    tokens = load_file(fixture / "expected.safetensors")["tokens"]
    vocab = json.loads((fixture / "config.json").read_text())["vocab_size"]
    targets, weights = batch(vocab, tokens)
    generator = torch.Generator().manual_seed(1)
    adapters = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            adapters[name] = Adapter(*module.weight.shape, generator)
            parametrize.register_parametrization(module, "weight", adapters[name])
    logprobs = row_logprobs(model, tokens, targets)
    (-(weights * logprobs).sum()).backward()
    told = dict(tokens=tokens, targets=targets, sequences=torch.tensor(SEQUENCES), weights=weights,
                logprobs=logprobs.detach())
    for name, adapter in adapters.items():
        told |= {f"{name}.weight.A": adapter.a.detach(), f"{name}.weight.dA": adapter.a.grad,
                 f"{name}.weight.B": adapter.b.detach(), f"{name}.weight.dB": adapter.b.grad}
    save_file({name: tensor.contiguous() for name, tensor in told.items()}, out / f"lora-{fixture.name}.safetensors")
    print(f"{fixture.name}: {len(adapters)} adapters, loss {-(weights * logprobs).sum():.5f}")


def main():
    fixtures, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[3:]:
        write(next(fixtures.glob(f"*/{name}/")), out)


if __name__ == "__main__":
    main()
