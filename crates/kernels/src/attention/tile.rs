//! One tile of attention: some query rows over the pages of a segment, and the merging of segments.
//!
//! What a segment gives for each row - the largest score, the sum of `exp(score - largest)`, the values
//! weighted with the same - is a part: `[rows]`, `[rows]`, `[rows, padded value_dim]` in one slice.

use std::ops::Range;

use super::plane::{PAGE_LEN, Plane};
use super::sums::{Sums, Weights, add_weighted};
use super::{Cached, Call, SEGMENT_LEN, Shape, TILE_ROWS, Tile, rounded};
use crate::ops::exp;
use crate::pool::SharedMut;
use crate::tile::{ROW_STEP, Rows, multiply, room};

/// Buffers of a task.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[PAGE_LEN, padded key_dim]`
    pub(super) keys: Vec<f32>,
    /// `[ROW_STEP, padded value_dim]`; unused where a value is the first part of the key.
    pub(super) values: Vec<f32>,
    /// `[rows, padded key_dim]`
    pub(super) queries: Vec<f32>,
    /// `[rows, PAGE_LEN]`
    pub(super) scores: Vec<f32>,
    /// For attention in bfloat16.
    pub(super) rounded: rounded::Buffers,
    /// What is added to which rows.
    runs: Vec<Run>,
    /// A part: the segment at hand.
    part: Vec<f32>,
    /// A part: all segments so far.
    pub(super) total: Vec<f32>,
}

/// Elements of a part.
pub(super) fn part_len(shape: &Shape, rows: usize) -> usize {
    rows * (2 + padded(shape.value_dim))
}

pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(16)
}

/// A part taken apart.
struct PartMut<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    acc: &'a mut [f32],
}

impl<'a> PartMut<'a> {
    fn of(part: &'a mut [f32], rows: usize) -> PartMut<'a> {
        let (max, rest) = part.split_at_mut(rows);
        let (sum, acc) = rest.split_at_mut(rows);
        PartMut { max, sum, acc }
    }
}

impl Scratch {
    /// Copies the tile's queries, padded with zeros.
    #[inline(always)] // for the caller's instruction set
    pub(super) fn take_queries<const DOTS: bool>(&mut self, call: &Call, tile: &Tile) {
        if DOTS || call.rounded {
            return rounded::take_queries::<DOTS>(call, tile, self);
        }
        let (dim, pad, rows) = (call.shape.key_dim, padded(call.shape.key_dim), tile.rows());
        let queries = room(&mut self.queries, rows * pad);
        for (row, to) in queries.chunks_exact_mut(pad).enumerate() {
            let (token, head) = tile.token_head(row);
            to[..dim].copy_from_slice(&call.q[(token * call.shape.heads + head) * dim..][..dim]);
            to[dim..].fill(0.0);
        }
    }
}

/// All segments of a tile, merged into `s.total`.
///
/// # Safety
/// The processor has `V`'s instruction set, and (`DOTS`) AVX512-BF16 for a call that is rounded.
#[inline(always)]
pub(super) unsafe fn fold_segments<V: Sums, const DOTS: bool>(call: &Call, tile: &Tile, s: &mut Scratch) {
    let len = part_len(call.shape, tile.rows());
    s.take_queries::<DOTS>(call, tile);
    let (mut part, mut total) = (std::mem::take(&mut s.part), std::mem::take(&mut s.total));
    start_total(call, tile, room(&mut total, len));
    for number in tile.segments.clone() {
        let part = room(&mut part, len);
        // SAFETY: the caller's promise.
        unsafe { segment::<V, DOTS>(call, tile, number, s, part) };
        merge(tile.rows(), &mut total[..len], part);
    }
    (s.part, s.total) = (part, total);
}

/// Segments of a tile in rising order, merged into `total`.
pub(super) fn merge_parts(call: &Call, tile: &Tile, parts: &[f32], total: &mut Vec<f32>) {
    let len = part_len(call.shape, tile.rows());
    start_total(call, tile, room(total, len));
    parts.chunks_exact(len).for_each(|part| merge(tile.rows(), &mut total[..len], part));
}

/// Before the first segment: nothing, or the head's sink alone, which weighs one and has no value.
fn start_total(call: &Call, tile: &Tile, total: &mut [f32]) {
    let part = PartMut::of(total, tile.rows());
    part.acc.fill(0.0);
    for (row, (max, sum)) in part.max.iter_mut().zip(part.sum).enumerate() {
        let sink = call.sinks.map(|sinks| sinks[tile.token_head(row).1]);
        *max = sink.unwrap_or(f32::NEG_INFINITY);
        *sum = if sink.is_some() { 1.0 } else { 0.0 };
    }
}

/// Takes a segment into the total. One that a row sees nothing of changes nothing, and the first one is
/// taken as it is.
#[inline(always)] // for the caller's instruction set
fn merge(rows: usize, total: &mut [f32], part: &[f32]) {
    let width = part.len() / rows - 2;
    let total = PartMut::of(total, rows);
    for row in 0..rows {
        let (max, sum) = (part[row], part[rows + row]);
        if max == f32::NEG_INFINITY {
            continue;
        }
        let acc = &part[2 * rows + row * width..][..width];
        let to = &mut total.acc[row * width..(row + 1) * width];
        if total.max[row] == f32::NEG_INFINITY {
            (total.max[row], total.sum[row]) = (max, sum);
            to.copy_from_slice(acc);
            continue;
        }
        let both = larger(total.max[row], max);
        let (old, new) = (exp(total.max[row] - both), exp(max - both));
        total.max[row] = both;
        total.sum[row] = total.sum[row] * old + sum * new;
        to.iter_mut().zip(acc).for_each(|(to, v)| *to = *to * old + v * new);
    }
}

/// `out = acc / sum`; a row that sees nothing gives zeros.
///
/// # Safety
/// No other task writes the outputs of this tile's tokens and heads.
pub(super) unsafe fn write_out(call: &Call, tile: &Tile, total: &[f32], out: &SharedMut<f32>) {
    let (rows, dim, pad) = (tile.rows(), call.shape.value_dim, padded(call.shape.value_dim));
    for row in 0..rows {
        let (token, head) = tile.token_head(row);
        // SAFETY: the caller's promise; different rows are different places.
        let to = unsafe { out.range((token * call.shape.heads + head) * dim, dim) };
        let sum = total[rows + row];
        // Not `<=`: a sum that is not a number must be seen.
        let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
        to.iter_mut().zip(&total[2 * rows + row * pad..]).for_each(|(to, v)| *to = v * inverse);
    }
}

/// One segment of a tile whose queries were taken.
///
/// # Safety
/// As [`fold_segments`].
#[inline(always)]
pub(super) unsafe fn segment<V: Sums, const DOTS: bool>(
    call: &Call,
    tile: &Tile,
    number: usize,
    s: &mut Scratch,
    part: &mut [f32],
) {
    let in_bf16 = DOTS || call.rounded;
    let (rows, last) = (tile.rows(), tile.chunk.position + tile.chunk.rows - 1);
    room(&mut s.scores, rows * PAGE_LEN);
    let PartMut { max, sum, acc } = PartMut::of(part, rows);
    max.fill(f32::NEG_INFINITY);
    sum.fill(0.0);
    acc.fill(0.0);
    let first = number * SEGMENT_LEN / PAGE_LEN;
    for page in first..(first + SEGMENT_LEN / PAGE_LEN).min(last / PAGE_LEN + 1) {
        let seen = Seen::of(call, tile, page);
        if seen.any == 0 {
            continue;
        }
        let slots = Slots::of(seen.any);
        // Of the next page, if it is surely read.
        let next = ((page + 1) * PAGE_LEN <= last && call.selection.is_none()).then_some(page + 1);
        let here = Page { page, next, slots };
        // SAFETY: the instruction set is the caller's promise.
        unsafe {
            if in_bf16 {
                rounded::page_scores::<V, DOTS>(call, tile, &seen, &here, s);
            } else {
                page_scores::<V>(call, tile, &seen, &here, s);
            }
            for row in 0..rows {
                let scores = s.scores[row * PAGE_LEN..].first_chunk_mut().expect("a row of scores");
                let part = (&mut max[row], &mut sum[row]);
                take_scores::<V>(seen.of_row(tile, row), scores, part, acc, (rows, row), in_bf16);
            }
            if in_bf16 {
                rounded::add_values::<V, DOTS>(call, tile, &seen, &here, s, acc);
            } else {
                add_values::<V>(call, tile, &seen, &here, s, acc);
            }
        }
    }
}

/// What a tile's tokens see of a page: bit `i` is position `i`.
pub(super) struct Seen {
    /// Of each token.
    pub(super) tokens: [u64; TILE_ROWS],
    /// Of any, and of all.
    pub(super) any: u64,
    pub(super) all: u64,
}

impl Seen {
    fn of(call: &Call, tile: &Tile, page: usize) -> Seen {
        let mut seen = Seen { tokens: [0; TILE_ROWS], any: 0, all: u64::MAX };
        for (t, bits) in seen.tokens[..tile.chunk.rows].iter_mut().enumerate() {
            let (base, position) = (page * PAGE_LEN, tile.chunk.position + t);
            let first = call.shape.window.map_or(0, |w| (position + 1).saturating_sub(w));
            *bits = below((position + 1).saturating_sub(base)) & !below(first.saturating_sub(base));
            if let Some(selection) = call.selection {
                *bits &= chosen(&selection[tile.chunk.first_row + t], base);
            }
            seen.any |= *bits;
            seen.all &= *bits;
        }
        seen
    }

    /// Whether any of some rows sees this position or one after it.
    #[inline(always)]
    pub(super) fn by_rows(&self, tile: &Tile, rows: Range<usize>, slot: u8) -> bool {
        let tokens = rows.start / tile.heads..(rows.end - 1) / tile.heads + 1;
        self.tokens[tokens].iter().any(|bits| bits >> slot != 0)
    }

    #[inline(always)]
    fn of_row(&self, tile: &Tile, row: usize) -> u64 {
        self.tokens[row / tile.heads]
    }
}

/// The first `count` bits.
fn below(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// The sorted positions that fall into the page that begins at `base`.
fn chosen(positions: &[u32], base: usize) -> u64 {
    let first = positions.partition_point(|&p| (p as usize) < base);
    let here = positions[first..].iter().map(|&p| p as usize - base).take_while(|&p| p < PAGE_LEN);
    here.fold(0, |bits, p| bits | 1 << p)
}

/// The positions of a page that are unpacked, in rising order.
pub(super) struct Slots {
    pub(super) list: [u8; PAGE_LEN],
    pub(super) count: usize,
}

impl Slots {
    fn of(mut bits: u64) -> Slots {
        const ALL: [u8; PAGE_LEN] = {
            let mut list = [0; PAGE_LEN];
            let mut i = 0;
            while i < PAGE_LEN {
                list[i] = i as u8;
                i += 1;
            }
            list
        };
        // Nearly always: the whole page, or its beginning.
        if bits & bits.wrapping_add(1) == 0 {
            return Slots { list: ALL, count: bits.trailing_ones() as usize };
        }
        let mut slots = Slots { list: [0; PAGE_LEN], count: 0 };
        while bits != 0 {
            slots.list[slots.count] = bits.trailing_zeros() as u8;
            slots.count += 1;
            bits &= bits - 1;
        }
        slots
    }
}

/// Whether the unpacked keys serve as the values: their first `value_dim` elements, with whole vectors.
/// (A padded value could not be read from a key row: the key goes on where the padding should be.)
fn shared_values(call: &Call) -> bool {
    matches!(call.cached, Cached::Latent(_)) && call.shape.value_dim.is_multiple_of(16)
}

/// A page of the tile's sequence: which of its positions are computed, and the page after it, which is
/// brought near meanwhile.
pub(super) struct Page {
    pub(super) page: usize,
    next: Option<usize>,
    pub(super) slots: Slots,
}

impl Page {
    /// Unpacks columns `cols` of the positions `range` of the list into `to`, `stride` apart.
    #[inline(always)] // for the caller's instruction set
    pub(super) fn load(
        &self,
        tile: &Tile,
        plane: &Plane,
        cols: Range<usize>,
        range: Range<usize>,
        to: &mut [f32],
        stride: usize,
    ) {
        plane.load(tile.chunk.pages[self.page], &self.slots.list[range.clone()], cols.clone(), to, stride);
        self.bring_next(tile, plane, cols, range);
    }

    /// The same in bfloat16; the next page stays where it is.
    #[inline(always)] // for the caller's instruction set
    pub(super) fn load_halves(
        &self,
        tile: &Tile,
        plane: &Plane,
        cols: Range<usize>,
        range: Range<usize>,
        to: &mut [u16],
        stride: usize,
    ) {
        plane.load_halves(tile.chunk.pages[self.page], &self.slots.list[range], cols, to, stride);
    }

    /// Where columns `cols` of the positions of the list lie in bfloat16, if the plane holds them so.
    #[inline(always)]
    pub(super) fn find_halves(
        &self,
        tile: &Tile,
        plane: &Plane,
        cols: Range<usize>,
        to: &mut [*const u16; PAGE_LEN],
    ) -> bool {
        plane.find_halves(tile.chunk.pages[self.page], &self.slots.list[..self.slots.count], cols, to)
    }

    /// The same rows of the next page come near meanwhile.
    #[inline(always)]
    pub(super) fn bring_next(&self, tile: &Tile, plane: &Plane, cols: Range<usize>, range: Range<usize>) {
        if let Some(next) = self.next {
            plane.prefetch(tile.chunk.pages[next], range, cols);
        }
    }
}

/// Where a tile's keys lie: plane and columns.
pub(super) fn keys_of<'a>(call: &Call<'a>, tile: &Tile) -> (&'a Plane, Range<usize>) {
    let first = tile.kv_head * call.shape.key_dim;
    match call.cached {
        Cached::Separate(keys, _) => (keys, first..first + call.shape.key_dim),
        Cached::Latent(latents) => (latents, 0..call.shape.key_dim),
    }
}

/// Where a tile's values lie.
pub(super) fn values_of<'a>(call: &Call<'a>, tile: &Tile) -> (&'a Plane, Range<usize>) {
    let first = tile.kv_head * call.shape.value_dim;
    match call.cached {
        Cached::Separate(_, values) => (values, first..first + call.shape.value_dim),
        Cached::Latent(latents) => (latents, 0..call.shape.value_dim),
    }
}

/// `scores[row, slot] = softcap(scale * query[row] . key)`; slots that nobody sees hold anything. Some keys
/// are unpacked at a time, so that they are used while they are in the first-level cache; they are kept
/// where they are the values as well.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn page_scores<V: Sums>(call: &Call, tile: &Tile, seen: &Seen, here: &Page, s: &mut Scratch) {
    /// Columns of the largest tile, whose partial sums are put down here.
    const COLUMNS: usize = crate::tile::MOST_COLUMNS;
    const STRIDE: usize = ROW_STEP.next_multiple_of(16) * 16;
    let mut partial = [const { std::mem::MaybeUninit::<f32>::uninit() }; STRIDE * COLUMNS];
    let partial = partial.as_mut_ptr().cast::<f32>();
    let (rows, pad, slots) = (tile.rows(), padded(call.shape.key_dim), &here.slots);
    let ((plane, cols), keep) = (keys_of(call, tile), shared_values(call));
    let unpacked = room(&mut s.keys, PAGE_LEN * pad);
    for first in (0..slots.count).step_by(ROW_STEP) {
        let count = (slots.count - first).min(ROW_STEP);
        let keys = &mut unpacked[if keep { first * pad } else { 0 }..][..count * pad];
        here.load(tile, plane, cols.clone(), first..first + count, keys, pad);
        let keys = Rows { start: keys.as_ptr(), stride: pad, count };
        for row in (0..rows).step_by(V::TILE.1) {
            let columns = (rows - row).min(V::TILE.1);
            if !seen.by_rows(tile, row..row + columns, slots.list[first]) {
                continue;
            }
            let queries = &s.queries[row * pad..(row + columns) * pad];
            let queries = Rows { start: queries.as_ptr(), stride: pad, count: columns };
            // SAFETY: `keys` and `queries` hold those rows, `partial` all partial sums; `sums` reads those of
            // the rows up to a multiple of 16 (the rest are zero) and writes as many scores, which end with
            // the page or are overwritten by the next keys'.
            unsafe {
                multiply::<V>(keys, queries, pad, partial, STRIDE, true);
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

/// Caps scores and moves them to the places of their positions.
#[inline(always)] // for the caller's instruction set
pub(super) fn place_scores(shape: &Shape, slots: &Slots, scores: &mut [f32]) {
    let count = slots.count;
    for scores in scores.chunks_exact_mut(PAGE_LEN) {
        if let Some(cap) = shape.softcap {
            scores[..count].iter_mut().for_each(|v| *v = cap * crate::ops::tanh(*v / cap));
        }
        if usize::from(slots.list[count - 1]) + 1 > count {
            // From the end: a score never moves to a lower place.
            (0..count).rev().for_each(|i| scores[usize::from(slots.list[i])] = scores[i]);
        }
    }
}

/// Turns a row's scores of a page into weights, `exp(score - largest)` and zero for what it does not see,
/// and takes them into the running maximum and sum; what was added up before is corrected. Weights are
/// rounded to bfloat16 where they are multiplied so (`round`).
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn take_scores<V: Sums>(
    seen: u64,
    scores: &mut [f32; PAGE_LEN],
    (max, sum): (&mut f32, &mut f32),
    acc: &mut [f32],
    (rows, row): (usize, usize),
    round: bool,
) {
    // Vectors after the last position that is seen weigh nothing, and change no sum.
    let (scores, rest) = scores.split_at_mut((PAGE_LEN - seen.leading_zeros() as usize).next_multiple_of(16));
    rest.fill(0.0);
    if seen != u64::MAX {
        for (i, score) in scores.iter_mut().enumerate() {
            *score = if seen >> i & 1 == 1 { *score } else { f32::NEG_INFINITY };
        }
    }
    let page_max = max_of(scores);
    if page_max == f32::NEG_INFINITY {
        // Nothing is seen here, or scores are minus infinity. A maximum of minus infinity would make NaN.
        scores.fill(0.0);
        return;
    }
    let both = larger(*max, page_max);
    let correction = exp(*max - both);
    scores.iter_mut().for_each(|v| *v = exp(*v - both));
    if round {
        scores.iter_mut().for_each(|v| *v = rounded::rounded(*v));
    }
    *sum = *sum * correction + sum_of::<V>(scores);
    *max = both;
    if correction != 1.0 {
        let width = acc.len() / rows;
        acc[row * width..(row + 1) * width].iter_mut().for_each(|v| *v *= correction);
    }
}

/// Adds the page's values to each row, in rising position and only those that the row sees. Some values are
/// unpacked at a time, where they are not the keys.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn add_values<V: Sums>(call: &Call, tile: &Tile, seen: &Seen, here: &Page, s: &mut Scratch, acc: &mut [f32]) {
    let (shared, count) = (shared_values(call), here.slots.count);
    let (stride, step) = match shared {
        true => (padded(call.shape.key_dim), PAGE_LEN),
        false => (padded(call.shape.value_dim), ROW_STEP),
    };
    let (rows, width) = (tile.rows(), acc.len() / tile.rows());
    let values = if shared { &mut s.keys } else { &mut s.values };
    let values = room(values, step * stride);
    assert!(width <= stride && s.scores.len() >= rows * PAGE_LEN);
    runs_of(tile, seen, &here.slots, &mut s.runs);
    for first in (0..count).step_by(step) {
        let last = count.min(first + step);
        if !shared {
            let (plane, cols) = values_of(call, tile);
            here.load(tile, plane, cols, first..last, values, stride);
        }
        for run in &s.runs {
            let (from, to) = (run.from.max(first), run.to.min(last));
            if from < to {
                let list = &here.slots.list[from..to];
                // SAFETY: the run's rows are the tile's, `values` holds those from `first` to `last`; the
                // instruction set is the caller's promise.
                unsafe {
                    let start = s.scores.as_ptr().add(run.row * PAGE_LEN);
                    let weights = Weights { start, stride: PAGE_LEN, rows: run.rows, slots: list };
                    let from = values.as_ptr().add((from - first) * stride);
                    add_weighted::<V>(acc.as_mut_ptr().add(run.row * width), weights, from, stride, width);
                }
            }
        }
    }
}

/// Unpacked values `from .. to` that are added to `rows` query rows from `row` on.
struct Run {
    row: usize,
    rows: usize,
    from: usize,
    to: usize,
}

/// Rows that runs are made for together, where what their tokens see differs: with fewer, each sum would
/// wait for its last addition.
const RUN_ROWS: usize = 6;

/// What is added to which rows, in the order of positions for each row. What all rows see is added to all at
/// once; where that differs, some tokens at a time. A tile with a selection has one token; without one each
/// token sees a range, so that what it sees and others do not lies before and after.
fn runs_of(tile: &Tile, seen: &Seen, slots: &Slots, runs: &mut Vec<Run>) {
    runs.clear();
    if seen.all == seen.any {
        return runs.push(Run { row: 0, rows: tile.rows(), from: 0, to: slots.count });
    }
    let step = RUN_ROWS.div_ceil(tile.heads);
    for first in (0..tile.chunk.rows).step_by(step) {
        runs_of_tokens(tile, seen, slots, first..(first + step).min(tile.chunk.rows), runs);
    }
}

fn runs_of_tokens(tile: &Tile, seen: &Seen, slots: &Slots, tokens: Range<usize>, runs: &mut Vec<Run>) {
    // Number of unpacked values below a position.
    let index = |slot: u32| (seen.any & below(slot as usize)).count_ones() as usize;
    let all = seen.tokens[tokens.clone()].iter().fold(u64::MAX, |all, bits| all & bits);
    let (from, to) = match all {
        0 => (slots.count, slots.count),
        all => (index(all.trailing_zeros()), index(64 - all.leading_zeros())),
    };
    for (first, last, all) in [(0, from, false), (from, to, true), (to, slots.count, false)] {
        if all && first < last {
            runs.push(Run { row: tokens.start * tile.heads, rows: tokens.len() * tile.heads, from: first, to: last });
        }
        for token in tokens.clone().filter(|_| !all) {
            let bits = seen.tokens[token];
            let mut visible = (first..last).filter(|&i| bits >> slots.list[i] & 1 == 1);
            // A range: what is seen of these follows without gaps.
            if let Some(from) = visible.next() {
                let to = visible.next_back().unwrap_or(from) + 1;
                runs.push(Run { row: token * tile.heads, rows: tile.heads, from, to });
            }
        }
    }
}

/// The largest score; NaN if any is one.
#[inline(always)]
fn max_of(scores: &[f32]) -> f32 {
    let mut max = [f32::NEG_INFINITY; 16];
    for part in scores.as_chunks::<16>().0 {
        for (max, &v) in max.iter_mut().zip(part) {
            *max = larger(*max, v);
        }
    }
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| max[i] = larger(max[i], max[i + half]));
    }
    max[0]
}

/// Unlike `f32::max`, a NaN where either is one.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Position `i` goes to lane `i % 16` in rising order, and the lanes are added as the tree of `lanes`.
#[inline(always)]
fn sum_of<V: Sums>(p: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for part in p.as_chunks::<16>().0 {
        lanes.iter_mut().zip(part).for_each(|(lane, v)| *lane += v);
    }
    // SAFETY: sixteen floats; the instruction set is the caller's promise.
    unsafe { V::load(lanes.as_ptr()).sum() }
}
