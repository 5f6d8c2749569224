//! The model behind the engine.

use kernels::attention::{CacheFormat, Chunk};
use kernels::pool::Pool;
use model::cache::Cache;
use model::forward::{Activations, Batch, Runner};
use model::load::Model;

use crate::pages::PageId;
use crate::step::Compute;

/// A model with its threads and the cache whose pages the engine hands out.
pub struct ModelCompute<'a> {
    runner: Runner<'a>,
    cache: Cache,
    acts: Activations,
    /// The last step's logits, whose memory the next one uses.
    logits: Vec<f32>,
    page_bytes: usize,
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
        ModelCompute::of(model, pool, format, cache, Kept::default())
    }

    /// [`ModelCompute::new`] with the buffers of an earlier one of the same model ([`ModelCompute::keep`]), whatever
    /// its weights were then. The cache is made anew where it is too small.
    pub fn with(kept: Kept, model: &'a Model, pool: &'a Pool, pages: usize, format: CacheFormat) -> ModelCompute<'a> {
        let mut kept = kept;
        let cache = kept.cache.take().filter(|cache| cache.fits(&model.spec, format, pages));
        let cache = cache.unwrap_or_else(|| Cache::new(&model.spec, format, pages));
        ModelCompute::of(model, pool, format, cache, kept)
    }

    fn of(model: &'a Model, pool: &'a Pool, format: CacheFormat, cache: Cache, kept: Kept) -> ModelCompute<'a> {
        let page_bytes = Cache::page_bytes(&model.spec, format);
        ModelCompute { runner: Runner::new(model, pool), cache, acts: kept.acts, logits: kept.logits, page_bytes }
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

    fn hidden_len(&self) -> usize {
        self.runner.model().spec.hidden
    }

    fn hidden(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        self.runner.hidden(&Batch { tokens, chunks }, &mut self.cache, &mut self.acts, wanted)
    }

    fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn read_page(&self, page: PageId, out: &mut Vec<u8>) {
        self.cache.page_to_bytes(page, out);
    }

    fn write_page(&mut self, page: PageId, bytes: &[u8]) {
        self.cache.page_from_bytes(page, bytes);
    }
}
