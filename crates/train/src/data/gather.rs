//! From sources to tokens: repeated documents dropped, some held out, the rest dealt to the parts of the run.

use kernels::pool::Pool;
use sha2::{Digest, Sha256};
use text::{EncodeError, Segment, Tokenizer};

use super::dedup::{Seen, Verdict, text_hash};
use super::manifest::SourceEntry;
use super::pack::{Piece, UNLEARNED, cut};
use super::read::{Feed, Raw};
use super::{DataError, files};
use crate::random::Random;
use crate::recipe::{Recipe, Source};

/// Documents that are made and encoded at a time.
const BATCH: usize = 4096;
/// Documents in a row that occurred before, after which a generated corpus counts as exhausted.
const REPEATS_MAX: u64 = 100_000;

/// Everything that the sets are packed from.
#[derive(Default)]
pub(super) struct Gathered {
    /// The tokens of all documents.
    pub(super) store: Vec<u32>,
    pub(super) main: Vec<Piece>,
    pub(super) decay: Vec<Piece>,
    /// For each source.
    pub(super) held_out: Vec<Vec<Piece>>,
    pub(super) sources: Vec<SourceEntry>,
}

/// A document in tokens.
struct Encoded {
    tokens: Vec<u32>,
    hash: u128,
    bytes: u64,
}

/// A document of the store.
#[derive(Clone, Copy)]
struct Stored {
    start: u64,
    len: u64,
    bytes: u64,
}

pub(super) fn gather(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    pool: &Pool,
    say: &mut dyn FnMut(&str),
) -> Result<Gathered, DataError> {
    let mut gathered = Gathered::default();
    for source in &recipe.data.sources {
        let documents = read_source(recipe, source, tokenizer, pool, &mut gathered)?;
        deal(recipe, source, &documents, &mut gathered, say);
        if let Some(entry) = gathered.sources.last() {
            say(&summary(entry));
        }
    }
    Ok(gathered)
}

/// One line about a source.
fn summary(entry: &SourceEntry) -> String {
    let SourceEntry { name, documents, tokens, held_out_documents, repeated, nearly_repeated, broken, .. } = entry;
    let mut text = format!("source {name}: {documents} documents, {tokens} tokens, {held_out_documents} held out");
    for (count, what) in [(repeated, "repeated"), (nearly_repeated, "nearly repeated"), (broken, "broken")] {
        if *count > 0 {
            text += &format!(", {count} {what} dropped");
        }
    }
    if let Some(first) = &entry.first_broken {
        text += &format!(" (the first: {first})");
    }
    text
}

/// Reads a source until it has given enough, or ends.
fn read_source(
    recipe: &Recipe,
    source: &Source,
    tokenizer: &Tokenizer,
    pool: &Pool,
    gathered: &mut Gathered,
) -> Result<Vec<Stored>, DataError> {
    let mut feed = Feed::open(recipe, source, tokenizer)?;
    let mut seen = Seen::new(source.near_duplicates.unwrap_or(source.generate.is_none() && source.chat.is_empty()));
    let mut entry = SourceEntry { name: source.name.clone(), ..SourceEntry::default() };
    (entry.origin, entry.licence) = (feed.origin(source), feed.licence(source));
    let (mut documents, mut held_out, mut hasher) = (Vec::new(), Vec::new(), Sha256::new());
    let wanted = source.tokens.saturating_add(source.decay_tokens);
    let mut repeats_in_a_row = 0;
    'reading: while entry.tokens < wanted && repeats_in_a_row < REPEATS_MAX {
        let batch = feed.batch(pool, BATCH)?;
        if batch.is_empty() {
            break;
        }
        let encoded = encode_all(recipe, tokenizer, pool, &batch, &source.name)?;
        for (raw, document) in batch.iter().zip(encoded) {
            match seen.judge(document.hash, || raw.text()) {
                Verdict::New => repeats_in_a_row = 0,
                Verdict::Repeated => {
                    (entry.repeated, repeats_in_a_row) = (entry.repeated + 1, repeats_in_a_row + 1);
                    continue;
                }
                Verdict::NearlyRepeated => {
                    entry.nearly_repeated += 1;
                    continue;
                }
            }
            let (start, len) = (gathered.store.len() as u64, document.tokens.len() as u64);
            gathered.store.extend_from_slice(&document.tokens);
            let stored = Stored { start, len, bytes: document.bytes };
            if (document.hash % u128::from(recipe.data.held_out_one_in)) == 0 {
                entry.held_out_documents += 1;
                held_out.push(stored);
                continue;
            }
            hasher.update(document.hash.to_be_bytes());
            *entry.kinds.entry(raw.kind.clone()).or_default() += 1;
            (entry.documents, entry.tokens) = (entry.documents + 1, entry.tokens + len);
            entry.text_bytes += document.bytes;
            documents.push(stored);
            if entry.tokens >= wanted {
                break 'reading;
            }
        }
    }
    entry.text_sha256 = files::hex(&hasher.finalize());
    (entry.broken, entry.first_broken) = feed.broken();
    entry.files = feed.files()?;
    if documents.is_empty() {
        let reason = "gives no document that can be learned from".to_string();
        return Err(DataError::Source { name: source.name.clone(), reason });
    }
    let mut pieces = Vec::new();
    held_out.iter().for_each(|d| cut(d.start, d.len, d.bytes, recipe.data.sequence + 1, &mut pieces));
    gathered.held_out.push(pieces);
    gathered.sources.push(entry);
    Ok(documents)
}

/// Deals a source's documents to the parts of the run, repeating them as often as is allowed.
fn deal(recipe: &Recipe, source: &Source, documents: &[Stored], gathered: &mut Gathered, say: &mut dyn FnMut(&str)) {
    let room = recipe.data.sequence + 1;
    let Gathered { main, decay, sources, .. } = gathered;
    let Some(entry) = sources.last_mut() else { return };
    let allowed = (entry.tokens as f64 * source.epochs_max.unwrap_or(1.0)).ceil() as u64;
    let mut next = documents.iter().cycle();
    let mut given = 0;
    for (wanted, total, pieces) in
        [(source.tokens, &mut entry.main_tokens, main), (source.decay_tokens, &mut entry.decay_tokens, decay)]
    {
        while *total < wanted && given < allowed {
            let Some(document) = next.next() else { break };
            cut(document.start, document.len, document.bytes, room, pieces);
            *total += document.len;
            given += document.len;
        }
        if *total < wanted {
            say(&format!(
                "source {}: gives {total} of the {wanted} tokens asked for (epochs_max = {})",
                source.name,
                source.epochs_max.unwrap_or(1.0)
            ));
        }
    }
    entry.epochs = given as f64 / entry.tokens.max(1) as f64;
}

fn encode_all(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    pool: &Pool,
    batch: &[Raw],
    name: &str,
) -> Result<Vec<Encoded>, DataError> {
    let mut results: Vec<Option<Result<Encoded, EncodeError>>> = Vec::new();
    results.resize_with(batch.len(), || None);
    pool.for_each_piece(&mut results, 32, |piece, slots| {
        for (i, slot) in slots.iter_mut().enumerate() {
            *slot = Some(encode(recipe, tokenizer, &batch[piece * 32 + i]));
        }
    });
    let results = results.into_iter().flatten().collect::<Result<Vec<Encoded>, EncodeError>>();
    results.map_err(|error| DataError::Source { name: name.to_string(), reason: error.to_string() })
}

/// A document's tokens with their marks: begin and end tokens around it, what is not learned marked.
fn encode(recipe: &Recipe, tokenizer: &Tokenizer, raw: &Raw) -> Result<Encoded, EncodeError> {
    let texts = || raw.parts.iter().flat_map(|part| &part.segments).map(|segment| segment.text.as_str());
    let hash = text_hash(texts());
    let mut tokens = Vec::new();
    let bytes = raw.parts.iter().filter(|part| part.learn).map(|part| part.bytes()).sum();
    for (i, part) in raw.parts.iter().enumerate() {
        let fim = (i == 0 && raw.parts.len() == 1).then(|| fill_in_the_middle(recipe, &part.segments, hash)).flatten();
        let encoded = tokenizer.encode_segments(fim.as_deref().unwrap_or(&part.segments))?;
        tokens.extend(encoded.into_iter().map(|token| if part.learn { token } else { token | UNLEARNED }));
    }
    let plain = |token: &u32| token & !UNLEARNED;
    if let Some(bos) = tokenizer.bos_id()
        && tokens.first().map(plain) != Some(bos)
    {
        tokens.insert(0, bos | UNLEARNED);
    }
    let ends = tokenizer.eos_ids();
    if !tokens.last().map(plain).is_some_and(|token| ends.contains(&token)) {
        tokens.push(ends[0]);
    }
    Ok(Encoded { tokens, hash, bytes })
}

/// Prefix, suffix, middle (Bavarian et al. 2022; V3 report, section 4.1), for the share of plain documents that the
/// recipe asks for. Which, and where they are cut, follows from their text.
fn fill_in_the_middle(recipe: &Recipe, segments: &[Segment], hash: u128) -> Option<Vec<Segment>> {
    let [begin, hole, end] = recipe.tokenizer.fim.as_ref().filter(|_| recipe.data.fim_rate > 0.0)?;
    let [Segment { text, trusted: false }] = segments else { return None };
    let mut random = Random::new(&[recipe.seed, 5, hash as u64]);
    if random.unit() >= recipe.data.fim_rate {
        return None;
    }
    let mut place = || {
        let mut at = random.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (a, b) = (place(), place());
    let (a, b) = (a.min(b), a.max(b));
    let part = |range: &str| Segment::untrusted(range);
    let mark = |token: &str| Segment::trusted(token);
    Some(vec![mark(begin), part(&text[..a]), mark(hole), part(&text[b..]), mark(end), part(&text[a..b])])
}
