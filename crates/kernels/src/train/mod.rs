//! What training needs beyond the forward pass: weights packed for both backward products, those
//! products, the backward of row-wise operations, the loss, the optimiser steps and V3's FP8 scheme.
//!
//! Sums over tokens are cut into blocks of a fixed number of rows, which are added in rising order,
//! so that the number of threads never changes a bit of a gradient or of a weight.

pub mod backward;
pub mod fp8;
pub mod optim;
pub mod panels;
pub mod products;

/// The sum of `f(0) .. f(len - 1)` in sixteen partial sums, added as the tree of `lanes`.
#[inline(always)]
pub(crate) fn sum16(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut acc = [0.0f32; 16];
    let whole = len / 16 * 16;
    for start in (0..whole).step_by(16) {
        for lane in 0..16 {
            acc[lane] += f(start + lane);
        }
    }
    for i in whole..len {
        acc[i - whole] += f(i);
    }
    let a: [f32; 8] = std::array::from_fn(|i| acc[i] + acc[i + 8]);
    let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
    (b[0] + b[2]) + (b[1] + b[3])
}
