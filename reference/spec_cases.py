#!/usr/bin/env python3
"""What Hugging Face transformers makes of small configurations of every family: defaults, nulls, both styles of rotary
settings, windows and layer patterns.

Each configuration is read and built as a model (with random weights); what the model then is, layer by layer, is
written beside it: rotary frequencies, their factor, the scale of scores, the window, key heads, experts or not, and
the number of parameters. `crates/model/tests/families.rs` compares our reading with it.

  python3 spec_cases.py OUT.json
"""
import copy
import json
import sys

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ABSENT = "(absent)"
COMMON = dict(hidden_size=48, vocab_size=90, num_hidden_layers=4, num_attention_heads=4, intermediate_size=40,
              num_key_value_heads=2)
DEEPSEEK = dict(COMMON, num_key_value_heads=4, moe_intermediate_size=12, n_routed_experts=8, num_experts_per_tok=2,
                q_lora_rank=14, kv_lora_rank=10, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=6,
                first_k_dense_replace=1)
BASES = {
    "llama": COMMON,
    "mistral": COMMON,
    "mixtral": dict(COMMON, num_local_experts=3),
    "qwen2": COMMON,
    "qwen3": dict(COMMON, head_dim=16),
    "qwen3_moe": dict(COMMON, num_experts=5, moe_intermediate_size=12, num_experts_per_tok=2),
    "gemma3_text": dict(COMMON, head_dim=16, num_hidden_layers=7),
    "gpt_oss": dict(COMMON, head_dim=16, num_local_experts=4, num_experts_per_tok=2),
    "deepseek_v2": dict(DEEPSEEK, n_shared_experts=2),
    "deepseek_v3": dict(DEEPSEEK, n_group=4, topk_group=2),
    "deepseek_v32": dict(DEEPSEEK, n_group=4, topk_group=2, index_n_heads=2, index_head_dim=16, index_topk=4),
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
ROPES = [
    {"rope_theta": 5000.0},
    {"rope_theta": 5000.0, "rope_scaling": None},
    {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 3.0, "rope_theta": 700.0}},
    {"rope_parameters": {"rope_theta": 5000.0}},
    {"rope_parameters": {"rope_type": "default"}, "rope_theta": 700.0},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 900.0}},
    {"rope_parameters": dict(YARN, rope_theta=900.0)},
    {"rope_scaling": YARN},
    {"rope_scaling": dict(YARN, type="yarn"), "max_position_embeddings": 256},
    {"rope_scaling": dict(YARN, beta_fast=8, beta_slow=2, truncate=False), "rope_theta": 300.0},
    {"rope_scaling": dict(YARN, attention_factor=1.25)},
    {"rope_scaling": dict(YARN, mscale=0.7, mscale_all_dim=0.9)},
    {"rope_scaling": dict(YARN, mscale=0.7)},
    {"rope_scaling": dict(YARN, mscale_all_dim=0.9)},
    {"rope_scaling": dict(YARN, factor=None), "max_position_embeddings": 320},
    {"rope_scaling": dict(YARN, factor=0.5)},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 512},
    {"rope_scaling": YARN, "original_max_position_embeddings": 32},
    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 64}},
    {"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_parameters": {"rope_type": "linear", "factor": 5.0}},
]
SLIDING, FULL = "sliding_attention", "full_attention"
OWN = {
    "llama": [{}, {"head_dim": 20}, {"num_key_value_heads": None}, {"num_key_value_heads": ABSENT}, {"attention_bias": True},
              {"mlp_bias": True}, {"tie_word_embeddings": True}, {"head_dim": None}],
    "mistral": [{}, {"sliding_window": None}, {"sliding_window": 9}, {"num_attention_heads": 16, "num_key_value_heads": ABSENT, "head_dim": 16},
                {"num_key_value_heads": None}, {"head_dim": 20}],
    "mixtral": [{}, {"sliding_window": 9}, {"num_attention_heads": 16, "num_key_value_heads": ABSENT, "head_dim": 16}, {"num_experts_per_tok": 1},
                {"num_local_experts": ABSENT}],
    "qwen2": [{}, {"use_sliding_window": True}, {"use_sliding_window": True, "max_window_layers": 2},
              {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0}, {"sliding_window": 9},
              {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
              {"use_sliding_window": True, "sliding_window": 9, "layer_types": [FULL, SLIDING, FULL, SLIDING]},
              {"tie_word_embeddings": True}, {"head_dim": 8}, {"num_key_value_heads": None}],
    "qwen3": [{}, {"attention_bias": True}, {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 7},
              {"head_dim": 24}],
    "qwen3_moe": [{}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [0, 3]}, {"use_sliding_window": True, "sliding_window": 7},
                  {"norm_topk_prob": True}, {"head_dim": 20}, {"decoder_sparse_step": 3, "mlp_only_layers": [2]},
                  {"sliding_window": 7}, {"attention_bias": True}],
    "gemma3_text": [{}, {"sliding_window": 9}, {"sliding_window_pattern": 3}, {"query_pre_attn_scalar": 20},
                    {"rope_local_base_freq": 300.0}, {"tie_word_embeddings": False}, {"attention_bias": True},
                    {"layer_types": [FULL, SLIDING, SLIDING, FULL, FULL, SLIDING, FULL]},
                    {"rope_parameters": {FULL: {"rope_theta": 900.0, "rope_type": "linear", "factor": 2.0},
                                         SLIDING: {"rope_theta": 80.0, "rope_type": "default"}}}],
    "gpt_oss": [{}, {"sliding_window": 9}, {"attention_bias": False}, {"layer_types": [FULL, SLIDING, SLIDING, FULL]},
                {"rope_scaling": None}, {"num_attention_heads": 16, "num_key_value_heads": ABSENT, "head_dim": 16},
                {"rope_scaling": dict(YARN, truncate=False)}],
    "deepseek_v2": [{}, {"q_lora_rank": None}, {"first_k_dense_replace": 0}, {"first_k_dense_replace": ABSENT},
                    {"attention_bias": True}, {"mlp_bias": True}, {"n_shared_experts": ABSENT},
                    {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}],
    "deepseek_v3": [{}, {"q_lora_rank": None}, {"first_k_dense_replace": 0}, {"first_k_dense_replace": ABSENT},
                    {"attention_bias": True}, {"rope_interleave": False}, {"n_shared_experts": ABSENT}, {"n_shared_experts": 3},
                    {"n_group": 1, "topk_group": 1}],
    "deepseek_v32": [{}, {"first_k_dense_replace": 0}, {"attention_bias": True}, {"index_n_heads": 5},
                     {"mlp_layer_types": ["sparse", "dense", "sparse", "dense"]}],
}


def shown(values):
    return [float(f"{v:.8g}") for v in values]


def layer_of(model, config, index):
    layer = model.model.layers[index]
    attention, rotary = layer.self_attn, model.model.rotary_emb
    sliding = getattr(attention, "sliding_window", None)
    if config.model_type in ("mistral", "mixtral"):
        sliding = config.sliding_window
    if config.model_type == "gemma3_text":
        kind = config.layer_types[index]
        frequencies, factor = getattr(rotary, f"{kind}_inv_freq"), getattr(rotary, f"{kind}_attention_scaling")
    else:
        frequencies, factor = rotary.inv_freq, rotary.attention_scaling
    keys = attention.k_proj.weight.shape[0] // attention.head_dim if hasattr(attention, "k_proj") else None
    return {
        "frequencies": shown(frequencies.tolist()),
        "magnitude": float(factor),
        "scale": float(attention.scaling),
        "window": sliding,
        "kv_heads": keys,
        "experts": hasattr(layer.mlp, "experts"),
    }


def answer(config):
    parsed = CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
    parsed._attn_implementation = "eager"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(parsed)
    model.tie_weights()
    count = sum(p.numel() for p in model.parameters())
    count += sum(b.numel() for n, b in model.named_buffers() if n.endswith("e_score_correction_bias"))
    layers = [layer_of(model, parsed, i) for i in range(parsed.num_hidden_layers)]
    kinds = [kind for i, kind in enumerate(layers) if kind not in layers[:i]]
    return {
        "parameters": count,
        "context": parsed.max_position_embeddings,
        "eps": float(parsed.rms_norm_eps),
        "kinds": kinds,
        "layers": [kinds.index(layer) for layer in layers],
    }


def main():
    cases = []
    for model_type, base in BASES.items():
        # Bidirectional differences of the styles are drawn on one family of each kind of attention.
        ropes = ROPES if model_type in ("llama", "deepseek_v3", "gpt_oss", "gemma3_text") else ROPES[2:14:3]
        for change in OWN[model_type] + ropes:
            # A copy: the library changes what it reads.
            change = copy.deepcopy(change)
            config = {k: v for k, v in {"model_type": model_type, **base, **change}.items() if v != ABSENT}
            try:
                cases.append({"config": config, "model": answer(config)})
            except Exception as error:  # whatever the reference refuses, it does not answer
                cases.append({"config": config, "model": None, "why": f"{type(error).__name__}: {error}"[:80]})
                print(model_type, change, cases[-1]["why"], file=sys.stderr)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
