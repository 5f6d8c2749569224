//! What the integration tests share: fixtures and a plain way to run a model.

#![allow(dead_code, unreachable_pub)] // each test file uses its own part of it

pub mod train;

use std::path::{Path, PathBuf};

use kernels::attention::{CacheFormat, Chunk, PAGE_LEN};
use kernels::pool::Pool;
use model::cache::Cache;
use model::checkpoint::{Dtype, safetensors};
use model::forward::{Activations, Batch, Runner};
use model::load::Model;

/// Every model fixture, sorted by name: `models` has one or two of each family, `variants` the same
/// families in other shapes.
pub fn all_models() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let list = |name: &str| std::fs::read_dir(fixtures.join(name)).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<PathBuf> = list("models").chain(list("variants")).collect();
    paths.sort();
    assert!(paths.len() >= 50, "{} model fixtures", paths.len());
    paths
}

/// What the reference computed.
pub struct Expected {
    /// The prompt.
    pub tokens: Vec<u32>,
    /// `[T, vocab]`
    pub logits: Vec<f32>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
}

/// Reads `expected.safetensors` of a fixture.
pub fn expected(directory: &Path) -> Expected {
    let file = std::fs::File::open(directory.join("expected.safetensors")).unwrap();
    let bytes = kernels::bytes::Bytes::map(&file).unwrap();
    let tensors = safetensors::parse(&bytes).unwrap().tensors;
    let find = |name: &str| tensors.iter().find(|t| t.name == name).unwrap();
    let ints = |name: &str| {
        assert_eq!(find(name).dtype, Dtype::I64);
        find(name).data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
    };
    let logits = find("logits").data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Expected { tokens: ints("tokens"), logits, greedy: ints("greedy") }
}

/// One sequence on a model.
pub struct Session<'a> {
    /// The model with its threads.
    pub runner: Runner<'a>,
    cache: Cache,
    acts: Activations,
    pages: Vec<u32>,
    position: usize,
}

impl<'a> Session<'a> {
    /// An empty sequence of up to `capacity` tokens.
    pub fn new(model: &'a Model, pool: &'a Pool, capacity: usize) -> Session<'a> {
        let count = capacity.div_ceil(PAGE_LEN);
        Session {
            runner: Runner::new(model, pool),
            cache: Cache::new(&model.spec, CacheFormat::F32, count),
            acts: Activations::default(),
            // Pages in falling order: nothing may rely on their order.
            pages: (0..count as u32).rev().collect(),
            position: 0,
        }
    }

    /// Computes `tokens` in one chunk; the logits of all of them.
    pub fn push(&mut self, tokens: &[u32]) -> Vec<f32> {
        let chunk = Chunk { first_row: 0, rows: tokens.len(), position: self.position, pages: &self.pages };
        let wanted: Vec<usize> = (0..tokens.len()).collect();
        let batch = Batch { tokens, chunks: &[chunk] };
        self.position += tokens.len();
        self.runner.forward(&batch, &mut self.cache, &mut self.acts, &wanted)
    }
}

/// The largest absolute difference.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| if a.is_nan() || b.is_nan() { f32::INFINITY } else { (a - b).abs() })
        .fold(0.0, f32::max)
}
