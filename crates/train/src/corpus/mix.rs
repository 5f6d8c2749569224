//! All corpora of the built-in model in their shares.
//!
//! Shares are of bytes, which is close to tokens: a source is drawn with a probability in proportion to its share and
//! in inverse proportion to the mean length of its documents, measured once on the first of them.

use eval::rng::Rng;

use super::{Document, Source};

/// Documents that are measured for the mean length.
const MEASURED: u64 = 256;

/// A corpus made of others.
pub(super) struct Mix {
    seed: u64,
    sources: Vec<Box<dyn Source>>,
    /// Probability of each source, cumulative.
    bounds: Vec<f64>,
}

impl Mix {
    pub(super) fn new(seed: u64, parts: Vec<(Box<dyn Source>, f64)>) -> Mix {
        let weight = |(source, share): &(Box<dyn Source>, f64)| share / mean_bytes(source.as_ref());
        let weights: Vec<f64> = parts.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let bounds = weights.iter().map(|weight| {
            sum += weight / total;
            sum
        });
        Mix { seed, bounds: bounds.collect(), sources: parts.into_iter().map(|(source, _)| source).collect() }
    }
}

fn mean_bytes(source: &dyn Source) -> f64 {
    let bytes = |index| source.document(index).segments.iter().map(|segment| segment.text.len()).sum::<usize>();
    (0..MEASURED).map(bytes).sum::<usize>().max(1) as f64 / MEASURED as f64
}

impl Source for Mix {
    fn name(&self) -> &'static str {
        "nano"
    }

    fn origin(&self) -> String {
        let parts: Vec<String> = self.sources.iter().map(|source| source.origin()).collect();
        format!("The mix of the built-in model. {}", parts.join(" "))
    }

    fn document(&self, index: u64) -> Document {
        let mut rng = Rng::new(self.seed, "mix", index);
        let point = rng.below(1 << 32) as f64 / (1u64 << 32) as f64;
        let at = self.bounds.iter().position(|&bound| point < bound).unwrap_or(self.bounds.len() - 1);
        self.sources[at].document(index)
    }
}
