//! Attention over a paged cache.
//!
//! For each query: scores against the cached keys it may see, softmax, and the weighted sum of the
//! values (Milakov and Gimelshein 2018; Dao et al. 2022). Positions are taken in segments of
//! [`SEGMENT_LEN`] that begin at its multiples, and a segment in pages of [`PAGE_LEN`], with a running
//! maximum and sum; segments are then merged in rising order. So the order of every sum depends only on
//! the query's own position and what it sees: not on the chunk it came in, on other queries, or on
//! threads. Segments of one query are independent of each other until they are merged, which is how
//! several threads work on the one token of one sequence.
//!
//! Multi-head, grouped-query and latent attention are one kernel: in the latent form (DeepSeek-V2,
//! section 2.1) all heads share one key row, whose first part is also the value.

#[cfg(target_arch = "x86_64")]
mod dots;
mod index;
mod plane;
mod rounded;
mod sums;
mod tile;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::isa::{Isa, isa};
use crate::lanes::dispatch;
use crate::pool::{Pool, SharedMut};
use sums::Sums;
use tile::{Scratch, fold_segments, merge_parts, part_len, write_out};

pub use index::index_scores;
pub use plane::{CacheFormat, Factors, INT8_GROUP, PAGE_LEN, Plane};

/// Positions in a segment: whole pages.
pub const SEGMENT_LEN: usize = 256;

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

impl Cached<'_> {
    /// How it is multiplied.
    ///
    /// # Panics
    /// If keys and values do not agree.
    fn factors(&self) -> Factors {
        match self {
            Cached::Latent(plane) => plane.factors(),
            Cached::Separate(keys, values) => {
                assert_eq!(keys.factors(), values.factors(), "factors of keys and values");
                keys.factors()
            }
        }
    }
}

/// Which positions each row of the batch may see besides the causal and window rules: sorted
/// positions for each row (sparse attention's choice); none means all.
pub type Selection<'a> = Option<&'a [Vec<u32>]>;

/// Query rows, a (token, head) pair each, that share the unpacked pages: so many that unpacking costs
/// little beside them, and that queries, keys and sums fit the second-level cache.
const TILE_ROWS: usize = 64;
/// Query heads of a tile: more tokens of fewer heads share the pages as well.
const TILE_HEADS: usize = 16;
/// Tiles are not made smaller than this for the sake of more threads: they would only unpack.
const TILE_HEADS_MIN: usize = 4;

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
    let plan = Plan::new(pool.threads(), shape, chunks, selection.is_some());
    let call = Call { shape, q, cached, sinks, selection, rounded: cached.factors() == Factors::Bf16 };
    if plan.tasks.len() == plan.tiles.len() {
        attend_whole(isa, pool, &call, &plan, out);
    } else {
        PARTS.with_borrow_mut(|parts| attend_split(isa, pool, &call, &plan, parts, out));
    }
}

/// What all tiles of one call share.
struct Call<'a> {
    shape: &'a Shape,
    q: &'a [f32],
    cached: Cached<'a>,
    sinks: Option<&'a [f32]>,
    selection: Selection<'a>,
    /// In bfloat16.
    rounded: bool,
}

impl Call<'_> {
    /// Whether it is computed with dot products of bfloat16. Not where there is AMX: those processors' vectors
    /// multiply floats faster than pairs of bfloat16.
    fn has_dots(&self, isa: Isa) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.rounded && isa == Isa::Avx512 && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            false
        }
    }
}

/// Some tokens of one chunk and some query heads of one key head.
struct Tile<'a> {
    chunk: Chunk<'a>,
    kv_head: usize,
    first_head: usize,
    heads: usize,
    /// Those that hold all that its tokens may see.
    segments: Range<usize>,
}

impl Tile<'_> {
    /// Query rows, heads fastest.
    fn rows(&self) -> usize {
        self.chunk.rows * self.heads
    }

    /// Token of the batch and head of query row `row`.
    fn token_head(&self, row: usize) -> (usize, usize) {
        (self.chunk.first_row + row / self.heads, self.first_head + row % self.heads)
    }
}

/// How a call is cut into tasks. The cut never changes a result: tiles are independent of each other,
/// and segments are merged in one order whoever computed them.
struct Plan<'a> {
    tiles: Vec<Tile<'a>>,
    /// (tile, segment); each tile once, where tiles alone are enough for all threads.
    tasks: Vec<(usize, usize)>,
}

impl<'a> Plan<'a> {
    fn new(threads: usize, shape: &Shape, chunks: &[Chunk<'a>], selects: bool) -> Plan<'a> {
        let group = shape.heads / shape.kv_heads;
        let mut heads = TILE_HEADS.min(group);
        // Each token has a selection of its own, and rows that see the same are computed together.
        let tokens = |heads: usize| if selects { 1 } else { (TILE_ROWS / heads).max(1) };
        let mut tiles = tiles_of(shape, chunks, tokens(heads), heads);
        // Twice as many tasks as threads: they are not all equally long.
        let wanted = if threads == 1 { 1 } else { 2 * threads };
        let segments = |tiles: &[Tile]| tiles.iter().map(|tile| tile.segments.len()).sum::<usize>();
        if tiles.len() >= wanted {
            return Plan { tasks: (0..tiles.len()).map(|tile| (tile, 0)).collect(), tiles };
        }
        while segments(&tiles) < threads && heads > TILE_HEADS_MIN {
            heads = heads.div_ceil(2);
            tiles = tiles_of(shape, chunks, tokens(heads), heads);
        }
        let tasks = tiles.iter().enumerate().flat_map(|(i, tile)| tile.segments.clone().map(move |s| (i, s))).collect();
        Plan { tiles, tasks }
    }
}

fn tiles_of<'a>(shape: &Shape, chunks: &[Chunk<'a>], tile_tokens: usize, tile_heads: usize) -> Vec<Tile<'a>> {
    let group = shape.heads / shape.kv_heads;
    let mut tiles = Vec::new();
    for chunk in chunks {
        assert!(chunk.position + chunk.rows <= chunk.pages.len() * PAGE_LEN, "chunk beyond its pages");
        for first in (0..chunk.rows).step_by(tile_tokens) {
            let rows = tile_tokens.min(chunk.rows - first);
            let part = Chunk { first_row: chunk.first_row + first, rows, position: chunk.position + first, ..*chunk };
            let start = shape.window.map_or(0, |w| (part.position + 1).saturating_sub(w));
            let segments = start / SEGMENT_LEN..(part.position + rows - 1) / SEGMENT_LEN + 1;
            for kv_head in 0..shape.kv_heads {
                for head in (0..group).step_by(tile_heads) {
                    let (heads, first_head) = (tile_heads.min(group - head), kv_head * group + head);
                    tiles.push(Tile { chunk: part, kv_head, first_head, heads, segments: segments.clone() });
                }
            }
        }
    }
    tiles
}

thread_local! {
    /// Of the tasks of one thread, kept from call to call.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
    /// Segments before they are merged, of the caller's calls.
    static PARTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A task for each tile.
fn attend_whole(isa: Isa, pool: &Pool, call: &Call, plan: &Plan, out: &mut [f32]) {
    let out = &SharedMut::new(out);
    let dots = call.has_dots(isa);
    pool.run(plan.tiles.len(), |i| {
        let tile = &plan.tiles[i];
        SCRATCH.with_borrow_mut(|scratch| {
            #[cfg(target_arch = "x86_64")]
            if dots {
                // SAFETY: the processor has the instructions, and tiles are different places.
                return unsafe { whole_tile_by_dots(call, tile, out, scratch) };
            }
            let _ = dots;
            dispatch!(
                isa,
                whole_tile(call: &Call<'_>, tile: &Tile<'_>, out: &SharedMut<'_, f32>, scratch: &mut Scratch)
            );
        });
    });
}

/// # Safety
/// The processor has `V`'s instruction set, and no other task writes the same outputs.
#[inline(always)]
unsafe fn whole_tile<V: Sums>(call: &Call, tile: &Tile, out: &SharedMut<f32>, scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe {
        fold_segments::<V, false>(call, tile, scratch);
        write_out(call, tile, &scratch.total, out);
    }
}

/// # Safety
/// As [`whole_tile`], with AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn whole_tile_by_dots(call: &Call, tile: &Tile, out: &SharedMut<f32>, scratch: &mut Scratch) {
    // SAFETY: the caller's promise.
    unsafe {
        fold_segments::<crate::lanes::Avx512, true>(call, tile, scratch);
        write_out(call, tile, &scratch.total, out);
    }
}

/// A task for each tile and segment; the last one of a tile merges its segments.
fn attend_split(isa: Isa, pool: &Pool, call: &Call, plan: &Plan, parts: &mut Vec<f32>, out: &mut [f32]) {
    let lens: Vec<usize> = plan.tiles.iter().map(|tile| part_len(call.shape, tile.rows())).collect();
    let mut starts = Vec::with_capacity(lens.len());
    let mut total = 0;
    for (tile, len) in plan.tiles.iter().zip(&lens) {
        starts.push(total);
        total += len * tile.segments.len();
    }
    if parts.len() < total {
        parts.resize(total, 0.0);
    }
    let dots = call.has_dots(isa);
    let left: Vec<AtomicUsize> = plan.tiles.iter().map(|tile| AtomicUsize::new(tile.segments.len())).collect();
    let (out, parts) = (&SharedMut::new(out), &SharedMut::new(&mut parts[..total]));
    pool.run(plan.tasks.len(), |i| {
        let (of, number) = plan.tasks[i];
        let (tile, len) = (&plan.tiles[of], lens[of]);
        let place = starts[of] + (number - tile.segments.start) * len;
        SCRATCH.with_borrow_mut(|s| {
            {
                // SAFETY: the parts of different tasks do not overlap, and the one who merges them comes later.
                let part = unsafe { parts.range(place, len) };
                segment_by(isa, dots, call, tile, number, s, part);
            }
            // Release what was written, acquire what the others wrote.
            if left[of].fetch_sub(1, Ordering::AcqRel) == 1 {
                // SAFETY: all tasks of this tile are done with their parts, and this one alone was the last.
                let all = unsafe { parts.range(starts[of], len * tile.segments.len()) };
                merge_parts(call, tile, all, &mut s.total);
                // SAFETY: this tile alone holds its tokens and heads.
                unsafe { write_out(call, tile, &s.total, out) };
            }
        });
    });
}

/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn one_segment<V: Sums>(call: &Call, tile: &Tile, segment: usize, scratch: &mut Scratch, part: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        scratch.take_queries::<false>(call, tile);
        tile::segment::<V, false>(call, tile, segment, scratch, part);
    }
}

/// One segment with the kernels of `isa`, and dot products where `dots` says that the processor has them.
fn segment_by(isa: Isa, dots: bool, call: &Call, tile: &Tile, number: usize, s: &mut Scratch, part: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if dots {
        // SAFETY: the processor has the instructions.
        return unsafe { one_segment_by_dots(call, tile, number, s, part) };
    }
    let _ = dots;
    dispatch!(
        isa,
        one_segment(call: &Call<'_>, tile: &Tile<'_>, number: usize, s: &mut Scratch, part: &mut [f32])
    );
}

/// # Safety
/// The processor has AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn one_segment_by_dots(call: &Call, tile: &Tile, number: usize, s: &mut Scratch, part: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        s.take_queries::<true>(call, tile);
        tile::segment::<crate::lanes::Avx512, true>(call, tile, number, s, part);
    }
}
