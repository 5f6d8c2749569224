//! What attention keeps of the tokens before: latents, or keys and values, in pages.

use kernels::attention::{CacheFormat, Factors, PAGE_LEN, Plane};
use kernels::weight::Inputs;

use crate::spec::{Attention, BlockSpec, ModelSpec};

/// The cached rows of one layer.
pub enum LayerCache {
    /// Latent attention: `[latent | rotary key]` a token, and the indexer's key where there is one.
    /// Keys and values of single heads are never stored.
    Latent {
        /// `kv_rank + rope_dim` wide.
        latents: Plane,
        /// `indexer.dim` wide.
        index_keys: Option<Plane>,
    },
    /// Grouped-query attention: keys and values of all key heads.
    KeyValue {
        /// `kv_heads * head_dim` wide.
        keys: Plane,
        /// `kv_heads * head_dim` wide.
        values: Plane,
    },
}

impl LayerCache {
    fn planes(&self) -> impl Iterator<Item = &Plane> {
        let (first, second) = match self {
            LayerCache::Latent { latents, index_keys } => (latents, index_keys.as_ref()),
            LayerCache::KeyValue { keys, values } => (keys, Some(values)),
        };
        std::iter::once(first).chain(second)
    }

    fn planes_mut(&mut self) -> impl Iterator<Item = &mut Plane> {
        let (first, second) = match self {
            LayerCache::Latent { latents, index_keys } => (latents, index_keys.as_mut()),
            LayerCache::KeyValue { keys, values } => (keys, Some(values)),
        };
        std::iter::once(first).chain(second)
    }
}

/// The cache of all layers: a pool of pages of [`PAGE_LEN`] positions that sequences share.
///
/// Which pages belong to which sequence is the caller's business; a page number means the same page
/// in every layer.
pub struct Cache {
    /// One for each layer.
    pub layers: Vec<LayerCache>,
    pages: usize,
}

impl Cache {
    /// A cache of `pages` pages. Memory is taken by the system as pages are first written.
    pub fn new(spec: &ModelSpec, format: CacheFormat, pages: usize) -> Cache {
        let layer = |block: &BlockSpec| match &block.attention {
            Attention::Mla(mla) => LayerCache::Latent {
                latents: Plane::new(format, mla.latent_dim(), pages),
                index_keys: mla.indexer.as_ref().map(|i| Plane::new(format, i.dim, pages)),
            },
            Attention::Gqa(gqa) => {
                let width = gqa.kv_heads * gqa.head_dim;
                LayerCache::KeyValue {
                    keys: Plane::new(format, width, pages),
                    values: Plane::new(format, width, pages),
                }
            }
        };
        Cache { layers: spec.blocks.iter().map(layer).collect(), pages }
    }

    /// Whether it holds as many pages of this model in this format.
    pub fn fits(&self, spec: &ModelSpec, format: CacheFormat, pages: usize) -> bool {
        let same = |(block, layer): (&BlockSpec, &LayerCache)| match (&block.attention, layer) {
            (Attention::Mla(mla), LayerCache::Latent { latents, index_keys }) => {
                latents.is(format, mla.latent_dim())
                    && match (&mla.indexer, index_keys) {
                        (Some(indexer), Some(keys)) => keys.is(format, indexer.dim),
                        (indexer, keys) => indexer.is_none() && keys.is_none(),
                    }
            }
            (Attention::Gqa(gqa), LayerCache::KeyValue { keys, values }) => {
                let width = gqa.kv_heads * gqa.head_dim;
                keys.is(format, width) && values.is(format, width)
            }
            _ => false,
        };
        self.pages >= pages && self.layers.len() == spec.blocks.len() && spec.blocks.iter().zip(&self.layers).all(same)
    }

    /// Chooses what attention multiplies: where products round their inputs as well and rows are stored rounded,
    /// all factors in bfloat16; else the floats that rows stand for.
    pub(crate) fn set_inputs(&mut self, inputs: Inputs) {
        let set = |plane: &mut Plane| {
            let rounded = inputs == Inputs::Int8 && plane.format() != CacheFormat::F32;
            plane.set_factors(if rounded { Factors::Bf16 } else { Factors::Exact });
        };
        for layer in &mut self.layers {
            match layer {
                LayerCache::Latent { latents, .. } => set(latents),
                LayerCache::KeyValue { keys, values } => [keys, values].into_iter().for_each(set),
            }
        }
    }

    /// Pages in all.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Pages that `tokens` tokens need.
    pub fn pages_for(tokens: usize) -> usize {
        tokens.div_ceil(PAGE_LEN)
    }

    /// Bytes of one page in all layers.
    pub fn page_bytes(spec: &ModelSpec, format: CacheFormat) -> usize {
        spec.blocks.iter().map(|block| Cache::token_bytes(block, format)).sum::<usize>() * PAGE_LEN
    }

    /// Bytes that one token takes in the cache of a block.
    pub fn token_bytes(block: &BlockSpec, format: CacheFormat) -> usize {
        match &block.attention {
            Attention::Mla(mla) => {
                format.row_bytes(mla.latent_dim()) + mla.indexer.as_ref().map_or(0, |i| format.row_bytes(i.dim))
            }
            Attention::Gqa(gqa) => 2 * format.row_bytes(gqa.kv_heads * gqa.head_dim),
        }
    }

    /// Appends what a page holds in all layers, bit for bit: [`Cache::page_bytes`] bytes.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page_to_bytes(&self, page: u32, out: &mut Vec<u8>) {
        self.layers.iter().flat_map(LayerCache::planes).for_each(|plane| plane.page_to_bytes(page, out));
    }

    /// Makes a page hold what [`Cache::page_to_bytes`] wrote.
    ///
    /// # Panics
    /// If there is no such page, or `bytes` has another length.
    pub fn page_from_bytes(&mut self, page: u32, bytes: &[u8]) {
        let mut left = bytes;
        for plane in self.layers.iter_mut().flat_map(LayerCache::planes_mut) {
            let (own, rest) = left.split_at(plane.page_bytes());
            plane.page_from_bytes(page, own);
            left = rest;
        }
        assert!(left.is_empty(), "{} bytes more than a page has", left.len());
    }

    /// Fills all pages with rows of noise, to measure the speed at a depth without computing what comes
    /// before it: every page holds the same rows, and takes as long to read as any other.
    pub fn fill_with_noise(&mut self) {
        let pages = self.pages as u32;
        if pages == 0 {
            return;
        }
        let mut state = 1u32;
        let mut noise = move || {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        let mut fill = |plane: &mut Plane| {
            for position in 0..PAGE_LEN {
                let row: Vec<f32> = (0..plane.width()).map(|_| noise()).collect();
                plane.store(&[0], position, &row);
            }
            (1..pages).for_each(|page| plane.copy_page(0, page));
        };
        for layer in &mut self.layers {
            match layer {
                LayerCache::Latent { latents, index_keys } => {
                    fill(latents);
                    index_keys.iter_mut().for_each(&mut fill);
                }
                LayerCache::KeyValue { keys, values } => {
                    fill(keys);
                    fill(values);
                }
            }
        }
    }
}
