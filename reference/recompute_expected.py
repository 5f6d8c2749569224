#!/usr/bin/env python3
"""Recompute `expected.safetensors` of model fixtures from the weights that lie beside it.

  python3 reference/recompute_expected.py crates/model/tests/fixtures/models/mixtral ...

Two fixtures need it:
- mixtral: its router was rounded to bf16 when it was saved, after the logits were computed;
- deepseek-v32: several index scores at the border of the top k are exactly equal (zero), and which
  of them `torch.topk` takes depends on the length of the row. Equal scores go to the earlier
  position here, as in fathom, which does not depend on how a prompt is cut.

Needs: pip install torch transformers safetensors.
"""
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)

def stable_topk(self, k, dim=-1, *args, **kwargs):
    order = torch.argsort(self, dim=dim, descending=True, stable=True).narrow(dim, 0, k)
    return torch.return_types.topk((self.gather(dim, order), order))


def main():
    torch.Tensor.topk = stable_topk
    for directory in sys.argv[1:]:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        path = directory.rstrip("/") + "/expected.safetensors"
        expected = load_file(path)
        tokens = expected["tokens"]
        with torch.no_grad():
            logits = model(tokens[None]).logits[0]
            sequence = tokens.tolist()
            for _ in range(len(expected["greedy"])):
                sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
        greedy = torch.tensor(sequence[len(tokens):], dtype=torch.int64)
        change = (logits - expected["logits"]).abs().max().item()
        print(f"{directory}: logits moved by up to {change:.6f}, greedy {'the same' if torch.equal(greedy, expected['greedy']) else 'changed'}")
        save_file({"tokens": tokens, "logits": logits.contiguous(), "greedy": greedy}, path)


main()
