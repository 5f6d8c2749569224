//! What the kernel tests share: random values, bounds, and comparisons.

#![allow(dead_code)] // each test program uses its part

pub(crate) mod tolerance;

use tolerance::Bound;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Between -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub(crate) fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        (1..n).rev().for_each(|i| all.swap(i, self.below(i + 1)));
        all
    }
}

/// Equal bits; of NaNs only that they are NaNs.
#[track_caller]
pub(crate) fn assert_same_bits(got: &[f32], want: &[f32], what: impl Fn() -> String) {
    assert_eq!(got.len(), want.len(), "{}", what());
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(same, "{}, element {i}: {a:e}, expected {b:e}", what());
    }
}

/// `got` is `want` within `bound` for `n` elements, as a share of `scale`.
#[track_caller]
pub(crate) fn assert_within(bound: Bound, n: usize, scale: f64, got: f32, want: f64, what: impl Fn() -> String) {
    let allowed = bound.share(n) * scale;
    let error = (f64::from(got) - want).abs();
    // A result below the normal numbers is rounded to their unit.
    let ok = error <= allowed + f64::from(f32::from_bits(1));
    assert!(ok, "{}: {got:e}, expected {want:e}; error {error:e}, {} allows {allowed:e}", what(), bound.name);
}
