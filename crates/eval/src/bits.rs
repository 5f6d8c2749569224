//! How well a model predicts a text: bits per byte, which does not depend on the tokenizer, and perplexity per token.

use engine::session::{Session, SessionError};

/// Tokens computed at once: the logits of all of them are in memory.
const CHUNK_TOKENS: usize = 64;

/// What a text costs under a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bits {
    /// Length of the text.
    pub bytes: usize,
    /// Tokens that were predicted: all of them.
    pub tokens: usize,
    /// The sum of the negative log-probabilities of the tokens.
    pub nats: f64,
}

impl Bits {
    /// Bits for each byte of the text.
    pub fn per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64
    }

    /// `e` to the mean negative log-probability of a token.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens.max(1) as f64).exp()
    }
}

/// The cost of a text of `bytes` bytes with these tokens. It is cut into windows of the session's context; each begins
/// anew with `start` (the begin token, or the end token of models that have none), so every token is predicted once,
/// by those before it in its window. `progress` is told the tokens done and ends the work by returning false (`None`).
///
/// # Errors
/// If a token is not of the model's vocabulary, or the context holds less than two tokens.
pub fn bits_of_text(
    session: &mut Session,
    start: u32,
    tokens: &[u32],
    bytes: usize,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Bits>, SessionError> {
    let limit = session.context();
    if limit < 2 {
        return Err(SessionError::Full { tokens: 2, limit });
    }
    let (mut nats, mut done, mut vocab) = (0.0, 0, 0);
    for window in tokens.chunks(limit - 1) {
        let Some(first) = session.prompt(&[start], |_| true)? else { return Ok(None) };
        vocab = first.len();
        nats += cost(&first, window[0]);
        let (known, wanted) = (&window[..window.len() - 1], &window[1..]);
        for (chunk, targets) in known.chunks(CHUNK_TOKENS).zip(wanted.chunks(CHUNK_TOKENS)) {
            if !progress(done) {
                return Ok(None);
            }
            let logits = session.logits(chunk)?;
            let rows = logits.chunks_exact(logits.len() / chunk.len());
            nats += rows.zip(targets).map(|(row, &target)| cost(row, target)).sum::<f64>();
            done += chunk.len();
        }
        done += 1;
    }
    // The last token of a window is predicted but never computed, so the session does not look at it.
    match tokens.iter().find(|&&token| token as usize >= vocab) {
        Some(&token) => Err(SessionError::Token { token, vocab }),
        None => Ok(Some(Bits { bytes, tokens: tokens.len(), nats })),
    }
}

/// The negative log-probability of a token under these logits; infinite if there is no such token.
fn cost(logits: &[f32], target: u32) -> f64 {
    let Some(&own) = logits.get(target as usize) else { return f64::INFINITY };
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    sum.ln() - f64::from(own - largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_negative_log_probabilities() {
        let even = cost(&[1000.0; 8], 3);
        assert!((even - 8f64.ln()).abs() < 1e-12);
        let sure = cost(&[0.0, 30.0], 1);
        assert!((0.0..1e-12).contains(&sure));
        assert!(cost(&[0.0; 4], 4).is_infinite());
        let bits = Bits { bytes: 4, tokens: 2, nats: 16f64.ln() };
        assert!((bits.per_byte() - 1.0).abs() < 1e-12 && (bits.perplexity() - 4.0).abs() < 1e-12);
    }
}
