#!/usr/bin/env python3
"""Write `tiny-chat`, the model that the tests of the command line talk to.

A Hugging Face directory under 400 KB: a DeepSeek-V3-shaped model of two layers (latent attention, one layer of experts),
a byte-level BPE tokenizer, a chat template and the files beside them. The model has learned by heart what it answers to
five messages, with reasoning and without, as the first message or the second. So a test that compares an answer as text
has been through the tokenizer, the template, the forward pass, the sampler and the parting of reasoning from content,
and a mistake in any of them shows.

An answer is kept only if every greedy step is decided by a clear margin, computed by transformers in f32 from the
bfloat16 weights that were written: rounding cannot turn it.

    python3 cli_fixture.py OUT_DIR      # needs torch, transformers, tokenizers, safetensors; about three minutes on a core
"""
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

MERGES, VOCAB = 135, 400          # the model has room for four tokens that the tokenizer does not name
MIN_MARGIN = 2.0                  # between the best and the second logit of every step
STEPS, BATCH = 700, 12
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKERS = ["<think>", "</think>"]

# What is asked, what is thought, what is answered.
EXCHANGES = [
    ("Hello", "A greeting.", "Hello! How can I help you?"),
    ("Who are you?", "They ask for my name.", "I am tiny-chat, a model made for tests."),
    ("What is 2 + 3?", "2 + 3 = 5.", "The answer is **5**."),
    ("مرحبا", "تحية.", "أهلاً وسهلاً! 🌊"),
    ("Count", "Up to ten.", "1, 2, 3, 4, 5,\n6, 7, 8, 9, 10"),
]
SYSTEM = "Be brief."

TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message.role not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('unknown role ' + message.role) }}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)


def byte_letters():
    """GPT-2's letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {}, 0
    for byte in range(256):
        letters[byte] = chr(byte) if byte in plain else chr(256 + extra)
        extra += byte not in plain
    return letters


def tokenizer_of(texts):
    """Byte pairs by frequency, ties by spelling: the same texts give the same merges everywhere."""
    letters = byte_letters()
    words = Counter()
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    for text in texts:
        words.update(tuple(word) for word, _ in split.pre_tokenize_str(text))
    vocab = [letters[byte] for byte in range(256)]
    merges = []
    while len(merges) < MERGES:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        vocab.append("".join(best))
        merged = Counter()
        for word, count in words.items():
            out, i = [], 0
            while i < len(word):
                step = 2 if word[i:i + 2] == best else 1
                out.append("".join(word[i:i + step]))
                i += step
            merged[tuple(out)] += count
        words = merged
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(vocab)}, merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIALS])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in MARKERS])
    return tokenizer


def config_of():
    return {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "torch_dtype": "bfloat16",
        "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "first_k_dense_replace": 1,
        "q_lora_rank": None, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": True, "routed_scaling_factor": 1.0, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "moe_layer_freq": 1, "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": False,
        "attention_dropout": 0.0, "max_position_embeddings": 16384, "rope_theta": 10000.0, "rope_scaling": None,
        "tie_word_embeddings": False, "use_cache": True, "bos_token_id": None, "eos_token_id": None,
    }


def turn(role, text):
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def conversations():
    """Prompt and answer: every exchange alone, after a system message, after every other one; thinking and not."""
    answer = {True: "<think>\n{}\n</think>\n\n{}<|im_end|>", False: "{1}<|im_end|>"}
    opening = {True: "", False: "<think>\n\n</think>\n\n"}
    for asked, thought, said in EXCHANGES:
        befores = ["", turn("system", SYSTEM)] + [turn("user", a) + turn("assistant", s) for a, _, s in EXCHANGES]
        for before in befores:
            for think in (True, False):
                prompt = before + turn("user", asked) + "<|im_start|>assistant\n" + opening[think]
                yield prompt, answer[think].format(thought, said)


def batch_of(pairs):
    """Token numbers padded on the right, and the targets: -100 outside the answers."""
    length = max(len(p) + len(a) for p, a in pairs)
    tokens = torch.zeros(len(pairs), length, dtype=torch.long)
    targets = torch.full((len(pairs), length), -100)
    for row, (prompt, answer) in enumerate(pairs):
        both = torch.tensor(prompt + answer)
        tokens[row, :len(both)] = both
        targets[row, len(prompt):len(both)] = both[len(prompt):]
    return tokens, targets


def logits_of(model, tokens):
    return model(input_ids=tokens, use_cache=False).logits


def learn(model, pairs):
    dice = random.Random(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=STEPS, pct_start=0.1)
    for step in range(STEPS):
        tokens, targets = batch_of(dice.sample(pairs, BATCH))
        loss = F.cross_entropy(logits_of(model, tokens)[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step + 1 == STEPS:
            print(f"step {step}: loss {loss.item():.5f}", flush=True)


def margin(model, pairs):
    """The smallest lead of a learned token over all others."""
    smallest = float("inf")
    with torch.no_grad():
        for start in range(0, len(pairs), BATCH):
            tokens, targets = batch_of(pairs[start:start + BATCH])
            logits = logits_of(model, tokens)[:, :-1]
            wanted = targets[:, 1:]
            rows = wanted != -100
            logits, wanted = logits[rows], wanted[rows]
            right = logits.gather(1, wanted[:, None])[:, 0]
            logits.scatter_(1, wanted[:, None], float("-inf"))
            smallest = min(smallest, (right - logits.max(dim=1).values).min().item())
    return smallest


def dump(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    texts = [prompt + answer for prompt, answer in conversations()]
    tokenizer = tokenizer_of(texts)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIALS + MARKERS}
    pairs = [(tokenizer.encode(p).ids, tokenizer.encode(a).ids) for p, a in conversations()]

    config = config_of() | {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    known = {k: v for k, v in config.items() if k not in ("architectures", "torch_dtype")}
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**known, attn_implementation="eager")).float()
    learn(model, pairs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    smallest = margin(model, pairs)
    print(f"{len(pairs)} conversations, {tokenizer.get_vocab_size()} tokens, smallest margin {smallest:.2f}")
    if smallest < MIN_MARGIN:
        sys.exit(f"the smallest margin is {smallest:.2f}; it must be at least {MIN_MARGIN}")

    tensors = {}
    for name, value in model.state_dict().items():
        # The router's bias is stored in f32 by published checkpoints as well.
        dtype = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
        if name.endswith("mlp.experts.gate_up_proj"):
            halves = value.chunk(2, dim=1)
            for e in range(value.shape[0]):
                base = name.replace("gate_up_proj", str(e))
                tensors[f"{base}.gate_proj.weight"] = halves[0][e].to(dtype).contiguous()
                tensors[f"{base}.up_proj.weight"] = halves[1][e].to(dtype).contiguous()
        elif name.endswith("mlp.experts.down_proj"):
            for e in range(value.shape[0]):
                tensors[f"{name.replace('down_proj', str(e))}.down_proj.weight"] = value[e].to(dtype).contiguous()
        else:
            tensors[name] = value.to(dtype).contiguous()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    dump(out / "config.json", config)
    dump(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE})
    dump(out / "generation_config.json", {
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]})
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{size} bytes: " + ", ".join(sorted(file.name for file in out.iterdir())))


if __name__ == "__main__":
    main()
