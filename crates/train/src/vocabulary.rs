//! A tokenizer from the generated sources of a recipe.

use std::path::Path;

use crate::bpe::{self, BpeError, Settings};
use crate::corpus::{self, Document};
use crate::files;
use crate::recipe::Recipe;

/// Bytes of text that a tokenizer is trained on, over all sources.
const TEXT_BYTES: u64 = 24 << 20;

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum VocabularyError {
    #[error(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    #[error(transparent)]
    Bpe(#[from] BpeError),
    #[error("source {name}: {reason}")]
    Source { name: String, reason: String },
    #[error("the recipe has no generated source; a tokenizer for other text is taken from a published model")]
    NoSource,
    #[error("{path}: cannot be written: {source}")]
    Write { path: String, source: std::io::Error },
}

/// Trains a tokenizer for the recipe's model on its generated sources, each in proportion to its tokens, and writes it
/// to `out`. The documents are those of another seed than the recipe's.
///
/// # Errors
/// If the recipe has no generated source, they give too little text, or `out` cannot be written.
pub fn train_tokenizer(recipe: &Recipe, out: &Path) -> Result<(), VocabularyError> {
    let spec = recipe.spec()?;
    let generated = || recipe.data.sources.iter().filter_map(|s| Some((s, s.generate.as_deref()?)));
    let total: u64 = generated().map(|(source, _)| source.tokens + source.decay_tokens).sum();
    if total == 0 {
        return Err(VocabularyError::NoSource);
    }
    let mut documents: Vec<Document> = Vec::new();
    for (source, name) in generated() {
        let seed = source.seed.unwrap_or(recipe.seed) ^ 0x746f_6b65;
        let opened = corpus::open(name, seed, &source.options);
        let opened = opened.map_err(|reason| VocabularyError::Source { name: source.name.clone(), reason })?;
        let share = u128::from(TEXT_BYTES) * u128::from(source.tokens + source.decay_tokens) / u128::from(total);
        let (mut bytes, mut index) = (0, 0);
        while bytes < share {
            let document = opened.document(index);
            bytes += document.segments.iter().map(|segment| segment.text.len().max(1) as u128).sum::<u128>().max(1);
            documents.push(document);
            index += 1;
        }
    }
    let settings = Settings { vocab: spec.vocab, ..Settings::nano() };
    let made = bpe::train(&mut documents.into_iter(), &settings)?;
    let write = |source| VocabularyError::Write { path: out.display().to_string(), source };
    std::fs::create_dir_all(out).map_err(write)?;
    for (name, text) in
        [("tokenizer.json", &made.tokenizer_json), ("tokenizer_config.json", &made.tokenizer_config_json)]
    {
        files::write_whole(&out.join(name), |file| file.write_all(text.as_bytes())).map_err(write)?;
    }
    Ok(())
}
