//! Which experts a token uses and with what weights.
//!
//! DeepSeek-V3 report, section 2.1.2 (equations 12 to 16); V2 report, section 2.2. Ties go to the
//! expert, or the group, with the lower number.

use kernels::ops;

use crate::spec::{GroupLimit, GroupScore, MoeSpec, Score};

/// An expert that a token uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) expert: usize,
    /// g_i, the factor of its output.
    pub(crate) weight: f32,
}

/// The experts of one token, best first. `logits` holds one number an expert and is overwritten.
pub(crate) fn route(spec: &MoeSpec, logits: &mut [f32], correction: Option<&[f32]>, out: &mut Vec<Choice>) {
    let router = &spec.router;
    match router.score {
        Score::Softmax => ops::softmax(logits),
        Score::Sigmoid => logits.iter_mut().for_each(|v| *v = ops::sigmoid(*v)), // (15)
        Score::SoftmaxOfChosen => {}
    }
    let affinity = &*logits;
    // (16): the bias takes part in the choice only.
    let mut choice: Vec<f32> = match correction {
        Some(bias) => affinity.iter().zip(bias).map(|(s, b)| s + b).collect(),
        None => affinity.to_vec(),
    };
    if let Some(limit) = &router.groups {
        drop_groups(limit, &mut choice);
    }
    let mut chosen: Vec<Choice> =
        top(&choice, spec.used).into_iter().map(|expert| Choice { expert, weight: affinity[expert] }).collect(); // (14)
    if router.score == Score::SoftmaxOfChosen {
        let mut weights: Vec<f32> = chosen.iter().map(|c| c.weight).collect();
        ops::softmax(&mut weights);
        chosen.iter_mut().zip(weights).for_each(|(c, w)| c.weight = w);
    }
    if router.normalise {
        let sum: f32 = chosen.iter().map(|c| c.weight).sum::<f32>() + 1e-20;
        chosen.iter_mut().for_each(|c| c.weight /= sum); // (13)
    }
    chosen.iter_mut().for_each(|c| c.weight *= router.scale);
    out.extend(chosen);
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
        let mut out = Vec::new();
        let spec = spec(4, 2, None, Score::Sigmoid);
        route(&spec, &mut [0.0, 0.0, 0.0, 0.0], Some(&[0.0, 1.0, 0.0, 2.0]), &mut out);
        assert_eq!(out, [Choice { expert: 3, weight: 1.0 }, Choice { expert: 1, weight: 1.0 }]);
    }

    #[test]
    fn only_the_best_groups_count() {
        // The best single expert is in group 0, the best pair in group 1.
        let limit = GroupLimit { groups: 2, used: 1, score: GroupScore::TopTwo };
        let mut out = Vec::new();
        let logits = [3.0, -9.0, 2.0, 2.0];
        route(&spec(4, 2, Some(limit), Score::Sigmoid), &mut logits.clone(), None, &mut out);
        assert_eq!(out.iter().map(|c| c.expert).collect::<Vec<_>>(), [2, 3]);
        let limit = GroupLimit { score: GroupScore::Max, ..limit };
        out.clear();
        route(&spec(4, 2, Some(limit), Score::Sigmoid), &mut logits.clone(), None, &mut out);
        assert_eq!(out.iter().map(|c| c.expert).collect::<Vec<_>>(), [0, 1]);
    }
}
