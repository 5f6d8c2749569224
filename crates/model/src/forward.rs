//! The forward pass: embedding, the loop over layers, the head.
//!
//! One pass serves a prompt, a chunk of one, single tokens of many sequences and, with activations
//! kept for each layer, training. What a layer computes on the way is written to named buffers that
//! are an argument; inference hands the same buffers to all layers.

use kernels::attention::Chunk;
use kernels::ops;
use kernels::pool::Pool;

use crate::cache::Cache;
use crate::layers::{BlockActivations, Step, block, for_rows, sized};
use crate::load::Model;
use crate::rope::angles;
use crate::spec::RopeSpec;

pub use crate::layers::mla::Arithmetic;

/// Tokens to compute: rows of the batch, split into chunks of sequences.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// One token a row.
    pub tokens: &'a [u32],
    /// The rows of each sequence, one after the other; each chunk's pages are in the cache and hold
    /// all positions before the chunk.
    pub chunks: &'a [Chunk<'a>],
}

/// Buffers of a forward pass, kept from call to call.
#[derive(Default)]
pub struct Activations {
    /// `[T, hidden]`, the residual stream.
    x: Vec<f32>,
    block: BlockActivations,
    /// Cosine and sine of each different rotary embedding.
    angles: Vec<Vec<f32>>,
    /// `[rows, hidden]`, the rows whose logits are wanted.
    last: Vec<f32>,
    normed: Vec<f32>,
}

/// The different rotary embeddings of a model, and which block uses which.
pub(crate) struct Ropes {
    pub(crate) tables: Vec<(RopeSpec, Vec<f32>)>,
    /// Table of each block's attention, and of its indexer; prediction modules after the layers.
    pub(crate) of_block: Vec<(usize, Option<usize>)>,
}

impl Ropes {
    pub(crate) fn of(model: &Model) -> Ropes {
        let mut tables: Vec<(RopeSpec, Vec<f32>)> = Vec::new();
        let mut index = |spec: &RopeSpec| match tables.iter().position(|(s, _)| same_angles(s, spec)) {
            Some(i) => i,
            None => {
                tables.push((spec.clone(), spec.frequencies()));
                tables.len() - 1
            }
        };
        let of_block = model.spec.blocks.iter().chain(&model.spec.mtp).map(|block| {
            let mut ropes = block.ropes();
            let main = ropes.next().map_or(0, &mut index);
            (main, ropes.next().map(&mut index))
        });
        let of_block = of_block.collect();
        Ropes { tables, of_block }
    }
}

/// The layout of pairs does not change their angles.
fn same_angles(a: &RopeSpec, b: &RopeSpec) -> bool {
    (a.dim, a.base.to_bits(), &a.scaling) == (b.dim, b.base.to_bits(), &b.scaling)
}

/// A model made ready to run: weights, rotary tables, threads.
pub struct Runner<'a> {
    model: &'a Model,
    pool: &'a Pool,
    ropes: Ropes,
    /// How latent attention computes.
    pub arithmetic: Arithmetic,
}

impl<'a> Runner<'a> {
    /// Prepares to run `model` on `pool`.
    pub fn new(model: &'a Model, pool: &'a Pool) -> Runner<'a> {
        Runner { model, pool, ropes: Ropes::of(model), arithmetic: Arithmetic::Absorbed }
    }

    /// The model.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// The threads.
    pub fn pool(&self) -> &'a Pool {
        self.pool
    }

    /// Computes the batch, stores its keys and latents in `cache`, and returns the logits of the
    /// rows `wanted`, `[wanted, vocab]`.
    ///
    /// # Panics
    /// If a token is not of the vocabulary, the chunks do not cover the rows in order, or a chunk lies
    /// outside its pages.
    pub fn forward(&self, batch: &Batch, cache: &mut Cache, acts: &mut Activations, wanted: &[usize]) -> Vec<f32> {
        let mut logits = Vec::new();
        self.forward_into(batch, cache, acts, wanted, &mut logits);
        logits
    }

    /// [`Runner::forward`] that writes the logits to a buffer, which is kept from call to call.
    ///
    /// # Panics
    /// As [`Runner::forward`].
    pub fn forward_into(
        &self,
        batch: &Batch,
        cache: &mut Cache,
        acts: &mut Activations,
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) {
        self.blocks(batch, cache, acts);
        self.head(acts, wanted, logits);
    }

    /// As [`Runner::forward`], but for what the head would read: the rows `wanted` after the last norm,
    /// `[wanted, hidden]`.
    ///
    /// # Panics
    /// As [`Runner::forward`].
    pub fn hidden(&self, batch: &Batch, cache: &mut Cache, acts: &mut Activations, wanted: &[usize]) -> Vec<f32> {
        self.blocks(batch, cache, acts);
        self.last_norm(acts, wanted);
        acts.normed.clone()
    }

    fn blocks(&self, batch: &Batch, cache: &mut Cache, acts: &mut Activations) {
        let (spec, weights) = (&self.model.spec, &self.model.weights);
        check_batch(batch, cache);
        cache.set_inputs(weights.inputs());
        embed(self.model, self.pool, batch.tokens, &mut acts.x);
        acts.angles.resize_with(self.ropes.tables.len(), Vec::new);
        for (out, (rope, frequencies)) in acts.angles.iter_mut().zip(&self.ropes.tables) {
            let positions = batch.chunks.iter().flat_map(|c| c.position..c.position + c.rows);
            angles(frequencies, rope.magnitude(), positions, out);
        }
        for (l, (block_spec, block_weights)) in spec.blocks.iter().zip(&weights.blocks).enumerate() {
            let (main, indexer) = self.ropes.of_block[l];
            let step = Step {
                pool: self.pool,
                chunks: batch.chunks,
                angles: &acts.angles[main],
                index_angles: indexer.map(|i| acts.angles[i].as_slice()),
                arithmetic: self.arithmetic,
            };
            block::forward(block_spec, block_weights, &step, &mut acts.x, &mut cache.layers[l], &mut acts.block);
        }
    }

    fn last_norm(&self, acts: &mut Activations, wanted: &[usize]) {
        let (spec, weights) = (&self.model.spec, &self.model.weights);
        let hidden = spec.hidden;
        acts.last.clear();
        for &row in wanted {
            acts.last.extend_from_slice(&acts.x[row * hidden..(row + 1) * hidden]);
        }
        acts.normed.resize(acts.last.len(), 0.0);
        ops::rms_norm(self.pool, &mut acts.normed, &acts.last, &weights.final_norm, spec.final_norm_eps);
    }

    fn head(&self, acts: &mut Activations, wanted: &[usize], logits: &mut Vec<f32>) {
        let (spec, weights) = (&self.model.spec, &self.model.weights);
        self.last_norm(acts, wanted);
        let head = weights.head.as_ref().unwrap_or(&weights.embedding);
        let logits = sized(logits, wanted.len() * spec.vocab);
        kernels::matmul::matmul(self.pool, logits, &acts.normed, head);
        if let Some(cap) = spec.head.softcap {
            logits.iter_mut().for_each(|v| *v = cap * ops::tanh(*v / cap));
        }
    }
}

/// `x[t] = scale * embedding[token[t]]`
pub(crate) fn embed(model: &Model, pool: &Pool, tokens: &[u32], x: &mut Vec<f32>) {
    let (spec, embedding) = (&model.spec, &model.weights.embedding);
    for_rows(pool, sized(x, tokens.len() * spec.hidden), spec.hidden, |t, row| {
        embedding.dequantize_row(tokens[t] as usize, row);
        if let Some(factor) = spec.embedding_scale {
            ops::scale(row, factor);
        }
    });
}

fn check_batch(batch: &Batch, cache: &Cache) {
    let mut next = 0;
    for chunk in batch.chunks {
        assert_eq!(chunk.first_row, next, "chunks cover the rows in order");
        assert!(chunk.pages.iter().all(|&page| (page as usize) < cache.pages()), "pages of the cache");
        next += chunk.rows;
    }
    assert_eq!(next, batch.tokens.len(), "chunks cover all rows");
}
