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
    /// The last step's logits, whose memory the next one uses.
    logits: Vec<f32>,
}

/// A cache and buffers that outlive the model's weights: a learner's change between two rollouts.
#[derive(Default)]
pub struct Kept {
    cache: Option<Cache>,
    acts: Activations,
    logits: Vec<f32>,
}

impl<'a> ModelCompute<'a> {
    /// Runs `model` on `pool` with a cache of `pages` pages.
    pub fn new(model: &'a Model, pool: &'a Pool, pages: usize, format: CacheFormat) -> ModelCompute<'a> {
        let cache = Cache::new(&model.spec, format, pages);
        let (acts, logits) = (Activations::default(), Vec::new());
        ModelCompute { runner: Runner::new(model, pool), cache, acts, logits }
    }

    /// [`ModelCompute::new`] with the buffers of an earlier one of the same model ([`ModelCompute::keep`]), whatever
    /// its weights were then. The cache is made anew where it is too small.
    pub fn with(kept: Kept, model: &'a Model, pool: &'a Pool, pages: usize, format: CacheFormat) -> ModelCompute<'a> {
        let Kept { cache, acts, logits } = kept;
        let cache = cache.filter(|cache| cache.fits(&model.spec, format, pages));
        let cache = cache.unwrap_or_else(|| Cache::new(&model.spec, format, pages));
        ModelCompute { runner: Runner::new(model, pool), cache, acts, logits }
    }

    /// Gives the buffers back for another use.
    pub fn keep(self) -> Kept {
        Kept { cache: Some(self.cache), acts: self.acts, logits: self.logits }
    }
}

impl Compute for ModelCompute<'_> {
    fn vocab(&self) -> usize {
        self.runner.model().spec.vocab
    }

    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        let mut logits = std::mem::take(&mut self.logits);
        self.runner.forward_into(&Batch { tokens, chunks }, &mut self.cache, &mut self.acts, wanted, &mut logits);
        logits
    }

    fn pool(&self) -> Option<&Pool> {
        Some(self.runner.pool())
    }

    fn recycle(&mut self, logits: Vec<f32>) {
        self.logits = logits;
    }
}
