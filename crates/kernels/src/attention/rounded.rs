//! Attention in bfloat16: queries, keys, values and the weights of a softmax rounded, sums in f32.
//!
//! A score keeps sixteen partial sums. Of each thirty-two elements of query and key, pair `i` (elements `2i`
//! and `2i + 1`) goes to sum `i`, its odd product before the even one; the sums are added as the tree of
//! [`Lanes`](crate::lanes::Lanes). Values are added in pairs of positions that begin at even ones, the odd
//! position before the even one, with zeros for positions that a query does not see.
//!
//! Products of bfloat16 are exact in f32, so this is what processors' own dot products give ([`super::dots`]);
//! elsewhere the elements are put in that order as floats and go through the same loops as exact attention.

use super::plane::{PAGE_LEN, Plane};
use super::sums::{Sums, Weights, add_weighted};
use super::tile::{Page, Scratch, Seen, keys_of, place_scores, values_of};
use super::{Cached, Call, Tile};
use crate::bf16::in_order;
pub(super) use crate::bf16::rounded;
use crate::gemm::f32_to_bf16;
use crate::tile::{MOST_COLUMNS, ROW_STEP, Rows, multiply, room};

/// Pairs of positions of a page.
pub(super) const HALF_PAGE: usize = PAGE_LEN / 2;
/// Columns of values that are laid out at a time for dot products.
pub(super) const COLUMNS: usize = 64;

/// Sixteen pairs of bfloat16, where loads never cross a line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Words(pub(super) [u32; 16]);

/// Buffers of a task.
#[derive(Default)]
pub(super) struct Buffers {
    /// `[rows, key words]`
    queries: Vec<Words>,
    /// `[PAGE_LEN, key words]`, where the cache does not hold them so.
    keys: Vec<Words>,
    /// The page's keys, in the order of its list.
    key_rows: PageRows,
    /// `[PAGE_LEN, value words]`, where values are not the keys and the cache does not hold them so.
    values: Vec<Words>,
    /// The page's values, in the order of its list, where they are not the keys.
    value_rows: PageRows,
    /// `[rows, HALF_PAGE]` weights in pairs.
    weights: Vec<[Words; 2]>,
    /// `[HALF_PAGE, COLUMNS]` values in pairs.
    columns: Vec<Words>,
    /// The value of a position that is not seen.
    zeros: Vec<Words>,
}

/// Where the rows of a page lie, in the cache or unpacked, for as long as the page is at hand.
struct PageRows([*const u16; PAGE_LEN]);

impl Default for PageRows {
    fn default() -> PageRows {
        PageRows([std::ptr::null(); PAGE_LEN])
    }
}

/// Elements of a row, rounded up to whole vectors of pairs.
fn wide(len: usize) -> usize {
    len.next_multiple_of(32)
}

/// At least `len` vectors of whatever value.
fn space<T: Copy>(buffer: &mut Vec<T>, len: usize, empty: T) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, empty);
    }
    &mut buffer[..len]
}

/// The elements of some vectors.
fn halves(words: &mut [Words]) -> &mut [u16] {
    let len = words.len() * 32;
    // SAFETY: plain numbers without padding, 32 in each.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) }
}

/// Takes the tile's queries, padded with zeros.
#[inline(always)] // for the caller's instruction set
pub(super) fn take_queries<const DOTS: bool>(call: &Call, tile: &Tile, s: &mut Scratch) {
    let (dim, pad, rows) = (call.shape.key_dim, wide(call.shape.key_dim), tile.rows());
    let query = |row: usize| {
        let (token, head) = tile.token_head(row);
        &call.q[(token * call.shape.heads + head) * dim..][..dim]
    };
    if DOTS {
        let to = space(&mut s.rounded.queries, rows * pad / 32, Words([0; 16]));
        for (row, to) in halves(to).chunks_exact_mut(pad).enumerate() {
            to.iter_mut().zip(query(row)).for_each(|(to, &v)| *to = f32_to_bf16(v));
            to[dim..].fill(0);
        }
        return;
    }
    for (row, to) in room(&mut s.queries, rows * pad).chunks_exact_mut(pad).enumerate() {
        to[..dim].copy_from_slice(query(row));
        to[dim..].fill(0.0);
        in_order(to);
    }
}

/// `scores[row, slot] = softcap(scale * query[row] . key)`; slots that nobody sees hold anything.
///
/// # Safety
/// The processor has `V`'s instruction set, and (`DOTS`) AVX512-BF16.
#[inline(always)]
pub(super) unsafe fn page_scores<V: Sums, const DOTS: bool>(
    call: &Call,
    tile: &Tile,
    seen: &Seen,
    here: &Page,
    s: &mut Scratch,
) {
    const STRIDE: usize = ROW_STEP.next_multiple_of(16) * 16;
    let mut partial = [const { std::mem::MaybeUninit::<f32>::uninit() }; STRIDE * MOST_COLUMNS];
    let partial = partial.as_mut_ptr().cast::<f32>();
    let (rows, pad, slots) = (tile.rows(), wide(call.shape.key_dim), &here.slots);
    let (plane, cols) = keys_of(call, tile);
    let floats = room(&mut s.keys, if DOTS { 0 } else { ROW_STEP * pad });
    if DOTS {
        let Buffers { keys, key_rows, .. } = &mut s.rounded;
        take_rows(tile, here, (plane, cols.clone()), keys, key_rows);
    }
    for first in (0..slots.count).step_by(ROW_STEP) {
        let count = (slots.count - first).min(ROW_STEP);
        if DOTS {
            here.bring_next(tile, plane, cols.clone(), first..first + count);
        } else {
            here.load(tile, plane, cols.clone(), first..first + count, &mut floats[..count * pad], pad);
            floats[..count * pad].chunks_exact_mut(pad).for_each(in_order);
        }
        let step = if DOTS { MOST_COLUMNS } else { V::TILE.1 };
        for row in (0..rows).step_by(step) {
            let columns = (rows - row).min(step);
            if !seen.by_rows(tile, row..row + columns, slots.list[first]) {
                continue;
            }
            // SAFETY: buffers hold those keys and queries, `partial` all partial sums; `sums` reads those of
            // the keys up to a multiple of 16 (the rest are zero) and writes as many scores, which end with
            // the page or are overwritten by the next keys'.
            unsafe {
                if DOTS {
                    let keys = &s.rounded.key_rows.0[first..first + count];
                    let queries = s.rounded.queries[row * pad / 32..].as_ptr().cast();
                    dot_scores(keys, (queries, columns), pad / 2, partial, STRIDE);
                } else {
                    let keys = Rows { start: floats.as_ptr(), stride: pad, count };
                    let queries = &s.queries[row * pad..(row + columns) * pad];
                    let queries = Rows { start: queries.as_ptr(), stride: pad, count: columns };
                    multiply::<V>(keys, queries, pad, partial, STRIDE, true);
                }
                for column in 0..columns {
                    let to = &mut s.scores[(row + column) * PAGE_LEN..][first..PAGE_LEN];
                    let from = partial.add(column * STRIDE);
                    (count..count.next_multiple_of(16)).for_each(|i| V::splat(0.0).store(from.add(16 * i)));
                    assert!(to.len() >= count.next_multiple_of(16));
                    V::sums(from, count, to.as_mut_ptr());
                    to[..count].iter_mut().for_each(|v| *v *= call.shape.scale);
                }
            }
        }
    }
    place_scores(call.shape, slots, &mut s.scores[..rows * PAGE_LEN]);
}

/// Adds the page's values to each row. What tokens see differs at the ends of what they see at all: there
/// each token's rows are added alone, so that no value reaches a row that does not see it.
///
/// # Safety
/// As [`page_scores`], which came before.
#[inline(always)]
pub(super) unsafe fn add_values<V: Sums, const DOTS: bool>(
    call: &Call,
    tile: &Tile,
    seen: &Seen,
    here: &Page,
    s: &mut Scratch,
    acc: &mut [f32],
) {
    if DOTS {
        take_values(call, tile, here, s);
    }
    let alike = seen.all == seen.any;
    let (groups, heads) = if alike { (1, tile.rows()) } else { (tile.chunk.rows, tile.heads) };
    for group in 0..groups {
        let bits = if alike { seen.any } else { seen.tokens[group] };
        // Pairs after the last position that is seen are zeros.
        let pairs = (PAGE_LEN - bits.leading_zeros() as usize).div_ceil(2);
        let rows = group * heads..(group + 1) * heads;
        // SAFETY: the rows are the tile's; the rest is the caller's promise.
        unsafe {
            if DOTS {
                add_by_dots(call, here, (bits, pairs), rows, s, acc, tile.rows());
            } else {
                add_by_floats::<V>(call, tile, here, (bits, pairs), rows, s, acc);
            }
        }
    }
}

/// The values of the pairs to some rows, as floats in the order of the sums.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn add_by_floats<V: Sums>(
    call: &Call,
    tile: &Tile,
    here: &Page,
    (bits, pairs): (u64, usize),
    rows: std::ops::Range<usize>,
    s: &mut Scratch,
    acc: &mut [f32],
) {
    /// Odd positions before even ones.
    const ORDER: [u8; PAGE_LEN] = {
        let mut order = [0; PAGE_LEN];
        let mut i = 0;
        while i < PAGE_LEN {
            order[i] = i as u8 ^ 1;
            i += 1;
        }
        order
    };
    const STEP: usize = 16;
    let (width, dim) = (acc.len() / tile.rows(), call.shape.value_dim);
    let (plane, cols) = values_of(call, tile);
    let values = room(&mut s.values, STEP * width);
    for first in (0..2 * pairs).step_by(STEP) {
        let list = &ORDER[first..(2 * pairs).min(first + STEP)];
        for (&slot, to) in list.iter().zip(values.chunks_exact_mut(width)) {
            to.fill(0.0);
            if bits >> slot & 1 == 1 {
                plane.load(tile.chunk.pages[here.page], &[slot], cols.clone(), &mut to[..dim], dim);
                to.iter_mut().for_each(|v| *v = rounded(*v));
            }
        }
        assert!(rows.end * width <= acc.len() && rows.end * PAGE_LEN <= s.scores.len());
        // SAFETY: the rows were just found to be there, and `values` holds as many as the list; the instruction
        // set is the caller's promise.
        unsafe {
            let start = s.scores.as_ptr().add(rows.start * PAGE_LEN);
            let weights = Weights { start, stride: PAGE_LEN, rows: rows.len(), slots: list };
            add_weighted::<V>(acc.as_mut_ptr().add(rows.start * width), weights, values.as_ptr(), width, width);
        }
    }
}

/// Whether the first part of the keys serves as the values.
fn shared_values(call: &Call) -> bool {
    matches!(call.cached, Cached::Latent(_))
}

/// Finds the rows of a page's list: in the cache itself where it holds them in bfloat16 and whole vectors, else
/// unpacked in `to`.
#[inline(always)] // for the caller's instruction set
fn take_rows(
    tile: &Tile,
    here: &Page,
    (plane, cols): (&Plane, std::ops::Range<usize>),
    to: &mut Vec<Words>,
    rows: &mut PageRows,
) {
    let (stride, count) = (wide(cols.len()), here.slots.count);
    if cols.len().is_multiple_of(32) && here.find_halves(tile, plane, cols.clone(), &mut rows.0) {
        return;
    }
    let to = &mut halves(space(to, PAGE_LEN * stride / 32, Words([0; 16])))[..count * stride];
    here.load_halves(tile, plane, cols, 0..count, to, stride);
    rows.0.iter_mut().zip(to.chunks_exact(stride)).for_each(|(at, row)| *at = row.as_ptr());
}

/// The page's values, where they are not the keys.
#[inline(always)] // for the caller's instruction set
fn take_values(call: &Call, tile: &Tile, here: &Page, s: &mut Scratch) {
    if !shared_values(call) {
        let (plane, cols) = values_of(call, tile);
        let Buffers { values, value_rows, .. } = &mut s.rounded;
        take_rows(tile, here, (plane, cols.clone()), values, value_rows);
        here.bring_next(tile, plane, cols, 0..here.slots.count);
    }
}

/// The values of the pairs to some rows of `acc` (which has `all` rows), with dot products.
///
/// # Safety
/// The processor has AVX512-BF16.
#[inline(always)]
unsafe fn add_by_dots(
    call: &Call,
    here: &Page,
    (bits, pairs): (u64, usize),
    rows: std::ops::Range<usize>,
    s: &mut Scratch,
    acc: &mut [f32],
    all: usize,
) {
    let width = acc.len() / all;
    let Buffers { key_rows, value_rows, weights, columns, zeros, .. } = &mut s.rounded;
    let values = if shared_values(call) { key_rows } else { value_rows };
    let zeros = space(zeros, wide(call.shape.value_dim) / 32, Words([0; 16])).as_ptr().cast();
    let mut at: [*const u16; PAGE_LEN] = [zeros; PAGE_LEN];
    for (&row, &slot) in values.0.iter().zip(&here.slots.list[..here.slots.count]) {
        if bits >> slot & 1 == 1 {
            at[usize::from(slot)] = row;
        }
    }
    let weights = space(weights, rows.len(), [Words([0; 16]); 2]);
    for (row, to) in rows.clone().zip(weights.iter_mut()) {
        let from = &s.scores[row * PAGE_LEN..][..PAGE_LEN];
        for (i, pair) in from.as_chunks::<2>().0.iter().enumerate() {
            // Rounded before: the lower halves are zeros.
            to[i / 16].0[i % 16] = pair[0].to_bits() >> 16 | pair[1].to_bits() & 0xffff_0000;
        }
    }
    let columns = space(columns, HALF_PAGE * COLUMNS / 16, Words([0; 16])).as_mut_ptr().cast::<u32>();
    assert!(rows.end * width <= acc.len());
    for first in (0..width).step_by(COLUMNS) {
        let count = (width - first).min(COLUMNS);
        // SAFETY: rows of values are at least `width` rounded up to 32 long; the rows of
        // `acc` are there; the instruction set is the caller's promise.
        unsafe {
            for part in (0..count).step_by(32) {
                interleave(&at, pairs, first + part, columns.add(part));
            }
            dot_add(acc.as_mut_ptr().add(rows.start * width + first), width, weights, columns, pairs, count / 16);
        }
    }
}

#[cfg(target_arch = "x86_64")]
use super::dots::{add as dot_add, interleave, scores as dot_scores};
#[cfg(not(target_arch = "x86_64"))]
use elsewhere::{dot_add, dot_scores, interleave};

/// Dot products of processors whose code has none: never called.
#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use super::{PAGE_LEN, Words};
    pub(super) unsafe fn dot_scores(_: &[*const u16], _: (*const u32, usize), _: usize, _: *mut f32, _: usize) {
        unreachable!("no dot products here")
    }
    pub(super) unsafe fn interleave(_: &[*const u16; PAGE_LEN], _: usize, _: usize, _: *mut u32) {
        unreachable!("no dot products here")
    }
    pub(super) unsafe fn dot_add(_: *mut f32, _: usize, _: &[[Words; 2]], _: *const u32, _: usize, _: usize) {
        unreachable!("no dot products here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_row_is_odd_before_even() {
        let mut row: Vec<f32> = (0..64).map(|i| i as f32).collect();
        in_order(&mut row);
        assert_eq!(row[..2], [1.0, 3.0]);
        assert_eq!(row[15..18], [31.0, 0.0, 2.0]);
        assert_eq!(row[32..34], [33.0, 35.0]);
        assert_eq!((rounded(1.0 + 1.0 / 256.0), rounded(1.0 + 3.0 / 256.0)), (1.0, 1.0 + 4.0 / 256.0));
    }
}
