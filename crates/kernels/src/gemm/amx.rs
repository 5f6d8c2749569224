//! The same products on the tiles of AMX, from the same panels.
//!
//! A step of a panel is a row of a tile of weights, and sixteen steps are a tile. An output takes its inputs
//! thirty-two at a time: the sixteen even ones and the sixteen odd ones as two chains of fused additions that
//! begin at zero, the two added, and that added to what came before; magnitudes below 2^-126 count as zero.
//! This is another order than that of the other kernels, and like theirs it depends on the number of inputs
//! alone.

use std::ops::Range;

use super::micro::{Avx512Bf16, Inputs, Mode, Outputs, PanelsAt, Step};
use super::packed::PANEL;
use super::tasks::{Scratch, Strips, outer_task, product_task};
use super::{Outer, Product};
use crate::amx::{Kind, Operands, TILE, TILE_BYTES, Tiles};
use crate::pool::SharedMut;

/// Bytes of a step.
const STEP_BYTES: usize = size_of::<Step>();

/// [`product_task`] on tiles.
///
/// # Safety
/// [`super::Kernels::Amx`] is available, the matrix is in bfloat16, and no other task writes these outputs.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn product(
    p: &Product,
    rows: Range<usize>,
    panels: Range<usize>,
    x: &[f32],
    out: &SharedMut<f32>,
    add: bool,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise.
    unsafe { product_task::<OnTiles>(p, rows, panels, x, out, add, scratch) }
}

/// [`outer_task`] on tiles.
///
/// # Safety
/// [`super::Kernels::Amx`] is available, and no other task writes these outputs.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn outer(
    p: &Outer,
    left: Range<usize>,
    right: Range<usize>,
    sides: (&[f32], &[f32]),
    out: &SharedMut<f32>,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise.
    unsafe { outer_task::<OnTiles>(p, left, right, sides, false, out, scratch) }
}

/// Two blocks of sixteen rows times two panels.
struct OnTiles;

/// The tiles of a task, and a place for sums that cannot lie where they belong: of one panel.
pub(super) struct State {
    tiles: Option<Tiles>,
    sums: [f32; 2 * TILE * PANEL],
    /// The last steps of two panels, with zeros after them.
    rest: [[Step; TILE]; 2],
}

impl Strips for OnTiles {
    type Pack = Avx512Bf16;
    type State = State;
    const LEFT_PANELS: usize = 2;
    const RIGHT_PANELS: usize = 2;

    fn state() -> State {
        State { tiles: None, sums: [0.0; 2 * TILE * PANEL], rest: [[Step([0; 16]); TILE]; 2] }
    }

    fn strip(left: usize) -> usize {
        left.min(2 * TILE)
    }

    #[inline(always)]
    unsafe fn multiply(
        state: &mut State,
        rows: usize,
        panels: usize,
        steps: usize,
        x: Inputs,
        w: PanelsAt,
        out: Outputs,
        mode: Mode,
    ) {
        let x = Left { start: x.start.cast(), row: x.row * 4, step: TILE_BYTES };
        for first in (0..panels).step_by(2) {
            let w = PanelsAt { start: w.start.wrapping_add(first * w.stride), ..w };
            let start = out.start.wrapping_add(first * PANEL);
            let out = Outputs { start, cols: out.cols - first * PANEL, ..out };
            // SAFETY: the caller's promise, of these panels.
            unsafe { block(state, [rows, (panels - first).min(2)], steps, x, w, out, mode) };
        }
    }

    /// Rounds both sides up to whole tiles with zeros, and turns the left one: its columns become the rows of
    /// tiles.
    #[inline(always)]
    fn prepare(sides: [&mut [Step]; 2], steps: usize, stride: usize) {
        let [left, right] = sides;
        for panel in left.chunks_mut(stride).chain(right.chunks_mut(stride)) {
            panel[steps..steps.next_multiple_of(TILE)].fill(Step([0; 16]));
        }
        for panel in left.chunks_mut(stride) {
            panel[..steps.next_multiple_of(TILE)].as_chunks_mut::<TILE>().0.iter_mut().for_each(turn);
        }
    }

    #[inline(always)]
    unsafe fn multiply_outer(
        state: &mut State,
        panels: [usize; 2],
        steps: usize,
        left: PanelsAt,
        right: PanelsAt,
        out: Outputs,
    ) {
        // A tile of the left side is sixteen steps, turned; `prepare` made them whole.
        let x = Left { start: left.start.cast(), row: STEP_BYTES, step: TILE * STEP_BYTES };
        let steps = steps.next_multiple_of(TILE);
        let rows = out.rows.min(panels[0] * TILE);
        // The second block of rows is the next panel and not the next row.
        let second = (left.stride * STEP_BYTES) as isize;
        // SAFETY: the caller's promise; the steps up to a whole tile are there.
        unsafe { block_at(state, [rows, panels[1]], steps, x, second, right, out, Mode::Add) };
    }
}

/// Sixteen rows of sixteen words to columns.
#[inline(always)]
fn turn(tile: &mut [Step; TILE]) {
    let rows = *tile;
    for (i, to) in tile.iter_mut().enumerate() {
        *to = Step(std::array::from_fn(|j| rows[j].0[i]));
    }
}

/// Inputs of rows in bytes: from one to the next, and from one tile to the next in depth.
#[derive(Clone, Copy)]
struct Left {
    start: *const u8,
    row: usize,
    step: usize,
}

/// Up to thirty-two rows times up to two panels.
///
/// # Safety
/// As [`super::micro::tile`]; rows of `x` have zeros up to whole tiles.
#[inline(always)]
unsafe fn block(state: &mut State, shape: [usize; 2], steps: usize, x: Left, w: PanelsAt, out: Outputs, mode: Mode) {
    // SAFETY: the caller's promise.
    unsafe { block_at(state, shape, steps, x, (TILE * x.row) as isize, w, out, mode) };
}

/// [`block`] whose second sixteen rows begin `second` bytes after the first.
///
/// # Safety
/// As [`block`].
#[inline(always)]
unsafe fn block_at(
    state: &mut State,
    [rows, panels]: [usize; 2],
    steps: usize,
    x: Left,
    second: isize,
    w: PanelsAt,
    out: Outputs,
    mode: Mode,
) {
    let (whole, rest) = (steps / TILE, steps % TILE);
    let panel = |p: usize| w.start.wrapping_add(p * w.stride);
    // SAFETY: the caller's promise; the last steps are copied, so that no more of a panel is read than there is.
    unsafe {
        let blocks = [rows.min(TILE), rows.saturating_sub(TILE)];
        let tiles = match &mut state.tiles {
            Some(tiles) => {
                tiles.reshape(blocks, TILE_BYTES);
                tiles
            }
            none => none.insert(Tiles::new(blocks, TILE_BYTES)),
        };
        tiles.zero();
        let from = Operands {
            inputs: [x.start, x.start.wrapping_offset(second)],
            input_stride: x.row,
            input_step: x.step,
            weights: [panel(0).cast(), panel(panels - 1).cast()],
            weight_stride: STEP_BYTES,
            steps: whole,
        };
        if mode == Mode::Continue {
            for p in 0..panels {
                let (at, stride) = stored(&mut state.sums, rows, p, out, true);
                tiles.load(p, at.cast(), stride);
            }
        }
        tiles.multiply(Kind::Bf16, panels, &from);
        if rest > 0 {
            for (p, to) in state.rest[..panels].iter_mut().enumerate() {
                std::ptr::copy_nonoverlapping(panel(p).add(whole * TILE), to.as_mut_ptr(), rest);
                to[rest..].fill(Step([0; 16]));
            }
            let inputs = from.inputs.map(|start| start.wrapping_add(whole * x.step));
            let weights = [state.rest[0].as_ptr().cast(), state.rest[panels - 1].as_ptr().cast()];
            tiles.multiply(Kind::Bf16, panels, &Operands { inputs, weights, steps: 1, ..from });
        }
        for p in 0..panels {
            let direct = mode != Mode::Add;
            let (at, stride) =
                if direct { stored(&mut state.sums, rows, p, out, false) } else { aside(&mut state.sums) };
            tiles.store(p, at.cast(), stride);
            if at == state.sums.as_mut_ptr() {
                take(&state.sums, rows, p, out, mode);
            }
        }
    }
}

/// The place of sums that are put aside, and the bytes from row to row.
fn aside(sums: &mut [f32]) -> (*mut f32, usize) {
    (sums.as_mut_ptr(), PANEL * 4)
}

/// Where the sums of panel `p` are stored: where they belong, or (a panel that is not whole) aside, with
/// (`read`) a copy of what is stored so far.
///
/// # Safety
/// As [`block`].
#[inline(always)]
unsafe fn stored(sums: &mut [f32], rows: usize, p: usize, out: Outputs, read: bool) -> (*mut f32, usize) {
    let at = out.start.wrapping_add(p * PANEL);
    if (p + 1) * PANEL <= out.cols {
        return (at, out.stride * 4);
    }
    for (r, to) in sums.chunks_exact_mut(PANEL).take(if read { rows } else { 0 }).enumerate() {
        // SAFETY: the outputs of this panel that exist, of a row that does.
        unsafe { std::ptr::copy_nonoverlapping(at.add(r * out.stride), to.as_mut_ptr(), out.cols - p * PANEL) };
    }
    aside(sums)
}

/// Sums that were put aside go to those outputs of panel `p` that exist.
///
/// # Safety
/// As [`block`].
#[inline(always)]
unsafe fn take(sums: &[f32], rows: usize, p: usize, out: Outputs, mode: Mode) {
    let cols = (out.cols - p * PANEL).min(PANEL);
    for (r, sums) in sums.chunks_exact(PANEL).take(rows).enumerate() {
        // SAFETY: the outputs of this panel that exist, of a row that does; nobody else has them.
        let to = unsafe { std::slice::from_raw_parts_mut(out.start.add(r * out.stride + p * PANEL), cols) };
        match mode {
            Mode::Add => to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum),
            _ => to.copy_from_slice(&sums[..cols]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::gemm::{Kernels, SUM_BLOCK};
    use crate::pool::Pool;
    use crate::train::panels::{Panels, Precision, rounded};
    use crate::train::products::products_with;
    use crate::weight::Weight;

    /// The order of this module's documentation, in plain code: `sum` goes on with `terms`.
    fn go_on(mut sum: f32, terms: impl Iterator<Item = (f32, f32)>) -> f32 {
        let flush = |x: f32| if x.is_subnormal() { 0.0 } else { x };
        let terms: Vec<(f32, f32)> = terms.collect();
        for block in terms.chunks(32) {
            let mut chains = [0.0f32; 2];
            for (i, (a, b)) in block.iter().enumerate() {
                let (a, b) = (rounded(*a, Precision::Bf16), rounded(*b, Precision::Bf16));
                chains[i % 2] = flush(flush(a).mul_add(flush(b), chains[i % 2]));
            }
            sum = flush(flush(sum) + flush(chains[0] + chains[1]));
        }
        sum
    }

    #[test]
    fn amx_products_have_the_bits_of_the_order_in_plain_code() {
        if !Kernels::Amx.is_available() {
            return; // No AMX and no emulator: the other kernels' tests are all there is.
        }
        let pool = Pool::new(2);
        let mut state = 1u64;
        let mut random = |count: usize| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            (0..count).map(|_| next() + next()).collect()
        };
        for (t, k, n) in
            [(1, 1, 1), (3, 33, 17), (16, 32, 16), (17, 64, 31), (37, 275, 50), (70, 600, 33), (300, 40, 49)]
        {
            let (x, w, dy) = (random(t * k), random(n * k), random(t * n));
            let panels = Weight::from_panels(Arc::new(Panels::pack(&pool, n, k, &w, Precision::Bf16)));
            let (mut y, mut dx, mut dw) = (vec![f32::NAN; t * n], vec![f32::NAN; t * k], vec![0.5; n * k]);
            let outs = [&mut y[..], &mut dx, &mut dw];
            products_with(Kernels::Amx, &pool, outs, &x, &dy, &panels, Precision::Bf16);
            let same = |got: &[f32], what: &str, want: &dyn Fn(usize) -> f32| {
                for (i, got) in got.iter().enumerate() {
                    let want = want(i);
                    assert_eq!(got.to_bits(), want.to_bits(), "{what} of {t} x {k} x {n}, {i}: {got} {want}");
                }
            };
            same(&y, "y", &|e| go_on(0.0, (0..k).map(|i| (x[e / n * k + i], w[e % n * k + i]))));
            same(&dx, "dx", &|e| go_on(0.0, (0..n).map(|o| (dy[e / k * n + o], w[o * k + e % k]))));
            same(&dw, "dw", &|e| {
                let term = |r: usize| (dy[r * n + e / k], x[r * k + e % k]);
                (0..t)
                    .step_by(SUM_BLOCK)
                    .fold(0.5, |sum, first| sum + go_on(0.0, (first..(first + SUM_BLOCK).min(t)).map(term)))
            });
        }
    }
}
