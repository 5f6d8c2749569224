#!/usr/bin/env python3
"""Write tiny random checkpoints together with the logits that Hugging Face transformers computes for them.

Each variant is one directory, laid out like a published checkpoint, with the answers beside it:

  config.json            half of the variants in the style of transformers 4 (rope_theta, rope_scaling, torch_dtype),
                         half in the style of transformers 5 (rope_parameters, dtype)
  model.safetensors      (or several files and model.safetensors.index.json)
  expected.safetensors   tokens i64 [48], logits f32 [48, vocab], greedy i64 [16]

The answers are computed in f32 from exactly the weights that were written (bfloat16 ones widened, FP8 and MXFP4 ones
dequantised), from exactly the config that was written, with eager attention and without a cache.

Sizes are awkward on purpose. Every variant is checked before it is kept: the logits spread, every parameter changes
the logits, no expert or token choice hangs on a difference that rounding could turn, no greedy step is nearly a tie.

  python3 model_fixtures.py OUT_DIR [NAME ...]      # all variants, or the named ones; same arguments, same bytes
  python3 model_fixtures.py --list
"""
import argparse
import json
import math
import os
import re
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
import transformers as tf

PROMPT_TOKENS, GREEDY_TOKENS = 48, 16
MIN_GREEDY_MARGIN = 0.02      # between the best and the second logit of a greedy step
MIN_CHOICE_MARGIN = 2e-5      # between the last chosen and the first rejected expert, group or token
MAX_NOISE_RESPONSE = 1e-3     # largest logit change when all weights move by 1e-6 of themselves
MIN_PARAMETER_EFFECT = 2e-2   # smallest logit change that each tensor must cause: 10 times the tolerance of the comparison

BASE = dict(max_position_embeddings=1280, bos_token_id=0, eos_token_id=1, pad_token_id=None, rms_norm_eps=1e-6)
YARN_40 = dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, original_max_position_embeddings=32,
               beta_fast=32, beta_slow=1)
PUBLISHED_V3 = dict(scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1, ep_size=1, seq_aux=True,
                    aux_loss_alpha=0.001)


def mla(**changes):
    """The keys that all DeepSeek variants share; sizes are coprime to the usual vector widths."""
    base = dict(BASE, vocab_size=257, hidden_size=72, intermediate_size=100, moe_intermediate_size=20,
                num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3, n_routed_experts=6,
                num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, q_lora_rank=28, kv_lora_rank=20,
                qk_nope_head_dim=13, qk_rope_head_dim=6, v_head_dim=11, routed_scaling_factor=2.5)
    return dict(base, **changes)


def mla_v2(**changes):
    return mla(**dict(dict(qk_nope_head_dim=14), **changes))


def gqa(**changes):
    """The keys that all variants with grouped queries share."""
    base = dict(BASE, vocab_size=257, hidden_size=72, intermediate_size=100, num_hidden_layers=3,
                num_attention_heads=6, num_key_value_heads=2)
    return dict(base, **changes)


def rope(theta=10000.0, kind="default", **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


class Variant:
    """One checkpoint: a transformers config class, its keys, and how the directory is to look.

    style     "old" (transformers 4) or "new" (transformers 5) spelling of rope and dtype in config.json
    dtype     storage type of the weights; `router_f32` keeps the routers in F32 as some publishers do
    drop, add keys removed from and added to config.json, so that defaults and extra keys of publishers occur
    quant     None, "fp8" (blocks of 128x128, E4M3, weight_scale_inv) or "mxfp4" (experts of gpt-oss)
    mtp       number of multi-token prediction modules appended; they do not take part in the logits
    shards    number of safetensors files
    """

    def __init__(self, config_class, keys, style, dtype=torch.bfloat16, router_f32=False, drop=(), add=None,
                 quant=None, mtp=0, shards=1):
        self.config_class, self.keys, self.style, self.dtype = config_class, keys, style, dtype
        self.router_f32, self.drop, self.add = router_f32, drop, add or {}
        self.quant, self.mtp, self.shards = quant, mtp, shards


# transformers views V2's rotary part as complex numbers, which needs an even qk_nope_head_dim there
V2, V3, V32 = "DeepseekV2Config", "DeepseekV3Config", "DeepseekV32Config"
GEMMA_FULL_LINEAR = {"full_attention": rope(1e6, "linear", factor=8.0), "sliding_attention": rope(1e4)}

VARIANTS = {
    # DeepSeek V2: softmax routing, with and without a query latent, groups by their best expert
    "v2-greedy-top1": Variant(V2, mla_v2(
        first_k_dense_replace=0, q_lora_rank=None, num_experts_per_tok=1, routed_scaling_factor=1.0, num_hidden_layers=2,
        topk_method="greedy", n_group=1, topk_group=1, rope_parameters=rope()), "old"),
    "v2-groups": Variant(V2, mla_v2(
        first_k_dense_replace=2, num_hidden_layers=4, n_routed_experts=12, n_shared_experts=2, num_experts_per_tok=3,
        topk_method="group_limited_greedy", n_group=3, topk_group=2, moe_intermediate_size=12, vocab_size=331,
        rope_parameters=dict(YARN_40, mscale=0.707, mscale_all_dim=0.707)), "new", router_f32=True),
    "v2-yarn-two-mscales": Variant(V2, mla_v2(
        topk_method="greedy", n_group=1, topk_group=1, rms_norm_eps=1e-3, routed_scaling_factor=1.7,
        rope_parameters=dict(YARN_40, mscale=1.0, mscale_all_dim=0.5)), "old"),
    "v2-yarn-no-mscale": Variant(V2, mla_v2(
        q_lora_rank=None, hidden_size=100, num_attention_heads=5, num_key_value_heads=5, vocab_size=263, topk_method="greedy",
        n_group=None, topk_group=None, routed_scaling_factor=1.0, rope_parameters=dict(YARN_40, factor=4.0)), "new"),
    "v2-biases": Variant(V2, mla_v2(
        attention_bias=True, mlp_bias=True, topk_method="group_limited_greedy", n_group=2, topk_group=1, n_routed_experts=10,
        num_experts_per_tok=3, v_head_dim=17, rope_parameters=rope(50000.0)), "old", router_f32=True),
    # DeepSeek V3: sigmoid routing, correction bias, groups by the sum of their best two
    "v3-one-group-no-norm": Variant(V3, mla(
        n_group=1, topk_group=1, norm_topk_prob=False, routed_scaling_factor=1.0, num_experts_per_tok=3, q_lora_rank=None,
        rms_norm_eps=1e-3, rope_parameters=rope()), "new"),
    "v3-eight-groups": Variant(V3, mla(
        n_group=8, topk_group=3, n_routed_experts=16, num_experts_per_tok=4, first_k_dense_replace=2, n_shared_experts=2,
        moe_intermediate_size=16, rope_parameters=dict(YARN_40, mscale=1.0, mscale_all_dim=0.8)), "old", router_f32=True,
        add=PUBLISHED_V3),
    "v3-biases-half-rope": Variant(V3, mla(
        attention_bias=True, rope_interleave=False, n_group=2, topk_group=1, num_experts_per_tok=1, hidden_size=100,
        qk_rope_head_dim=10, rope_parameters=dict(YARN_40, mscale=1.0, mscale_all_dim=1.0)), "new"),
    "v3-all-moe-no-latent-tied": Variant(V3, mla(
        first_k_dense_replace=0, q_lora_rank=None, v_head_dim=24, qk_nope_head_dim=16, qk_rope_head_dim=8, n_group=1,
        topk_group=1, tie_word_embeddings=True, num_hidden_layers=2, n_routed_experts=8, num_experts_per_tok=4,
        rope_parameters=rope(100000.0)), "old", add=PUBLISHED_V3),
    "v3-kimi-names": Variant(V3, mla(
        n_group=1, topk_group=1, n_routed_experts=9, num_experts_per_tok=3, routed_scaling_factor=2.827, hidden_size=88,
        num_attention_heads=4, num_key_value_heads=4, rope_parameters=dict(
            YARN_40, rope_theta=50000.0, factor=64.0, mscale=1.0, mscale_all_dim=1.0)), "old",
        add=dict(PUBLISHED_V3, model_type="kimi_k2", num_nextn_predict_layers=0)),
    "v3-yarn-ramp": Variant(V3, mla(
        qk_rope_head_dim=22, n_group=1, topk_group=1, n_routed_experts=5, moe_intermediate_size=12, rope_parameters=dict(
            YARN_40, original_max_position_embeddings=1000, beta_fast=24, beta_slow=2, mscale=0.6, mscale_all_dim=0.9)), "new"),
    "v3-mtp": Variant(V3, mla(
        n_group=3, topk_group=2, moe_intermediate_size=12, num_nextn_predict_layers=1,
        rope_parameters=dict(YARN_40, mscale=1.0, mscale_all_dim=1.0)), "old", mtp=1, add=PUBLISHED_V3),
    "v3-fp8-odd-blocks": Variant(V3, mla(
        hidden_size=144, intermediate_size=152, moe_intermediate_size=136, n_routed_experts=4, num_experts_per_tok=1,
        num_hidden_layers=2, n_group=2, topk_group=1, kv_lora_rank=36, num_attention_heads=6, num_key_value_heads=6,
        rope_parameters=dict(YARN_40, mscale=1.0, mscale_all_dim=1.0)), "old", quant="fp8", add=PUBLISHED_V3),
    # DeepSeek V3.2: sparse attention chosen by the indexer
    "v32-top8": Variant(V32, mla(
        index_topk=8, index_n_heads=7, index_head_dim=14, n_group=2, topk_group=1, rope_parameters=rope()), "old",
        drop=("layer_types", "mlp_layer_types"), add=PUBLISHED_V3),
    "v32-yarn-biases": Variant(V32, mla(
        index_topk=13, index_n_heads=9, index_head_dim=22, qk_rope_head_dim=10, n_group=1, topk_group=1, attention_bias=True,
        num_experts_per_tok=3, mlp_layer_types=["sparse", "dense", "sparse"],
        rope_parameters=dict(YARN_40, mscale=1.0, mscale_all_dim=1.0)), "new", router_f32=True),
    "v32-wide-index": Variant(V32, mla(
        index_topk=17, index_n_heads=6, index_head_dim=64, qk_rope_head_dim=8, n_group=1, topk_group=1, num_hidden_layers=2,
        rope_parameters=dict(YARN_40, mscale=1.0, mscale_all_dim=1.0)), "old", add=PUBLISHED_V3),
    # Qwen
    "qwen2-sliding-tied": Variant("Qwen2Config", gqa(
        use_sliding_window=True, sliding_window=6, max_window_layers=1, tie_word_embeddings=True,
        rope_parameters=rope(1e6)), "old", drop=("layer_types",)),
    "qwen2-yarn-mqa": Variant("Qwen2Config", gqa(
        hidden_size=100, num_attention_heads=5, num_key_value_heads=1, vocab_size=331, rope_parameters=rope(
            1e6, "yarn", factor=4.0, original_max_position_embeddings=32)), "new"),
    "qwen2-f16": Variant("Qwen2Config", gqa(
        hidden_size=56, num_attention_heads=4, num_key_value_heads=4, rope_parameters=rope()), "old", dtype=torch.float16,
        drop=("layer_types",)),
    "qwen3-biases-yarn": Variant("Qwen3Config", gqa(
        attention_bias=True, head_dim=22, num_attention_heads=5, num_key_value_heads=5, rope_parameters=rope(
            1e6, "yarn", factor=4.0, original_max_position_embeddings=32)), "old", drop=("layer_types",)),
    "qwen3-sliding-shards": Variant("Qwen3Config", gqa(
        head_dim=10, num_key_value_heads=3, num_hidden_layers=4, use_sliding_window=True, sliding_window=5,
        max_window_layers=2, layer_types=["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=rope(1e6)), "new", shards=3),
    "qwen3moe-sparse-step": Variant("Qwen3MoeConfig", gqa(
        num_hidden_layers=4, mlp_only_layers=[1], decoder_sparse_step=2, norm_topk_prob=False, num_experts=7,
        num_experts_per_tok=3, moe_intermediate_size=28, head_dim=18, rope_parameters=rope(1e6)), "old"),
    "qwen3moe-top1-sliding": Variant("Qwen3MoeConfig", gqa(
        norm_topk_prob=True, num_experts=5, num_experts_per_tok=1, moe_intermediate_size=20, head_dim=14, attention_bias=True,
        num_key_value_heads=1, use_sliding_window=True, sliding_window=9, tie_word_embeddings=True,
        rope_parameters=rope(1e6)), "new", router_f32=True),
    "qwen3moe-top3-norm": Variant("Qwen3MoeConfig", gqa(
        norm_topk_prob=True, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=12, head_dim=26,
        num_attention_heads=4, num_key_value_heads=4, hidden_size=60,
        rope_parameters=rope(1e6)), "old", drop=("layer_types",)),
    # Llama, Mistral, Mixtral
    "llama-biases-llama3-rope": Variant("LlamaConfig", gqa(
        attention_bias=True, mlp_bias=True, rope_parameters=rope(
            500000.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=24)), "old", drop=("head_dim",)),
    "llama-linear-mqa": Variant("LlamaConfig", gqa(
        num_key_value_heads=1, head_dim=10, vocab_size=331, rope_parameters=rope(10000.0, "linear", factor=3.0)), "new"),
    "llama-yarn-own-factor": Variant("LlamaConfig", gqa(
        head_dim=26, num_attention_heads=4, num_key_value_heads=4, rope_parameters=rope(
            10000.0, "yarn", factor=8.0, original_max_position_embeddings=64, attention_factor=1.2, beta_fast=16.0,
            beta_slow=2.0, truncate=False)), "new"),
    "llama-f32-tied": Variant("LlamaConfig", gqa(
        hidden_size=60, intermediate_size=66, tie_word_embeddings=True, rms_norm_eps=1e-3,
        rope_parameters=rope()), "old", dtype=torch.float32),
    "mistral-window7": Variant("MistralConfig", gqa(
        sliding_window=7, head_dim=14, num_attention_heads=4, num_key_value_heads=4, rope_parameters=rope()), "old"),
    "mistral-wide-heads": Variant("MistralConfig", gqa(
        sliding_window=None, head_dim=34, num_attention_heads=3, num_key_value_heads=1, vocab_size=331,
        rope_parameters=rope(1e6)), "new"),
    "mixtral-top1": Variant("MixtralConfig", gqa(
        num_local_experts=3, num_experts_per_tok=1, intermediate_size=52, rope_parameters=rope(1e6)), "new"),
    "mixtral-top3-window11": Variant("MixtralConfig", gqa(
        num_local_experts=5, num_experts_per_tok=3, intermediate_size=36, sliding_window=11, head_dim=16, num_attention_heads=5,
        num_key_value_heads=5, rms_norm_eps=1e-5, rope_parameters=rope(1e6)), "old", shards=2),
    # Gemma 3
    "gemma3-linear-old": Variant("Gemma3TextConfig", gqa(
        head_dim=18, num_attention_heads=4, num_hidden_layers=6, query_pre_attn_scalar=40, sliding_window=5, hidden_size=60,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        rope_parameters=GEMMA_FULL_LINEAR), "old", drop=("layer_types", "_sliding_window_pattern"),
        add=dict(sliding_window_pattern=3)),
    "gemma3-linear-new": Variant("Gemma3TextConfig", gqa(
        head_dim=22, num_attention_heads=3, num_key_value_heads=1, num_hidden_layers=4, query_pre_attn_scalar=11,
        sliding_window=9, final_logit_softcapping=6.0, vocab_size=331,
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters=GEMMA_FULL_LINEAR), "new"),
    "gemma3-biases-untied": Variant("Gemma3TextConfig", gqa(
        head_dim=14, num_attention_heads=6, num_key_value_heads=6, num_hidden_layers=7, query_pre_attn_scalar=14,
        sliding_window=4, attention_bias=True, tie_word_embeddings=False, hidden_size=48, intermediate_size=76,
        rope_parameters={"full_attention": rope(1e5), "sliding_attention": rope(5e3)}), "old",
        drop=("layer_types", "_sliding_window_pattern")),
    # gpt-oss; the published limit of 7 is out of reach of random weights, so a lower one makes the clamps matter
    "gptoss-window5": Variant("GptOssConfig", gqa(
        sliding_window=5, num_experts_per_tok=4, num_local_experts=6, intermediate_size=20, head_dim=14, swiglu_limit=1.25,
        num_attention_heads=4, rope_parameters=rope(150000.0, "yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0,
                                                    truncate=False, original_max_position_embeddings=64)), "old"),
    "gptoss-truncate-top1": Variant("GptOssConfig", gqa(
        sliding_window=11, num_experts_per_tok=1, num_local_experts=3, intermediate_size=36, head_dim=18, hidden_size=50,
        num_attention_heads=5, num_key_value_heads=5, num_hidden_layers=4,
        layer_types=["full_attention", "full_attention", "sliding_attention", "sliding_attention"],
        rope_parameters=rope(10000.0, "yarn", factor=8.0, original_max_position_embeddings=64)), "new", router_f32=True),
    "gptoss-mxfp4": Variant("GptOssConfig", gqa(
        sliding_window=8, num_experts_per_tok=4, num_local_experts=5, hidden_size=96, intermediate_size=64, head_dim=16,
        swiglu_limit=2.0, num_attention_heads=6, num_key_value_heads=3, num_hidden_layers=2, rope_parameters=rope(
            150000.0, "yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
            original_max_position_embeddings=64)), "new", quant="mxfp4"),
}


# ---------------------------------------------------------------------------------------------------------------------
# Weights


def draw(name, shape, gemma, generator):
    """A random tensor whose size and spread make it matter, by what the tensor's name says it is."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith("e_score_correction_bias"):
        return noise * 0.1
    if name.endswith("sinks"):
        return noise
    if "norm" in name and name.endswith("weight"):
        return noise * 0.2 + (0.1 if gemma else 1.0)
    if name.endswith("bias"):
        return noise * 0.3
    experts_input_major = name.endswith(("experts.gate_up_proj", "experts.down_proj")) and len(shape) == 3
    fan_in = shape[-2] if experts_input_major else shape[-1]
    return noise * (1.5 / math.sqrt(fan_in))


def is_router(name):
    return name.endswith(("mlp.gate.weight", "router.weight", "router.bias", "block_sparse_moe.gate.weight"))


def stored_dtype(name, variant):
    if name.endswith("e_score_correction_bias"):
        return torch.float32
    return torch.float32 if variant.router_f32 and is_router(name) else variant.dtype


def checkpoint_of(config, folder):
    """The tensors of a fresh model under the names that its publisher uses."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for tensor in list(model.parameters()) + list(model.buffers()):
            if not torch.isfinite(tensor).all():
                tensor.zero_()
    model.save_pretrained(folder)
    return load_file(Path(folder) / "model.safetensors"), json.loads((Path(folder) / "config.json").read_text())


def mtp_tensors(tensors, layers, modules, hidden, vocab):
    """Names and shapes of multi-token prediction modules as DeepSeek publishes them: a block and its own ends."""
    shapes, block = {}, f"model.layers.{layers - 1}."
    for module in range(modules):
        prefix = f"model.layers.{layers + module}."
        shapes.update({prefix + n[len(block):]: tuple(t.shape) for n, t in tensors.items() if n.startswith(block)})
        shapes.update({prefix + "enorm.weight": (hidden,), prefix + "hnorm.weight": (hidden,),
                       prefix + "eh_proj.weight": (hidden, 2 * hidden), prefix + "shared_head.norm.weight": (hidden,),
                       prefix + "shared_head.head.weight": (vocab, hidden), prefix + "embed_tokens.weight": (vocab, hidden)})
    return shapes


def quantise_fp8(weight):
    """E4M3 with one F32 scale for each block of 128x128, the last blocks cut off: DeepSeek V3's format."""
    rows, columns = weight.shape
    scale = torch.zeros(-(-rows // 128), -(-columns // 128))
    stored, value = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn), torch.zeros(rows, columns)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            block = (slice(i * 128, (i + 1) * 128), slice(j * 128, (j + 1) * 128))
            scale[i, j] = weight[block].abs().max() / 448.0
            stored[block] = (weight[block] / scale[i, j]).to(torch.float8_e4m3fn)
            value[block] = stored[block].float() * scale[i, j]
    return stored, scale, value


FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


def quantise_mxfp4(weight):
    """The experts of gpt-oss: [experts, in, out] to blocks u8 [experts, out, in/32, 16] and scales u8 [experts, out, in/32].

    Byte j of a block holds element 2j in its low half and 2j+1 in its high half; a value is FP4[code] * 2^(scale - 127).
    """
    experts, inputs, outputs = weight.shape
    groups = weight.transpose(1, 2).reshape(experts, outputs, inputs // 32, 32)
    exponent = torch.floor(torch.log2(groups.abs().amax(-1).clamp_min(1e-30))) - 2
    scaled = groups * torch.exp2(-exponent)[..., None]
    code = (scaled[..., None] - FP4).abs().argmin(-1).to(torch.uint8)
    value = FP4[code.long()] * torch.exp2(exponent)[..., None]
    blocks = code[..., 0::2] | (code[..., 1::2] << 4)
    return blocks, (exponent + 127).to(torch.uint8), value.reshape(experts, outputs, inputs).transpose(1, 2).contiguous()


def store(tensors, variant):
    """What goes into the checkpoint, and the F32 values that it stands for."""
    stored, values = {}, {}
    for name, tensor in tensors.items():
        if variant.quant == "fp8" and name.endswith("proj.weight") or \
                variant.quant == "fp8" and name.endswith("kv_a_proj_with_mqa.weight"):
            stored[name], stored[name + "_scale_inv"], values[name] = quantise_fp8(tensor)
        elif variant.quant == "mxfp4" and name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[name + "_blocks"], stored[name + "_scales"], values[name] = quantise_mxfp4(tensor)
        else:
            stored[name] = tensor.to(stored_dtype(name, variant))
            values[name] = stored[name].float()
    return stored, values


# ---------------------------------------------------------------------------------------------------------------------
# config.json


def spell_config(config, variant):
    """The config as its publisher would spell it."""
    config = {k: v for k, v in config.items() if k not in ("transformers_version", "dtype", "output_router_logits")}
    dtype = str(variant.dtype).removeprefix("torch.")
    config["dtype" if variant.style == "new" else "torch_dtype"] = dtype
    if variant.style == "old":
        parameters = dict(config.pop("rope_parameters"))
        if "full_attention" in parameters:
            config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
            parameters = dict(parameters["full_attention"])
        config["rope_theta"] = parameters.pop("rope_theta")
        kind = parameters.pop("rope_type")
        spelling = "type" if config["model_type"].startswith("deepseek") else "rope_type"
        config["rope_scaling"] = None if kind == "default" else {spelling: kind, **parameters}
    if variant.quant == "fp8":
        config["quantization_config"] = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                                             weight_block_size=[128, 128])
    if variant.quant == "mxfp4":
        config["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=[
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"])
    for key in variant.drop:
        config.pop(key, None)
    return dict(config, **variant.add)


def write_checkpoint(folder, stored, config, shards):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    names = sorted(stored)
    if shards == 1:
        save_file({n: stored[n].contiguous() for n in names}, folder / "model.safetensors", {"format": "pt"})
        return
    index = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard::shards]
        save_file({n: stored[n].contiguous() for n in part}, folder / file, {"format": "pt"})
        index.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in stored.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {"total_size": total}, "weight_map": index}, indent=2, sort_keys=True) + "\n")


# ---------------------------------------------------------------------------------------------------------------------
# Answers and the checks that they are worth comparing with


class ChoiceMargins:
    """Records, while active, the smallest gap between what torch.topk chose last and what it rejected first."""

    def __enter__(self):
        self.smallest, self.functions = math.inf, (torch.topk, torch.Tensor.topk)

        def watch(function):
            def topk(values, k, dim=-1, **options):
                if k < values.shape[dim]:
                    best = function(values.detach().float(), k + 1, dim=dim)[0]
                    rejected = best.select(dim, k)
                    gap = (best.select(dim, k - 1) - rejected)[rejected > -1e30]  # lower: masked, not a candidate
                    if gap.numel():
                        self.smallest = min(self.smallest, gap.min().item())
                return function(values, k, dim=dim, **options)
            return topk

        torch.topk, torch.Tensor.topk = (watch(f) for f in self.functions)
        return self

    def __exit__(self, *_):
        torch.topk, torch.Tensor.topk = self.functions


def logits_of(model, tokens):
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


def answer(model, tokens):
    """Logits of the prompt, the greedy continuation, and the smallest margins met on the way."""
    with torch.no_grad(), ChoiceMargins() as choices:
        logits = logits_of(model, tokens)
        row, text, margin = logits[-1], list(tokens), math.inf
        for _ in range(GREEDY_TOKENS):
            best = row.sort(descending=True).values
            margin = min(margin, (best[0] - best[1]).item())
            text.append(int(row.argmax()))
            row = logits_of(model, text)[-1]
    return logits, text[len(tokens):], margin, choices.smallest


def noise_response(model, tokens, logits):
    """How far the logits move when every weight moves by one millionth of itself."""
    kept = {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-6 * torch.randn_like(parameter))
        moved = (logits_of(model, tokens) - logits).abs().max().item()
        for name, parameter in model.named_parameters():
            parameter.copy_(kept[name])
    return moved


def weakest_parameter(model, tokens, logits):
    """The tensor whose replacement by values of the same size changes the logits least, and by how much."""
    weakest = ("", math.inf)
    named = list(model.named_parameters()) + [
        (n, b) for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for name, parameter in named:
            if name.endswith("embed_tokens.weight"):
                continue
            kept = parameter.detach().clone()
            parameter.copy_(kept.flatten()[torch.randperm(kept.numel())].view_as(kept))
            effect = (logits_of(model, tokens) - logits).abs().max().item()
            parameter.copy_(kept)
            if effect < weakest[1]:
                weakest = (name, effect)
    return weakest


def build(name, variant, out, seed):
    """Write one candidate directory; return a dict of what was measured, with `fault` None when it is good."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    keys = {k: v for k, v in variant.keys.items()}
    config = getattr(tf, variant.config_class)(**json.loads(json.dumps(keys)))
    with tempfile.TemporaryDirectory() as scratch:
        fresh, saved = checkpoint_of(config, scratch)
        gemma = "gemma" in saved["model_type"]
        tensors = {n: draw(n, tuple(t.shape), gemma, generator) for n, t in sorted(fresh.items())}
        stored, values = store(tensors, variant)
        spelled = spell_config(saved, variant)
        if variant.mtp:
            shapes = mtp_tensors(tensors, keys["num_hidden_layers"], variant.mtp, keys["hidden_size"], keys["vocab_size"])
            extra = {n: draw(n, s, gemma, generator) for n, s in sorted(shapes.items())}
            stored.update(store(extra, variant)[0])
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(folder, stored, spelled, variant.shards)
        # compute from the spelling that was written, so that config.json and answers cannot disagree
        plain = {k: v for k, v in spelled.items() if k != "quantization_config"}
        plain["model_type"] = saved["model_type"]
        scratch = Path(scratch)
        shutil.rmtree(scratch / "plain", ignore_errors=True)
        write_checkpoint(scratch / "plain", values, plain, 1)
        model, info = AutoModelForCausalLM.from_pretrained(
            scratch / "plain", dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
            output_loading_info=True)
    model.eval()
    missing = [k for k in info["missing_keys"] if k != "lm_head.weight" or not spelled.get("tie_word_embeddings", gemma)]
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        raise SystemExit(f"{name}: transformers does not read what was written: {info}")
    tokens = torch.randint(2, keys["vocab_size"], (PROMPT_TOKENS,), generator=generator).tolist()
    logits, greedy, greedy_margin, choice_margin = answer(model, tokens)
    save_file({"tokens": torch.tensor(tokens), "logits": logits.contiguous(), "greedy": torch.tensor(greedy)},
              folder / "expected.safetensors")
    measured = dict(bytes=sum(f.stat().st_size for f in folder.iterdir() if f.name.startswith("model")),
                    spread=logits.std().item(), distinct_best=len(set(logits.argmax(-1).tolist())),
                    greedy_margin=greedy_margin, choice_margin=choice_margin, fault=None)
    if greedy_margin < MIN_GREEDY_MARGIN:
        return dict(measured, fault="greedy step nearly tied")
    if choice_margin < MIN_CHOICE_MARGIN:
        return dict(measured, fault="choice nearly tied")
    measured["noise_response"] = noise_response(model, tokens, logits)
    if measured["noise_response"] > MAX_NOISE_RESPONSE:
        return dict(measured, fault="too sensitive to rounding")
    if measured["spread"] < 0.5 or measured["distinct_best"] < 16:
        return dict(measured, fault="degenerate logits")
    measured["weakest"], measured["weakest_effect"] = weakest_parameter(model, tokens, logits)
    if measured["weakest_effect"] < MIN_PARAMETER_EFFECT:
        return dict(measured, fault=f"{measured['weakest']} hardly matters")
    return measured


def main():
    tf.utils.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="print the names of the variants")
    parser.add_argument("--tries", type=int, default=40, help="seeds to try for each variant")
    options = parser.parse_args()
    if options.list:
        print("\n".join(VARIANTS))
        return 0
    if options.out is None:
        parser.error("OUT_DIR is missing")
    unknown = [n for n in options.names if n not in VARIANTS]
    if unknown:
        parser.error(f"no such variant: {', '.join(unknown)}")
    torch.set_num_threads(1)
    failed = []
    for name in options.names or VARIANTS:
        for attempt in range(options.tries):
            measured = build(name, VARIANTS[name], options.out, zlib.crc32(name.encode()) + attempt)
            if measured["fault"] is None:
                break
            print(f"  {name}: seed {attempt}: {measured['fault']}", file=sys.stderr)
        if measured["fault"] is not None:
            failed.append(name)
        shown = {k: (f"{v:.3g}" if isinstance(v, float) else v) for k, v in measured.items() if k != "fault"}
        print(f"{'FAILED ' if measured['fault'] else ''}{name}: {shown}", flush=True)
    if failed:
        print(f"no good seed for: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
