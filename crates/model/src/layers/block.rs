//! A transformer block: `x += attention(norm(x)); x += ffn(norm(x))`, with norms after as well where
//! the spec says so.

use kernels::ops;

use super::{BlockActivations, Step, ffn, gqa, mla, sized};
use crate::cache::LayerCache;
use crate::spec::{Attention, BlockSpec};
use crate::weights::{AttentionWeights, BlockWeights};

/// Adds the block's two contributions to the residual stream `x`, `[T, hidden]`.
pub(crate) fn forward(
    spec: &BlockSpec,
    w: &BlockWeights,
    step: &Step,
    x: &mut [f32],
    cache: &mut LayerCache,
    acts: &mut BlockActivations,
) {
    let (pool, eps) = (step.pool, spec.norm_eps);
    ops::rms_norm(pool, sized(&mut acts.attention_in, x.len()), x, &w.attention_norm, eps);
    match (&spec.attention, &w.attention, cache) {
        (Attention::Mla(spec), AttentionWeights::Mla(w), LayerCache::Latent { latents, index_keys }) => {
            let index_keys = index_keys.as_mut();
            mla::forward(
                spec,
                w,
                step,
                &acts.attention_in,
                latents,
                index_keys,
                &mut acts.mla,
                &mut acts.attention_out,
            );
        }
        (Attention::Gqa(spec), AttentionWeights::Gqa(w), LayerCache::KeyValue { keys, values }) => {
            gqa::forward(spec, w, step, &acts.attention_in, keys, values, &mut acts.gqa, &mut acts.attention_out);
        }
        _ => unreachable!("weights and cache are made from the spec"),
    }
    if let Some(weight) = &w.post_attention_norm {
        std::mem::swap(&mut acts.unnormed, &mut acts.attention_out);
        ops::rms_norm(pool, sized(&mut acts.attention_out, x.len()), &acts.unnormed, weight, eps);
    }
    ops::add(x, &acts.attention_out);

    ops::rms_norm(pool, sized(&mut acts.ffn_in, x.len()), x, &w.ffn_norm, eps);
    ffn::forward(&spec.ffn, &w.ffn, pool, &acts.ffn_in, &mut acts.ffn, &mut acts.ffn_out);
    if let Some(weight) = &w.post_ffn_norm {
        std::mem::swap(&mut acts.unnormed, &mut acts.ffn_out);
        ops::rms_norm(pool, sized(&mut acts.ffn_out, x.len()), &acts.unnormed, weight, eps);
    }
    ops::add(x, &acts.ffn_out);
}
