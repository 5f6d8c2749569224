//! The hyperparameters of a converted model: from the description to `ARCH.*` metadata.
//!
//! Published files' keys come first; what they cannot say stands in `fathom.*` keys, which our reader
//! knows, with a notice that other engines do not. What not even those can say is found out when the
//! keys are read back (`check`), before anything is written.

use kernels::ops::Activation;

use super::plan::main_rope;
use crate::checkpoint::Value;
use crate::parameters::Part;
use crate::rope::yarn_magnitude;
use crate::spec::{
    Attention, BlockSpec, Ffn, GqaSpec, GroupScore, MlaSpec, ModelSpec, MoeSpec, RopeScaling, RopeSpec, Score,
};

/// llama.cpp reads neither of YaRN's betas; these are its own.
const BETAS: (f32, f32) = (32.0, 1.0);

/// Metadata entries and what the user must know about them.
pub(super) struct Keys {
    arch: &'static str,
    pub(super) entries: Vec<(String, Value)>,
    pub(super) notices: Vec<String>,
}

/// All hyperparameters of the model, as it is stored.
pub(super) fn keys(arch: &'static str, spec: &ModelSpec) -> Keys {
    let mut keys = Keys { arch, entries: Vec::new(), notices: Vec::new() };
    let eps = spec.final_norm_eps;
    keys.size("block_count", spec.blocks.len() + spec.mtp.len());
    keys.size("context_length", spec.context);
    keys.size("embedding_length", spec.hidden);
    keys.size("vocab_size", spec.vocab);
    keys.put("attention.layer_norm_rms_epsilon", eps);
    keys.feed_forward(spec);
    if let Some(softcap) = spec.head.softcap {
        keys.put("final_logit_softcapping", softcap);
    }
    match spec.blocks.first().map(|block| &block.attention) {
        Some(Attention::Mla(mla)) => keys.latent(mla, spec),
        Some(Attention::Gqa(gqa)) => keys.grouped(gqa, spec),
        None => {}
    }
    keys.what_llama_cpp_refuses(spec);
    keys
}

impl Keys {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.push((format!("{}.{key}", self.arch), value.into()));
    }

    /// Sizes are at most 2^24 in every description.
    fn size(&mut self, key: &str, value: usize) {
        self.put(key, value as u32);
    }

    /// A key of our own, which other engines do not know.
    fn own(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.push((format!("fathom.{key}"), value.into()));
    }

    fn notice(&mut self, text: impl Into<String>) {
        self.notices.push(text.into());
    }

    fn feed_forward(&mut self, spec: &ModelSpec) {
        let moe = spec.blocks.iter().chain(&spec.mtp).find_map(|block| match &block.ffn {
            Ffn::Moe(moe) => Some(moe),
            Ffn::Dense(_) => None,
        });
        let dense = |block: &BlockSpec| match &block.ffn {
            Ffn::Dense(dense) => Some(dense.width),
            Ffn::Moe(_) => None,
        };
        // Layers of experts have no dense width; what stands for it is not used.
        let stand_in = spec.blocks.iter().find_map(dense).or(moe.map(|moe| moe.expert.width)).unwrap_or(1);
        let blocks = spec.blocks.iter().chain(&spec.mtp);
        let widths: Vec<u32> = blocks.map(|block| dense(block).unwrap_or(stand_in) as u32).collect();
        match widths.iter().all(|&width| width == widths[0]) {
            true => self.size("feed_forward_length", stand_in),
            false => self.put("feed_forward_length", widths.as_slice()),
        }
        let latent = matches!(spec.blocks.first().map(|block| &block.attention), Some(Attention::Mla(_)));
        match moe {
            Some(moe) => self.experts(moe, spec, latent),
            None if latent => {
                // llama.cpp wants these keys even of models without experts.
                self.size("leading_dense_block_count", spec.blocks.len());
                self.size("expert_feed_forward_length", stand_in);
                self.size("expert_shared_count", 0);
            }
            None => {}
        }
    }

    fn experts(&mut self, moe: &MoeSpec, spec: &ModelSpec, latent: bool) {
        self.size("expert_count", moe.experts);
        self.size("expert_used_count", moe.used);
        self.size("expert_feed_forward_length", moe.expert.width);
        if latent {
            self.latent_experts(moe, spec);
            return;
        }
        let router = moe.router;
        if let Activation::ClampedSwiglu { alpha, limit } = moe.expert.activation
            && (alpha, limit) != (1.702, 7.0)
        {
            self.own("swiglu_alpha", alpha);
            self.own("swiglu_limit", limit);
            self.notice(format!(
                "the experts' activation has alpha {alpha} and limit {limit}; llama.cpp always uses 1.702 and 7"
            ));
        }
        if router.score == Score::Softmax && !router.normalise {
            self.put("expert_weights_norm", false);
            self.notice("expert weights are not normalised in this model; llama.cpp always normalises them");
        }
        if spec.blocks.iter().any(|block| matches!(block.ffn, Ffn::Dense(_))) {
            self.notice("only some layers have experts; llama.cpp wants them in every layer of this architecture");
        }
    }

    fn latent_experts(&mut self, moe: &MoeSpec, spec: &ModelSpec) {
        let first_sparse = spec.blocks.iter().position(|block| matches!(block.ffn, Ffn::Moe(_)));
        self.size("leading_dense_block_count", first_sparse.unwrap_or(spec.blocks.len()));
        let shared = moe.shared.map_or(0, |shared| shared.width / moe.expert.width);
        self.size("expert_shared_count", shared);
        let router = moe.router;
        if let Some(groups) = router.groups.filter(|groups| groups.used < groups.groups) {
            self.size("expert_group_count", groups.groups);
            self.size("expert_group_used_count", groups.used);
            if groups.score == GroupScore::Max {
                self.notice(
                    "a group of experts is worth its best expert here; llama.cpp takes the sum of the two best, \
                     so it may choose other experts",
                );
            }
        }
        self.put("expert_weights_scale", router.scale);
        self.put("expert_weights_norm", router.normalise);
        self.put("expert_gating_func", if router.score == Score::Sigmoid { 2u32 } else { 1 });
        if router.normalise && router.score == Score::Softmax {
            self.notice(
                "softmax weights are normalised in this model, which no published file of the architecture has",
            );
        }
    }

    fn grouped(&mut self, gqa: &GqaSpec, spec: &ModelSpec) {
        self.size("attention.head_count", gqa.heads);
        self.size("attention.head_count_kv", gqa.kv_heads);
        self.size("attention.key_length", gqa.head_dim);
        self.size("attention.value_length", gqa.head_dim);
        self.sliding(spec);
        let Some(rope) = main_rope(spec) else { return };
        self.size("rope.dimension_count", rope.dim);
        self.put("rope.freq_base", rope.base);
        if let RopeScaling::Yarn { factor, magnitude, .. } = rope.scaling {
            self.yarn(rope);
            let attn_factor = magnitude / yarn_magnitude(factor, 1.0);
            if (attn_factor - 1.0).abs() > 1e-6 {
                self.put("rope.scaling.attn_factor", attn_factor);
            }
        } else {
            self.linear(rope);
        }
        let divided = matches!(rope.scaling, RopeScaling::Llama3 { .. } | RopeScaling::Divisors(_));
        if divided && self.arch != "llama" {
            self.notice(
                "the scaling of rotary frequencies is in rope_freqs, which llama.cpp reads for Llama models only",
            );
        }
        if self.arch == "qwen2" && gqa.heads * gqa.head_dim != spec.hidden {
            self.notice("the heads together are not as wide as the model; llama.cpp wants that of Qwen2 models");
        }
    }

    fn linear(&mut self, rope: &RopeSpec) {
        if let RopeScaling::Linear { factor } = rope.scaling {
            self.put("rope.scaling.type", "linear");
            self.put("rope.scaling.factor", factor);
        }
    }

    fn yarn(&mut self, rope: &RopeSpec) {
        let RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } = rope.scaling else { return };
        self.put("rope.scaling.type", "yarn");
        self.put("rope.scaling.factor", factor);
        self.put("rope.scaling.original_context_length", original as u32);
        if (beta_fast, beta_slow) != BETAS {
            self.put("rope.scaling.yarn_beta_fast", beta_fast);
            self.put("rope.scaling.yarn_beta_slow", beta_slow);
            self.notice(format!(
                "YaRN's ramp goes from {beta_fast} to {beta_slow} rotations; llama.cpp always uses 32 to 1"
            ));
        }
        if truncate != (self.arch != "gpt-oss") {
            self.own("rope.yarn_truncate", truncate);
        }
        if !truncate {
            self.notice("the ends of YaRN's ramp are not rounded to whole pairs in this model; llama.cpp rounds them");
        }
    }

    /// One window for all layers that slide, and which do, where the architecture does not imply it.
    fn sliding(&mut self, spec: &ModelSpec) {
        let windows: Vec<Option<usize>> = spec.blocks.iter().map(window).collect();
        let slides: Vec<bool> = windows.iter().map(Option::is_some).collect();
        let Some(width) = windows.iter().flatten().next() else {
            if self.arch == "gpt-oss" {
                // llama.cpp wants a window; no layer uses it.
                self.size("attention.sliding_window", spec.context);
                self.put("attention.sliding_window_pattern", slides.as_slice());
            }
            return;
        };
        self.size("attention.sliding_window", *width);
        let implied = |l: usize| match self.arch {
            "gemma3" => l % 6 < 5,
            "gpt-oss" => l.is_multiple_of(2),
            _ => true,
        };
        if (0..slides.len()).any(|l| slides[l] != implied(l)) {
            self.put("attention.sliding_window_pattern", slides.as_slice());
        }
        match self.arch {
            "gemma3" => {
                let local = spec.blocks.iter().find(|block| window(block).is_some());
                if let Some(rope) = local.and_then(|block| block.ropes().next()) {
                    self.put("rope.freq_base_swa", rope.base);
                }
            }
            "gpt-oss" => {}
            _ => self.notice(format!(
                "layers look back {width} tokens at most; llama.cpp has no sliding window for this architecture, \
                 so its results differ in longer texts"
            )),
        }
    }

    fn latent(&mut self, mla: &MlaSpec, spec: &ModelSpec) {
        self.size("attention.head_count", mla.heads);
        self.size("attention.head_count_kv", 1);
        self.size("attention.q_lora_rank", mla.q_rank.unwrap_or(0));
        self.size("attention.kv_lora_rank", mla.kv_rank);
        self.size("attention.key_length", mla.latent_dim());
        self.size("attention.value_length", mla.kv_rank);
        self.size("attention.key_length_mla", mla.key_dim());
        self.size("attention.value_length_mla", mla.v_dim);
        self.size("rope.dimension_count", mla.rope_dim);
        self.put("rope.freq_base", mla.rope.base);
        if let Some(indexer) = &mla.indexer {
            self.size("attention.indexer.head_count", indexer.heads);
            self.size("attention.indexer.key_length", indexer.dim);
            self.size("attention.indexer.top_k", indexer.top_k);
        }
        self.linear(&mla.rope);
        self.latent_yarn(mla);
        if mla.latent_norm_eps != spec.final_norm_eps {
            self.own("latent_norm_epsilon", mla.latent_norm_eps);
            self.notice(format!(
                "the norms of the latents have epsilon {:e}, the others {:e}; llama.cpp uses the latter for all",
                mla.latent_norm_eps, spec.final_norm_eps
            ));
        }
        if !spec.mtp.is_empty() {
            self.size("nextn_predict_layers", spec.mtp.len());
        }
    }

    /// YaRN's factor `c` of cosine and sine and its correction `m` of the softmax, as the reader takes
    /// them back: `c = a`, `m = a (1 + 0.1 l ln s)` with `l = yarn_log_multiplier / 0.1`.
    fn latent_yarn(&mut self, mla: &MlaSpec) {
        let RopeScaling::Yarn { factor, magnitude: c, .. } = mla.rope.scaling else { return };
        self.yarn(&mla.rope);
        let (c, factor) = (f64::from(c), f64::from(factor));
        let m = (f64::from(mla.scale) * (mla.key_dim() as f64).sqrt()).sqrt();
        let own = f64::from(yarn_magnitude(factor as f32, 1.0));
        let (a, multiplier) = if (m / c - 1.0).abs() < 1e-6 {
            (c / own, 0.0)
        } else {
            let a = if self.arch == "deepseek32" { m / own } else { c };
            (a, round_if_close((m / c - 1.0) / (0.1 * factor.ln())))
        };
        if (a - 1.0).abs() > 1e-6 {
            self.put("rope.scaling.attn_factor", a as f32);
        }
        if multiplier != 0.0 {
            self.put("rope.scaling.yarn_log_multiplier", (0.1 * multiplier) as f32);
        }
    }

    /// What our reader takes and llama.cpp's does not.
    fn what_llama_cpp_refuses(&mut self, spec: &ModelSpec) {
        let has = |parts: &[Part]| spec.parameters().iter().any(|p| parts.contains(&p.slot.part));
        let latent = [Part::KvDownBias, Part::GateBias, Part::SharedGateBias];
        let refused = match self.arch {
            "deepseek2" | "deepseek32" => has(&latent),
            "qwen3" | "qwen3moe" | "gemma3" => has(&[Part::AttentionOutputBias]),
            _ => false,
        };
        if refused {
            self.notice(format!(
                "the model has biases that llama.cpp's {} does not know, so it refuses the file",
                self.arch
            ));
        }
        if self.arch == "gpt-oss" && spec.head.tied {
            self.notice("the head is the embedding; llama.cpp wants a head of its own of this architecture");
        }
    }
}

fn window(block: &BlockSpec) -> Option<usize> {
    match &block.attention {
        Attention::Gqa(gqa) => gqa.window,
        Attention::Mla(_) => None,
    }
}

/// The number with four decimals, where that is what was meant.
fn round_if_close(value: f64) -> f64 {
    let rounded = (value * 1e4).round() / 1e4;
    if (rounded - value).abs() < 2e-6 { rounded } else { value }
}
