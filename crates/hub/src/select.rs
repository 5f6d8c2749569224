//! Which files of a repository make the model that a reference names.
//!
//! A model directory is `config.json`, the safetensors files beside it, the tokenizer, the chat template and the
//! licence. Weights in pickle formats (`.bin`, `.pth`) and conversions (`.onnx`) are never taken. A GGUF model is one
//! file, or a split set `STEM-00001-of-00003.gguf`, which is always taken whole. The quantisation of a GGUF file is
//! read from its name, as people write them: `Llama-3.2-1B-Q4_K_M.gguf`, `model.Q8_0.gguf`, `R1-UD-IQ1_S-00001-of-…`.

use crate::error::PullError;
use crate::progress::bytes_text;
use crate::reference::{Reference, Selection, is_gguf};

/// A file that can be chosen: on the hub, or in the store.
pub(crate) trait Choice: Clone {
    fn path(&self) -> &str;
    fn size_bytes(&self) -> u64;
}

impl Choice for crate::api::RemoteFile {
    fn path(&self) -> &str {
        &self.path
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// Why nothing was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unclear {
    pub(crate) why: String,
    /// What can be named after the colon.
    pub(crate) available: Vec<String>,
    /// Several fit, as opposed to none.
    pub(crate) ambiguous: bool,
}

/// A GGUF model: one file, or all files of a split set in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GgufSet<F> {
    /// The path without the split suffix and `.gguf`.
    pub(crate) stem: String,
    /// How many files the names promise.
    parts: usize,
    /// The files there, in order.
    pub(crate) files: Vec<F>,
}

/// The files of `all` that the reference names.
pub(crate) fn select<F: Choice>(reference: &Reference, all: &[F]) -> Result<Vec<F>, PullError> {
    let chosen = match &reference.selection {
        Selection::Model => whole_model(all),
        Selection::Quant(_) | Selection::File(_) => gguf(&reference.selection, all).map(|set| set.files),
    };
    chosen.map_err(|unclear| PullError::Choose {
        model: reference.model(),
        why: unclear.why,
        available: unclear.available,
    })
}

/// The GGUF model that a quantisation or a file name means.
pub(crate) fn gguf<F: Choice>(selection: &Selection, all: &[F]) -> Result<GgufSet<F>, Unclear> {
    let sets = gguf_sets(all);
    let unclear = |why: String, sets: &[GgufSet<F>]| Unclear { why, available: describe(sets), ambiguous: false };
    let (wanted, mut fitting): (&str, Vec<_>) = match selection {
        Selection::Model => ("a model", sets.iter().filter(|set| !set.is_side_file()).cloned().collect()),
        Selection::Quant(quant) => (quant, sets.iter().filter(|set| set.has_quant(quant)).cloned().collect()),
        Selection::File(file) => {
            (file, sets.iter().filter(|set| set.files.iter().any(|f| f.path() == file)).cloned().collect())
        }
    };
    match fitting.len() {
        0 => Err(unclear(format!("no GGUF file is {wanted:?}"), &sets)),
        1 => {
            let set = fitting.remove(0);
            if set.files.len() == set.parts {
                return Ok(set);
            }
            let why = format!("the split set {} has {} of its {} files", set.stem, set.files.len(), set.parts);
            Err(unclear(why, &sets))
        }
        _ => {
            let why = "more than one GGUF model fits; name one after a colon".to_string();
            Err(Unclear { ambiguous: true, ..unclear(why, &fitting) })
        }
    }
}

/// All GGUF models among the files, in the order of their names.
pub(crate) fn gguf_sets<F: Choice>(all: &[F]) -> Vec<GgufSet<F>> {
    let mut files: Vec<&F> = all.iter().filter(|file| is_gguf(file.path())).collect();
    files.sort_by(|a, b| a.path().cmp(b.path()));
    let mut sets: Vec<GgufSet<F>> = Vec::new();
    for file in files {
        let stem = &file.path()[..file.path().len() - ".gguf".len()];
        let (stem, parts) = split_suffix(stem).unwrap_or((stem, 1));
        match sets.iter_mut().find(|set| set.stem == stem && set.parts == parts && parts > 1) {
            Some(set) => set.files.push(file.clone()),
            None => sets.push(GgufSet { stem: stem.to_string(), parts, files: vec![file.clone()] }),
        }
    }
    sets
}

impl<F: Choice> GgufSet<F> {
    /// Whether the name's quantisation is `quant`; for unusual ones, whether the name ends with it.
    fn has_quant(&self, quant: &str) -> bool {
        if self.is_side_file() {
            return false;
        }
        match quant_of(&self.stem) {
            Some(tag) => tag.eq_ignore_ascii_case(quant),
            None => {
                let name = self.file_stem().to_ascii_lowercase();
                let rest = name.strip_suffix(&quant.to_ascii_lowercase());
                rest.is_some_and(|rest| rest.ends_with(['-', '.']))
            }
        }
    }

    fn file_stem(&self) -> &str {
        self.stem.rsplit('/').next().unwrap_or(&self.stem)
    }

    /// Files beside a model: the vision projector and the importance matrix.
    fn is_side_file(&self) -> bool {
        let name = self.file_stem().to_ascii_lowercase();
        name.starts_with("mmproj") || name.starts_with("imatrix") || name.ends_with("imatrix")
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.files.len() == self.parts
    }

    /// What to write after the colon: the quantisation, or the file where the name has none.
    pub(crate) fn label(&self) -> String {
        match quant_of(&self.stem) {
            Some(tag) if !self.is_side_file() => tag,
            _ => self.files[0].path().to_string(),
        }
    }
}

fn describe<F: Choice>(sets: &[GgufSet<F>]) -> Vec<String> {
    const LISTED: usize = 40;
    let labels: Vec<String> = sets.iter().map(GgufSet::label).collect();
    let mut described: Vec<String> = sets
        .iter()
        .zip(&labels)
        .take(LISTED)
        .map(|(set, label)| {
            // A label that several models share would only lead to the same question again.
            let shared = labels.iter().filter(|other| *other == label).count() > 1;
            let label = if shared { set.files[0].path() } else { label };
            let size_bytes = set.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size_bytes()));
            format!("{label} ({})", bytes_text(size_bytes))
        })
        .collect();
    if sets.len() > LISTED {
        described.push(format!("and {} more", sets.len() - LISTED));
    }
    described
}

fn whole_model<F: Choice>(all: &[F]) -> Result<Vec<F>, Unclear> {
    let weights: Vec<&F> = all.iter().filter(|file| is_root_with(file.path(), ".safetensors")).collect();
    let has_config = all.iter().any(|file| file.path() == "config.json");
    if weights.is_empty() || !has_config {
        let has_gguf = gguf_sets(all).iter().any(|set| !set.is_side_file());
        return if has_gguf {
            gguf(&Selection::Model, all).map(|set| set.files)
        } else {
            Err(not_a_model(all, has_config))
        };
    }
    // Some repositories hold the weights twice, as their makers' own `consolidated*` and in the common layout.
    let has_common = weights.iter().any(|file| file.path().starts_with("model"));
    let is_weight = |path: &str| {
        is_root_with(path, ".safetensors") && !(has_common && path.starts_with("consolidated"))
            || is_root_with(path, ".safetensors.index.json")
    };
    Ok(all.iter().filter(|file| is_weight(file.path()) || is_companion(file.path())).cloned().collect())
}

fn is_root_with(path: &str, suffix: &str) -> bool {
    !path.contains('/') && path.len() > suffix.len() && path.ends_with(suffix)
}

fn is_companion(path: &str) -> bool {
    const NAMES: [&str; 7] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.model",
        "README.md",
    ];
    let is_text = ["LICENSE", "NOTICE"].iter().any(|name| {
        path.strip_prefix(name).is_some_and(|rest| matches!(rest, "" | ".md" | ".txt") || rest.starts_with('-'))
    });
    !path.contains('/') && (NAMES.contains(&path) || path.starts_with("chat_template.") || is_text)
}

fn not_a_model<F: Choice>(all: &[F], has_config: bool) -> Unclear {
    let has_pickles = all.iter().any(|file| [".bin", ".pth", ".pt"].iter().any(|end| file.path().ends_with(end)));
    let why = if !has_config {
        "it has no config.json and no GGUF file, so it is not a model that fathom can run"
    } else if has_pickles {
        "its weights are only in a pickle format (.bin, .pth), which can run code and is not read; look for a safetensors or GGUF version"
    } else {
        "it has no safetensors and no GGUF files"
    };
    let mut available: Vec<String> = all.iter().take(20).map(|file| file.path().to_string()).collect();
    if all.len() > 20 {
        available.push(format!("and {} more files", all.len() - 20));
    }
    Unclear { why: why.to_string(), available, ambiguous: false }
}

/// `STEM-00001-of-00003` to (`STEM`, 3).
fn split_suffix(stem: &str) -> Option<(&str, usize)> {
    let (head, total) = stem.rsplit_once("-of-")?;
    let (head, number) = head.rsplit_once('-')?;
    let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    if !five_digits(total) || !five_digits(number) {
        return None;
    }
    let (number, total): (usize, usize) = (number.parse().ok()?, total.parse().ok()?);
    (1..=total).contains(&number).then_some((head, total))
}

/// The quantisation in a name, in upper case: the last part between `-` and `.` that looks like one.
fn quant_of(stem: &str) -> Option<String> {
    let name = stem.rsplit('/').next().unwrap_or(stem);
    let parts: Vec<&str> = name.split(['-', '.']).collect();
    let at = parts.iter().rposition(|part| looks_like_quant(part))?;
    let tag = parts[at].to_ascii_uppercase();
    // "UD" marks a recipe that differs from the plain quantisation of the same name.
    if at > 0 && parts[at - 1].eq_ignore_ascii_case("UD") { Some(format!("UD-{tag}")) } else { Some(tag) }
}

fn looks_like_quant(part: &str) -> bool {
    let part = part.to_ascii_uppercase();
    if matches!(part.as_str(), "F32" | "F16" | "FP16" | "BF16" | "FP8") || part.starts_with("MXFP4") {
        return true;
    }
    let digits = ["IQ", "TQ", "Q"].iter().find_map(|head| part.strip_prefix(head));
    digits.is_some_and(|rest| {
        let mut bytes = rest.bytes();
        bytes.next().is_some_and(|b| (b'1'..=b'8').contains(&b)) && matches!(bytes.next(), None | Some(b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct File(&'static str);

    impl Choice for File {
        fn path(&self) -> &str {
            self.0
        }

        fn size_bytes(&self) -> u64 {
            4_660_000_000
        }
    }

    fn chosen(reference: &str, files: &[&'static str]) -> Result<Vec<&'static str>, String> {
        let files: Vec<File> = files.iter().copied().map(File).collect();
        let selected = select(&Reference::parse(reference).unwrap(), &files);
        selected.map(|files| files.into_iter().map(|file| file.0).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn quantisations_in_names() {
        let cases = [
            ("Llama-3.2-1B-Instruct-Q4_K_M", Some("Q4_K_M")),
            ("model.q8_0", Some("Q8_0")),
            ("dir/R1-UD-IQ1_S", Some("UD-IQ1_S")),
            ("gpt-oss-20b-MXFP4", Some("MXFP4")),
            ("Qwen3-8B-BF16", Some("BF16")),
            ("x-Q2", Some("Q2")),
            ("Qwen2.5-7B", None),
            ("Q-Align-7B", None),
            ("model", None),
        ];
        for (stem, quant) in cases {
            assert_eq!(quant_of(stem).as_deref(), quant, "{stem}");
        }
    }

    #[test]
    fn a_model_directory() {
        let files = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "chat_template.jinja",
            "config.json",
            "consolidated.safetensors",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "pytorch_model.bin",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "x/extra.safetensors",
            "modeling.py",
        ];
        let expected = [
            "LICENSE",
            "README.md",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(chosen("a/b", &files).unwrap(), expected);
    }

    #[test]
    fn a_quantisation() {
        let files = [
            "README.md",
            "b-Q4_K_M.gguf",
            "b-Q4_K_S.gguf",
            "b-Q8_0.gguf",
            "b-UD-Q4_K_M.gguf",
            "mmproj-Q8_0.gguf",
            "BF16/b-BF16-00001-of-00002.gguf",
            "BF16/b-BF16-00002-of-00002.gguf",
        ];
        assert_eq!(chosen("a/b:q4_k_m", &files).unwrap(), ["b-Q4_K_M.gguf"]);
        assert_eq!(chosen("a/b:UD-Q4_K_M", &files).unwrap(), ["b-UD-Q4_K_M.gguf"]);
        assert_eq!(chosen("a/b:Q8_0", &files).unwrap(), ["b-Q8_0.gguf"]);
        assert_eq!(chosen("a/b:mmproj-Q8_0.gguf", &files).unwrap(), ["mmproj-Q8_0.gguf"]);
        assert_eq!(chosen("a/b:bf16", &files).unwrap(), &files[6..]);
        assert_eq!(chosen("a/b:BF16/b-BF16-00002-of-00002.gguf", &files).unwrap(), &files[6..], "split sets whole");
        for reference in ["a/b:Q5_K_M", "a/b:Q4", "a/b:none.gguf", "a/b"] {
            let error = chosen(reference, &files).unwrap_err();
            assert!(error.contains("Q4_K_S (4.66 GB)") && error.contains("BF16 (9.32 GB)"), "{error}");
        }
    }

    #[test]
    fn unclear_selections() {
        let twice = ["x/b-Q8_0.gguf", "y/b-Q8_0.gguf"];
        let error = chosen("a/b:Q8_0", &twice).unwrap_err();
        assert!(error.contains("x/b-Q8_0.gguf") && error.contains("y/b-Q8_0.gguf"), "{error}");
        let error = chosen("a/b:Q8_0", &["b-Q8_0-00001-of-00003.gguf", "b-Q8_0-00003-of-00003.gguf"]).unwrap_err();
        assert!(error.contains("2 of its 3 files"), "{error}");
        assert_eq!(chosen("a/b", &["b.gguf", "mmproj-f16.gguf"]).unwrap(), ["b.gguf"], "one model needs no choice");
        assert!(chosen("a/b", &["config.json", "pytorch_model.bin"]).unwrap_err().contains("pickle"));
        assert!(chosen("a/b", &["README.md"]).unwrap_err().contains("config.json"));
        assert!(chosen("a/b", &[]).unwrap_err().contains("nothing"));
    }
}
