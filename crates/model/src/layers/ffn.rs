//! Feed-forward networks: gated, and mixtures of experts.

use kernels::matmul::matmul_grouped_many;
use kernels::ops;
use kernels::pool::Pool;
use kernels::train::backward::gated_backward;
use kernels::train::products::{matmul_grouped_dw, matmul_grouped_dx};
use kernels::weight::Weight;

use super::router::{self, Choice, route};
use super::{
    Backward, Gradients, add, add_rows, copy, for_rows, linear, linear_backward, linear_backward_add, linears, sized,
};
use crate::parameters::Part;
use crate::spec::{DenseSpec, Ffn, MoeSpec};
use crate::weights::{FfnWeights, GatedWeights, Linear, MoeWeights};

/// What the layer computes on the way.
#[derive(Default)]
pub(crate) struct FfnActivations {
    pub(crate) dense: GatedActivations,
    /// Affinities of all experts, `[T, experts]`.
    pub(crate) affinity: Vec<f32>,
    /// The choices of all tokens, `used` each.
    pub(crate) choices: Vec<Choice>,
    pub(crate) order: Order,
    /// Inputs of experts, rows sorted by expert, `[T * used, hidden]`.
    pub(crate) grouped_in: Vec<f32>,
    pub(crate) grouped: GatedActivations,
    /// Outputs of experts in the same order.
    pub(crate) grouped_out: Vec<f32>,
    /// The shared network's output, `[T, hidden]`.
    pub(crate) shared_out: Vec<f32>,
}

/// What a gated network computes on the way; gradients of it too.
#[derive(Default)]
pub(crate) struct GatedActivations {
    /// `[T, width]`
    pub(crate) gate: Vec<f32>,
    /// `[T, width]`
    pub(crate) up: Vec<f32>,
    /// `[T, width]`, `activation(gate, up)`
    pub(crate) inner: Vec<f32>,
}

/// Choices sorted by expert.
#[derive(Default)]
pub(crate) struct Order {
    /// The choice that each row of the grouped inputs is for; an expert's rows are in token order.
    pub(crate) choice_of: Vec<usize>,
    /// The row of each choice.
    pub(crate) row_of: Vec<usize>,
    /// (expert, rows) of each expert that has any.
    pub(crate) groups: Vec<(usize, usize)>,
}

/// Gradients of [`FfnActivations`].
#[derive(Default)]
pub(crate) struct FfnScratch {
    pub(crate) dense: GatedActivations,
    pub(crate) grouped: GatedActivations,
    pub(crate) grouped_in: Vec<f32>,
    pub(crate) grouped_up_in: Vec<f32>,
    pub(crate) grouped_out: Vec<f32>,
    /// Of the weights of choices, `[T * used]`.
    pub(crate) weights: Vec<f32>,
    /// Of affinities, then of router logits, `[T, experts]`.
    pub(crate) affinity: Vec<f32>,
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

/// From the gradient of `out` to that of `x`.
pub(crate) fn backward(
    spec: &Ffn,
    w: &FfnWeights,
    t: &Backward,
    dx: &mut Vec<f32>,
    dout: &[f32],
    x: &[f32],
    acts: &FfnActivations,
    s: &mut FfnScratch,
    g: &mut Gradients,
) {
    match (spec, w) {
        (Ffn::Dense(spec), FfnWeights::Dense(w)) => {
            gated_inner_backward(spec, w, t, dout, &acts.dense, &mut s.dense, g, DENSE);
            linear_backward(t, dx, &s.dense.up, x, &w.up, g, DENSE[1]);
            linear_backward_add(t, dx, &s.dense.gate, x, &w.gate, g, DENSE[0]);
        }
        (Ffn::Moe(spec), FfnWeights::Moe(w)) => moe_backward(spec, w, t, dx, dout, x, acts, s, g),
        _ => unreachable!("weights are made from the spec"),
    }
}

/// Weight and bias of gate, up and down.
type GatedParts = [[Part; 2]; 3];
const DENSE: GatedParts = [[Part::Gate, Part::GateBias], [Part::Up, Part::UpBias], [Part::Down, Part::DownBias]];
const SHARED: GatedParts = [
    [Part::SharedGate, Part::SharedGateBias],
    [Part::SharedUp, Part::SharedUpBias],
    [Part::SharedDown, Part::SharedDownBias],
];
const EXPERT: GatedParts = [
    [Part::ExpertGate, Part::ExpertGateBias],
    [Part::ExpertUp, Part::ExpertUpBias],
    [Part::ExpertDown, Part::ExpertDownBias],
];

/// `out = down(activation(gate x, up x))`
fn gated(spec: &DenseSpec, w: &GatedWeights, pool: &Pool, x: &[f32], acts: &mut GatedActivations, out: &mut Vec<f32>) {
    linears(pool, [&mut acts.gate, &mut acts.up], x, [&w.gate, &w.up]);
    activate(spec, pool, acts);
    linear(pool, out, &acts.inner, &w.down);
}

fn activate(spec: &DenseSpec, pool: &Pool, acts: &mut GatedActivations) {
    copy(pool, &mut acts.inner, &acts.gate);
    spec.activation.apply(pool, &mut acts.inner, &acts.up);
}

/// From the gradient of `out` to those of `gate` and `up`.
fn gated_inner_backward(
    spec: &DenseSpec,
    w: &GatedWeights,
    t: &Backward,
    dout: &[f32],
    acts: &GatedActivations,
    s: &mut GatedActivations,
    g: &mut Gradients,
    parts: GatedParts,
) {
    linear_backward(t, &mut s.inner, dout, &acts.inner, &w.down, g, parts[2]);
    activate_backward(spec, t, acts, s);
}

fn activate_backward(spec: &DenseSpec, t: &Backward, acts: &GatedActivations, s: &mut GatedActivations) {
    let (dgate, dup) = (sized(&mut s.gate, acts.gate.len()), sized(&mut s.up, acts.up.len()));
    gated_backward(t.step.pool, spec.activation, dgate, dup, &s.inner, &acts.gate, &acts.up);
}

/// DeepSeekMoE (V3 report, equation 12): the shared network and the weighted sum of chosen experts.
fn moe(spec: &MoeSpec, w: &MoeWeights, pool: &Pool, x: &[f32], acts: &mut FfnActivations, out: &mut Vec<f32>) {
    let hidden = w.router.weight.cols();
    linear(pool, &mut acts.affinity, x, &w.router);
    route(spec, pool, &mut acts.affinity, w.correction.as_deref(), &mut acts.choices);
    acts.order.sort(&acts.choices, spec.experts);
    let order = &acts.order;
    sized(&mut acts.grouped_in, order.choice_of.len() * hidden);
    for_rows(pool, &mut acts.grouped_in, hidden, |row, to| {
        let token = order.choice_of[row] / spec.used;
        to.copy_from_slice(&x[token * hidden..(token + 1) * hidden]);
    });
    experts(spec, w, pool, acts);

    // Each token's experts are added in the order of choice, whatever order they ran in.
    let (order, choices, from) = (&acts.order, &acts.choices, &acts.grouped_out);
    for_rows(pool, sized(out, x.len()), hidden, |token, to| {
        to.fill(0.0);
        for choice in token * spec.used..(token + 1) * spec.used {
            let (from, weight) = (&from[order.row_of[choice] * hidden..][..hidden], choices[choice].weight);
            to.iter_mut().zip(from).for_each(|(to, v)| *to += weight * v);
        }
    });
    if let (Some(shared), Some(w)) = (&spec.shared, &w.shared) {
        gated(shared, w, pool, x, &mut acts.dense, &mut acts.shared_out);
        add(pool, out, &acts.shared_out);
    }
}

/// The mirror of [`moe`].
fn moe_backward(
    spec: &MoeSpec,
    w: &MoeWeights,
    t: &Backward,
    dx: &mut Vec<f32>,
    dout: &[f32],
    x: &[f32],
    acts: &FfnActivations,
    s: &mut FfnScratch,
    g: &mut Gradients,
) {
    let (pool, hidden, order) = (t.step.pool, w.router.weight.cols(), &acts.order);
    let dout_of = |choice: usize| &dout[choice / spec.used * hidden..][..hidden];
    sized(&mut s.grouped_out, acts.grouped_out.len());
    for_rows(pool, &mut s.grouped_out, hidden, |row, to| {
        let choice = order.choice_of[row];
        let weight = acts.choices[choice].weight;
        to.iter_mut().zip(dout_of(choice)).for_each(|(to, v)| *to = weight * v);
    });
    sized(&mut s.weights, acts.choices.len());
    for_rows(pool, &mut s.weights, 1, |choice, to| {
        to[0] = dot(dout_of(choice), &acts.grouped_out[order.row_of[choice] * hidden..][..hidden]);
    });
    experts_backward(spec, w, t, acts, s, g);
    let from = &s.grouped_in;
    for_rows(pool, sized(dx, x.len()), hidden, |token, to| {
        to.fill(0.0);
        for choice in token * spec.used..(token + 1) * spec.used {
            ops::add(to, &from[order.row_of[choice] * hidden..][..hidden]);
        }
    });
    if let (Some(shared), Some(w)) = (&spec.shared, &w.shared) {
        gated_inner_backward(shared, w, t, dout, &acts.dense, &mut s.dense, g, SHARED);
        linear_backward_add(t, dx, &s.dense.up, x, &w.up, g, SHARED[1]);
        linear_backward_add(t, dx, &s.dense.gate, x, &w.gate, g, SHARED[0]);
    }
    router::backward(spec, t, &acts.affinity, &acts.choices, &s.weights, &mut s.affinity);
    // Routers stay out of FP8 (V3 report, section 3.3.1).
    let t = &Backward { precision: t.precision.outside_fp8(), ..*t };
    linear_backward_add(t, dx, &s.affinity, x, &w.router, g, [Part::Router, Part::RouterBias]);
}

/// The weights of one part of the experts that have rows, with their numbers of rows.
fn grouped_weights<'a>(
    w: &'a MoeWeights,
    order: &Order,
    part: fn(&GatedWeights) -> &Linear,
) -> Vec<(usize, &'a Weight)> {
    order.groups.iter().map(|&(e, n)| (n, &part(&w.experts[e]).weight)).collect()
}

/// All chosen experts on their rows: `grouped_out = expert(grouped_in)`.
fn experts(spec: &MoeSpec, w: &MoeWeights, pool: &Pool, acts: &mut FfnActivations) {
    let order = &acts.order;
    let project = |outs: &mut [&mut Vec<f32>], x: &[f32], parts: &[fn(&GatedWeights) -> &Linear]| {
        let weights: Vec<_> = parts.iter().map(|&part| grouped_weights(w, order, part)).collect();
        let weights: Vec<&[(usize, &Weight)]> = weights.iter().map(Vec::as_slice).collect();
        let width = |part: fn(&GatedWeights) -> &Linear| part(&w.experts[0]).weight.rows();
        let sizes = parts.iter().map(|&part| order.choice_of.len() * width(part));
        let mut slices: Vec<&mut [f32]> = outs.iter_mut().zip(sizes).map(|(out, size)| sized(out, size)).collect();
        matmul_grouped_many(pool, &mut slices, x, &weights);
        for (out, &part) in slices.into_iter().zip(parts) {
            let (width, mut start) = (width(part), 0);
            for &(e, n) in &order.groups {
                if let Some(bias) = &part(&w.experts[e]).bias {
                    ops::add_bias(&mut out[start * width..(start + n) * width], bias);
                }
                start += n;
            }
        }
    };
    let GatedActivations { gate, up, .. } = &mut acts.grouped;
    project(&mut [gate, up], &acts.grouped_in, &[|e| &e.gate, |e| &e.up]);
    activate(&spec.expert, pool, &mut acts.grouped);
    project(&mut [&mut acts.grouped_out], &acts.grouped.inner, &[|e| &e.down]);
}

/// From the gradient of `grouped_out` to that of `grouped_in`.
fn experts_backward(
    spec: &MoeSpec,
    w: &MoeWeights,
    t: &Backward,
    acts: &FfnActivations,
    s: &mut FfnScratch,
    g: &mut Gradients,
) {
    let (pool, order, precision) = (t.step.pool, &acts.order, t.precision);
    let rows = order.choice_of.len();
    let mut project =
        |dx: &mut Vec<f32>, dy: &[f32], x: &[f32], part: fn(&GatedWeights) -> &Linear, parts: [Part; 2]| {
            let weights = grouped_weights(w, order, part);
            let shape = &part(&w.experts[0]).weight;
            let (outputs, inputs) = (shape.rows(), shape.cols());
            matmul_grouped_dx(pool, sized(dx, rows * inputs), dy, &weights);
            let mut all: Vec<Option<&mut [f32]>> = g.of_experts(parts[0]).into_iter().map(Some).collect();
            let mut chosen: Vec<(usize, &mut [f32])> =
                order.groups.iter().filter_map(|&(e, n)| all[e].take().map(|gradient| (n, gradient))).collect();
            matmul_grouped_dw(pool, &mut chosen, dy, x, outputs, inputs, precision);
            if w.experts[0].down.bias.is_some() {
                let (mut biases, mut start) = (g.of_experts(parts[1]), 0);
                for &(e, n) in &order.groups {
                    add_rows(pool, biases[e], &dy[start * outputs..(start + n) * outputs]);
                    start += n;
                }
            }
        };
    project(&mut s.grouped.inner, &s.grouped_out, &acts.grouped.inner, |e| &e.down, EXPERT[2]);
    activate_backward(&spec.expert, t, &acts.grouped, &mut s.grouped);
    project(&mut s.grouped_in, &s.grouped.gate, &acts.grouped_in, |e| &e.gate, EXPERT[0]);
    project(&mut s.grouped_up_in, &s.grouped.up, &acts.grouped_in, |e| &e.up, EXPERT[1]);
    add(pool, &mut s.grouped_in, &s.grouped_up_in);
}

impl Order {
    /// Sorts by counting.
    fn sort(&mut self, choices: &[Choice], experts: usize) {
        let mut counts = vec![0; experts];
        choices.iter().for_each(|c| counts[c.expert] += 1);
        self.groups.clear();
        self.groups.extend(counts.iter().copied().enumerate().filter(|&(_, n)| n > 0));
        let mut next = Vec::with_capacity(experts);
        let mut start = 0;
        for n in counts {
            next.push(start);
            start += n;
        }
        self.choice_of.clear();
        self.choice_of.resize(choices.len(), 0);
        self.row_of.clear();
        for (choice, c) in choices.iter().enumerate() {
            self.choice_of[next[c.expert]] = choice;
            self.row_of.push(next[c.expert]);
            next[c.expert] += 1;
        }
    }
}

/// Sixteen partial sums, so that the compiler uses vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter_mut().zip(a_rest.iter().zip(b_rest)).for_each(|(sum, (a, b))| *sum += a * b);
    sums.iter().sum()
}
