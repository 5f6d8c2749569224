//! The lightning indexer: which cached positions a query looks at.

use super::plane::{PAGE_LEN, Plane};
use crate::isa::isa;
use crate::lanes::{Lanes, dispatch};
use crate::pool::Pool;
use crate::tile::{MOST_COLUMNS, ROW_STEP, Rows as TileRows, block};

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
        let rows: [u8; PAGE_LEN] = std::array::from_fn(|i| i as u8);
        keys.load(pages[page], &rows[..scores.len()], 0..dim, &mut unpacked, pad);
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
