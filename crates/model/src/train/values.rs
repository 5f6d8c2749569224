//! The value of each parameter, out of the weights as the forward pass holds them.

use kernels::matmul::HeadWeight;
use kernels::weight::Weight;

use crate::load::Model;
use crate::parameters::{ParameterSpec, Part, Place};
use crate::weights::*;

/// The parameter's value in floats, row after row.
pub(super) fn value_of(model: &Model, parameter: &ParameterSpec) -> Vec<f32> {
    let w = &model.weights;
    let (part, expert) = (parameter.slot.part, parameter.slot.expert);
    let value = match parameter.slot.place {
        Place::Model => match part {
            Part::Embedding => Some(w.embedding.to_f32()),
            Part::FinalNorm => Some(w.final_norm.clone()),
            Part::Head => w.head.as_ref().map(Weight::to_f32),
            _ => None,
        },
        Place::Block(l) => block(&w.blocks[l], part, expert),
        Place::Mtp(i) => match part {
            Part::MtpEmbeddingNorm => Some(w.mtp[i].embedding_norm.clone()),
            Part::MtpHiddenNorm => Some(w.mtp[i].hidden_norm.clone()),
            Part::MtpProjection => Some(w.mtp[i].projection.to_f32()),
            Part::MtpHeadNorm => Some(w.mtp[i].head_norm.clone()),
            _ => block(&w.mtp[i].block, part, expert),
        },
    };
    value.unwrap_or_else(|| unreachable!("{:?} is not among the weights of its spec", parameter.slot))
}

fn block(w: &BlockWeights, part: Part, expert: Option<usize>) -> Option<Vec<f32>> {
    match part {
        Part::AttentionNorm => Some(w.attention_norm.clone()),
        Part::PostAttentionNorm => w.post_attention_norm.clone(),
        Part::FfnNorm => Some(w.ffn_norm.clone()),
        Part::PostFfnNorm => w.post_ffn_norm.clone(),
        _ => {
            let attention = match &w.attention {
                AttentionWeights::Mla(w) => mla(w, part),
                AttentionWeights::Gqa(w) => gqa(w, part),
            };
            attention.or_else(|| ffn(&w.ffn, part, expert))
        }
    }
}

fn mla(w: &MlaWeights, part: Part) -> Option<Vec<f32>> {
    match (part, &w.query) {
        (Part::Query, QueryWeights::Full(weight)) => Some(weight.to_f32()),
        (Part::QueryDown, QueryWeights::Compressed { down, .. }) => Some(down.weight.to_f32()),
        (Part::QueryDownBias, QueryWeights::Compressed { down, .. }) => down.bias.clone(),
        (Part::QueryNorm, QueryWeights::Compressed { norm, .. }) => Some(norm.clone()),
        (Part::QueryUp, QueryWeights::Compressed { up, .. }) => Some(up.to_f32()),
        (Part::KvDown, _) => Some(w.kv_down.weight.to_f32()),
        (Part::KvDownBias, _) => w.kv_down.bias.clone(),
        (Part::KvNorm, _) => Some(w.kv_norm.clone()),
        (Part::KvUp, _) => {
            let heads = w.key_up.iter().zip(&w.value_up);
            // Keys are stored in the absorbing direction or in the other; here inputs are the latent.
            Some(
                heads
                    .flat_map(|(key, value)| [head(key, !key.transposed), head(value, value.transposed)].concat())
                    .collect(),
            )
        }
        (Part::AttentionOutput, _) => Some(w.output.weight.to_f32()),
        (Part::AttentionOutputBias, _) => w.output.bias.clone(),
        _ => None,
    }
}

/// A head's matrix, turned if `turn`.
fn head(head: &HeadWeight, turn: bool) -> Vec<f32> {
    let (values, rows, cols) = (head.weight.to_f32(), head.weight.rows(), head.weight.cols());
    if turn { (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect() } else { values }
}

fn gqa(w: &GqaWeights, part: Part) -> Option<Vec<f32>> {
    match part {
        Part::Query => Some(w.query.weight.to_f32()),
        Part::QueryBias => w.query.bias.clone(),
        Part::Key => Some(w.key.weight.to_f32()),
        Part::KeyBias => w.key.bias.clone(),
        Part::Value => Some(w.value.weight.to_f32()),
        Part::ValueBias => w.value.bias.clone(),
        Part::QueryNorm => w.query_norm.clone(),
        Part::KeyNorm => w.key_norm.clone(),
        Part::Sinks => w.sinks.clone(),
        Part::AttentionOutput => Some(w.output.weight.to_f32()),
        Part::AttentionOutputBias => w.output.bias.clone(),
        _ => None,
    }
}

fn ffn(w: &FfnWeights, part: Part, expert: Option<usize>) -> Option<Vec<f32>> {
    use Part::*;
    let linear = |w: &Linear, bias: bool| if bias { w.bias.clone() } else { Some(w.weight.to_f32()) };
    match (w, part) {
        (FfnWeights::Dense(w), Gate | GateBias) => linear(&w.gate, part == GateBias),
        (FfnWeights::Dense(w), Up | UpBias) => linear(&w.up, part == UpBias),
        (FfnWeights::Dense(w), Down | DownBias) => linear(&w.down, part == DownBias),
        (FfnWeights::Moe(w), Router | RouterBias) => linear(&w.router, part == RouterBias),
        (FfnWeights::Moe(w), RouterCorrection) => w.correction.clone(),
        (FfnWeights::Moe(w), _) => match (part, expert, &w.shared) {
            (ExpertGate | ExpertGateBias, Some(e), _) => linear(&w.experts[e].gate, part == ExpertGateBias),
            (ExpertUp | ExpertUpBias, Some(e), _) => linear(&w.experts[e].up, part == ExpertUpBias),
            (ExpertDown | ExpertDownBias, Some(e), _) => linear(&w.experts[e].down, part == ExpertDownBias),
            (SharedGate | SharedGateBias, _, Some(w)) => linear(&w.gate, part == SharedGateBias),
            (SharedUp | SharedUpBias, _, Some(w)) => linear(&w.up, part == SharedUpBias),
            (SharedDown | SharedDownBias, _, Some(w)) => linear(&w.down, part == SharedDownBias),
            _ => None,
        },
        _ => None,
    }
}
