//! Configurations that are wrong: every key of every published configuration absent, null, of the
//! wrong type, zero, negative, fractional, huge. Each is read or refused by a typed error that says
//! where, within 10 ms and with little allocated; what is read can be counted, listed and described
//! without a panic, and its rotary frequencies are numbers.
//!
//! One test function, alone in its process: the allocation counter is the process's.

use std::alloc::System;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use model::config::SpecError;
use model::families::read_config;
use model::spec::ModelSpec;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TIME_LIMIT: Duration = Duration::from_millis(10);
/// Of reading: 4,096 layers' descriptions are the most.
const READ_LIMIT_BYTES: usize = 4 << 20;
/// Of listing parameters: some 100 bytes for each of at most 65,536 experts' three matrices.
const LIST_LIMIT_BYTES: usize = 64 << 20;

/// Values that a key may be set to, whatever it is for.
fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(7),
        json!(-1),
        json!(0.5),
        json!(1.5),
        json!(-0.25),
        json!(1e-40),
        json!(1e39),
        json!(1e300),
        json!(4096),
        json!(65_535),
        json!(1 << 24),
        json!((1 << 24) + 1),
        json!(4_000_000_000u64),
        json!(i64::MAX),
        json!(1u64 << 63),
        json!(u64::MAX),
        json!(NONSENSE),
        json!(""),
        json!("default"),
        json!("9".repeat(5000)),
        json!([]),
        json!([NONSENSE]),
        json!([1, -1]),
        json!([[1]]),
        json!({}),
        json!({"factor": 4}),
        json!({"rope_type": NONSENSE, "factor": 4}),
        json!({"rope_type": "yarn", "factor": null}),
        json!({"rope_type": "yarn", "factor": 1e-30, "mscale": -30.0, "mscale_all_dim": 30.0}),
        json!({"rope_type": "yarn", "factor": 4, "beta_fast": -1, "beta_slow": -1}),
        json!({"rope_type": "llama3", "factor": 4, "low_freq_factor": 1, "high_freq_factor": 1}),
        json!({"rope_type": "linear", "factor": 0}),
        json!({"rope_type": "default", "rope_theta": 1}),
        json!({"rope_type": "default", "rope_theta": -5}),
        json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
        json!({"full_attention": {}, "sliding_attention": []}),
        json!({"quant_method": "awq"}),
    ]
}

const NONSENSE: &str = "nonsense";

/// What may be set to anything: it says nothing about the mathematics, or is looked at when the
/// weights are loaded. A key that is missing here and accepts nonsense is one that nobody reads.
const FREE: &[&str] = &[
    "_name_or_path",
    "attention_dropout",
    "auto_map",
    "aux_loss_alpha",
    "boi_token_index",
    "bos_token_id",
    "cache_implementation",
    "eoi_token_index",
    "eos_token_id",
    "ep_size",
    "image_token_index",
    "initial_context_length",
    "initializer_range",
    "mm_tokens_per_image",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "quantization_config",
    "router_aux_loss_coef",
    "seq_aux",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "vision_config",
    // Beside `text_config`, which has one of its own.
    "model_type",
];

/// The paths of all keys of an object and of the objects in it.
fn paths(value: &Value, prefix: &str, out: &mut Vec<String>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{prefix}/{key}");
        if !FREE.contains(&key.as_str()) {
            paths(inner, &path, out);
        }
        out.push(path);
    }
}

/// The configuration with the key at `path` set, or removed.
fn changed(config: &Value, path: &str, value: Option<&Value>) -> Value {
    let mut config = config.clone();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => drop(parent.insert(key.to_string(), value.clone())),
        None => drop(parent.remove(key)),
    }
    config
}

/// Reads under the limits. A case that was too slow is tried again: on a busy machine the process may
/// just not have been running.
fn read(config: &Value, case: &dyn Fn() -> String) -> Result<ModelSpec, SpecError> {
    for attempt in 0.. {
        let region = Region::new(ALLOCATOR);
        let start = Instant::now();
        let result = read_config(config).map(|(spec, _)| spec);
        let elapsed = start.elapsed();
        let held = region.change().bytes_allocated;
        assert!(held <= 4 * READ_LIMIT_BYTES, "{}: {held} bytes allocated", case());
        if elapsed <= TIME_LIMIT || (result.is_ok() && elapsed <= 10 * TIME_LIMIT) {
            return result;
        }
        assert!(attempt < 20, "{}: {elapsed:?}", case());
    }
    unreachable!()
}

/// Whatever can be asked of a description without its weights.
fn use_up(spec: &ModelSpec, listed: &mut HashSet<(u64, u64, u64)>, case: &dyn Fn() -> String) {
    let region = Region::new(ALLOCATOR);
    let counts = spec.counts();
    let text = spec.describe();
    assert!(!text.is_empty() && spec.cache_elements() > 0);
    for rope in spec.blocks.iter().take(8).flat_map(|block| block.ropes()) {
        let frequencies = rope.frequencies();
        assert_eq!(frequencies.len(), rope.dim / 2);
        assert!(frequencies.iter().all(|f| f.is_finite() && *f >= 0.0), "{}: {frequencies:?}", case());
        assert!(rope.magnitude().is_finite());
    }
    let described = region.change().bytes_allocated;
    // Listing takes a while for a large model: once for each count.
    if !listed.insert((counts.total, counts.active, counts.mtp)) {
        return;
    }
    let parameters = spec.parameters();
    assert!(region.change().bytes_allocated <= LIST_LIMIT_BYTES + described, "{}", case());
    let sum: u128 = parameters.iter().map(|p| p.shape.iter().map(|&n| n as u128).product::<u128>()).sum();
    assert_eq!(sum, (counts.total + counts.mtp) as u128, "{}", case());
}

#[test]
fn every_key_of_every_published_configuration_at_every_value() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/configs");
    let (values, mut read_count, mut refused) = (values(), 0, 0);
    let (mut free, mut listed) = (BTreeSet::new(), HashSet::new());
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let mut all = Vec::new();
        paths(&config, "", &mut all);
        for path in &all {
            let key = path.rsplit_once('/').unwrap().1;
            for value in std::iter::once(None).chain(values.iter().map(Some)) {
                let case = || format!("{name}{path} = {value:?}");
                match read(&changed(&config, path, value), &case) {
                    Ok(spec) => {
                        read_count += 1;
                        if value == Some(&json!(NONSENSE)) {
                            free.insert(key.to_string());
                        }
                        use_up(&spec, &mut listed, &case);
                    }
                    Err(error) => {
                        refused += 1;
                        let message = error.to_string();
                        assert!((10..1000).contains(&message.len()), "{}: {message}", case());
                        let mistyped = |v: &Value| v == NONSENSE || v == "" || v.is_array();
                        if value.is_some_and(mistyped) {
                            assert!(message.contains(key), "{}: {message}", case());
                        }
                    }
                }
            }
        }
    }
    let expected: BTreeSet<String> = FREE.iter().map(|key| key.to_string()).collect();
    assert_eq!(free, expected, "keys that take any value");
    assert!(read_count > 10_000 && refused > 10_000, "{read_count} read, {refused} refused");
}
