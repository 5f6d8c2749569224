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
    page_bytes: usize,
}

impl<'a> ModelCompute<'a> {
    /// Runs `model` on `pool` with a cache of `pages` pages.
    pub fn new(model: &'a Model, pool: &'a Pool, pages: usize, format: CacheFormat) -> ModelCompute<'a> {
        let cache = Cache::new(&model.spec, format, pages);
        let page_bytes = Cache::page_bytes(&model.spec, format);
        ModelCompute { runner: Runner::new(model, pool), cache, acts: Activations::default(), page_bytes }
    }
}

impl Compute for ModelCompute<'_> {
    fn vocab(&self) -> usize {
        self.runner.model().spec.vocab
    }

    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        self.runner.forward(&Batch { tokens, chunks }, &mut self.cache, &mut self.acts, wanted)
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
