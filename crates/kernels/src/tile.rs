//! Dot products of several rows of weights with several rows of inputs at once: the inner loop of
//! every matrix product and of attention's scores.
//!
//! Each dot product keeps sixteen partial sums, element `k` going to lane `k % 16` in rising `k`,
//! whichever tile computes it. The partial sums live in memory between calls, so a long dot product
//! can be cut into pieces that fit the first-level cache without a change in its bits.

use crate::lanes::{Lanes, Part};

/// The least number that all tiles' heights divide: partial sums have room for whole tiles.
pub(crate) const ROW_STEP: usize = 24;

/// The most rows of inputs in a tile of any instruction set.
pub(crate) const MOST_COLUMNS: usize = 4;

/// Rows of floats, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) start: *const f32,
    pub(crate) stride: usize,
    /// At least one.
    pub(crate) count: usize,
}

impl Rows {
    /// Row `r`; rows past the last one repeat it (their sums are not used).
    #[inline(always)]
    fn row(self, r: usize) -> *const f32 {
        self.start.wrapping_add(r.min(self.count - 1) * self.stride)
    }
}

/// At least `len` floats of whatever value, kept from task to task.
pub(crate) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Adds the products of `len` elements (a multiple of 16) to the partial sums of `w[r] . x[c]`, or
/// begins them where `first`. They are the sixteen floats at `acc[c * acc_stride + r * 16]`.
///
/// # Safety
/// The processor has `V`'s instruction set. All rows are valid for `len` floats, and `acc` for the
/// `x.count` (at most `V::TILE.1`) columns of `w.count.next_multiple_of(ROW_STEP)` partial sums.
#[inline(always)]
pub(crate) unsafe fn multiply<V: Lanes>(w: Rows, x: Rows, len: usize, acc: *mut f32, acc_stride: usize, first: bool) {
    let wide = V::TILE.0 == 6;
    // SAFETY: the caller's promise; every tile's height divides `ROW_STEP`.
    unsafe {
        match (x.count, wide) {
            (1, _) => each_tile::<V::Part, 8, 1>(w, x, len, acc, acc_stride, first),
            (2, false) => each_tile::<V::Part, 4, 2>(w, x, len, acc, acc_stride, first),
            (_, false) => each_tile::<V::Part, 4, 3>(w, x, len, acc, acc_stride, first),
            (2, true) => each_tile::<V::Part, 6, 2>(w, x, len, acc, acc_stride, first),
            (3, true) => each_tile::<V::Part, 6, 3>(w, x, len, acc, acc_stride, first),
            (_, true) => each_tile::<V::Part, 6, 4>(w, x, len, acc, acc_stride, first),
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn each_tile<P: Part, const R: usize, const C: usize>(
    w: Rows,
    x: Rows,
    len: usize,
    acc: *mut f32,
    acc_stride: usize,
    first: bool,
) {
    let xs: [*const f32; C] = std::array::from_fn(|c| x.row(c));
    for r in (0..w.count).step_by(R) {
        let ws: [*const f32; R] = std::array::from_fn(|i| w.row(r + i));
        // SAFETY: the caller's promise; `r + R` does not pass the rounded number of rows.
        unsafe { tile::<P, R, C>(ws, xs, len, acc.add(r * 16), acc_stride, first) };
    }
}

/// # Safety
/// As [`multiply`], for `R` rows and `C` columns.
#[inline(always)]
unsafe fn tile<P: Part, const R: usize, const C: usize>(
    w: [*const f32; R],
    x: [*const f32; C],
    len: usize,
    acc: *mut f32,
    acc_stride: usize,
    first: bool,
) {
    for part in (0..16).step_by(P::WIDTH) {
        // SAFETY: the caller's promise.
        unsafe {
            let at = |r: usize, c: usize| acc.add(c * acc_stride + r * 16 + part);
            let mut sums = [[P::zero(); C]; R];
            if !first {
                for r in 0..R {
                    for c in 0..C {
                        sums[r][c] = P::load(at(r, c));
                    }
                }
            }
            let mut k = part;
            while k < len {
                let xs: [P; C] = std::array::from_fn(|c| P::load(x[c].add(k)));
                for r in 0..R {
                    let wr = P::load(w[r].add(k));
                    for c in 0..C {
                        sums[r][c] = wr.mul_add(xs[c], sums[r][c]);
                    }
                }
                k += 16;
            }
            for r in 0..R {
                for c in 0..C {
                    sums[r][c].store(at(r, c));
                }
            }
        }
    }
}

/// `sums[c][r] = w[r] . x[c]` for up to [`ROW_STEP`] rows of weights and [`MOST_COLUMNS`] of inputs.
///
/// # Safety
/// The processor has `V`'s instruction set, and all rows are valid for `len` floats, a multiple of 16.
#[inline(always)]
pub(crate) unsafe fn block<V: Lanes>(w: Rows, x: Rows, len: usize, sums: &mut [[f32; ROW_STEP]; MOST_COLUMNS]) {
    debug_assert!(w.count <= ROW_STEP && x.count <= MOST_COLUMNS && len.is_multiple_of(16));
    const STRIDE: usize = ROW_STEP * 16;
    let mut acc = [const { std::mem::MaybeUninit::<f32>::uninit() }; STRIDE * MOST_COLUMNS];
    let acc = acc.as_mut_ptr().cast::<f32>();
    for c in (0..x.count).step_by(V::TILE.1) {
        let part = Rows { start: x.row(c), count: (x.count - c).min(V::TILE.1), ..x };
        // SAFETY: `acc` has room for every column; `multiply` writes all partial sums that are read.
        unsafe {
            multiply::<V>(w, part, len, acc.add(c * STRIDE), STRIDE, true);
            for c in c..c + part.count {
                for r in 0..w.count {
                    sums[c][r] = V::load(acc.add(c * STRIDE + r * 16)).sum();
                }
            }
        }
    }
}

/// `out += scale[0] * x[0]`, then `+= scale[1] * x[1]` and so on, element by element: `N` rows in the
/// roundings of one after the other, with `out` read and written once.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn axpy<V: Lanes, const N: usize>(out: &mut [f32], x: [&[f32]; N], scale: [f32; N]) {
    assert!(x.iter().all(|x| x.len() == out.len()), "rows of one length");
    let whole = out.len() / 16 * 16;
    // SAFETY: `whole` is inside all slices; the instruction set is the caller's promise.
    unsafe {
        let s = scale.map(|scale| V::splat(scale));
        let mut i = 0;
        while i < whole {
            let mut sum = V::load(out.as_ptr().add(i));
            for (x, s) in x.iter().zip(s) {
                sum = V::load(x.as_ptr().add(i)).mul_add(s, sum);
            }
            sum.store(out.as_mut_ptr().add(i));
            i += 16;
        }
        // The rest goes through a padded vector: the same arithmetic as a whole one.
        if whole < out.len() {
            let rest = out.len() - whole;
            let padded = |from: &[f32]| {
                let mut to = [0.0f32; 16];
                to[..rest].copy_from_slice(&from[whole..]);
                to
            };
            let mut sum = V::load(padded(out).as_ptr());
            for (x, s) in x.iter().zip(s) {
                sum = V::load(padded(x).as_ptr()).mul_add(s, sum);
            }
            let mut last = [0.0f32; 16];
            sum.store(last.as_mut_ptr());
            out[whole..].copy_from_slice(&last[..rest]);
        }
    }
}
