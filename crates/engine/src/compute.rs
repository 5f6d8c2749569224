//! The model behind the engine.

use kernels::attention::{CacheFormat, Chunk};
use kernels::pool::Pool;
use model::cache::Cache;
use model::forward::{Activations, Batch, Runner};
use model::load::Model;

use crate::step::Compute;

/// A model with its threads and the cache whose pages the engine hands out.
pub struct ModelCompute<'a> {
    runner: Runner<'a>,
    cache: Cache,
    acts: Activations,
}

impl<'a> ModelCompute<'a> {
    /// Runs `model` on `pool` with a cache of `pages` pages.
    pub fn new(model: &'a Model, pool: &'a Pool, pages: usize, format: CacheFormat) -> ModelCompute<'a> {
        let cache = Cache::new(&model.spec, format, pages);
        ModelCompute { runner: Runner::new(model, pool), cache, acts: Activations::default() }
    }
}

impl Compute for ModelCompute<'_> {
    fn vocab(&self) -> usize {
        self.runner.model().spec.vocab
    }

    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        self.runner.forward(&Batch { tokens, chunks }, &mut self.cache, &mut self.acts, wanted)
    }
}
