//! Which experts a token uses and with what weights.
//!
//! DeepSeek-V3 report, section 2.1.2 (equations 12 to 16); V2 report, section 2.2. Ties go to the
//! expert, or the group, with the lower number.

use kernels::ops;
use kernels::pool::Pool;
use kernels::train::backward::{sigmoid_backward, softmax_backward};

use super::{Backward, for_rows, sized};
use crate::spec::{GroupLimit, GroupScore, MoeSpec, RouterSpec, Score};

/// An expert that a token uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) expert: usize,
    /// g_i, the factor of its output.
    pub(crate) weight: f32,
}

/// The experts of every token, best first: `used` choices each. `logits`, `[T, experts]`, become
/// affinities.
pub(crate) fn route(
    spec: &MoeSpec,
    pool: &Pool,
    logits: &mut [f32],
    correction: Option<&[f32]>,
    choices: &mut Vec<Choice>,
) {
    match spec.router.score {
        Score::Softmax => for_rows(pool, logits, spec.experts, |_, row| ops::softmax(row)),
        Score::Sigmoid => {
            for_rows(pool, logits, spec.experts, |_, row| row.iter_mut().for_each(|v| *v = ops::sigmoid(*v))); // (15)
        }
        Score::SoftmaxOfChosen => {}
    }
    let affinity = &*logits;
    choices.resize(affinity.len() / spec.experts * spec.used, Choice { expert: 0, weight: 0.0 });
    const TOGETHER: usize = 32;
    pool.for_each_piece(choices, TOGETHER * spec.used, |i, choices| {
        for (row, choices) in choices.chunks_exact_mut(spec.used).enumerate() {
            choose(spec, &affinity[(i * TOGETHER + row) * spec.experts..][..spec.experts], correction, choices);
        }
    });
}

/// The choices of one token.
fn choose(spec: &MoeSpec, affinity: &[f32], correction: Option<&[f32]>, choices: &mut [Choice]) {
    let router = &spec.router;
    // (16): the bias takes part in the choice only.
    let mut worth: Vec<f32> = match correction {
        Some(bias) => affinity.iter().zip(bias).map(|(s, b)| s + b).collect(),
        None => affinity.to_vec(),
    };
    if let Some(limit) = &router.groups {
        drop_groups(limit, &mut worth);
    }
    for (to, expert) in choices.iter_mut().zip(top(&worth, spec.used)) {
        *to = Choice { expert, weight: affinity[expert] }; // (14)
    }
    if router.score == Score::SoftmaxOfChosen {
        let mut weights: Vec<f32> = choices.iter().map(|c| c.weight).collect();
        ops::softmax(&mut weights);
        choices.iter_mut().zip(weights).for_each(|(c, w)| c.weight = w);
    }
    if router.normalise {
        let sum: f32 = choices.iter().map(|c| c.weight).sum::<f32>() + 1e-20;
        choices.iter_mut().for_each(|c| c.weight /= sum); // (13)
    }
    choices.iter_mut().for_each(|c| c.weight *= router.scale);
}

/// From the gradients of the choices' weights, `[T * used]`, to those of the router's logits,
/// `[T, experts]`; with the gradient of the balance loss. Neither the choice nor its bias has one.
///
/// `affinity` and `choices` are those that [`route`] gave.
pub(crate) fn backward(
    spec: &MoeSpec,
    t: &Backward,
    affinity: &[f32],
    choices: &[Choice],
    dweights: &[f32],
    dlogits: &mut Vec<f32>,
) {
    let (experts, used) = (spec.experts, spec.used);
    let dlogits = sized(dlogits, affinity.len());
    if t.balance == 0.0 || spec.router.score == Score::SoftmaxOfChosen {
        dlogits.fill(0.0);
    } else {
        balance_backward(spec, t, affinity, dlogits);
    }
    for_rows(t.step.pool, dlogits, experts, |row, grad| {
        let affinity = &affinity[row * experts..][..experts];
        let (choices, dweights) = (&choices[row * used..][..used], &dweights[row * used..][..used]);
        weights_backward(&spec.router, affinity, choices, dweights, grad);
        match spec.router.score {
            Score::Softmax => softmax_backward(grad, affinity),
            Score::Sigmoid => sigmoid_backward(grad, affinity), // (15)
            Score::SoftmaxOfChosen => {}
        }
    });
}

/// Adds to the gradients of one token's affinities (of its logits, where the softmax is over the
/// chosen) what comes through the weights of its choices.
fn weights_backward(router: &RouterSpec, affinity: &[f32], choices: &[Choice], dweights: &[f32], grad: &mut [f32]) {
    let dweight = |i: usize| router.scale * dweights[i];
    if router.score == Score::SoftmaxOfChosen {
        // Weights add up to one before the scale, so that to normalise them changes nothing.
        let of_all: f32 = (0..choices.len()).map(|i| dweights[i] * choices[i].weight).sum();
        for (i, choice) in choices.iter().enumerate() {
            grad[choice.expert] += choice.weight * (dweights[i] - of_all / router.scale);
        }
        return;
    }
    let (sum, of_sum) = if router.normalise {
        let sum = choices.iter().map(|c| affinity[c.expert]).sum::<f32>() + 1e-20;
        let of_all: f32 = (0..choices.len()).map(|i| dweight(i) * affinity[choices[i].expert]).sum();
        (sum, of_all / (sum * sum)) // (13)
    } else {
        (1.0, 0.0)
    };
    for (i, choice) in choices.iter().enumerate() {
        grad[choice.expert] += dweight(i) / sum - of_sum; // (14)
    }
}

/// The sequence-wise balance loss (17) to (20) of one layer without its factor alpha, summed over the
/// sequences.
pub(crate) fn balance_loss(spec: &MoeSpec, pool: &Pool, affinity: &[f32], sequences: &[usize]) -> f64 {
    let (mut loss, mut rest) = (0.0, affinity);
    for &rows in sequences.iter().filter(|&&rows| rows > 0) {
        let (own, after) = rest.split_at(rows * spec.experts);
        let frequency = frequencies(spec, pool, own);
        let mut shares = vec![0.0; spec.experts]; // (20)
        for row in own.chunks_exact(spec.experts) {
            let sum: f32 = row.iter().sum();
            shares.iter_mut().zip(row).for_each(|(p, s)| *p += f64::from(s / sum)); // (19)
        }
        let of_sequence: f64 = frequency.iter().zip(&shares).map(|(f, p)| f64::from(*f) * p / rows as f64).sum();
        loss += of_sequence; // (17)
        rest = after;
    }
    loss
}

/// Writes the gradients of affinities through `t.balance` times [`balance_loss`].
fn balance_backward(spec: &MoeSpec, t: &Backward, affinity: &[f32], grad: &mut [f32]) {
    let (experts, pool) = (spec.experts, t.step.pool);
    let (mut grad, mut rest) = (grad, affinity);
    for &rows in t.sequences {
        let (own, after) = rest.split_at(rows * experts);
        let (own_grad, grad_after) = grad.split_at_mut(rows * experts);
        let frequency = frequencies(spec, pool, own);
        let factor = t.balance / rows as f32;
        for_rows(pool, own_grad, experts, |row, grad| {
            let s = &own[row * experts..][..experts];
            let sum: f32 = s.iter().sum();
            let mean: f32 = s.iter().zip(&frequency).map(|(s, f)| s / sum * f).sum();
            grad.iter_mut().zip(&frequency).for_each(|(g, f)| *g = factor * (f - mean) / sum); // (17), (19), (20)
        });
        (grad, rest) = (grad_after, after);
    }
}

/// f of (18) for one sequence: how often each expert is among the best by affinity, relative to an
/// even share. As the report has it, neither bias nor groups take part.
fn frequencies(spec: &MoeSpec, pool: &Pool, affinity: &[f32]) -> Vec<f32> {
    let rows = affinity.len() / spec.experts;
    let mut chosen = vec![0u32; rows * spec.used];
    pool.for_each_piece(&mut chosen, 32 * spec.used, |i, chosen| {
        for (row, chosen) in chosen.chunks_exact_mut(spec.used).enumerate() {
            let affinity = &affinity[(i * 32 + row) * spec.experts..][..spec.experts];
            chosen.iter_mut().zip(top(affinity, spec.used)).for_each(|(to, expert)| *to = expert as u32);
        }
    });
    let mut counts = vec![0u32; spec.experts];
    chosen.iter().for_each(|&expert| counts[expert as usize] += 1);
    counts.iter().map(|&n| n as f32 * spec.experts as f32 / (spec.used * rows) as f32).collect()
}

/// Minus infinity for the experts of all but the best groups.
fn drop_groups(limit: &GroupLimit, choice: &mut [f32]) {
    let size = choice.len() / limit.groups;
    let worth: Vec<f32> = choice
        .chunks_exact(size)
        .map(|group| {
            let best = top(group, 2.min(size));
            match limit.score {
                GroupScore::Max => group[best[0]],
                GroupScore::TopTwo => best.iter().map(|&i| group[i]).sum(),
            }
        })
        .collect();
    let kept = top(&worth, limit.used);
    for (g, group) in choice.chunks_exact_mut(size).enumerate() {
        if !kept.contains(&g) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// The indices of the `count` largest values, largest first; of equal values the lower index. NaN
/// counts as the smallest, so that there are always `count`.
fn top(values: &[f32], count: usize) -> Vec<usize> {
    let key = |i: usize| if values[i].is_nan() { f32::NEG_INFINITY } else { values[i] };
    let mut best: Vec<usize> = Vec::with_capacity(count + 1);
    for i in 0..values.len() {
        let at = best.partition_point(|&j| key(j) >= key(i));
        if at < count {
            best.insert(at, i);
            best.truncate(count);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DenseSpec, RouterSpec};

    fn spec(experts: usize, used: usize, groups: Option<GroupLimit>, score: Score) -> MoeSpec {
        let expert = DenseSpec { width: 1, activation: ops::Activation::Silu, bias: false };
        let router = RouterSpec { score, groups, correction_bias: false, bias: false, normalise: true, scale: 2.0 };
        MoeSpec { experts, used, expert, shared: None, router }
    }

    #[test]
    fn ties_go_to_the_lower_number_and_nan_is_last() {
        assert_eq!(top(&[1.0, 2.0, 2.0, 0.0], 3), [1, 2, 0]);
        assert_eq!(top(&[f32::NAN, 1.0, f32::NAN], 2), [1, 0]);
        assert_eq!(top(&[f32::NEG_INFINITY; 4], 2), [0, 1]);
    }

    #[test]
    fn the_bias_chooses_and_does_not_weigh() {
        let (mut out, pool) = (Vec::new(), Pool::new(1));
        let spec = spec(4, 2, None, Score::Sigmoid);
        route(&spec, &pool, &mut [0.0, 0.0, 0.0, 0.0], Some(&[0.0, 1.0, 0.0, 2.0]), &mut out);
        assert_eq!(out, [Choice { expert: 3, weight: 1.0 }, Choice { expert: 1, weight: 1.0 }]);
    }

    #[test]
    fn only_the_best_groups_count() {
        // The best single expert is in group 0, the best pair in group 1.
        let limit = GroupLimit { groups: 2, used: 1, score: GroupScore::TopTwo };
        let (mut out, pool) = (Vec::new(), Pool::new(1));
        let logits = [3.0, -9.0, 2.0, 2.0];
        route(&spec(4, 2, Some(limit), Score::Sigmoid), &pool, &mut logits.clone(), None, &mut out);
        assert_eq!(out.iter().map(|c| c.expert).collect::<Vec<_>>(), [2, 3]);
        let limit = GroupLimit { score: GroupScore::Max, ..limit };
        route(&spec(4, 2, Some(limit), Score::Sigmoid), &pool, &mut logits.clone(), None, &mut out);
        assert_eq!(out.iter().map(|c| c.expert).collect::<Vec<_>>(), [0, 1]);
    }
}
