//! Feed-forward networks: gated, and mixtures of experts.

use kernels::matmul::matmul_grouped;
use kernels::ops;
use kernels::pool::Pool;
use kernels::weight::Weight;

use super::router::{Choice, route};
use super::{linear, sized};
use crate::spec::{DenseSpec, Ffn, MoeSpec};
use crate::weights::{FfnWeights, GatedWeights, Linear, MoeWeights};

/// What the layer computes on the way.
#[derive(Default)]
pub(crate) struct FfnActivations {
    pub(crate) dense: GatedActivations,
    /// Router logits, then affinities, `[T, experts]`.
    pub(crate) affinity: Vec<f32>,
    /// The choices of all tokens, `used` each.
    pub(crate) choices: Vec<Choice>,
    /// Inputs of experts, rows sorted by expert, `[T * used, hidden]`.
    pub(crate) grouped_in: Vec<f32>,
    pub(crate) grouped: GatedActivations,
    /// Outputs of experts in the same order.
    pub(crate) grouped_out: Vec<f32>,
    /// The shared network's output, `[T, hidden]`.
    pub(crate) shared_out: Vec<f32>,
}

/// What a gated network computes on the way.
#[derive(Default)]
pub(crate) struct GatedActivations {
    /// `[T, width]`; after the activation its result.
    pub(crate) gate: Vec<f32>,
    /// `[T, width]`
    pub(crate) up: Vec<f32>,
}

/// `out = ffn(x)`, both `[T, hidden]`.
pub(crate) fn forward(
    spec: &Ffn,
    w: &FfnWeights,
    pool: &Pool,
    x: &[f32],
    acts: &mut FfnActivations,
    out: &mut Vec<f32>,
) {
    match (spec, w) {
        (Ffn::Dense(spec), FfnWeights::Dense(w)) => gated(spec, w, pool, x, &mut acts.dense, out),
        (Ffn::Moe(spec), FfnWeights::Moe(w)) => moe(spec, w, pool, x, acts, out),
        _ => unreachable!("weights are made from the spec"),
    }
}

/// `out = down(activation(gate x, up x))`
fn gated(spec: &DenseSpec, w: &GatedWeights, pool: &Pool, x: &[f32], acts: &mut GatedActivations, out: &mut Vec<f32>) {
    linear(pool, &mut acts.gate, x, &w.gate);
    linear(pool, &mut acts.up, x, &w.up);
    spec.activation.apply(pool, &mut acts.gate, &acts.up);
    linear(pool, out, &acts.gate, &w.down);
}

/// DeepSeekMoE (V3 report, equation 12): the shared network and the weighted sum of chosen experts.
fn moe(spec: &MoeSpec, w: &MoeWeights, pool: &Pool, x: &[f32], acts: &mut FfnActivations, out: &mut Vec<f32>) {
    let hidden = w.router.weight.cols();
    linear(pool, &mut acts.affinity, x, &w.router);
    acts.choices.clear();
    for logits in acts.affinity.chunks_exact_mut(spec.experts) {
        route(spec, logits, w.correction.as_deref(), &mut acts.choices);
    }
    let order = by_expert(&acts.choices);
    let grouped_in = sized(&mut acts.grouped_in, order.len() * hidden);
    for (to, &choice) in grouped_in.chunks_exact_mut(hidden).zip(&order) {
        let token = choice / spec.used;
        to.copy_from_slice(&x[token * hidden..(token + 1) * hidden]);
    }
    let groups = groups_of(&order, &acts.choices);
    experts(spec, w, pool, &groups, acts);

    // Each token's experts are added in the order of choice, whatever order they ran in.
    let mut row_of = vec![0; order.len()];
    order.iter().enumerate().for_each(|(row, &choice)| row_of[choice] = row);
    let out = sized(out, x.len());
    for (token, to) in out.chunks_exact_mut(hidden).enumerate() {
        to.fill(0.0);
        for choice in token * spec.used..(token + 1) * spec.used {
            let from = &acts.grouped_out[row_of[choice] * hidden..][..hidden];
            let weight = acts.choices[choice].weight;
            to.iter_mut().zip(from).for_each(|(to, v)| *to += weight * v);
        }
    }
    if let (Some(shared), Some(w)) = (&spec.shared, &w.shared) {
        gated(shared, w, pool, x, &mut acts.dense, &mut acts.shared_out);
        ops::add(out, &acts.shared_out);
    }
}

/// All chosen experts on their rows: `grouped_out = expert(grouped_in)`.
fn experts(spec: &MoeSpec, w: &MoeWeights, pool: &Pool, groups: &[(usize, usize)], acts: &mut FfnActivations) {
    let GatedActivations { gate, up } = &mut acts.grouped;
    let project = |out: &mut Vec<f32>, x: &[f32], part: fn(&GatedWeights) -> &Linear| {
        let weights: Vec<(usize, &Weight)> = groups.iter().map(|&(e, n)| (n, &part(&w.experts[e]).weight)).collect();
        let rows: usize = groups.iter().map(|&(_, n)| n).sum();
        let width = weights.first().map_or(0, |(_, weight)| weight.rows());
        matmul_grouped(pool, sized(out, rows * width), x, &weights);
        let mut start = 0;
        for &(e, n) in groups {
            if let Some(bias) = &part(&w.experts[e]).bias {
                ops::add_bias(&mut out[start * width..(start + n) * width], bias);
            }
            start += n;
        }
    };
    project(gate, &acts.grouped_in, |e| &e.gate);
    project(up, &acts.grouped_in, |e| &e.up);
    spec.expert.activation.apply(pool, gate, up);
    project(&mut acts.grouped_out, gate, |e| &e.down);
}

/// Numbers of choices, sorted by expert; those of one expert in token order.
fn by_expert(choices: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..choices.len()).collect();
    order.sort_by_key(|&i| choices[i].expert);
    order
}

/// (expert, rows) of each expert that has any.
fn groups_of(order: &[usize], choices: &[Choice]) -> Vec<(usize, usize)> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for &i in order {
        match groups.last_mut() {
            Some((expert, rows)) if *expert == choices[i].expert => *rows += 1,
            _ => groups.push((choices[i].expert, 1)),
        }
    }
    groups
}
