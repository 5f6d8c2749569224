//! What attention keeps of the tokens before: latents, or keys and values, in pages.

use kernels::attention::{CacheFormat, PAGE_LEN, Plane};

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
        spec.cache_elements() * PAGE_LEN * format.bytes()
    }
}
