//! Attention over a paged cache.
//!
//! For each query: scores against the cached keys it may see, softmax, and the weighted sum of the
//! values, in one pass over blocks of [`PAGE_LEN`] positions with a running maximum and sum
//! (Milakov and Gimelshein 2018; Dao et al. 2022). Blocks begin at multiples of `PAGE_LEN`, so the
//! order of every sum depends only on the query's own position and what it sees: not on the chunk it
//! came in, on other queries, or on threads.
//!
//! Multi-head, grouped-query and latent attention are one kernel: in the latent form (DeepSeek-V2,
//! section 2.1) all heads share one key row, whose first part is also the value.

mod plane;

use std::cell::RefCell;

use crate::isa::{Isa, isa};
use crate::lanes::{Lanes, dispatch};
use crate::ops::exp;
use crate::pool::{Pool, SharedMut};
use crate::tile::{MOST_COLUMNS, ROW_STEP, Rows as TileRows, block, room};

pub use plane::{CacheFormat, INT8_GROUP, PAGE_LEN, Plane};

/// Consecutive tokens of one sequence in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// First row of the batch that belongs to it.
    pub first_row: usize,
    /// Number of rows (tokens).
    pub rows: usize,
    /// Position in the sequence of the first one.
    pub position: usize,
    /// The sequence's pages; page `i` holds positions `i * PAGE_LEN ..`.
    pub pages: &'a [u32],
}

/// The shape of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of a query and a key.
    pub key_dim: usize,
    /// Elements of a value; where keys and values are one plane, the first `value_dim` of a key.
    pub value_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Keys a query sees, itself included; none: all before it.
    pub window: Option<usize>,
    /// `c * tanh(score / c)` after scaling.
    pub softcap: Option<f32>,
}

/// Keys and values in the cache.
#[derive(Clone, Copy)]
pub enum Cached<'a> {
    /// `[kv_heads * key_dim]` and `[kv_heads * value_dim]` a position.
    Separate(&'a Plane, &'a Plane),
    /// One row of `key_dim` a position for all heads; its first `value_dim` elements are the value.
    Latent(&'a Plane),
}

/// Which positions each row of the batch may see besides the causal and window rules: sorted
/// positions for each row (sparse attention's choice); none means all.
pub type Selection<'a> = Option<&'a [Vec<u32>]>;

/// Tokens of a chunk that share the unpacked block of keys.
const TILE_TOKENS: usize = 8;
/// Query heads of a task; with the tokens they make up to 64 query rows.
const TILE_HEADS: usize = 8;

/// `out[t, h] = sum over s of softmax(scale * q[t, h] . key[s, kv(h)]) value[s, kv(h)]`.
///
/// `q` is `[T, heads * key_dim]`, `out` is `[T, heads * value_dim]`. `sinks` holds one score for each
/// head that takes part in the softmax without a value (gpt-oss). The rows of `chunks` are already in
/// the cache.
///
/// # Panics
/// If sizes do not agree or a chunk lies outside its pages.
pub fn attend(
    pool: &Pool,
    shape: &Shape,
    out: &mut [f32],
    q: &[f32],
    cached: Cached,
    chunks: &[Chunk],
    sinks: Option<&[f32]>,
    selection: Selection,
) {
    attend_with(isa(), pool, shape, out, q, cached, chunks, sinks, selection);
}

/// [`attend`] with the kernels of `isa`.
#[doc(hidden)]
pub fn attend_with(
    isa: Isa,
    pool: &Pool,
    shape: &Shape,
    out: &mut [f32],
    q: &[f32],
    cached: Cached,
    chunks: &[Chunk],
    sinks: Option<&[f32]>,
    selection: Selection,
) {
    assert!(isa.is_available(), "{} kernels on a processor without them", isa.name());
    assert!(
        shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads),
        "{} heads on {}",
        shape.heads,
        shape.kv_heads
    );
    let total: usize = chunks.iter().map(|c| c.rows).sum();
    assert_eq!(q.len(), total * shape.heads * shape.key_dim, "queries of {total} tokens");
    assert_eq!(out.len(), total * shape.heads * shape.value_dim, "outputs of {total} tokens");
    let tiles = tiles_of(shape, chunks);
    let out = &SharedMut::new(out);
    let call = Call { shape, q, cached, sinks, selection };
    pool.run(tiles.len(), |i| {
        SCRATCH.with_borrow_mut(|scratch| {
            let (call, tile) = (&call, &tiles[i]);
            dispatch!(
                isa,
                attend_tile(call: &Call<'_>, tile: &Tile<'_>, out: &SharedMut<'_, f32>, scratch: &mut Scratch)
            );
        });
    });
}

/// What all tiles of one call share.
struct Call<'a> {
    shape: &'a Shape,
    q: &'a [f32],
    cached: Cached<'a>,
    sinks: Option<&'a [f32]>,
    selection: Selection<'a>,
}

/// Some tokens of one chunk and some query heads of one key head.
struct Tile<'a> {
    chunk: Chunk<'a>,
    kv_head: usize,
    first_head: usize,
    heads: usize,
}

fn tiles_of<'a>(shape: &Shape, chunks: &[Chunk<'a>]) -> Vec<Tile<'a>> {
    let group = shape.heads / shape.kv_heads;
    let mut tiles = Vec::new();
    for chunk in chunks {
        assert!(chunk.position + chunk.rows <= chunk.pages.len() * PAGE_LEN, "chunk beyond its pages");
        for first in (0..chunk.rows).step_by(TILE_TOKENS) {
            let rows = TILE_TOKENS.min(chunk.rows - first);
            let part = Chunk { first_row: chunk.first_row + first, rows, position: chunk.position + first, ..*chunk };
            for kv_head in 0..shape.kv_heads {
                for head in (0..group).step_by(TILE_HEADS) {
                    let heads = TILE_HEADS.min(group - head);
                    tiles.push(Tile { chunk: part, kv_head, first_head: kv_head * group + head, heads });
                }
            }
        }
    }
    tiles
}

#[derive(Default)]
struct Scratch {
    /// `[PAGE_LEN, padded key_dim]`
    keys: Vec<f32>,
    /// `[PAGE_LEN, padded value_dim]`; unused where a value is the first part of the key.
    values: Vec<f32>,
    /// `[rows, padded key_dim]`
    queries: Vec<f32>,
    /// `[rows, padded value_dim]`
    acc: Vec<f32>,
    /// Running maximum and sum of each query row.
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[rows, PAGE_LEN]`
    scores: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Zeros in the columns from `width` on of `rows` rows of `padded`.
fn zero_padding(buffer: &mut [f32], rows: usize, width: usize, padded: usize) {
    if width < padded {
        buffer.chunks_exact_mut(padded).take(rows).for_each(|row| row[width..].fill(0.0));
    }
}

/// One tile: query rows are (token, head) pairs, heads fastest.
///
/// # Safety
/// The processor has `V`'s instruction set, and no other task writes the same outputs.
#[inline(always)]
unsafe fn attend_tile<V: Lanes>(call: &Call, tile: &Tile, out: &SharedMut<f32>, s: &mut Scratch) {
    let shape = call.shape;
    let (key_pad, value_pad) = (shape.key_dim.next_multiple_of(16), shape.value_dim.next_multiple_of(16));
    let rows = tile.chunk.rows * tile.heads;
    room(&mut s.keys, PAGE_LEN * key_pad);
    room(&mut s.values, PAGE_LEN * value_pad);
    room(&mut s.queries, rows * key_pad);
    room(&mut s.scores, rows * PAGE_LEN);
    s.acc.clear();
    s.acc.resize(rows * value_pad, 0.0);
    zero_padding(&mut s.keys, PAGE_LEN, shape.key_dim, key_pad);
    zero_padding(&mut s.values, PAGE_LEN, shape.value_dim, value_pad);
    zero_padding(&mut s.queries, rows, shape.key_dim, key_pad);
    start_sums(call, tile, s, rows);
    for row in 0..rows {
        let (token, head) = (tile.chunk.first_row + row / tile.heads, tile.first_head + row % tile.heads);
        let from = (token * shape.heads + head) * shape.key_dim;
        s.queries[row * key_pad..][..shape.key_dim].copy_from_slice(&call.q[from..from + shape.key_dim]);
    }
    let (first, last) = (tile.chunk.position, tile.chunk.position + tile.chunk.rows - 1);
    let start = shape.window.map_or(0, |w| (first + 1).saturating_sub(w));
    let shared = shared_values(call).then_some(key_pad);
    for page in start / PAGE_LEN..=last / PAGE_LEN {
        let count = PAGE_LEN.min(last + 1 - page * PAGE_LEN);
        load_page(call, tile, page, count, key_pad, value_pad, s);
        // SAFETY: the instruction set is the caller's promise.
        unsafe { page_scores::<V>(shape, rows, key_pad, count, s) };
        for row in 0..rows {
            let token = row / tile.heads;
            mask_row(call, tile, token, page, &mut s.scores[row * PAGE_LEN..(row + 1) * PAGE_LEN], count);
            // SAFETY: as above.
            unsafe { absorb_row::<V>(row, count, value_pad, shared, s) };
        }
    }
    for row in 0..rows {
        let (token, head) = (tile.chunk.first_row + row / tile.heads, tile.first_head + row % tile.heads);
        // SAFETY: this tile alone holds this token and head.
        let to = unsafe { out.range((token * shape.heads + head) * shape.value_dim, shape.value_dim) };
        let inverse = if s.sum[row] > 0.0 { 1.0 / s.sum[row] } else { 0.0 };
        to.iter_mut().zip(&s.acc[row * value_pad..]).for_each(|(to, v)| *to = v * inverse);
    }
}

/// Running maximum and sum before the first key: empty, or the head's sink alone.
fn start_sums(call: &Call, tile: &Tile, s: &mut Scratch, rows: usize) {
    s.max.clear();
    s.sum.clear();
    for row in 0..rows {
        let sink = call.sinks.map(|sinks| sinks[tile.first_head + row % tile.heads]);
        s.max.push(sink.unwrap_or(f32::NEG_INFINITY));
        s.sum.push(if sink.is_some() { 1.0 } else { 0.0 });
    }
}

/// Whether the unpacked keys serve as the values: their first `value_dim` elements, with whole vectors.
/// (A padded value could not be read from a key row: the key goes on where the padding should be.)
fn shared_values(call: &Call) -> bool {
    matches!(call.cached, Cached::Latent(_)) && call.shape.value_dim.is_multiple_of(16)
}

/// Unpacks the first `count` keys and values of a page.
#[inline(always)] // for the caller's instruction set
fn load_page(call: &Call, tile: &Tile, page: usize, count: usize, key_pad: usize, value_pad: usize, s: &mut Scratch) {
    let (shape, id) = (call.shape, tile.chunk.pages[page]);
    match call.cached {
        Cached::Separate(keys, values) => {
            let (k, v) = (tile.kv_head * shape.key_dim, tile.kv_head * shape.value_dim);
            keys.load(id, count, k..k + shape.key_dim, &mut s.keys, key_pad);
            values.load(id, count, v..v + shape.value_dim, &mut s.values, value_pad);
        }
        Cached::Latent(latents) => {
            latents.load(id, count, 0..shape.key_dim, &mut s.keys, key_pad);
            if !shared_values(call) {
                latents.load(id, count, 0..shape.value_dim, &mut s.values, value_pad);
            }
        }
    }
}

/// `scores[row, key] = softcap(scale * query[row] . key)`
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn page_scores<V: Lanes>(shape: &Shape, rows: usize, key_pad: usize, count: usize, s: &mut Scratch) {
    let mut sums = [[0.0f32; ROW_STEP]; MOST_COLUMNS];
    for row in (0..rows).step_by(MOST_COLUMNS) {
        let q = (rows - row).min(MOST_COLUMNS);
        let queries = &s.queries[row * key_pad..(row + q) * key_pad];
        let queries = TileRows { start: queries.as_ptr(), stride: key_pad, count: q };
        for key in (0..count).step_by(ROW_STEP) {
            let k = (count - key).min(ROW_STEP);
            let keys = &s.keys[key * key_pad..(key + k) * key_pad];
            let keys = TileRows { start: keys.as_ptr(), stride: key_pad, count: k };
            // SAFETY: `keys` and `queries` hold those rows; the instruction set is the caller's promise.
            unsafe { block::<V>(keys, queries, key_pad, &mut sums) };
            for (c, sums) in sums.iter().enumerate().take(q) {
                let to = &mut s.scores[(row + c) * PAGE_LEN + key..][..k];
                to.iter_mut().zip(sums).for_each(|(to, v)| *to = v * shape.scale);
            }
        }
    }
    if let Some(cap) = shape.softcap {
        for row in s.scores.chunks_exact_mut(PAGE_LEN).take(rows) {
            row[..count].iter_mut().for_each(|v| *v = cap * crate::ops::tanh(*v / cap));
        }
    }
}

/// Minus infinity for the keys of page `page` that the token may not see.
fn mask_row(call: &Call, tile: &Tile, token: usize, page: usize, scores: &mut [f32], count: usize) {
    let position = tile.chunk.position + token;
    let base = page * PAGE_LEN;
    let first = call.shape.window.map_or(0, |w| (position + 1).saturating_sub(w));
    for (i, score) in scores[..count].iter_mut().enumerate() {
        if base + i > position || base + i < first {
            *score = f32::NEG_INFINITY;
        }
    }
    if let Some(selection) = call.selection {
        let chosen = &selection[tile.chunk.first_row + token];
        let from = chosen.partition_point(|&p| (p as usize) < base);
        let mut next = from;
        for (i, score) in scores[..count].iter_mut().enumerate() {
            if chosen.get(next).is_some_and(|&p| p as usize == base + i) {
                next += 1;
            } else {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}

/// Takes a page's scores of one query row into its running maximum, sum and weighted values. The values
/// are the unpacked keys, `shared` apart, where there is such a number.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn absorb_row<V: Lanes>(row: usize, count: usize, value_pad: usize, shared: Option<usize>, s: &mut Scratch) {
    let scores = s.scores[row * PAGE_LEN..].first_chunk_mut::<PAGE_LEN>().expect("a row of scores");
    // Positions after the last one weigh nothing, so that the sums below have one shape.
    scores[count..].fill(f32::NEG_INFINITY);
    let page_max = max_of(scores);
    if page_max == f32::NEG_INFINITY {
        return; // nothing visible in this page
    }
    let max = s.max[row].max(page_max);
    let correction = exp(s.max[row] - max);
    scores.iter_mut().for_each(|v| *v = exp(*v - max));
    s.sum[row] = s.sum[row] * correction + sum_of::<V>(scores);
    s.max[row] = max;
    let acc = &mut s.acc[row * value_pad..(row + 1) * value_pad];
    if correction != 1.0 {
        acc.iter_mut().for_each(|v| *v *= correction);
    }
    let (values, stride) = shared.map_or((&s.values, value_pad), |key_pad| (&s.keys, key_pad));
    // SAFETY: the instruction set is the caller's promise.
    unsafe { weighted_sum::<V>(acc, &scores[..count], values, stride) };
}

/// The largest score; NaN if any is one.
#[inline(always)]
fn max_of(scores: &[f32; PAGE_LEN]) -> f32 {
    let mut max = [f32::NEG_INFINITY; 16];
    for part in scores.as_chunks::<16>().0 {
        for (max, &v) in max.iter_mut().zip(part) {
            *max = larger(*max, v);
        }
    }
    max.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// Unlike `f32::max`, a NaN where either is one.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Position `i` goes to lane `i % 16` in rising order, and the lanes are added as the tree of `lanes`.
#[inline(always)]
fn sum_of<V: Lanes>(p: &[f32; PAGE_LEN]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for part in p.as_chunks::<16>().0 {
        lanes.iter_mut().zip(part).for_each(|(lane, v)| *lane += v);
    }
    // SAFETY: sixteen floats; the instruction set is the caller's promise.
    unsafe { V::load(lanes.as_ptr()).sum() }
}

/// `acc += sum over keys of p[key] * values[key]`, in rising key order; keys of weight zero (masked)
/// are left out.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn weighted_sum<V: Lanes>(acc: &mut [f32], p: &[f32], values: &[f32], stride: usize) {
    const WIDTH: usize = 4; // vectors of sixteen kept in registers over all keys
    let width = acc.len();
    assert!(width <= stride && width.is_multiple_of(16) && values.len() >= p.len() * stride);
    let mut at = 0;
    while at < width {
        let vectors = WIDTH.min((width - at) / 16);
        // SAFETY: `at + vectors * 16 <= width`, and `values` holds `p.len()` rows of `stride >= width`.
        unsafe {
            let to = acc.as_mut_ptr().add(at);
            let mut sums: [V; WIDTH] = std::array::from_fn(|v| V::load(to.add(v.min(vectors - 1) * 16)));
            for (key, &weight) in p.iter().enumerate() {
                if weight == 0.0 {
                    continue;
                }
                let from = values.as_ptr().add(key * stride + at);
                let w = V::splat(weight);
                for v in 0..WIDTH {
                    sums[v] = V::load(from.add(v.min(vectors - 1) * 16)).mul_add(w, sums[v]);
                }
            }
            for (v, sum) in sums.into_iter().enumerate().take(vectors) {
                sum.store(to.add(v * 16));
            }
        }
        at += vectors * 16;
    }
}

/// The lightning indexer's score of each of the first `seen` cached keys for one query:
/// `sum over heads of weights[h] * max(0, scale * q[h] . key)` (DeepSeek-V3.2-Exp, equation 1).
///
/// `q` is `[heads * dim]` for keys of `dim` elements.
pub fn index_scores(
    pool: &Pool,
    keys: &Plane,
    pages: &[u32],
    seen: usize,
    q: &[f32],
    weights: &[f32],
    scale: f32,
) -> Vec<f32> {
    let (dim, pad) = (keys.width(), keys.width().next_multiple_of(16));
    assert_eq!(q.len(), weights.len() * dim, "index queries of {} heads", weights.len());
    assert!(seen <= pages.len() * PAGE_LEN, "positions inside the pages");
    let mut queries = vec![0.0; weights.len() * pad];
    for (to, from) in queries.chunks_exact_mut(pad).zip(q.chunks_exact(dim)) {
        to[..dim].copy_from_slice(from);
    }
    let mut scores = vec![0.0; seen];
    let (isa, queries) = (isa(), queries.as_slice());
    pool.for_each_piece(&mut scores, PAGE_LEN, |page, scores| {
        let mut unpacked = vec![0.0; PAGE_LEN * pad];
        keys.load(pages[page], scores.len(), 0..dim, &mut unpacked, pad);
        let unpacked = unpacked.as_slice();
        dispatch!(
            isa,
            index_page(unpacked: &[f32], pad: usize, queries: &[f32], weights: &[f32], scale: f32, scores: &mut [f32])
        );
    });
    scores
}

/// The scores of one page of keys.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn index_page<V: Lanes>(
    keys: &[f32],
    pad: usize,
    queries: &[f32],
    weights: &[f32],
    scale: f32,
    scores: &mut [f32],
) {
    let heads = weights.len();
    let mut sums = [[0.0f32; ROW_STEP]; MOST_COLUMNS];
    for (k, scores) in scores.chunks_mut(ROW_STEP).enumerate() {
        let rows = &keys[k * ROW_STEP * pad..][..scores.len() * pad];
        let rows = TileRows { start: rows.as_ptr(), stride: pad, count: scores.len() };
        for h in (0..heads).step_by(MOST_COLUMNS) {
            let count = (heads - h).min(MOST_COLUMNS);
            let q = &queries[h * pad..(h + count) * pad];
            let q = TileRows { start: q.as_ptr(), stride: pad, count };
            // SAFETY: `rows` and `q` hold those rows; the instruction set is the caller's promise.
            unsafe { block::<V>(rows, q, pad, &mut sums) };
            for (sums, weight) in sums.iter().zip(&weights[h..h + count]) {
                scores.iter_mut().zip(sums).for_each(|(score, dot)| *score += weight * (dot * scale).max(0.0));
            }
        }
    }
}
