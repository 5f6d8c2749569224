//! Drawing from the softmax of a row of logits, without sorting them.
//!
//! Three passes over a row that fits the first-level cache: the largest, the exponentials with their sum, and the
//! place at which their running sum passes a share of the whole. The running sum is taken in blocks of
//! `BLOCK`, each summed in sixteen lanes, so the order of every sum depends on the row alone.

use crate::isa::{Isa, isa};
use crate::ops::exp;
use crate::quant::compiled::compiled_for_isa;
use crate::train::backward::{LogSoftmax, exp_row, sum16_f64};

/// Elements that are stepped over at once.
const BLOCK: usize = 128;

/// The first logit that is not a finite number.
pub fn nonfinite(logits: &[f32]) -> Option<usize> {
    if all_finite(isa(), logits) { None } else { logits.iter().position(|v| !v.is_finite()) }
}

/// Draws from `softmax(logits / temperature)` by `u`, a uniform number in [0, 1): the index at which the running sum
/// of probabilities, in rising index, passes `u`; and what turns `logits / temperature` into log-probabilities.
/// `scratch` is overwritten. A logit of minus infinity is never drawn.
///
/// # Panics
/// If there are no logits, or none above minus infinity.
pub fn draw(logits: &[f32], temperature: f32, u: f64, scratch: &mut Vec<f32>) -> (usize, LogSoftmax) {
    scratch.clear();
    scratch.extend_from_slice(logits);
    if temperature != 1.0 {
        scratch.iter_mut().for_each(|v| *v /= temperature);
    }
    let isa = isa();
    let (max, sum) = exp_row(isa, scratch);
    assert!(sum > 0.0, "logits of which one is above minus infinity");
    (passed(isa, scratch, u * sum), LogSoftmax::of_parts(max, sum))
}

/// The entropy of `softmax(logits)`, in nats.
pub fn entropy(logits: &[f32]) -> f32 {
    entropy_of(isa(), logits)
}

compiled_for_isa!(all_finite = all_finite_inline, (row: &[f32]) -> bool);
compiled_for_isa!(passed = passed_inline, (weights: &[f32], share: f64) -> usize);
compiled_for_isa!(entropy_of = entropy_inline, (row: &[f32]) -> f32);

#[inline(always)]
fn all_finite_inline(row: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    row.chunks(BLOCK).all(|block| block.iter().fold(true, |ok, v| ok & (v.to_bits() & EXPONENT != EXPONENT)))
}

/// The element at which the running sum passes `share`; the last that is not zero where rounding lets none.
#[inline(always)]
fn passed_inline(weights: &[f32], share: f64) -> usize {
    let mut left = share;
    for (b, block) in weights.chunks(BLOCK).enumerate() {
        let sum = sum16_f64(block, |v| v);
        if left >= sum {
            left -= sum;
            continue;
        }
        for (i, &v) in block.iter().enumerate() {
            left -= f64::from(v);
            if left < 0.0 {
                return b * BLOCK + i;
            }
        }
        // The lanes added up to a little more than the elements one by one.
        left = 0.0;
    }
    weights.iter().rposition(|&v| v > 0.0).unwrap_or(0)
}

/// `ln(sum e) - sum(e d) / sum e` with `d = v - max`, `e = exp(d)`.
#[inline(always)]
fn entropy_inline(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    // exp(-87) is the smallest that is a normal number: what is below adds nothing, and 0 times infinity is no number.
    let weighted = |v: f32| {
        let d = (v - max).max(-87.0);
        exp(d) * d
    };
    let (sum, weighted) = (sum16_f64(row, |v| exp(v - max)), sum16_f64(row, weighted));
    (sum.ln() - weighted / sum) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, scale: f32) -> Vec<f32> {
        let mut state = 7u32;
        let next = || {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            ((state >> 8) as f32 / (1u32 << 23) as f32 - 1.0) * scale
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    #[test]
    fn every_share_falls_on_the_element_that_holds_it() {
        for (len, temperature) in [(1, 1.0), (5, 1.0), (300, 1.0), (300, 0.7), (4096, 1.0)] {
            let logits = noise(len, 6.0);
            let p: Vec<f64> = logits.iter().map(|&v| f64::from(v / temperature).exp()).collect();
            let total: f64 = p.iter().sum();
            let mut before = 0.0;
            for (i, p) in p.iter().enumerate() {
                let middle = (before + p / 2.0) / total;
                before += p;
                // Elements rarer than the rounding of the sums may lose their middle.
                if *p / total > 1e-6 {
                    assert_eq!(draw(&logits, temperature, middle, &mut Vec::new()).0, i, "{len} {temperature}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_allowed_is_never_drawn() {
        let mut logits = noise(1000, 3.0);
        logits.iter_mut().enumerate().filter(|(i, _)| i % 3 != 1).for_each(|(_, v)| *v = f32::NEG_INFINITY);
        let mut scratch = Vec::new();
        for step in 0..4000 {
            assert_eq!(draw(&logits, 1.0, f64::from(step) / 4000.0, &mut scratch).0 % 3, 1);
        }
        let last = 1.0 - f64::EPSILON / 2.0;
        assert_eq!(draw(&logits, 1.0, last, &mut scratch).0 % 3, 1);
    }

    #[test]
    fn log_probabilities_are_those_of_the_loss() {
        let logits = noise(777, 9.0);
        let (index, all) = draw(&logits, 1.0, 0.3, &mut Vec::new());
        let own = all.of_logit(logits[index]);
        assert_eq!(own.to_bits(), crate::train::backward::log_probability(&logits, index).to_bits());
    }

    #[test]
    fn entropy_is_that_of_the_definition() {
        assert!((entropy(&[0.5; 64]) - 64f32.ln()).abs() < 1e-6);
        assert!((0.0..1e-30).contains(&entropy(&[0.0, f32::NEG_INFINITY, -1e4])));
        let logits = noise(500, 4.0);
        let total: f64 = logits.iter().map(|&v| f64::from(v).exp()).sum();
        let p = logits.iter().map(|&v| f64::from(v).exp() / total);
        let wanted: f64 = -p.map(|p| p * p.ln()).sum::<f64>();
        assert!((f64::from(entropy(&logits)) - wanted).abs() < 1e-5);
    }

    #[test]
    fn what_is_not_finite_is_found() {
        let mut logits = noise(400, 1.0);
        assert_eq!(nonfinite(&logits), None);
        for (at, bad) in [(399, f32::NAN), (200, f32::INFINITY), (3, f32::NEG_INFINITY)] {
            logits[at] = bad;
            assert_eq!(nonfinite(&logits), Some(at));
        }
    }
}
