//! Training data: from sources to packed sequences on disk, made once.
//!
//! [`prepare`] reads or generates the documents of every source, drops repeated ones, holds some out by the hash of
//! their text, turns them to tokens and packs them into sequences (`pack`). The result is a folder with up to three
//! sets (`main`, `decay`, `held-out`) and a [`Manifest`]; its name contains a hash of all that it depends on, so that a
//! changed recipe makes a new one and an unchanged recipe finds the old one. The order in which a run goes through a
//! set ([`Order`]) is a pure function of the seed and the step.

mod dedup;
mod gather;
mod manifest;
mod pack;
mod read;
mod set;

use std::path::{Path, PathBuf};

use kernels::pool::Pool;
use text::Tokenizer;

use crate::files;
use crate::random::Random;
use crate::recipe::Recipe;
use gather::{Gathered, gather};
use pack::Piece;

pub use manifest::{FileEntry, Manifest, SetEntry, SourceEntry};
pub use set::{Batch, Order, Set};

/// Why data cannot be prepared or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum DataError {
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("source {name}: {reason}")]
    Source { name: String, reason: String },
    #[error(
        "{}: {broken} of {total} {what} are broken, more than the allowed share of {limit}; the first is {first}",
        .path.display()
    )]
    Broken { path: PathBuf, what: &'static str, broken: u64, total: u64, limit: f64, first: String },
    #[error("tokenizer {}: {reason}", .folder.display())]
    Tokenizer { folder: PathBuf, reason: String },
    #[error("{}: is damaged: {reason}; remove the folder and start again, it will be made anew", .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the set {name} has {rows} sequences, too few; raise the tokens of its sources ({hint})")]
    TooFew { name: &'static str, rows: usize, hint: &'static str },
}

/// The prepared data of a recipe.
pub struct Data {
    /// What it is made of.
    pub manifest: Manifest,
    /// For the main part of the run.
    pub main: Set,
    /// For the last part, where the recipe has one.
    pub decay: Option<Set>,
    /// For evaluation.
    pub held_out: Set,
}

/// Loads the recipe's tokenizer.
///
/// # Errors
/// If it cannot be read, has no token that ends a text, or has more tokens than the model.
pub fn tokenizer(recipe: &Recipe, vocabulary: usize) -> Result<Tokenizer, DataError> {
    let folder = recipe.path(&recipe.tokenizer.folder);
    let refuse = |reason: String| DataError::Tokenizer { folder: folder.clone(), reason };
    let tokenizer = Tokenizer::from_directory(&folder).map_err(|error| refuse(error.to_string()))?;
    if tokenizer.vocab_size() > vocabulary {
        let tokens = tokenizer.vocab_size();
        return Err(refuse(format!("has {tokens} tokens; the model's vocabulary has {vocabulary}")));
    }
    if tokenizer.eos_ids().is_empty() {
        return Err(refuse("names no token that ends a text (eos_token in tokenizer_config.json)".into()));
    }
    for token in recipe.tokenizer.fim.iter().flatten() {
        if tokenizer.id(token).is_none() {
            return Err(refuse(format!("has no token {token:?}, which tokenizer.fim names")));
        }
    }
    Ok(tokenizer)
}

/// Finds the recipe's data in `folder`, or makes it there. `say` gets a sentence for people now and then.
///
/// # Errors
/// If a source cannot be read, gives too little, or is broken; if the disk is full; if what was found is damaged.
pub fn prepare(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    folder: &Path,
    pool: &Pool,
    say: &mut dyn FnMut(&str),
) -> Result<Data, DataError> {
    let fingerprint = fingerprint(recipe)?;
    let folder = folder.join(format!("{}-{}", recipe.name, &fingerprint[..16]));
    if !folder.join("manifest.json").is_file() {
        say(&format!("preparing data in {}", folder.display()));
        make(recipe, tokenizer, &fingerprint, &folder, pool, say)?;
    }
    open(&folder, &fingerprint)
}

/// Looks whether the tokenizer and every file of the recipe's sources are there.
///
/// # Errors
/// The first that cannot be read.
pub fn check_sources(recipe: &Recipe) -> Result<(), DataError> {
    fingerprint(recipe).map(|_| ())
}

/// A hash of all that the sets depend on; of files their lengths, which are enough to see that they changed by rights.
fn fingerprint(recipe: &Recipe) -> Result<String, DataError> {
    let mut data = recipe.data.clone();
    (data.folder, data.mask_documents, data.decay_share) = (None, false, 0.0);
    let mut parts = vec![
        "sets 1".to_string(),
        serde_json::to_string(&data).unwrap_or_default(),
        recipe.seed.to_string(),
        format!("{:?}", recipe.tokenizer.fim),
        tokenizer_hash(recipe)?,
    ];
    for path in data.sources.iter().flat_map(|s| s.text.iter().chain(&s.jsonl).chain(&s.parquet).chain(&s.chat)) {
        let path = recipe.path(path);
        let length = std::fs::metadata(&path).map_err(|source| DataError::Read { path: path.clone(), source })?.len();
        parts.push(length.to_string());
    }
    Ok(files::sha256(parts.join("\n").as_bytes()))
}

/// The hash of the files that decide how text becomes tokens.
fn tokenizer_hash(recipe: &Recipe) -> Result<String, DataError> {
    let mut all = String::new();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = recipe.path(&recipe.tokenizer.folder).join(name);
        if path.is_file() {
            all += &files::sha256_file(&path).map_err(|source| DataError::Read { path, source })?.0;
        }
    }
    Ok(files::sha256(all.as_bytes()))
}

fn open(folder: &Path, fingerprint: &str) -> Result<Data, DataError> {
    let path = folder.join("manifest.json");
    let damaged = |reason: String| DataError::Damaged { path: path.clone(), reason };
    let bytes = std::fs::read(&path).map_err(|source| DataError::Read { path: path.clone(), source })?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if manifest.fingerprint != fingerprint {
        return Err(damaged("it belongs to another recipe".into()));
    }
    let set = |name: &str| -> Result<Option<Set>, DataError> {
        manifest.sets.get(name).map(|entry| Set::open(folder, name, entry, manifest.sequence)).transpose()
    };
    let missing = || damaged("it names no set".into());
    let (main, decay) = (set("main")?.ok_or_else(missing)?, set("decay")?);
    let held_out = set("held-out")?.ok_or_else(missing)?;
    Ok(Data { main, decay, held_out, manifest })
}

fn make(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    fingerprint: &str,
    folder: &Path,
    pool: &Pool,
    say: &mut dyn FnMut(&str),
) -> Result<(), DataError> {
    std::fs::create_dir_all(folder).map_err(|source| DataError::Write { path: folder.to_path_buf(), source })?;
    let mut gathered = gather(recipe, tokenizer, pool, say)?;
    let room = recipe.data.sequence + 1;
    let padding = tokenizer.eos_ids()[0];
    let mut write = |name: &'static str, number: u64, pieces: &[Piece], hint: &'static str| {
        let mut random = Random::new(&[recipe.seed, number]);
        let rows = pack::pack(pieces, room, &mut random);
        // A run needs two sequences, so that there is an order; an evaluation needs one.
        if rows.len() < if name == "held-out" { 1 } else { 2 } {
            return Err(DataError::TooFew { name, rows: rows.len(), hint });
        }
        let source = |_: &Piece| u32::MAX;
        let entry = set::write(folder, name, &gathered.store, pieces, &rows, room, padding, &source)?;
        let padding = entry.padding_share * 100.0;
        say(&format!("{name}: {} sequences, {} tokens to learn, {padding:.1} % padding", entry.rows, entry.learned));
        Ok(entry)
    };
    let few = "or shorten data.sequence";
    let mut sets = std::collections::BTreeMap::new();
    sets.insert("main".to_string(), write("main", 1, &gathered.main, few)?);
    if recipe.data.decay_share > 0.0 {
        sets.insert("decay".to_string(), write("decay", 2, &gathered.decay, few)?);
    }
    let entry = held_out(folder, recipe, &mut gathered, room, padding)?;
    say(&format!("held-out: {} sequences, {} tokens", entry.rows, entry.learned));
    sets.insert("held-out".to_string(), entry);
    let manifest = Manifest {
        fingerprint: fingerprint.to_string(),
        sequence: recipe.data.sequence,
        tokenizer_sha256: tokenizer_hash(recipe)?,
        vocabulary: tokenizer.vocab_size(),
        sources: gathered.sources,
        sets,
        before: None,
    };
    // Last, and whole: a folder with a manifest is complete.
    let path = folder.join("manifest.json");
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    let written = files::write_whole(&path, |out| out.write_all(text.as_bytes()));
    written.map_err(|source| DataError::Write { path, source })?;
    Ok(())
}

/// Held-out documents are packed source by source, and the sequences of sources alternate, so that any first part of
/// the set measures all of them.
fn held_out(
    folder: &Path,
    recipe: &Recipe,
    gathered: &mut Gathered,
    room: usize,
    padding: u32,
) -> Result<SetEntry, DataError> {
    let (mut pieces, mut rows) = (Vec::new(), Vec::new());
    let mut owners = Vec::new();
    for (number, list) in gathered.held_out.iter().enumerate() {
        let first = pieces.len() as u32;
        let packed = pack::pack(list, room, &mut Random::new(&[recipe.seed, 3, number as u64]));
        let count = packed.len().max(1) as f64;
        for (i, row) in packed.into_iter().enumerate() {
            // Its place among all, were those of its source spread evenly.
            let place = (i as f64 + 0.5) / count;
            rows.push((place, row.into_iter().map(|i| i + first).collect::<Vec<u32>>()));
        }
        pieces.extend_from_slice(list);
        owners.resize(pieces.len(), number as u32);
    }
    if rows.is_empty() {
        return Err(DataError::TooFew { name: "held-out", rows: 0, hint: "or lower data.held_out_one_in" });
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rows: Vec<Vec<u32>> = rows.into_iter().map(|(_, row)| row).collect();
    let owner: std::collections::HashMap<(u64, u32), u32> =
        pieces.iter().zip(owners).map(|(piece, owner)| ((piece.start, piece.len), owner)).collect();
    let source = |piece: &Piece| owner.get(&(piece.start, piece.len)).copied().unwrap_or(u32::MAX);
    set::write(folder, "held-out", &gathered.store, &pieces, &rows, room, padding, &source)
}
