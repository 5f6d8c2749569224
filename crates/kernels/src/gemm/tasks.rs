//! What one thread does of a product: packs its block of inputs and goes through the tiles.

use std::ops::Range;

use super::micro::{Inputs, Micro, Mode, Outputs, PanelsAt, Step, fetch_row, tile};
use super::packed::PANEL;
use super::{At, Outer, Product, SUM_BLOCK, Side};
use crate::pool::SharedMut;
use crate::train::fp8;
use crate::train::panels::Precision;

/// The most rows of inputs in a task of a product: a block of them stays in the second-level cache.
pub(super) const ROWS_MAX: usize = 96;
/// Panels that all rows of a task go through before the next ones.
pub(super) const PANELS_TOGETHER: usize = 8;
/// The most panels in a task whose inputs are more than one block.
pub(super) const PANELS_PUT_ASIDE: usize = 24;
/// The most columns of the left and right matrix in a task of an outer product.
pub(super) const OUTER_MAX: (usize, usize) = (192, 256);

/// Memory of a thread for the task at hand, kept from task to task.
#[derive(Default)]
pub(super) struct Scratch {
    left: Vec<Step>,
    right: Vec<Step>,
    /// A block of one side of an outer product that goes through E4M3.
    rounded: Vec<f32>,
}

/// At least `len` steps of whatever value.
fn room(buffer: &mut Vec<Step>, len: usize) -> &mut [Step] {
    if buffer.len() < len {
        buffer.resize(len, Step([0; 16]));
    }
    &mut buffer[..len]
}

/// How a task's packed inputs and panels are multiplied: by vectors ([`Micro`]), or by a matrix unit.
///
/// # Safety
/// As [`Micro`].
pub(super) trait Strips {
    /// How inputs and panels are packed.
    type Pack: Micro;
    /// What a task keeps from one strip to the next.
    type State;
    /// Panels of the left and right side of an outer product that are multiplied together.
    const LEFT_PANELS: usize;
    const RIGHT_PANELS: usize;
    /// At the beginning of a task.
    fn state() -> Self::State;
    /// Rows of the next strip.
    fn strip(left: usize) -> usize;
    /// A strip of rows times some panels.
    ///
    /// # Safety
    /// As [`tile`].
    unsafe fn multiply(
        state: &mut Self::State,
        rows: usize,
        panels: usize,
        steps: usize,
        x: Inputs,
        w: PanelsAt,
        out: Outputs,
        mode: Mode,
    );
    /// What is to be done with both sides of an outer product once they are packed: panels of `steps` steps,
    /// `stride` apart, with room for 32 rows more.
    fn prepare(sides: [&mut [Step]; 2], steps: usize, stride: usize);
    /// Some panels of the left side times some of the right, added to the outputs.
    ///
    /// # Safety
    /// As [`tile`], for the rows that exist.
    unsafe fn multiply_outer(
        state: &mut Self::State,
        panels: [usize; 2],
        steps: usize,
        left: PanelsAt,
        right: PanelsAt,
        out: Outputs,
    );
}

impl<V: Micro> Strips for V {
    type Pack = V;
    type State = ();
    const LEFT_PANELS: usize = 1;
    const RIGHT_PANELS: usize = V::TILE.1;

    fn state() {}

    #[inline(always)]
    fn strip(left: usize) -> usize {
        let sizes = if V::TILE.0 == 6 { [6, 4, 2, 1] } else { [12, 8, 4, 2] };
        sizes.into_iter().find(|&size| size <= V::TILE.0 && size <= left).unwrap_or(1)
    }

    #[inline(always)]
    unsafe fn multiply(
        (): &mut (),
        rows: usize,
        panels: usize,
        steps: usize,
        x: Inputs,
        w: PanelsAt,
        out: Outputs,
        mode: Mode,
    ) {
        // SAFETY: the caller's promise.
        unsafe { strip_by_panels::<V>(rows, panels, steps, x, w, out, mode) }
    }

    fn prepare(_: [&mut [Step]; 2], _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn multiply_outer(
        (): &mut (),
        panels: [usize; 2],
        steps: usize,
        left: PanelsAt,
        right: PanelsAt,
        out: Outputs,
    ) {
        let x = Inputs { start: left.start.cast(), row: 1, step: 16 };
        // SAFETY: the caller's promise.
        unsafe { panel_by_panels::<V>(panels[1], steps, x, right, out) }
    }
}

/// Rows `rows` times panels `panels` of a product.
///
/// # Safety
/// The processor has `S`'s instruction set, the matrix has `S`'s precision, and no other task writes
/// these outputs.
#[inline(always)]
pub(super) unsafe fn product_task<S: Strips>(
    p: &Product,
    rows: Range<usize>,
    panels: Range<usize>,
    x: &[f32],
    out: &SharedMut<f32>,
    add: bool,
    scratch: &mut Scratch,
) {
    // A row of packed inputs: steps of sixteen words, and one more so that rows do not share sets of
    // the cache.
    let row_steps = SUM_BLOCK / S::Pack::STEP / 16 + 1;
    let packed = room(&mut scratch.left, rows.len() * row_steps);
    let mut state = S::state();
    let cols = panels.start * PANEL..(panels.end * PANEL).min(p.matrix.outputs);
    let (fp8, mut tiles) = (p.matrix.precision() == Precision::Fp8, [0.0f32; SUM_BLOCK]);
    for k in (0..p.matrix.inputs.max(1)).step_by(SUM_BLOCK) {
        let len = (p.matrix.inputs - k).min(SUM_BLOCK);
        let mode = match (add, k) {
            (true, _) => Mode::Add,
            (false, 0) => Mode::Begin,
            (false, _) => Mode::Continue,
        };
        for (t, to) in rows.clone().zip(packed.chunks_exact_mut(row_steps)) {
            let mut inputs = &x[p.x.row(t) + k..][..len];
            if fp8 {
                tiles[..len].copy_from_slice(inputs);
                fp8::round_row(&mut tiles[..len]);
                inputs = &tiles[..len];
            }
            // SAFETY: the instruction set is the caller's promise.
            unsafe { pack_inputs::<S::Pack>(inputs, to) };
        }
        for first in panels.clone().step_by(PANELS_TOGETHER) {
            let group = first..(first + PANELS_TOGETHER).min(panels.end);
            let (panel, stride) = p.matrix.panel(first, k);
            assert!(
                (group.len() - 1) * stride + len.div_ceil(S::Pack::STEP) <= panel.len(),
                "panels of this many inputs"
            );
            let w = PanelsAt { start: panel.as_ptr(), stride };
            let mut t = 0;
            while t < rows.len() {
                let strip = S::strip(rows.len() - t);
                let x = Inputs { start: packed[t * row_steps..].as_ptr().cast(), row: row_steps * 16, step: 1 };
                let start = p.out.row(rows.start + t) + first * PANEL;
                let cols = cols.end - first * PANEL;
                assert!(p.out.row(rows.end - 1) + first * PANEL + cols.min(group.len() * PANEL) <= out.len());
                // SAFETY: inside `out`, as was just found.
                let start = unsafe { out.start().add(start) };
                let to = Outputs { start, stride: p.out.stride, rows: strip, cols };
                // SAFETY: `packed` holds these rows and the matrix these panels, both of `len` inputs;
                // the rest is the caller's promise.
                unsafe { S::multiply(&mut state, strip, group.len(), len.div_ceil(S::Pack::STEP), x, w, to, mode) };
                t += strip;
            }
        }
    }
}

/// One row of inputs, with zeros up to a whole step.
///
/// # Safety
/// The processor has `V`'s instruction set; `to` has room for the inputs rounded up to 32.
#[inline(always)]
pub(super) unsafe fn pack_inputs<V: Micro>(from: &[f32], to: &mut [Step]) {
    let (whole, rest) = from.as_chunks::<32>();
    let words = 32 / V::STEP;
    assert!(from.len().div_ceil(32) * words <= to.len() * 16, "room for {} inputs", from.len());
    let to = to.as_mut_ptr().cast::<u32>();
    // SAFETY: room was just found to be enough; the instruction set is the caller's promise.
    unsafe {
        for (i, chunk) in whole.iter().enumerate() {
            V::inputs(chunk.as_ptr(), to.add(i * words));
        }
        if !rest.is_empty() {
            let mut padded = [0.0f32; 32];
            padded[..rest.len()].copy_from_slice(rest);
            V::inputs(padded.as_ptr(), to.add(whole.len() * words));
        }
    }
}

/// A strip of rows times some panels. Few rows take more panels at a time, so that enough sums are
/// under way to fill the multipliers.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn strip_by_panels<V: Micro>(
    rows: usize,
    panels: usize,
    steps: usize,
    x: Inputs,
    w: PanelsAt,
    out: Outputs,
    mode: Mode,
) {
    let wide = V::TILE.1 > 1;
    // SAFETY: the caller's promise.
    unsafe {
        match rows {
            12 if V::TILE.0 >= 12 => across::<V, 12, 2>(panels, steps, x, w, out, mode),
            8 if V::TILE.0 >= 8 => across::<V, 8, 2>(panels, steps, x, w, out, mode),
            6 if V::TILE.0 == 6 => across::<V, 6, 1>(panels, steps, x, w, out, mode),
            4 if wide => across::<V, 4, 4>(panels, steps, x, w, out, mode),
            4 if V::TILE.0 >= 4 => across::<V, 4, 1>(panels, steps, x, w, out, mode),
            2 if wide => across::<V, 2, 4>(panels, steps, x, w, out, mode),
            2 => across::<V, 2, 1>(panels, steps, x, w, out, mode),
            1 if wide => across::<V, 1, 8>(panels, steps, x, w, out, mode),
            1 => across::<V, 1, 2>(panels, steps, x, w, out, mode),
            _ => unreachable!("a strip of {rows} rows"),
        }
    }
}

/// `panels` panels, `P` at a time; a rest by smaller tiles.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn across<V: Micro, const M: usize, const P: usize>(
    panels: usize,
    steps: usize,
    x: Inputs,
    w: PanelsAt,
    out: Outputs,
    mode: Mode,
) {
    let at = |p: usize| {
        let w = PanelsAt { start: w.start.wrapping_add(p * w.stride), ..w };
        (w, Outputs { start: out.start.wrapping_add(p * PANEL), cols: out.cols - p * PANEL, ..out })
    };
    let mut p = 0;
    // SAFETY: the caller's promise, of the panels `p ..`.
    unsafe {
        while panels - p >= P {
            let (w, out) = at(p);
            tile::<V, M, P>(steps, x, w, out, mode);
            p += P;
        }
        while P > 4 && panels - p >= 4 {
            let (w, out) = at(p);
            tile::<V, M, 4>(steps, x, w, out, mode);
            p += 4;
        }
        while P > 2 && panels - p >= 2 {
            let (w, out) = at(p);
            tile::<V, M, 2>(steps, x, w, out, mode);
            p += 2;
        }
        while p < panels {
            let (w, out) = at(p);
            tile::<V, M, 1>(steps, x, w, out, mode);
            p += 1;
        }
    }
}

/// Rows `left` (columns of the left matrix) and columns `right` of an outer product.
///
/// # Safety
/// The processor has `S`'s instruction set, and no other task writes these outputs.
#[inline(always)]
pub(super) unsafe fn outer_task<S: Strips>(
    p: &Outer,
    left: Range<usize>,
    right: Range<usize>,
    (left_rows, right_rows): (&[f32], &[f32]),
    fp8: bool,
    out: &SharedMut<f32>,
    scratch: &mut Scratch,
) {
    // One more step than a block has, so that panels do not share sets of the cache.
    let stride = SUM_BLOCK / S::Pack::STEP + 1;
    let panels = [&left, &right].map(|range| range.len().div_ceil(PANEL));
    let Scratch { left: a, right: b, rounded } = scratch;
    let (a, b) = (room(a, panels[0] * stride), room(b, panels[1] * stride));
    let side = |side, values, at, width| SideRows { values, at, width, tiles: fp8.then_some(p.inputs == side) };
    let sides =
        (side(Side::Left, left_rows, p.left, p.left_cols), side(Side::Right, right_rows, p.right, p.right_cols));
    assert!((left.end - 1) * p.right_cols + right.end <= out.len(), "outputs {left:?} x {right:?}");
    let mut state = S::state();
    for t in (0..p.rows).step_by(SUM_BLOCK) {
        let rows = t..(t + SUM_BLOCK).min(p.rows);
        let steps = rows.len().div_ceil(S::Pack::STEP);
        // SAFETY: the instruction set is the caller's promise.
        unsafe {
            pack_side::<S::Pack>(&sides.0, &left, rows.clone(), a, stride, rounded);
            pack_side::<S::Pack>(&sides.1, &right, rows, b, stride, rounded);
        }
        S::prepare([&mut *a, &mut *b], steps, stride);
        let mut next = t + SUM_BLOCK..(t + 2 * SUM_BLOCK).min(p.rows);
        let tiles = panels[0].div_ceil(S::LEFT_PANELS) * panels[1].div_ceil(S::RIGHT_PANELS);
        for first in (0..panels[1]).step_by(S::RIGHT_PANELS) {
            let count = (panels[1] - first).min(S::RIGHT_PANELS);
            let w = PanelsAt { start: b[first * stride..].as_ptr(), stride };
            let cols = right.len() - first * PANEL;
            for panel in (0..panels[0]).step_by(S::LEFT_PANELS) {
                let x = PanelsAt { start: a[panel * stride..].as_ptr(), stride };
                let start = (left.start + panel * PANEL) * p.right_cols + right.start + first * PANEL;
                // SAFETY: inside `out`, as was found above.
                let start = unsafe { out.start().add(start) };
                let rows = left.len() - panel * PANEL;
                let to = Outputs { start, stride: p.right_cols, rows, cols };
                let count = [(panels[0] - panel).min(S::LEFT_PANELS), count];
                // SAFETY: `a` and `b` hold these panels of `steps`; the rest is the caller's promise.
                unsafe { S::multiply_outer(&mut state, count, steps, x, w, to) };
                // The rows of the next block come near meanwhile.
                for t in next.by_ref().take(SUM_BLOCK.div_ceil(tiles)) {
                    fetch_row(&left_rows[p.left.row(t) + left.start..][..left.len()]);
                    fetch_row(&right_rows[p.right.row(t) + right.start..][..right.len()]);
                }
            }
        }
    }
}

/// The rows of one side of an outer product.
struct SideRows<'a> {
    values: &'a [f32],
    at: At,
    width: usize,
    /// Through E4M3: whether they are inputs, which the forward pass has rounded already.
    tiles: Option<bool>,
}

/// Columns `cols` of the rows `rows` (a block of [`SUM_BLOCK`]) as panels.
///
/// In FP8 a sum over tokens needs scales that are the same along tokens: tiles of 128 x 1. Inputs were
/// stored in tiles of 1 x 128 and are read out of these (V3 report, section 3.5.2).
///
/// # Safety
/// As [`pack_block`].
#[inline(always)]
unsafe fn pack_side<V: Micro>(
    side: &SideRows,
    cols: &Range<usize>,
    rows: Range<usize>,
    to: &mut [Step],
    stride: usize,
    rounded: &mut Vec<f32>,
) {
    let (first, width) = (rows.start, cols.len());
    let row = |t: usize| &side.values[side.at.row(t)..][..side.width];
    let Some(inputs) = side.tiles else {
        // SAFETY: the caller's promise.
        return unsafe { pack_block::<V>(|t| &row(t)[cols.clone()], rows, to, stride) };
    };
    rounded.clear();
    for t in rows.clone() {
        match inputs {
            true => fp8::round_part(row(t), cols, rounded),
            false => rounded.extend_from_slice(&row(t)[cols.clone()]),
        }
    }
    fp8::round_columns(rounded, width);
    // SAFETY: the caller's promise.
    unsafe { pack_block::<V>(|t| &rounded[(t - first) * width..][..width], rows, to, stride) };
}

/// Sixteen rows of which `out.rows` exist, times `panels` panels, added to the outputs.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn panel_by_panels<V: Micro>(panels: usize, steps: usize, x: Inputs, w: PanelsAt, out: Outputs) {
    let rows = match V::TILE.0 {
        8.. => 8,
        4.. => 4,
        _ => 2,
    };
    for first in (0..out.rows.min(PANEL)).step_by(rows) {
        let x = Inputs { start: x.start.wrapping_add(first * x.row), ..x };
        let start = out.start.wrapping_add(first * out.stride);
        let to = Outputs { start, rows: out.rows - first, ..out };
        // SAFETY: the caller's promise.
        unsafe {
            match (rows, panels) {
                (8, 2) => tile::<V, 8, 2>(steps, x, w, to, Mode::Add),
                (8, _) => tile::<V, 8, 1>(steps, x, w, to, Mode::Add),
                (4, _) => tile::<V, 4, 1>(steps, x, w, to, Mode::Add),
                _ => tile::<V, 2, 1>(steps, x, w, to, Mode::Add),
            }
        }
    }
}

/// Rows that are asked for ahead of the one that is packed.
const AHEAD: usize = 8;

/// Rows of some columns as panels of those columns, `stride` steps apart.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub(super) unsafe fn pack_block<'a, V: Micro>(
    row: impl Fn(usize) -> &'a [f32],
    rows: Range<usize>,
    to: &mut [Step],
    stride: usize,
) {
    let width = row(rows.start).len();
    assert!((width.div_ceil(PANEL) - 1) * stride + rows.len().div_ceil(V::STEP) <= to.len(), "room for the panels");
    let whole = width / PANEL;
    let zeros = [0.0f32; PANEL];
    for (s, t) in rows.clone().step_by(V::STEP).enumerate() {
        for ahead in (t + AHEAD..t + AHEAD + V::STEP).filter(|&ahead| ahead < rows.end) {
            fetch_row(row(ahead));
        }
        let even = row(t);
        let odd = if V::STEP == 2 && t + 1 < rows.end { Some(row(t + 1)) } else { None };
        // SAFETY: sixteen floats each, and room was found above; the instruction set is the caller's
        // promise.
        unsafe {
            let to = to.as_mut_ptr().add(s);
            for panel in 0..whole {
                let odd = odd.map_or(zeros.as_ptr(), |odd| odd.as_ptr().add(panel * PANEL));
                V::pair(even.as_ptr().add(panel * PANEL), odd, to.add(panel * stride));
            }
            if whole * PANEL < width {
                let padded = |from: &[f32]| {
                    let mut to = [0.0f32; PANEL];
                    to[..width - whole * PANEL].copy_from_slice(&from[whole * PANEL..]);
                    to
                };
                let (even, odd) = (padded(even), odd.map_or(zeros, padded));
                V::pair(even.as_ptr(), odd.as_ptr(), to.add(whole * stride));
            }
        }
    }
}
