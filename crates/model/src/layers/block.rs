//! A transformer block: `x += attention(norm(x)); x += ffn(norm(x))`, with norms after as well where
//! the spec says so.

use kernels::ops;
use kernels::train::backward::{rms_norm_backward, rms_norm_backward_add};

use super::{Backward, BlockActivations, BlockScratch, Gradients, Step, copy, ffn, gqa, mla, sized, sum};
use crate::cache::LayerCache;
use crate::parameters::Part;
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
    copy(pool, &mut acts.input, x);
    ops::rms_norm(pool, sized(&mut acts.attention_in, x.len()), x, &w.attention_norm, eps);
    let out = match w.post_attention_norm {
        None => &mut acts.attention_out,
        Some(_) => &mut acts.attention_unnormed,
    };
    match (&spec.attention, &w.attention, cache) {
        (Attention::Mla(spec), AttentionWeights::Mla(w), LayerCache::Latent { latents, index_keys }) => {
            let index_keys = index_keys.as_mut();
            mla::forward(spec, w, step, &acts.attention_in, latents, index_keys, &mut acts.mla, out);
        }
        (Attention::Gqa(spec), AttentionWeights::Gqa(w), LayerCache::KeyValue { keys, values }) => {
            gqa::forward(spec, w, step, &acts.attention_in, keys, values, &mut acts.gqa, out);
        }
        _ => unreachable!("weights and cache are made from the spec"),
    }
    if let Some(weight) = &w.post_attention_norm {
        ops::rms_norm(pool, sized(&mut acts.attention_out, x.len()), &acts.attention_unnormed, weight, eps);
    }
    sum(pool, sized(&mut acts.middle, x.len()), &acts.input, &acts.attention_out);

    ops::rms_norm(pool, sized(&mut acts.ffn_in, x.len()), &acts.middle, &w.ffn_norm, eps);
    let out = match w.post_ffn_norm {
        None => &mut acts.ffn_out,
        Some(_) => &mut acts.ffn_unnormed,
    };
    ffn::forward(&spec.ffn, &w.ffn, pool, &acts.ffn_in, &mut acts.ffn, out);
    if let Some(weight) = &w.post_ffn_norm {
        ops::rms_norm(pool, sized(&mut acts.ffn_out, x.len()), &acts.ffn_unnormed, weight, eps);
    }
    sum(pool, x, &acts.middle, &acts.ffn_out);
}

/// From the gradient of the block's output to that of its input, both in `dx`.
pub(crate) fn backward(
    spec: &BlockSpec,
    w: &BlockWeights,
    t: &Backward,
    dx: &mut [f32],
    acts: &BlockActivations,
    s: &mut BlockScratch,
    g: &mut Gradients,
) {
    let (pool, eps) = (t.step.pool, spec.norm_eps);
    let dout = match &w.post_ffn_norm {
        None => &*dx,
        Some(weight) => {
            let unnormed = sized(&mut s.unnormed, dx.len());
            rms_norm_backward(pool, unnormed, g.of(Part::PostFfnNorm), dx, &acts.ffn_unnormed, weight, eps);
            &s.unnormed
        }
    };
    ffn::backward(&spec.ffn, &w.ffn, t, &mut s.ffn_in, dout, &acts.ffn_in, &acts.ffn, &mut s.ffn, g);
    rms_norm_backward_add(pool, dx, g.of(Part::FfnNorm), &s.ffn_in, &acts.middle, &w.ffn_norm, eps);

    let dout = match &w.post_attention_norm {
        None => &*dx,
        Some(weight) => {
            let unnormed = sized(&mut s.unnormed, dx.len());
            rms_norm_backward(pool, unnormed, g.of(Part::PostAttentionNorm), dx, &acts.attention_unnormed, weight, eps);
            &s.unnormed
        }
    };
    let (din, x) = (&mut s.attention_in, &acts.attention_in);
    match (&spec.attention, &w.attention) {
        (Attention::Mla(spec), AttentionWeights::Mla(w)) => {
            mla::backward(spec, w, t, din, dout, x, &acts.mla, &mut s.mla, g);
        }
        (Attention::Gqa(spec), AttentionWeights::Gqa(w)) => {
            gqa::backward(spec, w, t, din, dout, x, &acts.gqa, &mut s.gqa, g);
        }
        _ => unreachable!("weights are made from the spec"),
    }
    rms_norm_backward_add(pool, dx, g.of(Part::AttentionNorm), &s.attention_in, &acts.input, &w.attention_norm, eps);
}
