//! A teacher's distributions over the next token, for a student to learn (Hinton, Vinyals and Dean 2015).
//!
//! The teacher runs as in inference, from its file's own format: it costs its weights and a forward pass, nothing else.
//! Of each row its likeliest tokens are taken, their probabilities as shares of their sum. A row depends on its own
//! sequence alone, so neither threads nor the cut of a batch change a bit.

use std::path::Path;

use kernels::attention::{CacheFormat, Chunk};
use kernels::pool::Pool;
use model::cache::Cache;
use model::forward::{Activations, Batch as Forward, Runner};
use model::load::Model;
use model::train::SoftTargets;
use text::Tokenizer;

use crate::data::Batch;
use crate::recipe::Teacher as Settings;
use crate::run::RunError;

/// Floats of logits that are held at a time.
const LOGITS: usize = 1 << 23;

/// A model to learn from.
pub struct Teacher {
    model: Model,
    cache: Option<Cache>,
    acts: Activations,
    top: usize,
    share: f32,
    /// Tokens that both models know.
    tokens: usize,
}

/// Soft targets of a batch, `per_row` a row.
pub(super) struct Soft {
    per_row: usize,
    tokens: Vec<u32>,
    probabilities: Vec<f32>,
}

impl Soft {
    pub(super) fn borrowed(&self) -> SoftTargets<'_> {
        SoftTargets { per_row: self.per_row, tokens: &self.tokens, probabilities: &self.probabilities }
    }
}

impl Teacher {
    /// Opens the model in `folder`, whose tokenizer must be the student's.
    ///
    /// # Errors
    /// If it cannot be opened, or a token of one tokenizer is another in the other.
    pub fn open(folder: &Path, settings: &Settings, tokenizer: &Tokenizer) -> Result<Teacher, RunError> {
        let refuse = |reason: String| RunError::Model(format!("teacher.from: {reason}"));
        let model = Model::open(folder).map_err(|error| refuse(error.to_string()))?;
        let theirs = Tokenizer::from_directory(folder).map_err(|error| refuse(error.to_string()))?;
        let most = theirs.vocab_size().max(tokenizer.vocab_size()) as u32;
        if let Some(id) = (0..most).find(|&id| theirs.token(id) != tokenizer.token(id)) {
            let name = |tokenizer: &Tokenizer| tokenizer.token(id).map_or("none".to_string(), |t| format!("{t:?}"));
            let (ours, theirs, folder) = (name(tokenizer), name(&theirs), folder.display());
            return Err(refuse(format!(
                "{folder}: token {id} is {theirs} there and {ours} here; from a teacher with another tokenizer a \
                 student learns by its samples (fathom sample)"
            )));
        }
        let tokens = theirs.vocab_size();
        let (top, share) = (settings.top, settings.share as f32);
        Ok(Teacher { model, cache: None, acts: Activations::default(), top, share, tokens })
    }

    /// What a student with `vocab` tokens is to learn of each row.
    pub(super) fn targets(&mut self, pool: &Pool, batch: &Batch, vocab: usize) -> Soft {
        let known = self.tokens.min(vocab).min(self.model.spec.vocab);
        let top = self.top.min(known);
        let per_row = top + 1;
        let mut all = vec![(0u32, 0.0f32); batch.tokens.len() * per_row];
        let longest = batch.lengths.iter().copied().max().unwrap_or(0);
        let pages = Cache::pages_for(longest);
        let Teacher { model, cache, acts, share, .. } = self;
        let cache = match cache.take() {
            Some(large) if large.pages() >= pages => cache.insert(large),
            _ => cache.insert(Cache::new(&model.spec, CacheFormat::F32, pages)),
        };
        let numbers: Vec<u32> = (0..pages as u32).collect();
        let (runner, width) = (Runner::new(model, pool), model.spec.vocab);
        let together = (LOGITS / width).max(1);
        let mut first = 0;
        for &length in &batch.lengths {
            for start in (0..length).step_by(together) {
                let rows = together.min(length - start);
                let span = first + start..first + start + rows;
                let chunk = Chunk { first_row: 0, rows, position: start, pages: &numbers };
                let tokens = &batch.tokens[span.clone()];
                let wanted: Vec<usize> = (0..rows).filter(|row| batch.learned[span.start + row]).collect();
                let logits = runner.forward(&Forward { tokens, chunks: &[chunk] }, cache, acts, &wanted);
                let mut found = vec![(0u32, 0.0f32); wanted.len() * top];
                pool.for_each_piece(&mut found, top, |row, to| {
                    likeliest(&logits[row * width..][..known], *share, to);
                });
                for (&row, found) in wanted.iter().zip(found.chunks_exact(top)) {
                    let at = span.start + row;
                    let to = &mut all[at * per_row..(at + 1) * per_row];
                    to[0] = (batch.targets[at], 1.0 - *share);
                    to[1..].copy_from_slice(found);
                }
            }
            first += length;
        }
        let (tokens, probabilities) = all.into_iter().unzip();
        Soft { per_row, tokens, probabilities }
    }
}

/// The likeliest tokens by their logits, as many as fit, with shares of `sum`; ties by number.
fn likeliest(logits: &[f32], sum: f32, to: &mut [(u32, f32)]) {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if to.len() < order.len() {
        order.select_nth_unstable_by(to.len(), by);
        order.truncate(to.len());
    }
    order.sort_unstable_by(by);
    let Some(&best) = order.first() else { return };
    let most = f64::from(logits[best as usize]);
    let weights: Vec<f64> = order.iter().map(|&token| (f64::from(logits[token as usize]) - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    for ((to, &token), weight) in to.iter_mut().zip(&order).zip(weights) {
        *to = (token, (f64::from(sum) * weight / total) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_share_what_there_is_and_ties_go_by_number() {
        let mut found = [(9, 9.0); 3];
        likeliest(&[0.0, 2.0, 1.0, 2.0, -5.0], 0.5, &mut found);
        assert_eq!(found.map(|(token, _)| token), [1, 3, 2]);
        assert!((found.iter().map(|(_, p)| p).sum::<f32>() - 0.5).abs() < 1e-6);
        assert_eq!(found[0].1, found[1].1);
        assert!((found[0].1 / found[2].1 - 1f32.exp()).abs() < 1e-5);
        let mut all = [(0, 0.0); 2];
        likeliest(&[1.0, 1.0], 1.0, &mut all);
        assert_eq!(all, [(0, 0.5), (1, 0.5)]);
    }
}
