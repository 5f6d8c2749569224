//! The layers: one file each, the statements of a file in the order of the papers' equations.

pub(crate) mod block;
pub(crate) mod ffn;
pub(crate) mod gqa;
pub(crate) mod indexer;
pub(crate) mod mla;
pub(crate) mod router;

use kernels::attention::{Chunk, Plane};
use kernels::matmul::matmul;
use kernels::ops;
use kernels::pool::Pool;

use crate::weights::Linear;

/// What all layers of one forward pass share.
pub(crate) struct Step<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) chunks: &'a [Chunk<'a>],
    /// (cos, sin) of the attention's rotary embedding, `[T, dim]`.
    pub(crate) angles: &'a [f32],
    /// The same of the indexer's.
    pub(crate) index_angles: Option<&'a [f32]>,
    pub(crate) arithmetic: mla::Arithmetic,
}

/// What a block computes on the way to its output.
#[derive(Default)]
pub(crate) struct BlockActivations {
    /// `[T, hidden]`, the input of attention.
    pub(crate) attention_in: Vec<f32>,
    pub(crate) mla: mla::MlaActivations,
    pub(crate) gqa: gqa::GqaActivations,
    /// `[T, hidden]`, what attention adds.
    pub(crate) attention_out: Vec<f32>,
    /// `[T, hidden]`, the input of the feed-forward network.
    pub(crate) ffn_in: Vec<f32>,
    pub(crate) ffn: ffn::FfnActivations,
    /// `[T, hidden]`, what the network adds.
    pub(crate) ffn_out: Vec<f32>,
    /// `[T, hidden]`, either of the two before its norm (sandwich norms).
    pub(crate) unnormed: Vec<f32>,
}

/// `buffer` with exactly `len` elements; what they hold is left over.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// `out = x W^T + b`
pub(crate) fn linear(pool: &Pool, out: &mut Vec<f32>, x: &[f32], w: &Linear) {
    let rows = x.len() / w.weight.cols();
    matmul(pool, sized(out, rows * w.weight.rows()), x, &w.weight);
    if let Some(bias) = &w.bias {
        ops::add_bias(out, bias);
    }
}

/// Stores the rows of a batch in the cache.
pub(crate) fn store(plane: &mut Plane, chunks: &[Chunk], rows: &[f32]) {
    let width = plane.width();
    for chunk in chunks {
        for i in 0..chunk.rows {
            let row = &rows[(chunk.first_row + i) * width..][..width];
            plane.store(chunk.pages, chunk.position + i, row);
        }
    }
}
