//! Attention: against a plain softmax in f64, and the equalities that `docs/NUMERICS.md` promises to
//! the bit, for every instruction set of this machine.

mod common;

use common::tolerance::{ATTENTION, ATTENTION_BF16, Bound, CACHE_INT8, INDEX_SCORES};
use common::{Random, assert_same_bits, assert_within};
use kernels::attention::{
    CacheFormat, Cached, Chunk, Factors, INT8_GROUP, PAGE_LEN, Plane, Shape, attend_with, index_scores,
};
use kernels::isa::Isa;
use kernels::pool::Pool;
use kernels::train::panels::{Precision, rounded};

/// One sequence: queries and cached rows of all its positions.
#[derive(Clone)]
struct Sequence {
    tokens: usize,
    q: Vec<f32>,
    keys: Vec<f32>,
    /// Empty where a value is the first part of the key.
    values: Vec<f32>,
    /// For each position those that it may see.
    selection: Option<Vec<Vec<u32>>>,
}

/// An attention and what of it is the same for all sequences.
#[derive(Clone)]
struct Case {
    shape: Shape,
    latent: bool,
    sinks: Option<Vec<f32>>,
    factors: Factors,
}

impl Case {
    /// How far outputs may be from the exact ones.
    fn bound(&self) -> Bound {
        match self.factors {
            Factors::Exact => ATTENTION,
            Factors::Bf16 => ATTENTION_BF16,
        }
    }
}

fn shape(heads: usize, kv_heads: usize, key_dim: usize, value_dim: usize) -> Shape {
    let scale = 1.0 / (key_dim as f32).sqrt();
    Shape { heads, kv_heads, key_dim, value_dim, scale, window: None, softcap: None }
}

fn separate(heads: usize, kv_heads: usize, key_dim: usize, value_dim: usize) -> Case {
    Case { shape: shape(heads, kv_heads, key_dim, value_dim), latent: false, sinks: None, factors: Factors::Exact }
}

fn latent(heads: usize, key_dim: usize, value_dim: usize) -> Case {
    Case { shape: shape(heads, 1, key_dim, value_dim), latent: true, sinks: None, factors: Factors::Exact }
}

/// Every kind of attention, of awkward sizes, in f32 and in bfloat16.
fn cases(random: &mut Random) -> Vec<(String, Case)> {
    let exact = exact_cases(random);
    let rounded =
        exact.iter().map(|(name, case)| (format!("{name}, in bf16"), Case { factors: Factors::Bf16, ..case.clone() }));
    rounded.chain(exact.iter().map(|(name, case)| (name.to_string(), case.clone()))).collect()
}

fn exact_cases(random: &mut Random) -> Vec<(&'static str, Case)> {
    let gqa = separate(6, 2, 16, 16);
    let with = |window, softcap| Case { shape: Shape { window, softcap, ..gqa.shape }, ..gqa.clone() };
    let sinks = |case: Case, random: &mut Random| Case { sinks: Some(random.floats(case.shape.heads)), ..case };
    vec![
        ("one head", separate(1, 1, 8, 8)),
        ("multi-head", separate(3, 3, 20, 12)),
        ("grouped", gqa.clone()),
        ("groups of seven", separate(14, 2, 33, 17)),
        ("groups of more than a tile", separate(11, 1, 32, 48)),
        ("multi-query", separate(8, 1, 64, 64)),
        ("latent", latent(16, 40, 32)),
        ("latent of odd sizes", latent(5, 37, 19)),
        ("latent, value as wide as the key", latent(3, 32, 32)),
        ("latent, value nearly as wide", latent(3, 32, 20)),
        ("window of one", with(Some(1), None)),
        ("window", with(Some(37), None)),
        ("window of a page", with(Some(64), None)),
        ("soft cap", with(None, Some(1.5))),
        ("sinks", sinks(gqa.clone(), random)),
        ("sinks and window", sinks(with(Some(70), None), random)),
        ("latent with sinks", sinks(latent(4, 24, 16), random)),
    ]
}

#[test]
fn against_f64_in_chunks_of_any_size() {
    let mut random = Random(1);
    let pool = Pool::new(2);
    for (name, case) in cases(&mut random) {
        for tokens in [1, 5, 64, 65, 150] {
            let sequence = sequence(&case, tokens, &mut random);
            check_sequence(&pool, &name, &case, &sequence, &[1, 3, 7, 8, 64, 100]);
        }
    }
}

#[test]
fn selections() {
    let mut random = Random(2);
    let pool = Pool::new(2);
    for (name, case) in cases(&mut random) {
        let mut sequence = sequence(&case, 140, &mut random);
        // Always itself, so that something is visible under any window; the future must be ignored.
        let choose = |t: usize, random: &mut Random| {
            (0..140).filter(|&s| s == t as u32 || random.below(4) == 0).collect::<Vec<u32>>()
        };
        sequence.selection = Some((0..140).map(|t| choose(t, &mut random)).collect());
        check_sequence(&pool, &name, &case, &sequence, &[1, 9, 64]);
    }
}

/// Each ISA against f64; chunks and threads against the whole to the bit; AVX2 against AVX-512.
fn check_sequence(pool: &Pool, name: &str, case: &Case, sequence: &Sequence, chunks: &[usize]) {
    let tokens = sequence.tokens;
    let want = oracle(case, sequence);
    let largest = sequence_values(case, sequence).fold(0.0f64, |m, v| m.max(f64::from(v).abs()));
    let pages = pages_of(tokens, &mut Random(tokens as u64));
    for isa in Isa::available() {
        let whole = run(isa, pool, case, CacheFormat::F32, sequence, &pages, tokens);
        for (i, (&got, &want)) in whole.iter().zip(&want).enumerate() {
            let what = || format!("{name}, {isa:?}, {tokens} tokens, element {i}");
            assert_within(case.bound(), case.shape.key_dim, largest, got, want, what);
        }
        for &chunk in chunks {
            let split = run(isa, pool, case, CacheFormat::F32, sequence, &pages, chunk);
            assert_same_bits(&split, &whole, || format!("{name}, {isa:?}, {tokens} tokens in chunks of {chunk}"));
        }
        let (alone, other_pages) = (Pool::new(1), (0..pages.len() as u32).collect::<Vec<_>>());
        let other = run(isa, &alone, case, CacheFormat::F32, sequence, &other_pages, 10);
        assert_same_bits(&other, &whole, || format!("{name}, {isa:?}, one thread and pages in order"));
    }
    // In bfloat16 products are exact in f32, so that fusing makes no difference.
    let first = usize::from(case.factors == Factors::Exact);
    let mut alike =
        Isa::available().skip(first).map(|isa| run(isa, pool, case, CacheFormat::F32, sequence, &pages, 11));
    if let Some(want) = alike.next() {
        alike.for_each(|got| assert_same_bits(&got, &want, || format!("{name}, instruction sets")));
    }
}

#[test]
fn a_rounded_cache_is_a_cache_of_rounded_rows() {
    let mut random = Random(3);
    let pool = Pool::new(2);
    for (name, case) in cases(&mut random) {
        let sequence = sequence(&case, 100, &mut random);
        let pages = pages_of(100, &mut random);
        for format in [CacheFormat::BF16, CacheFormat::Int8] {
            let mut rounded = sequence.clone();
            for (rows, width) in [(&mut rounded.keys, key_width(&case)), (&mut rounded.values, value_width(&case))] {
                let mut plane = Plane::new(format, width, 1);
                for row in rows.chunks_mut(width.max(1)) {
                    plane.store(&[0], 0, row);
                    plane.row(&[0], 0, row);
                }
            }
            for isa in Isa::available() {
                let stored = run(isa, &pool, &case, format, &sequence, &pages, 30);
                let plain = run(isa, &pool, &case, CacheFormat::F32, &rounded, &pages, 30);
                assert_same_bits(&stored, &plain, || format!("{name}, {format:?}, {isa:?}"));
            }
        }
    }
}

#[test]
fn rows_in_int8_are_within_their_bound() {
    let mut random = Random(10);
    for width in [1, 16, 63, 64, 65, 80, 256, 576] {
        let mut plane = Plane::new(CacheFormat::Int8, width, 1);
        for size in [1e-30f32, 1e-3, 1.0, 1e30] {
            let mut row = random.floats(width);
            // Groups of different sizes.
            row.iter_mut().enumerate().for_each(|(i, v)| *v *= size * (1.0 + (i / INT8_GROUP) as f32));
            plane.store(&[0], 7, &row);
            let mut got = vec![0.0; width];
            plane.row(&[0], 7, &mut got);
            for (got, want) in got.chunks(INT8_GROUP).zip(row.chunks(INT8_GROUP)) {
                let largest = want.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
                for (&got, &want) in got.iter().zip(want) {
                    let what = || format!("{width} elements of size {size:e}");
                    assert_within(CACHE_INT8, INT8_GROUP, f64::from(largest), got, f64::from(want), what);
                }
            }
        }
    }
}

/// Long enough for several segments, which one thread merges as it goes and several threads afterwards:
/// in batches and alone, whole and in chunks, with any number of threads.
#[test]
fn segments_by_any_number_of_threads() {
    let mut random = Random(9);
    for (name, case) in cases(&mut random) {
        let tokens = 600;
        let mut sequence = sequence(&case, tokens, &mut random);
        if name.starts_with("grouped") {
            // Whole segments that a token does not see, and single positions of others.
            let choose = |t: u32| vec![t / 7, t / 3, t].into_iter().collect::<std::collections::BTreeSet<_>>();
            sequence.selection = Some((0..tokens as u32).map(|t| choose(t).into_iter().collect()).collect());
        }
        let pages = pages_of(tokens, &mut random);
        let want = oracle(&case, &sequence);
        let largest = sequence_values(&case, &sequence).fold(0.0f64, |m, v| m.max(f64::from(v).abs()));
        let (q, v) = (case.shape.heads * case.shape.key_dim, case.shape.heads * case.shape.value_dim);
        let mut cache = Cache::new(&case, CacheFormat::F32, pages.len());
        cache.store(&case, &sequence, &pages);
        let best = Isa::available().last().expect("one at least");
        let whole = run(best, &Pool::new(1), &case, CacheFormat::F32, &sequence, &pages, tokens);
        for (&got, &want) in whole.iter().zip(&want) {
            assert_within(case.bound(), case.shape.key_dim, largest, got, want, || name.clone());
        }
        for (threads, chunk) in [(2, 600), (3, 257), (8, 100)] {
            let other = run(best, &Pool::new(threads), &case, CacheFormat::F32, &sequence, &pages, chunk);
            assert_same_bits(&other, &whole, || format!("{name}, {threads} threads, chunks of {chunk}"));
        }
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for t in [0, 255, 256, 511, 512, 599] {
                let chunk = Chunk { first_row: 0, rows: 1, position: t, pages: &pages };
                let mut out = vec![f32::NAN; v];
                let selection = sequence.selection.as_deref().map(|all| &all[t..=t]);
                let (q, sinks) = (&sequence.q[t * q..(t + 1) * q], case.sinks.as_deref());
                attend_with(best, &pool, &case.shape, &mut out, q, cache.cached(), &[chunk], sinks, selection);
                assert_same_bits(&out, &whole[t * v..(t + 1) * v], || format!("{name}, token {t}, {threads} threads"));
            }
        }
    }
}

/// Several sequences in one batch, one of them all NaN: the others are as if alone.
#[test]
fn sequences_do_not_see_each_other() {
    let mut random = Random(4);
    for (name, case) in cases(&mut random) {
        let mut all: Vec<Sequence> = [70, 1, 33, 129].map(|tokens| sequence(&case, tokens, &mut random)).into();
        for spoilt in [None, Some(2)] {
            if let Some(i) = spoilt {
                all[i].q.fill(f32::NAN);
                all[i].keys.fill(f32::NAN);
                all[i].values.fill(f32::NAN);
            }
            let total: usize = all.iter().map(|s| s.tokens.div_ceil(PAGE_LEN)).sum();
            let mut free = random.shuffled(total);
            let pages: Vec<Vec<u32>> =
                all.iter().map(|s| free.split_off(free.len() - s.tokens.div_ceil(PAGE_LEN))).collect();
            let mut cache = Cache::new(&case, CacheFormat::F32, total);
            all.iter().zip(&pages).for_each(|(sequence, pages)| cache.store(&case, sequence, pages));
            // The last tokens of each: chunks that begin at different positions.
            let rows: Vec<usize> = all.iter().map(|s| s.tokens.min(40)).collect();
            let (mut q, mut chunks, mut first_row) = (Vec::new(), Vec::new(), 0);
            for ((sequence, pages), &rows) in all.iter().zip(&pages).zip(&rows) {
                let position = sequence.tokens - rows;
                q.extend_from_slice(&sequence.q[position * case.shape.heads * case.shape.key_dim..]);
                chunks.push(Chunk { first_row, rows, position, pages });
                first_row += rows;
            }
            for (isa, threads) in Isa::available().zip([3, 2, 1]) {
                let pool = Pool::new(threads);
                let width = case.shape.heads * case.shape.value_dim;
                let mut out = vec![7.0; first_row * width];
                attend_with(
                    isa,
                    &pool,
                    &case.shape,
                    &mut out,
                    &q,
                    cache.cached(),
                    &chunks,
                    case.sinks.as_deref(),
                    None,
                );
                for (i, (sequence, chunk)) in all.iter().zip(&chunks).enumerate() {
                    let got = &out[chunk.first_row * width..][..chunk.rows * width];
                    if spoilt == Some(i) {
                        assert!(got.iter().all(|v| v.is_nan()), "{name}, {isa:?}: a sequence of NaN gives NaN");
                        continue;
                    }
                    let pages: Vec<u32> = (0..sequence.tokens.div_ceil(PAGE_LEN) as u32).collect();
                    let alone = run(isa, &pool, &case, CacheFormat::F32, sequence, &pages, sequence.tokens);
                    let want = &alone[chunk.position * width..];
                    assert_same_bits(got, want, || format!("{name}, {isa:?}, sequence {i} of a batch"));
                }
            }
        }
    }
}

/// Rows in the cache beyond a query's position, or before its window, hold NaN.
#[test]
fn positions_out_of_sight_do_not_matter() {
    let mut random = Random(5);
    let pool = Pool::new(1);
    for (name, case) in cases(&mut random) {
        let sequence = sequence(&case, 130, &mut random);
        let pages = pages_of(130, &mut random);
        let mut spoilt = sequence.clone();
        let last = 100;
        for (rows, width) in [(&mut spoilt.keys, key_width(&case)), (&mut spoilt.values, value_width(&case))] {
            for (s, row) in rows.chunks_mut(width.max(1)).enumerate() {
                if s > last || case.shape.window.is_some_and(|w| s + w <= last) {
                    row.fill(f32::NAN);
                }
            }
        }
        for isa in Isa::available() {
            let of = |s: &Sequence| {
                let mut cache = Cache::new(&case, CacheFormat::F32, pages.len());
                cache.store(&case, s, &pages);
                let (q, v) = (case.shape.heads * case.shape.key_dim, case.shape.heads * case.shape.value_dim);
                let mut out = vec![0.0; v];
                let chunk = Chunk { first_row: 0, rows: 1, position: last, pages: &pages };
                let q = &s.q[last * q..][..q];
                attend_with(
                    isa,
                    &pool,
                    &case.shape,
                    &mut out,
                    q,
                    cache.cached(),
                    &[chunk],
                    case.sinks.as_deref(),
                    None,
                );
                out
            };
            assert_same_bits(&of(&spoilt), &of(&sequence), || format!("{name}, {isa:?}"));
        }
    }
}

/// A NaN that a query does see is not passed over, in any place of its page.
#[test]
fn a_visible_nan_is_seen() {
    visible_nan(separate(2, 1, 16, 16));
    visible_nan(Case { factors: Factors::Bf16, ..separate(2, 1, 16, 16) });
}

fn visible_nan(case: Case) {
    let mut random = Random(6);
    let pool = Pool::new(1);
    for place in [0, 1, 15, 16, 63, 64, 99] {
        let mut sequence = sequence(&case, 100, &mut random);
        sequence.keys[place * 16] = f32::NAN;
        for isa in Isa::available() {
            let out = run(isa, &pool, &case, CacheFormat::F32, &sequence, &[0, 1], 100);
            for (t, row) in out.chunks(32).enumerate() {
                assert_eq!(row.iter().all(|v| v.is_nan()), t >= place, "{isa:?}: token {t}, NaN at {place}");
                assert_eq!(row.iter().any(|v| v.is_nan()), t >= place, "{isa:?}: token {t}, NaN at {place}");
            }
        }
    }
}

#[test]
fn scores_of_any_size_stay_finite() {
    let mut random = Random(7);
    let pool = Pool::new(1);
    let case = separate(2, 1, 16, 16);
    let mut sequence = sequence(&case, 150, &mut random);
    sequence.q.iter_mut().for_each(|v| *v *= 1e4);
    for isa in Isa::available() {
        let out = run(isa, &pool, &case, CacheFormat::F32, &sequence, &[2, 0, 1], 150);
        // Nearly all weight on one position: an average of values lies between them.
        assert!(out.iter().all(|v| v.abs() <= 1.001), "{isa:?}");
    }
}

#[test]
fn index_scores_against_f64() {
    let mut random = Random(8);
    for (heads, dim, seen) in [(1, 1, 1), (3, 20, 63), (4, 16, 64), (64, 128, 130), (7, 33, 200), (2, 48, 24)] {
        let (q, weights, keys) = (random.floats(heads * dim), random.floats(heads), random.floats(seen * dim));
        let pages = pages_of(seen, &mut random);
        let mut plane = Plane::new(CacheFormat::F32, dim, pages.len());
        keys.chunks(dim).enumerate().for_each(|(s, row)| plane.store(&pages, s, row));
        let got = index_scores(&Pool::new(2), &plane, &pages, seen, &q, &weights, 0.25);
        assert_same_bits(&index_scores(&Pool::new(1), &plane, &pages, seen, &q, &weights, 0.25), &got, || {
            "threads".into()
        });
        for (s, (&got, key)) in got.iter().zip(keys.chunks(dim)).enumerate() {
            let (mut want, mut size) = (0.0, 0.0);
            for (q, &weight) in q.chunks(dim).zip(&weights) {
                let terms = q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b));
                want += f64::from(weight) * (0.25 * terms.clone().sum::<f64>()).max(0.0);
                size += f64::from(weight).abs() * 0.25 * terms.map(f64::abs).sum::<f64>();
            }
            assert_within(INDEX_SCORES, heads, size, got, want, || format!("{heads} heads of {dim}, position {s}"));
        }
    }
}

#[test]
fn wrong_sizes_panic() {
    let attend = |q: usize, out: usize, heads: usize, kv: usize, position: usize| {
        let case = separate(heads, kv, 4, 4);
        let cache = Cache::new(&separate(heads, kv.max(1), 4, 4), CacheFormat::F32, 1);
        let chunk = Chunk { first_row: 0, rows: 1, position, pages: &[0] };
        let (mut out, q) = (vec![0.0; out], vec![0.0; q]);
        attend_with(Isa::Portable, &Pool::new(1), &case.shape, &mut out, &q, cache.cached(), &[chunk], None, None);
    };
    attend(8, 8, 2, 1, 63);
    for (q, out, heads, kv, position) in
        [(7, 8, 2, 1, 0), (8, 7, 2, 1, 0), (8, 8, 2, 0, 0), (12, 12, 3, 2, 0), (8, 8, 2, 1, 64)]
    {
        let result = std::panic::catch_unwind(|| attend(q, out, heads, kv, position));
        assert!(result.is_err(), "{q} queries, {out} outputs, {heads} heads on {kv}, position {position}");
    }
}

struct Cache {
    keys: Plane,
    values: Option<Plane>,
}

impl Cache {
    fn new(case: &Case, format: CacheFormat, pages: usize) -> Cache {
        let plane = |width| Plane::new(format, width, pages).with_factors(case.factors);
        Cache { keys: plane(key_width(case)), values: (!case.latent).then(|| plane(value_width(case))) }
    }

    fn store(&mut self, case: &Case, sequence: &Sequence, pages: &[u32]) {
        sequence.keys.chunks(key_width(case)).enumerate().for_each(|(s, row)| self.keys.store(pages, s, row));
        if let Some(values) = &mut self.values {
            sequence.values.chunks(value_width(case)).enumerate().for_each(|(s, row)| values.store(pages, s, row));
        }
    }

    fn cached(&self) -> Cached<'_> {
        match &self.values {
            Some(values) => Cached::Separate(&self.keys, values),
            None => Cached::Latent(&self.keys),
        }
    }
}

fn key_width(case: &Case) -> usize {
    case.shape.kv_heads * case.shape.key_dim
}

fn value_width(case: &Case) -> usize {
    if case.latent { 0 } else { case.shape.kv_heads * case.shape.value_dim }
}

fn pages_of(tokens: usize, random: &mut Random) -> Vec<u32> {
    random.shuffled(tokens.div_ceil(PAGE_LEN))
}

fn sequence(case: &Case, tokens: usize, random: &mut Random) -> Sequence {
    let mut q = random.floats(tokens * case.shape.heads * case.shape.key_dim);
    q.iter_mut().for_each(|v| *v *= 4.0); // else all weights are nearly the same
    let (keys, values) = (random.floats(tokens * key_width(case)), random.floats(tokens * value_width(case)));
    Sequence { tokens, q, keys, values, selection: None }
}

/// All tokens of a sequence, each chunk stored before it is attended, in chunks of `chunk`.
fn run(
    isa: Isa,
    pool: &Pool,
    case: &Case,
    format: CacheFormat,
    sequence: &Sequence,
    pages: &[u32],
    chunk: usize,
) -> Vec<f32> {
    let mut cache = Cache::new(case, format, pages.len());
    cache.store(case, sequence, pages);
    let (q, v) = (case.shape.heads * case.shape.key_dim, case.shape.heads * case.shape.value_dim);
    let mut out = vec![f32::NAN; sequence.tokens * v];
    for position in (0..sequence.tokens).step_by(chunk) {
        let rows = chunk.min(sequence.tokens - position);
        let chunk = Chunk { first_row: 0, rows, position, pages };
        let selection = sequence.selection.as_deref().map(|all| &all[position..position + rows]);
        let out = &mut out[position * v..(position + rows) * v];
        let q = &sequence.q[position * q..(position + rows) * q];
        attend_with(isa, pool, &case.shape, out, q, cache.cached(), &[chunk], case.sinks.as_deref(), selection);
    }
    out
}

fn sequence_values<'a>(case: &'a Case, sequence: &'a Sequence) -> impl Iterator<Item = f32> + 'a {
    if case.latent { &sequence.keys } else { &sequence.values }.iter().copied()
}

/// Softmax over what each query may see, in f64, of the factors that are multiplied.
fn oracle(case: &Case, sequence: &Sequence) -> Vec<f64> {
    let shape = &case.shape;
    let mut sequence = sequence.clone();
    if case.factors == Factors::Bf16 {
        let all = [&mut sequence.q, &mut sequence.keys, &mut sequence.values];
        all.into_iter().flatten().for_each(|v| *v = rounded(*v, Precision::Bf16));
    }
    let mut out = Vec::new();
    for t in 0..sequence.tokens {
        for head in 0..shape.heads {
            let kv = head / (shape.heads / shape.kv_heads);
            let q = &sequence.q[(t * shape.heads + head) * shape.key_dim..][..shape.key_dim];
            let visible = |s: &usize| {
                shape.window.is_none_or(|w| s + w > t)
                    && sequence.selection.as_ref().is_none_or(|all| all[t].contains(&(*s as u32)))
            };
            let seen: Vec<usize> = (0..=t).filter(visible).collect();
            let score = |s: &usize| {
                let key = &sequence.keys[s * key_width(case) + kv * shape.key_dim..][..shape.key_dim];
                let dot: f64 = q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let score = f64::from(shape.scale) * dot;
                shape.softcap.map_or(score, |c| f64::from(c) * (score / f64::from(c)).tanh()).exp()
            };
            let weights: Vec<f64> = seen.iter().map(score).collect();
            let sink = case.sinks.as_ref().map_or(0.0, |sinks| f64::from(sinks[head]).exp());
            let total = weights.iter().sum::<f64>() + sink;
            for d in 0..shape.value_dim {
                let value = |s: usize| {
                    let row =
                        if case.latent { s * shape.key_dim } else { s * value_width(case) + kv * shape.value_dim };
                    f64::from(if case.latent { sequence.keys[row + d] } else { sequence.values[row + d] })
                };
                out.push(seen.iter().zip(&weights).map(|(&s, w)| w / total * value(s)).sum());
            }
        }
    }
    out
}
