//! The backward pass of attention over whole sequences.
//!
//! Probabilities are computed again from queries and keys, a few query rows at a time (as in Dao et
//! al. 2022, section 3.1, but with all scores of those rows kept, so that nothing of the forward pass
//! but its inputs is needed). With `P = softmax(scale Q K^T)` and `O = P V`:
//!
//! - `dV = P^T dO`, `dP = dO V^T`, `dS = P (dP - D)` with `D = sum of P dP` over a row,
//! - `dQ = scale dS K`, `dK = scale dS^T Q`.
//!
//! Every sum runs in an order that depends on its own sequence only: not on other sequences, not on
//! threads. The three forms are those of [`crate::attention`]: multi-head and grouped-query attention,
//! and the latent form, where all heads share one key row whose first part is also the value.

use std::cell::RefCell;

use crate::attention::Shape;
use crate::isa::{Isa, isa};
use crate::lanes::{Lanes, dispatch};
use crate::ops::exp;
use crate::pool::{Pool, SharedMut};
use crate::tile::room;

/// Keys and values of all rows of a batch.
#[derive(Clone, Copy)]
pub enum KeyValues<'a> {
    /// `[T, kv_heads * key_dim]` and `[T, kv_heads * value_dim]`.
    Separate(&'a [f32], &'a [f32]),
    /// `[T, key_dim]` for all heads; the first `value_dim` elements are the value.
    Latent(&'a [f32]),
}

/// Gradients of [`KeyValues`], in the same layouts; they are overwritten.
pub enum KeyValueGradients<'a> {
    /// Of keys and of values.
    Separate(&'a mut [f32], &'a mut [f32]),
    /// Of the shared rows.
    Latent(&'a mut [f32]),
}

/// Gradients of causal attention inside each of `sequences` (their lengths, one after the other).
///
/// `q` and `dq` are `[T, heads * key_dim]`, `dout` is `[T, heads * value_dim]`; `dq` and `dkv` are
/// overwritten. `sinks` are the scores of [`crate::attention::attend`] with their gradients, which are
/// added to.
///
/// # Panics
/// If sizes do not agree, or the shape has a soft cap (no model that is trained here has one).
pub fn attend_backward(
    pool: &Pool,
    shape: &Shape,
    sequences: &[usize],
    q: &[f32],
    kv: KeyValues,
    sinks: Option<(&[f32], &mut [f32])>,
    dout: &[f32],
    dq: &mut [f32],
    dkv: KeyValueGradients,
) {
    attend_backward_with(isa(), pool, shape, sequences, q, kv, sinks, dout, dq, dkv);
}

/// [`attend_backward`] with the kernels of `isa`.
#[doc(hidden)]
pub fn attend_backward_with(
    isa: Isa,
    pool: &Pool,
    shape: &Shape,
    sequences: &[usize],
    q: &[f32],
    kv: KeyValues,
    sinks: Option<(&[f32], &mut [f32])>,
    dout: &[f32],
    dq: &mut [f32],
    dkv: KeyValueGradients,
) {
    assert!(isa.is_available(), "{} kernels on a processor without them", isa.name());
    assert!(shape.softcap.is_none(), "attention with a soft cap has no backward pass");
    let total: usize = sequences.iter().sum();
    check_sizes(shape, total, q, kv, dout, dq);
    let (dk, dv): (_, &mut [f32]) = match (dkv, kv) {
        (KeyValueGradients::Separate(dk, dv), KeyValues::Separate(k, v)) => {
            assert_eq!((dk.len(), dv.len()), (k.len(), v.len()), "gradients of keys and values");
            (dk, dv)
        }
        (KeyValueGradients::Latent(dk), KeyValues::Latent(k)) => {
            assert_eq!(dk.len(), k.len(), "gradients of latents");
            (dk, &mut [])
        }
        _ => panic!("keys and their gradients in different forms"),
    };
    let (sinks, dsinks) = sinks.map_or((None, None), |(sinks, gradients)| (Some(sinks), Some(gradients)));
    let parts = parts_of(shape);
    let tasks = tasks_of(shape, sequences, parts);
    // What each part of the query heads but the first adds to its keys, and each task to the sinks.
    let mut dk_parts = vec![0.0; (parts - 1) * dk.len()];
    let mut dv_parts = vec![0.0; (parts - 1) * dv.len()];
    let mut sink_sums = vec![0.0; if sinks.is_some() { tasks.len() * shape.heads } else { 0 }];
    let call = Call { shape, q, kv, sinks, dout };
    let outputs = Outputs {
        dq: SharedMut::new(dq),
        dk: [SharedMut::new(dk), SharedMut::new(&mut dk_parts)],
        dv: [SharedMut::new(dv), SharedMut::new(&mut dv_parts)],
        sinks: SharedMut::new(&mut sink_sums),
    };
    pool.run(tasks.len(), |i| {
        SCRATCH.with_borrow_mut(|s| {
            let (call, task, out) = (&call, &tasks[i], &outputs);
            dispatch!(isa, backward_task(call: &Call<'_>, task: &Task, out: &Outputs<'_>, s: &mut Scratch));
        });
    });
    add_parts(pool, dk, &dk_parts);
    add_parts(pool, dv, &dv_parts);
    if let Some(dsinks) = dsinks {
        for sums in sink_sums.chunks_exact(shape.heads) {
            dsinks.iter_mut().zip(sums).for_each(|(to, v)| *to += v);
        }
    }
}

/// Query heads of a task where all heads share few keys.
const PART_HEADS: usize = 4;
/// The most tokens whose queries are worked on together: more would waste scores above the diagonal.
const TILE_TOKENS: usize = 32;
/// The most query rows (tokens times heads) that are worked on together.
const TILE_ROWS: usize = 64;
/// Rows of outputs in the registers; query rows are padded to it.
const ROWS: usize = 8;
/// Floats of a vector; columns are padded to it.
const LANES: usize = 16;

/// What all tasks of one call share.
struct Call<'a> {
    shape: &'a Shape,
    q: &'a [f32],
    kv: KeyValues<'a>,
    sinks: Option<&'a [f32]>,
    dout: &'a [f32],
}

/// Some query heads of one key head in one sequence.
struct Task {
    index: usize,
    first_row: usize,
    rows: usize,
    kv_head: usize,
    first_head: usize,
    heads: usize,
    part: usize,
}

/// Where tasks write: `dk` and `dv` of the first part, and of all others.
struct Outputs<'a> {
    dq: SharedMut<'a, f32>,
    dk: [SharedMut<'a, f32>; 2],
    dv: [SharedMut<'a, f32>; 2],
    /// `[tasks, heads]`
    sinks: SharedMut<'a, f32>,
}

fn check_sizes(shape: &Shape, total: usize, q: &[f32], kv: KeyValues, dout: &[f32], dq: &[f32]) {
    let Shape { heads, kv_heads, key_dim, value_dim, .. } = *shape;
    assert!(kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads on {kv_heads}");
    assert_eq!((q.len(), dq.len()), (total * heads * key_dim, total * heads * key_dim), "queries of {total} tokens");
    assert_eq!(dout.len(), total * heads * value_dim, "gradients of {total} outputs");
    match kv {
        KeyValues::Separate(k, v) => {
            let wanted = (total * kv_heads * key_dim, total * kv_heads * value_dim);
            assert_eq!((k.len(), v.len()), wanted, "keys and values of {total} tokens");
        }
        KeyValues::Latent(k) => {
            assert!(kv_heads == 1 && value_dim <= key_dim, "one latent for all heads");
            assert_eq!(k.len(), total * key_dim, "latents of {total} tokens");
        }
    }
}

/// Parts that the query heads of a key head are cut into: one, unless there are few key heads. It
/// depends on the shape alone, as the order of sums does.
fn parts_of(shape: &Shape) -> usize {
    let group = shape.heads / shape.kv_heads;
    if shape.kv_heads >= PART_HEADS { 1 } else { group.div_ceil(PART_HEADS) }
}

fn tasks_of(shape: &Shape, sequences: &[usize], parts: usize) -> Vec<Task> {
    let group = shape.heads / shape.kv_heads;
    let size = group.div_ceil(parts);
    let (mut tasks, mut first_row) = (Vec::new(), 0);
    for &rows in sequences {
        for kv_head in 0..shape.kv_heads {
            for part in 0..parts {
                let heads = size.min(group.saturating_sub(part * size));
                let first_head = kv_head * group + part * size;
                tasks.push(Task { index: tasks.len(), first_row, rows, kv_head, first_head, heads, part });
            }
        }
        first_row += rows;
    }
    tasks
}

/// `to += part`, one part after the other.
fn add_parts(pool: &Pool, to: &mut [f32], parts: &[f32]) {
    if parts.is_empty() {
        return;
    }
    const PIECE: usize = 8192;
    let len = to.len();
    pool.for_each_piece(to, PIECE, |i, to| {
        for part in parts.chunks_exact(len) {
            to.iter_mut().zip(&part[i * PIECE..]).for_each(|(to, v)| *to += v);
        }
    });
}

/// Memory of a thread. Widths are padded to whole vectors, the padding is zero.
#[derive(Default)]
struct Scratch {
    /// `[n, key_pad]`
    keys: Vec<f32>,
    /// `[key_pad, n_pad]`
    keys_t: Vec<f32>,
    /// `[value_pad, n_pad]`
    values_t: Vec<f32>,
    /// `[n_pad, key_pad]`
    dk: Vec<f32>,
    /// `[n_pad, value_pad]`
    dv: Vec<f32>,
    /// `[rows, key_pad]`
    queries: Vec<f32>,
    dq: Vec<f32>,
    /// `[rows, value_pad]`
    dout: Vec<f32>,
    /// `[rows, n_pad]`
    p: Vec<f32>,
    ds: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Widths with padding.
#[derive(Clone, Copy)]
struct Pads {
    key: usize,
    value: usize,
    n: usize,
}

/// Query rows that are worked on together: (token, head) pairs, heads fastest.
#[derive(Clone, Copy)]
struct Tile {
    /// First token of the sequence.
    first: usize,
    tokens: usize,
    /// Rows with padding.
    rows: usize,
    /// Keys that any of the rows sees, rounded outwards to whole vectors.
    low: usize,
    high: usize,
}

/// # Safety
/// The processor has `V`'s instruction set, and no other task writes the same outputs.
#[inline(always)]
unsafe fn backward_task<V: Lanes>(call: &Call, task: &Task, out: &Outputs, s: &mut Scratch) {
    if task.rows == 0 || task.heads == 0 {
        return;
    }
    let shape = call.shape;
    let pads = Pads {
        key: shape.key_dim.next_multiple_of(LANES),
        value: shape.value_dim.next_multiple_of(LANES),
        n: task.rows.next_multiple_of(LANES),
    };
    load_keys(call, task, pads, s);
    let step = TILE_TOKENS.min((TILE_ROWS / task.heads).max(1));
    for first in (0..task.rows).step_by(step) {
        let tokens = step.min(task.rows - first);
        let start = shape.window.map_or(0, |w| (first + 1).saturating_sub(w));
        let tile = Tile {
            first,
            tokens,
            rows: (tokens * task.heads).next_multiple_of(ROWS),
            low: start / LANES * LANES,
            high: (first + tokens).next_multiple_of(LANES),
        };
        load_queries(call, task, tile, pads, s);
        // SAFETY: the caller's promises.
        unsafe {
            probabilities::<V>(call, task, tile, pads, s);
            score_gradients::<V>(call, task, tile, pads, out, s);
            products::<V>(tile, pads, s);
            write_dq(call, task, tile, pads, out, s);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { write_dkv(call, task, pads, out, s) };
}

/// Keys as they are and transposed, values transposed, and empty gradients.
#[inline(always)]
fn load_keys(call: &Call, task: &Task, pads: Pads, s: &mut Scratch) {
    let Shape { kv_heads, key_dim, value_dim, .. } = *call.shape;
    let key_row = |r: usize| match call.kv {
        KeyValues::Separate(k, _) => &k[((task.first_row + r) * kv_heads + task.kv_head) * key_dim..][..key_dim],
        KeyValues::Latent(k) => &k[(task.first_row + r) * key_dim..][..key_dim],
    };
    let value_row = |r: usize| match call.kv {
        KeyValues::Separate(_, v) => &v[((task.first_row + r) * kv_heads + task.kv_head) * value_dim..][..value_dim],
        KeyValues::Latent(k) => &k[(task.first_row + r) * key_dim..][..value_dim],
    };
    s.dk.clear();
    s.dk.resize(pads.n * pads.key, 0.0);
    s.dv.clear();
    s.dv.resize(pads.n * pads.value, 0.0);
    let keys = room(&mut s.keys, pads.n * pads.key);
    for (r, to) in keys.chunks_exact_mut(pads.key).enumerate() {
        let filled = if r < task.rows { key_dim } else { 0 };
        if filled > 0 {
            to[..filled].copy_from_slice(key_row(r));
        }
        to[filled..].fill(0.0);
    }
    transpose(room(&mut s.keys_t, pads.key * pads.n), pads.n, task.rows, key_row);
    transpose(room(&mut s.values_t, pads.value * pads.n), pads.n, task.rows, value_row);
}

/// `to[d, r] = row(r)[d]` with zeros elsewhere; `to` is `[_, n_pad]`.
#[inline(always)]
fn transpose<'a>(to: &mut [f32], n_pad: usize, rows: usize, row: impl Fn(usize) -> &'a [f32]) {
    let width = row(0).len();
    to[width * n_pad..].fill(0.0);
    for first in (0..n_pad).step_by(LANES) {
        let count = LANES.min(rows.saturating_sub(first));
        if count == LANES {
            let from: [&[f32]; LANES] = std::array::from_fn(|r| row(first + r));
            for d in 0..width {
                for (to, from) in to[d * n_pad + first..][..LANES].iter_mut().zip(from) {
                    *to = from[d];
                }
            }
            continue;
        }
        for d in 0..width {
            let to = &mut to[d * n_pad + first..][..LANES];
            to.fill(0.0);
            to.iter_mut().enumerate().take(count).for_each(|(r, to)| *to = row(first + r)[d]);
        }
    }
}

/// The tile's queries and output gradients; padded rows are zero.
#[inline(always)]
fn load_queries(call: &Call, task: &Task, tile: Tile, pads: Pads, s: &mut Scratch) {
    let Shape { heads, key_dim, value_dim, .. } = *call.shape;
    let queries = room(&mut s.queries, tile.rows * pads.key).chunks_exact_mut(pads.key);
    let douts = room(&mut s.dout, tile.rows * pads.value).chunks_exact_mut(pads.value);
    for (row, (query, dout)) in queries.zip(douts).enumerate() {
        if row >= tile.tokens * task.heads {
            query.fill(0.0);
            dout.fill(0.0);
            continue;
        }
        let at = (task.first_row + tile.first + row / task.heads) * heads + task.first_head + row % task.heads;
        query[..key_dim].copy_from_slice(&call.q[at * key_dim..][..key_dim]);
        query[key_dim..].fill(0.0);
        dout[..value_dim].copy_from_slice(&call.dout[at * value_dim..][..value_dim]);
        dout[value_dim..].fill(0.0);
    }
}

/// `P = softmax(scale Q K^T)` over the keys that each row sees; zero elsewhere.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn probabilities<V: Lanes>(call: &Call, task: &Task, tile: Tile, pads: Pads, s: &mut Scratch) {
    let width = tile.high - tile.low;
    let p = room(&mut s.p, tile.rows * width);
    let (a, b) = (Factor { values: &s.queries, at: 0, row: pads.key, k: 1 }, Panel::new(&s.keys_t, tile.low, pads.n));
    // SAFETY: the caller's promise; the panel holds `width` columns from `low` on.
    unsafe { product::<V>(p, width, tile.rows, width, pads.key, a, b, false) };
    for (row, p) in p.chunks_exact_mut(width).enumerate() {
        if row >= tile.tokens * task.heads {
            p.fill(0.0);
            continue;
        }
        let position = tile.first + row / task.heads;
        let first = call.shape.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let (first, end) = (first - tile.low, position + 1 - tile.low);
        p[..first].fill(0.0);
        p[end..].fill(0.0);
        let sink = call.sinks.map(|sinks| sinks[task.first_head + row % task.heads]);
        softmax_row::<V>(&mut p[first..end], call.shape.scale, sink);
    }
}

/// `p = softmax(scale p)`, the sink taking part without a place of its own.
#[inline(always)]
fn softmax_row<V: Lanes>(p: &mut [f32], scale: f32, sink: Option<f32>) {
    p.iter_mut().for_each(|v| *v *= scale);
    let mut lanes = [sink.unwrap_or(f32::NEG_INFINITY); LANES];
    let (whole, rest) = p.as_chunks::<LANES>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(m, v)| *m = if *v > *m { *v } else { *m });
    }
    let max = lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max);
    p.iter_mut().for_each(|v| *v = exp(*v - max));
    let sum = sum_lanes::<V>(p, |v| v) + sink.map_or(0.0, |sink| exp(sink - max));
    let inverse = 1.0 / sum;
    p.iter_mut().for_each(|v| *v *= inverse);
}

/// Sixteen partial sums added as the tree of `lanes`.
#[inline(always)]
fn sum_lanes<V: Lanes>(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        sums.iter_mut().zip(chunk).for_each(|(sum, v)| *sum += f(*v));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, v)| *sum += f(*v));
    // SAFETY: sixteen floats; callers are compiled for `V`'s instruction set.
    unsafe { V::load(sums.as_ptr()).sum() }
}

/// `dS = scale P (dP - D)` with `dP = dO V^T`, and the gradients of sinks.
///
/// # Safety
/// As [`backward_task`].
#[inline(always)]
unsafe fn score_gradients<V: Lanes>(call: &Call, task: &Task, tile: Tile, pads: Pads, out: &Outputs, s: &mut Scratch) {
    let width = tile.high - tile.low;
    let ds = room(&mut s.ds, tile.rows * width);
    let (a, b) = (Factor { values: &s.dout, at: 0, row: pads.value, k: 1 }, Panel::new(&s.values_t, tile.low, pads.n));
    // SAFETY: the caller's promise; the panel holds `width` columns from `low` on.
    unsafe { product::<V>(ds, width, tile.rows, width, pads.value, a, b, false) };
    for (row, (ds, p)) in ds.chunks_exact_mut(width).zip(s.p.chunks_exact(width)).enumerate() {
        let mut sums = [0.0f32; LANES];
        for (ds, p) in ds.as_chunks::<LANES>().0.iter().zip(p.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                sums[i] += ds[i] * p[i];
            }
        }
        // SAFETY: sixteen floats; the instruction set is the caller's promise.
        let d = unsafe { V::load(sums.as_ptr()).sum() };
        if let (Some(_), true) = (call.sinks, row < tile.tokens * task.heads) {
            // The probabilities and the sink's share add up to one; its dP is zero.
            let share = 1.0 - sum_lanes::<V>(p, |v| v);
            let head = task.first_head + row % task.heads;
            // SAFETY: this task alone holds this element.
            unsafe { out.sinks.range(task.index * call.shape.heads + head, 1)[0] -= share * d };
        }
        let scale = call.shape.scale;
        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = *p * (*ds - d) * scale);
    }
}

/// `dQ = dS K`, `dK += dS^T Q`, `dV += P^T dO`.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn products<V: Lanes>(tile: Tile, pads: Pads, s: &mut Scratch) {
    let width = tile.high - tile.low;
    let rows = |values, stride| Factor { values, at: 0, row: stride, k: 1 };
    let columns = |values, stride| Factor { values, at: 0, row: 1, k: stride };
    let dq = room(&mut s.dq, tile.rows * pads.key);
    let (low_key, low_value) = (tile.low * pads.key, tile.low * pads.value);
    // SAFETY: the instruction set is the caller's promise; all factors and panels hold what is read.
    unsafe {
        let keys = Panel::new(&s.keys, low_key, pads.key);
        product::<V>(dq, pads.key, tile.rows, pads.key, width, rows(&s.ds, width), keys, false);
        let queries = Panel::new(&s.queries, 0, pads.key);
        let dk = &mut s.dk[low_key..];
        product::<V>(dk, pads.key, width, pads.key, tile.rows, columns(&s.ds, width), queries, true);
        let dout = Panel::new(&s.dout, 0, pads.value);
        let dv = &mut s.dv[low_value..];
        product::<V>(dv, pads.value, width, pads.value, tile.rows, columns(&s.p, width), dout, true);
    }
}

/// # Safety
/// No other task writes the same outputs.
#[inline(always)]
unsafe fn write_dq(call: &Call, task: &Task, tile: Tile, pads: Pads, out: &Outputs, s: &Scratch) {
    let Shape { heads, key_dim, .. } = *call.shape;
    for (row, dq) in s.dq.chunks_exact(pads.key).take(tile.tokens * task.heads).enumerate() {
        let at = (task.first_row + tile.first + row / task.heads) * heads + task.first_head + row % task.heads;
        // SAFETY: this task alone holds this token and head.
        unsafe { out.dq.range(at * key_dim, key_dim) }.copy_from_slice(&dq[..key_dim]);
    }
}

/// # Safety
/// No other task writes the same outputs.
#[inline(always)]
unsafe fn write_dkv(call: &Call, task: &Task, pads: Pads, out: &Outputs, s: &Scratch) {
    let Shape { kv_heads, key_dim, value_dim, .. } = *call.shape;
    let at = |width: usize, all: usize, r: usize| {
        task.part.saturating_sub(1) * all + ((task.first_row + r) * kv_heads + task.kv_head) * width
    };
    let (dk_out, dv_out) = (&out.dk[task.part.min(1)], &out.dv[task.part.min(1)]);
    let rows = s.dk.chunks_exact(pads.key).zip(s.dv.chunks_exact(pads.value)).take(task.rows);
    for (r, (dk, dv)) in rows.enumerate() {
        // SAFETY: this task alone holds this part of this key.
        let to = unsafe { dk_out.range(at(key_dim, out.dk[0].len(), r), key_dim) };
        to.copy_from_slice(&dk[..key_dim]);
        match call.kv {
            KeyValues::Latent(_) => to.iter_mut().zip(&dv[..value_dim]).for_each(|(to, v)| *to += v),
            KeyValues::Separate(..) => {
                // SAFETY: as above.
                let to = unsafe { dv_out.range(at(value_dim, out.dv[0].len(), r), value_dim) };
                to.copy_from_slice(&dv[..value_dim]);
            }
        }
    }
}

/// The factor of a product whose single elements are spread over vectors: element (m, k) lies at
/// `at + m * row + k * self.k`.
#[derive(Clone, Copy)]
struct Factor<'a> {
    values: &'a [f32],
    at: usize,
    row: usize,
    k: usize,
}

/// The factor whose rows are read as vectors: row `k` begins at `k * stride`.
#[derive(Clone, Copy)]
struct Panel<'a> {
    values: &'a [f32],
    stride: usize,
}

impl<'a> Panel<'a> {
    fn new(values: &'a [f32], start: usize, stride: usize) -> Panel<'a> {
        Panel { values: &values[start..], stride }
    }
}

/// `c[m, n] (+)= sum over k of a[m, k] b[k, n]` in rising `k`; rows a multiple of 8, columns of 16.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn product<V: Lanes>(
    c: &mut [f32],
    stride: usize,
    rows: usize,
    cols: usize,
    depth: usize,
    a: Factor,
    b: Panel,
    add: bool,
) {
    assert!(rows.is_multiple_of(ROWS) && cols.is_multiple_of(LANES) && cols <= stride && cols <= b.stride);
    if rows == 0 || cols == 0 || depth == 0 {
        return;
    }
    assert!(c.len() >= (rows - 1) * stride + cols, "outputs of a product");
    assert!(a.values.len() > a.at + (rows - 1) * a.row + (depth - 1) * a.k, "first factor of a product");
    assert!(b.values.len() >= (depth - 1) * b.stride + cols, "second factor of a product");
    let wide = V::TILE.0 == 6;
    let mut n = 0;
    while n < cols {
        let vectors = match (wide, (cols - n) / LANES) {
            (false, _) | (_, 1) => 1,
            (_, 2 | 4) => 2,
            _ => 3,
        };
        for m in (0..rows).step_by(ROWS) {
            // SAFETY: the tile lies inside all three matrices (checked above).
            unsafe {
                let (a, b) = (Factor { at: a.at + m * a.row, ..a }, Panel { values: &b.values[n..], ..b });
                let c = c.as_mut_ptr().add(m * stride + n);
                match (wide, vectors) {
                    (false, _) => {
                        block::<V, 4, 1>(c, stride, depth, a, b, add);
                        let a = Factor { at: a.at + 4 * a.row, ..a };
                        block::<V, 4, 1>(c.add(4 * stride), stride, depth, a, b, add);
                    }
                    (_, 1) => block::<V, 8, 1>(c, stride, depth, a, b, add),
                    (_, 2) => block::<V, 8, 2>(c, stride, depth, a, b, add),
                    _ => block::<V, 8, 3>(c, stride, depth, a, b, add),
                }
            }
        }
        n += vectors * LANES;
    }
}

/// `M` rows and `N` vectors of a product, in registers.
///
/// # Safety
/// The processor has `V`'s instruction set; the tile lies inside `c`, and its factors inside `a` and `b`.
#[inline(always)]
unsafe fn block<V: Lanes, const M: usize, const N: usize>(
    c: *mut f32,
    stride: usize,
    depth: usize,
    a: Factor,
    b: Panel,
    add: bool,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        if add {
            for m in 0..M {
                for n in 0..N {
                    sums[m][n] = V::load(c.add(m * stride + n * LANES));
                }
            }
        }
        let (a_start, b_start) = (a.values.as_ptr().add(a.at), b.values.as_ptr());
        for k in 0..depth {
            let row = b_start.add(k * b.stride);
            let vectors: [V; N] = std::array::from_fn(|n| V::load(row.add(n * LANES)));
            let column = a_start.add(k * a.k);
            for m in 0..M {
                let factor = V::splat(*column.add(m * a.row));
                for n in 0..N {
                    sums[m][n] = factor.mul_add(vectors[n], sums[m][n]);
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                sums[m][n].store(c.add(m * stride + n * LANES));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        shape: Shape,
        latent: bool,
        sinks: bool,
        sequences: Vec<usize>,
    }

    fn shape(heads: usize, kv_heads: usize, key_dim: usize, value_dim: usize, window: Option<usize>) -> Shape {
        Shape { heads, kv_heads, key_dim, value_dim, scale: 0.4, window, softcap: None }
    }

    fn cases() -> Vec<Case> {
        let case =
            |shape, latent, sinks, sequences: &[usize]| Case { shape, latent, sinks, sequences: sequences.to_vec() };
        vec![
            case(shape(3, 3, 5, 7, None), false, false, &[1, 9, 0, 4]),
            case(shape(4, 2, 16, 16, None), false, true, &[37, 3]),
            case(shape(8, 1, 12, 8, None), true, false, &[19, 33]),
            case(shape(5, 1, 20, 16, Some(7)), true, true, &[40]),
            case(shape(4, 4, 48, 32, Some(20)), false, false, &[70]),
        ]
    }

    /// Numbers without a pattern, from -1 to 1.
    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(next).collect()
    }

    /// The inputs of a case: queries, keys (or latents), values (or none), sinks, output gradients.
    fn inputs(case: &Case) -> [Vec<f32>; 5] {
        let (s, total) = (&case.shape, case.sequences.iter().sum::<usize>());
        let values = if case.latent { 0 } else { total * s.kv_heads * s.value_dim };
        [
            noise(total * s.heads * s.key_dim, 1),
            noise(total * s.kv_heads * s.key_dim, 2),
            noise(values, 3),
            noise(if case.sinks { s.heads } else { 0 }, 4),
            noise(total * s.heads * s.value_dim, 5),
        ]
    }

    /// The sum over outputs of `dout * out` in f64.
    fn weighted_outputs(case: &Case, x: &[Vec<f64>; 5]) -> f64 {
        let Shape { heads, kv_heads, key_dim, value_dim, scale, window, .. } = case.shape;
        let [q, k, v, sinks, dout] = x;
        let (mut sum, mut first_row) = (0.0, 0);
        for &rows in &case.sequences {
            for (t, h) in (0..rows).flat_map(|t| (0..heads).map(move |h| (t, h))) {
                let (kv, at) = (h / (heads / kv_heads), (first_row + t) * heads + h);
                let low = window.map_or(0, |w| (t + 1).saturating_sub(w));
                let score = |s: usize| {
                    let key = &k[((first_row + s) * kv_heads + kv) * key_dim..][..key_dim];
                    let dot: f64 = q[at * key_dim..][..key_dim].iter().zip(key).map(|(a, b)| a * b).sum();
                    (scale as f64 * dot).exp()
                };
                let weights: Vec<f64> = (low..=t).map(score).collect();
                let total = weights.iter().sum::<f64>() + sinks.get(h).map_or(0.0, |s| s.exp());
                for (s, w) in (low..=t).zip(weights) {
                    let value = match case.latent {
                        true => &k[(first_row + s) * key_dim..][..value_dim],
                        false => &v[((first_row + s) * kv_heads + kv) * value_dim..][..value_dim],
                    };
                    let dot: f64 = dout[at * value_dim..][..value_dim].iter().zip(value).map(|(a, b)| a * b).sum();
                    sum += w / total * dot;
                }
            }
            first_row += rows;
        }
        sum
    }

    /// Gradients of queries, keys, values, sinks.
    fn gradients(isa: Isa, threads: usize, case: &Case, x: &[Vec<f32>; 5]) -> [Vec<f32>; 4] {
        let mut d: [Vec<f32>; 4] = std::array::from_fn(|i| vec![if i == 3 { 0.0 } else { f32::NAN }; x[i].len()]);
        let [dq, dk, dv, dsinks] = &mut d;
        let (kv, dkv) = match case.latent {
            true => (KeyValues::Latent(&x[1]), KeyValueGradients::Latent(dk)),
            false => (KeyValues::Separate(&x[1], &x[2]), KeyValueGradients::Separate(dk, dv)),
        };
        let sinks = case.sinks.then_some((x[3].as_slice(), dsinks.as_mut_slice()));
        let pool = Pool::new(threads);
        attend_backward_with(isa, &pool, &case.shape, &case.sequences, &x[0], kv, sinks, &x[4], dq, dkv);
        d
    }

    #[test]
    fn gradients_are_finite_differences() {
        const STEP: f64 = 1e-5;
        for (case, isa) in cases().iter().flat_map(|c| Isa::available().map(move |isa| (c, isa))) {
            let x = inputs(case);
            let d = gradients(isa, 2, case, &x);
            let exact: [Vec<f64>; 5] = x.each_ref().map(|x| x.iter().map(|&v| v as f64).collect());
            for which in 0..4 {
                for i in (0..x[which].len()).step_by(1 + x[which].len() / 60) {
                    let at = |step: f64| {
                        let mut x = exact.clone();
                        x[which][i] += step;
                        weighted_outputs(case, &x)
                    };
                    let want = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                    let got = d[which][i] as f64;
                    let context = format!("{:?} {} input {which} element {i}", case.shape, isa.name());
                    assert!((got - want).abs() < 2e-5 * (1.0 + want.abs()), "{context}: {got}, not {want}");
                }
            }
        }
    }

    #[test]
    fn threads_and_other_sequences_change_no_bit() {
        for (case, isa) in cases().iter().flat_map(|c| Isa::available().map(move |isa| (c, isa))) {
            let x = inputs(case);
            let bits = |d: &[f32]| d.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
            let all = gradients(isa, 1, case, &x);
            let other = gradients(isa, 3, case, &x);
            assert!((0..4).all(|i| bits(&all[i]) == bits(&other[i])), "{:?} by threads", case.shape);
            let total: usize = case.sequences.iter().sum();
            let mut first = 0;
            for &rows in case.sequences.iter().filter(|&&rows| rows > 0) {
                let own = |x: &[f32]| x[first * (x.len() / total)..(first + rows) * (x.len() / total)].to_vec();
                let alone = Case { sequences: vec![rows], shape: case.shape, ..*case };
                let x = [own(&x[0]), own(&x[1]), own(&x[2]), x[3].clone(), own(&x[4])];
                let d = gradients(isa, 1, &alone, &x);
                assert!((0..3).all(|i| bits(&d[i]) == bits(&own(&all[i]))), "{:?} at {first}", case.shape);
                first += rows;
            }
        }
    }
}
