//! Published models: the description of each configuration is the one beside it, and it counts the
//! parameters that were published.
//!
//! The configurations hold the keys of the published files, those that do not matter included: every
//! one must be understood or known to be harmless. Run with `UPDATE_EXPECT=1` to rewrite descriptions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::families::read_config;
use model::spec::{Attention, ModelSpec, RopeScaling};
use serde_json::{Value, json};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/configs")
}

/// Every published configuration by name.
fn configs() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let configs: BTreeMap<String, Value> = files
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    assert!(configs.len() >= 26, "{} configurations", configs.len());
    configs
}

fn config(name: &str) -> Value {
    configs().remove(name).unwrap_or_else(|| panic!("no configuration {name}"))
}

fn spec(config: &Value) -> ModelSpec {
    read_config(config).unwrap_or_else(|error| panic!("{error}")).0
}

/// What a change of a configuration makes of the description; the change is `key`s set to `value`s.
fn with(base: &Value, changes: &[(&str, Value)]) -> Result<ModelSpec, String> {
    let mut config = base.clone();
    for (key, value) in changes {
        match value {
            Value::String(s) if s == "(absent)" => drop(config.as_object_mut().unwrap().remove(*key)),
            _ => config[*key] = value.clone(),
        }
    }
    read_config(&config).map(|(spec, _)| spec).map_err(|error| error.to_string())
}

fn absent() -> Value {
    json!("(absent)")
}

#[test]
fn descriptions_of_published_models() {
    let mut failures = Vec::new();
    for (name, config) in configs() {
        let text = match read_config(&config) {
            Ok((spec, _)) => spec.describe(),
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let file = directory().join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if text != expected {
            failures.push(format!("{name}: the description is\n{text}but {} says\n{expected}", file.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Name; all parameters and those active for a token, in billions, as published or counted by others
/// from the published weights; whether the active ones count the embedding; cache elements a token.
const PUBLISHED: &[(&str, f64, f64, bool, usize)] = &[
    ("deepseek-v2-lite", 15.706, 2.451, false, 15_552),
    ("deepseek-v2", 235.74, 20.85, false, 34_560),
    ("deepseek-v3", 671.03, 36.63, false, 35_136),
    ("deepseek-v3.2-exp", 671.88, 37.48, false, 61 * (576 + 128)),
    ("kimi-k2", 1026.41, 32.86, true, 35_136),
    ("gigachat3-10b-a1.8b", 10.67, 1.83, true, 26 * 576),
    ("r1-distill-qwen-1.5b", 1.777, 1.777, true, 28 * 2 * 2 * 128),
    ("r1-distill-qwen-7b", 7.616, 7.616, true, 28 * 2 * 4 * 128),
    ("r1-distill-qwen-32b", 32.764, 32.764, true, 64 * 2 * 8 * 128),
    ("r1-distill-llama-8b", 8.030, 8.030, true, 32 * 2 * 8 * 128),
    ("qwen2.5-7b", 7.616, 7.616, true, 28 * 2 * 4 * 128),
    ("qwen3-0.6b", 0.596, 0.596, false, 28 * 2 * 8 * 128),
    ("qwen3-30b-a3b", 30.53, 3.35, true, 48 * 2 * 4 * 128),
    ("llama-2-7b", 6.738, 6.738, true, 32 * 2 * 32 * 128),
    ("llama-3.1-8b", 8.030, 8.030, true, 32 * 2 * 8 * 128),
    ("llama-3.2-1b", 1.236, 1.236, false, 16 * 2 * 8 * 64),
    ("mistral-7b-v0.1", 7.242, 7.242, true, 32 * 2 * 8 * 128),
    ("mistral-7b-v0.3", 7.248, 7.248, true, 32 * 2 * 8 * 128),
    ("mistral-nemo-12b", 12.248, 12.248, true, 40 * 2 * 8 * 128),
    ("magistral-small-2506", 23.572, 23.572, true, 40 * 2 * 8 * 128),
    ("mixtral-8x7b", 46.70, 12.88, true, 32 * 2 * 8 * 128),
    ("gemma-3-1b", 0.99989, 0.99989, false, 26 * 2 * 256),
    ("gemma-3-4b", 3.880, 3.880, false, 34 * 2 * 4 * 256),
    ("gemma-3-27b", 27.009, 27.009, false, 62 * 2 * 16 * 128),
    ("gpt-oss-20b", 20.91, 3.61, false, 24 * 2 * 8 * 64),
    ("gpt-oss-120b", 116.83, 5.13, false, 36 * 2 * 8 * 64),
];

#[test]
fn parameters_are_those_published() {
    let mut failures = Vec::new();
    let configs = configs();
    for (name, config) in &configs {
        let Some(&(_, total, active, embedding, cache)) = PUBLISHED.iter().find(|p| p.0 == name) else {
            failures.push(format!("{name}: no published figures"));
            continue;
        };
        let spec = spec(config);
        let counts = spec.counts();
        let lookup = if embedding { (spec.vocab * spec.hidden) as u64 } else { 0 };
        // Half a unit of the last digit that was published, and what rounding it to f64 adds.
        let near = |count: u64, billions: f64| {
            let digits = format!("{billions}").split_once('.').map_or(0, |(_, d)| d.len());
            (count as f64 / 1e9 - billions).abs() <= 0.505 * 10f64.powi(-(digits.max(2) as i32))
        };
        if !near(counts.total, total) || !near(counts.active + lookup, active) || spec.cache_elements() != cache {
            let (all, used) = (counts.total as f64 / 1e9, (counts.active + lookup) as f64 / 1e9);
            failures.push(format!("{name}: {all:.4} {used:.4} {}", spec.cache_elements()));
        }
        // The list and the counts agree.
        let listed: u64 = spec.parameters().iter().map(|p| p.elements()).sum();
        assert_eq!(listed, counts.total + counts.mtp, "{name}");
    }
    assert!(PUBLISHED.iter().all(|p| configs.contains_key(p.0)));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn exact_counts_where_they_are_known() {
    // Elements of the published weight files.
    for (name, total) in [
        ("deepseek-v2-lite", 15_706_484_224),
        ("r1-distill-qwen-1.5b", 1_777_088_000),
        ("r1-distill-qwen-7b", 7_615_616_512),
        ("r1-distill-llama-8b", 8_030_261_248),
        ("llama-2-7b", 6_738_415_616),
        ("llama-3.2-1b", 1_235_814_400),
        ("mistral-7b-v0.1", 7_241_732_096),
        ("mixtral-8x7b", 46_702_792_704),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("gemma-3-1b", 999_885_952),
    ] {
        assert_eq!(spec(&config(name)).counts().total, total, "{name}");
    }
}
