//! The names that GGUF has for pre-tokenizers, by the patterns of `tokenizer.json`.
//!
//! Patterns are compared as text: characters beyond ASCII and line ends as escapes, whatever way the
//! file writes them. A pattern that is not here has no name in GGUF that would be true.

use serde_json::Value as Json;

const GPT2: &[&str] = &[r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"];
const LLAMA3: &[&str] = &[concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)];
const QWEN2: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const QWEN35: &[&str] = &[concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)",
    r"|\s+",
)];
/// Characters of East Asian writing, as the patterns of DeepSeek's first models have them.
const EAST_ASIAN: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
const DEEPSEEK_LLM: &[&str] = &[
    r"[\r\n]",
    // White space and letters with case.
    concat!(
        r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-",
        r"\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-",
        r"\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-",
        r"\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}",
        r"\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-",
        r"\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}",
        r"\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-",
        r"\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}",
        r"\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}",
        r"\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}",
        r"\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-",
        r"\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}",
        r"\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}",
        r"\x{1E900}-\x{1E943}]+",
    ),
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
    r"\s+$",
    EAST_ASIAN,
    r"\p{N}+",
];
const DEEPSEEK_CODER: &[&str] = &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN, r"\p{N}"];
const DEEPSEEK_V3: &[&str] = &[
    r"\p{N}{1,3}",
    r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
        r##"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
    ),
];
const TEKKEN: &[&str] = &[concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)];
const GPT4O: &[&str] = &[concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s",
    r"|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{",
    r"M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)];
const KIMI_K2: &[&str] = &[concat!(
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M",
    r"}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[",
    r"^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t",
    r"|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)];

/// A pre-tokenizer that GGUF has a name for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreTokenizer {
    /// `tokenizer.ggml.pre`.
    pub(super) name: &'static str,
    patterns: &'static [&'static str],
    /// Whether readers leave pieces that are tokens unmerged.
    pub(super) ignore_merges: bool,
}

const fn known(name: &'static str, patterns: &'static [&'static str], ignore_merges: bool) -> PreTokenizer {
    PreTokenizer { name, patterns, ignore_merges }
}

const KNOWN: &[PreTokenizer] = &[
    known("gpt-2", GPT2, false),
    known("llama-bpe", LLAMA3, true),
    known("smaug-bpe", LLAMA3, false),
    known("qwen2", QWEN2, false),
    known("qwen35", QWEN35, false),
    known("deepseek-llm", DEEPSEEK_LLM, false),
    known("deepseek-coder", DEEPSEEK_CODER, false),
    known("deepseek-v3", DEEPSEEK_V3, false),
    known("tekken", TEKKEN, true),
    known("gpt-4o", GPT4O, false),
    known("kimi-k2", KIMI_K2, false),
];

/// The name of a tokenizer's `pre_tokenizer`; of two with the same patterns, the one that treats
/// whole tokens alike. An error says what is not known.
pub(super) fn pre_tokenizer(component: &Json, ignore_merges: bool) -> Result<PreTokenizer, String> {
    let found = patterns(component)?;
    let mut fitting = KNOWN.iter().filter(|known| {
        known.patterns.len() == found.len() && known.patterns.iter().zip(&found).all(|(a, b)| same(a, b))
    });
    let first = fitting.clone().next();
    let exact = fitting.find(|known| known.ignore_merges == ignore_merges);
    exact.or(first).copied().ok_or_else(|| {
        let shown: Vec<String> = found.iter().map(|pattern| pattern.chars().take(60).collect()).collect();
        format!("GGUF has no name for the pre-tokenizer {shown:?}")
    })
}

/// DeepSeek's first tokenizers split numbers into digits, which GGUF's name for them does not say.
fn same(known: &str, found: &str) -> bool {
    known == found || (known == r"\p{N}+" && found == r"\p{N}")
}

/// The patterns at which the steps of a pre-tokenizer split, in canonical form.
fn patterns(component: &Json) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for step in super::tokenizer::sequence(component, "pretokenizers") {
        let pattern = &step["pattern"];
        match step["type"].as_str() {
            Some("Split") if step["behavior"] == "Isolated" && step["invert"] != true => {
                match pattern["Regex"].as_str() {
                    Some(regex) => out.push(canonical(regex)),
                    None => return Err("the pre-tokenizer splits at a fixed text, which GGUF cannot say".into()),
                }
            }
            // GPT-4o's published form: the pieces are what the pattern finds, and it finds everything.
            Some("Split") if step["behavior"] == "Removed" && step["invert"] == true => {
                out.extend(pattern["Regex"].as_str().map(canonical));
            }
            Some("Digits") => {
                out.push(if step["individual_digits"] == true { r"\p{N}" } else { r"\p{N}+" }.to_string())
            }
            Some("ByteLevel") if step["add_prefix_space"] == true => {
                return Err("the pre-tokenizer puts a space before the text, which GGUF cannot say here".into());
            }
            Some("ByteLevel") if step["use_regex"] != false => out.push(GPT2[0].to_string()),
            Some("ByteLevel") => {}
            other => return Err(format!("the pre-tokenizer {} has no name in GGUF", other.unwrap_or("of no type"))),
        }
    }
    Ok(out)
}

/// The pattern in ASCII.
fn canonical(pattern: &str) -> String {
    let mut out = String::new();
    for c in pattern.chars() {
        match c {
            '\r' => out.push_str(r"\r"),
            '\n' => out.push_str(r"\n"),
            c if c.is_ascii() => out.push(c),
            c => out.push_str(&format!(r"\x{{{:X}}}", c as u32)),
        }
    }
    // Three ways of writing the same.
    out.replace(r"\x{3040}-\x{309F}\x{30A0}-\x{30FF}", r"\x{3040}-\x{30FF}")
        .replace(r"'(?i:[sdmt]|ll|ve|re)", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)")
}
