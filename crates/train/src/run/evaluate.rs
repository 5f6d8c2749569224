//! The loss on held-out data.

use std::collections::BTreeMap;

use kernels::pool::Pool;
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::data::Data;
use crate::learner::Learner;

/// What a model makes of text that it has not learned.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct HeldOut {
    /// Nats a token.
    pub loss: f64,
    /// Bits a byte of text: independent of the tokenizer.
    pub bits_per_byte: f64,
    /// Tokens that were measured.
    pub tokens: u64,
    /// Bits a byte of each source.
    pub by_source: BTreeMap<String, f64>,
}

#[derive(Default)]
struct Sums {
    nats: f64,
    tokens: u64,
    bytes: u64,
}

impl Sums {
    fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64
    }
}

/// Measures the first sequences of the held-out set, `at_once` at a time.
///
/// # Errors
/// If the set cannot be read.
pub fn evaluate(
    learner: &mut dyn Learner,
    pool: &Pool,
    data: &Data,
    tokens: usize,
    at_once: usize,
    mask: bool,
) -> Result<HeldOut, RunError> {
    let set = &data.held_out;
    let rows: Vec<usize> = (0..tokens.div_ceil(data.manifest.sequence).clamp(1, set.rows())).collect();
    let (mut all, mut by_source) = (Sums::default(), BTreeMap::<usize, Sums>::new());
    for rows in rows.chunks(at_once.max(1)) {
        let batch = set.batch(rows, mask)?;
        let passed = learner.measure(pool, &batch);
        for (&row, &start) in rows.iter().zip(&batch.starts) {
            let range = start..start + data.manifest.sequence;
            let learned = batch.learned[range.clone()].iter();
            let measured = passed.log_probabilities[range].iter().zip(learned).filter(|(_, learned)| **learned);
            let (mut nats, mut tokens) = (0.0, 0);
            measured.for_each(|(log_probability, _)| (nats, tokens) = (nats - f64::from(*log_probability), tokens + 1));
            let bytes = u64::from(set.text_bytes(row));
            let own = set.source(row).map(|source| by_source.entry(source).or_default());
            for sums in [Some(&mut all), own].into_iter().flatten() {
                sums.nats += nats;
                sums.tokens += tokens;
                sums.bytes += bytes;
            }
        }
    }
    let name = |source: usize| data.manifest.sources.get(source).map_or("?".to_string(), |entry| entry.name.clone());
    Ok(HeldOut {
        loss: all.nats / all.tokens.max(1) as f64,
        bits_per_byte: all.bits_per_byte(),
        tokens: all.tokens,
        by_source: by_source.into_iter().map(|(source, sums)| (name(source), sums.bits_per_byte())).collect(),
    })
}
