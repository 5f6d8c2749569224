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

/// A plain configuration of a family, small.
fn llama() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 64, "vocab_size": 100, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 96,
    })
}

fn gqa(spec: &ModelSpec, layer: usize) -> &model::spec::GqaSpec {
    match &spec.blocks[layer].attention {
        Attention::Gqa(gqa) => gqa,
        Attention::Mla(_) => panic!("latent attention"),
    }
}

fn mla(spec: &ModelSpec) -> &model::spec::MlaSpec {
    match &spec.blocks[0].attention {
        Attention::Mla(mla) => mla,
        Attention::Gqa(_) => panic!("grouped attention"),
    }
}

#[test]
fn absent_and_null_keys_mean_what_the_reference_makes_of_them() {
    let llama = llama();
    let plain = with(&llama, &[]).unwrap();
    assert_eq!((gqa(&plain, 0).kv_heads, gqa(&plain, 0).rope.base, plain.context), (4, 10_000.0, 2048));
    assert_eq!((plain.final_norm_eps, plain.head.tied), (1e-6, false));
    let kind = |model_type: &str, changes: &[(&str, Value)]| {
        let mut all =
            vec![("model_type", json!(model_type)), ("num_attention_heads", json!(32)), ("head_dim", json!(2))];
        all.extend(changes.iter().cloned());
        with(&llama, &all)
    };
    // Key heads where the key is absent, and where it is null.
    for (model_type, heads) in
        [("llama", 32), ("mistral", 8), ("mixtral", 8), ("qwen2", 32), ("qwen3", 32), ("qwen3_moe", 4)]
    {
        let moe = ("moe_intermediate_size", json!(8));
        let changes = if model_type == "qwen3_moe" { vec![moe] } else { vec![] };
        assert_eq!(gqa(&kind(model_type, &changes).unwrap(), 0).kv_heads, heads, "{model_type}");
        let null = [changes, vec![("num_key_value_heads", json!(null))]].concat();
        assert_eq!(gqa(&kind(model_type, &null).unwrap(), 0).kv_heads, 32, "{model_type}");
    }
    // Mistral slides unless told not to; Mixtral the other way round.
    assert_eq!(gqa(&kind("mistral", &[]).unwrap(), 0).window, Some(4096));
    assert_eq!(gqa(&kind("mistral", &[("sliding_window", json!(null))]).unwrap(), 0).window, None);
    assert_eq!(gqa(&kind("mixtral", &[]).unwrap(), 0).window, None);
    assert_eq!(gqa(&kind("mixtral", &[]).unwrap(), 0).rope.base, 1e6);
    // Qwen2 needs the switch, and then slides from a layer on.
    let sliding = [("sliding_window", json!(16)), ("max_window_layers", json!(2))];
    assert_eq!(gqa(&kind("qwen2", &sliding).unwrap(), 2).window, None);
    let on = kind("qwen2", &[sliding.to_vec(), vec![("use_sliding_window", json!(true))]].concat()).unwrap();
    assert_eq!((gqa(&on, 1).window, gqa(&on, 2).window), (None, Some(16)));
    assert!(gqa(&on, 0).qkv_bias && !gqa(&on, 0).output_bias);
    // Gemma ties unless told not to.
    let gemma = config("gemma-3-1b");
    assert!(spec(&gemma).head.tied);
    assert!(!with(&gemma, &[("tie_word_embeddings", json!(false))]).unwrap().head.tied);
    let mut nested = config("gemma-3-4b");
    nested["tie_word_embeddings"] = json!(false);
    assert!(!spec(&nested).head.tied);
    assert_eq!(nested["text_config"].get("vocab_size"), None);
    assert_eq!(spec(&nested).vocab, 262_208);
    // gpt-oss stretches its context unless told how.
    let oss = config("gpt-oss-20b");
    let without =
        with(&oss, &[("rope_scaling", absent()), ("layer_types", absent()), ("rope_theta", absent())]).unwrap();
    assert_eq!(without.blocks, spec(&oss).blocks);
    let rounded = json!({"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096});
    let rounded = with(&oss, &[("rope_scaling", rounded)]).unwrap();
    assert!(matches!(gqa(&rounded, 0).rope.scaling, RopeScaling::Yarn { truncate: true, .. }));
    // DeepSeek's latents have norms of their own epsilon.
    let v3 = with(&config("deepseek-v3"), &[("rms_norm_eps", json!(1e-5)), ("rope_interleave", json!(false))]).unwrap();
    assert_eq!((v3.blocks[0].norm_eps, mla(&v3).latent_norm_eps), (1e-5, 1e-6));
    assert_ne!(mla(&v3).rope.layout, mla(&spec(&config("deepseek-v3"))).rope.layout);
}

#[test]
fn both_styles_of_rotary_settings_say_the_same() {
    let base = llama();
    let old = |scaling: Value| with(&base, &[("rope_theta", json!(5e5)), ("rope_scaling", scaling)]);
    let new = |mut parameters: Value| {
        parameters["rope_theta"] = json!(5e5);
        with(&base, &[("rope_parameters", parameters)])
    };
    let whole = json!({"rope_type": "yarn", "factor": 4, "attention_factor": 1.5, "beta_fast": 16, "beta_slow": 2,
        "truncate": false});
    for scaling in [
        whole,
        json!({"rope_type": "default"}),
        json!({"rope_type": "linear", "factor": 4}),
        json!({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 512}),
        json!({"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 512}),
        json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}),
    ] {
        let (old, new) = (old(scaling.clone()).unwrap(), new(scaling.clone()).unwrap());
        assert_eq!(old, new, "{scaling}");
        assert_eq!(gqa(&old, 0).rope.base, 5e5);
        let mut older = scaling.clone();
        older["type"] = older.as_object_mut().unwrap().remove("rope_type").unwrap();
        assert_eq!(with(&base, &[("rope_theta", json!(5e5)), ("rope_scaling", older)]).unwrap(), old, "{scaling}");
    }
    // Parts of the new style: a base without a type, a type without a base, nothing.
    assert_eq!(gqa(&with(&base, &[("rope_parameters", json!({"rope_theta": 7.5}))]).unwrap(), 0).rope.base, 7.5);
    let typed =
        with(&base, &[("rope_parameters", json!({"rope_type": "default"})), ("rope_theta", json!(9.0))]).unwrap();
    assert_eq!(gqa(&typed, 0).rope.base, 9.0);
    assert_eq!(with(&base, &[("rope_parameters", json!({}))]).unwrap(), with(&base, &[]).unwrap());
    // The old style replaces the new.
    let both = [
        ("rope_parameters", json!({"rope_type": "linear", "factor": 2})),
        ("rope_scaling", json!({"type": "linear", "factor": 3})),
    ];
    assert_eq!(gqa(&with(&base, &both).unwrap(), 0).rope.scaling, RopeScaling::Linear { factor: 3.0 });
    // Where YaRN has no factor it is the context's; the top level's original context counts first.
    let yarn = json!({"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 512});
    let own = with(&base, &[("rope_scaling", yarn), ("original_max_position_embeddings", json!(1024))]).unwrap();
    assert!(matches!(gqa(&own, 0).rope.scaling, RopeScaling::Yarn { factor: 2.0, original: 1024.0, .. }));
}

#[test]
fn magnitudes_of_yarn_follow_the_reference() {
    let v3 = config("deepseek-v3");
    let yarn = |changes: Value| {
        let mut scaling = v3["rope_scaling"].clone();
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::String(_) => drop(scaling.as_object_mut().unwrap().remove(key)),
                _ => scaling[key] = value.clone(),
            }
        }
        let spec = with(&v3, &[("rope_scaling", scaling)]).unwrap();
        let mla = mla(&spec).clone();
        let RopeScaling::Yarn { magnitude, .. } = mla.rope.scaling else { panic!() };
        (magnitude, mla.scale * 192f32.sqrt())
    };
    let g = |m: f32| 0.1 * m * 40f32.ln() + 1.0;
    let close = |(a, b): (f32, f32), (c, d): (f32, f32)| {
        assert!((a - c).abs() < 1e-5 && (b - d).abs() < 1e-5, "{a} {b}, {c} {d}")
    };
    close(yarn(json!({})), (1.0, g(1.0) * g(1.0)));
    close(yarn(json!({"mscale": 0.707})), (g(0.707) / g(1.0), g(1.0) * g(1.0)));
    close(yarn(json!({"mscale_all_dim": "absent"})), (g(1.0), 1.0));
    close(yarn(json!({"mscale_all_dim": 0.0})), (g(1.0), 1.0));
    close(yarn(json!({"mscale": "absent"})), (g(1.0), g(1.0) * g(1.0)));
    close(yarn(json!({"attention_factor": 0.5})), (0.5, g(1.0) * g(1.0)));
}

#[test]
fn what_would_change_the_model_is_refused_by_name_and_value() {
    let v3 = config("deepseek-v3");
    let v2 = config("deepseek-v2");
    let v32 = config("deepseek-v3.2-exp");
    let gemma = config("gemma-3-1b");
    let oss = config("gpt-oss-20b");
    let moe = config("qwen3-30b-a3b");
    let cases: Vec<(&Value, &str, Value, &[&str])> = vec![
        (&v3, "clip_qkv", json!(8.0), &["clip_qkv = 8.0"]),
        (&v3, "mystery", json!([1, 2]), &["mystery = [1,2]"]),
        (&v3, "use_mrope", json!(true), &["use_mrope = true"]),
        (&v3, "is_encoder_decoder", json!(true), &["is_encoder_decoder = true"]),
        (&v3, "pruned_heads", json!({"0": [1]}), &["pruned_heads"]),
        (&v3, "sliding_window", json!(16), &["sliding_window = 16"]),
        (&v3, "num_local_experts_per_tok", json!(2), &["num_local_experts_per_tok"]),
        (&v3, "model_type", json!("gpt2"), &["model_type", "gpt2", "deepseek_v3"]),
        (&v3, "architectures", json!(["DeepseekV3Model"]), &["architectures", "DeepseekV3Model"]),
        (&v3, "moe_layer_freq", json!(2), &["moe_layer_freq", "2"]),
        (&v3, "scoring_func", json!("softmax"), &["scoring_func", "softmax"]),
        (&v3, "topk_method", json!("greedy"), &["topk_method", "greedy"]),
        (&v3, "n_group", json!(null), &["n_group"]),
        (&v3, "n_group", json!(7), &["7 groups", "256"]),
        (&v3, "n_group", json!(256), &["256 groups"]),
        (&v3, "topk_group", json!(9), &["9"]),
        (&v3, "num_experts_per_tok", json!(257), &["257", "256 experts"]),
        (&v3, "num_key_value_heads", json!(8), &["num_key_value_heads", "8", "128"]),
        (&v3, "qk_rope_head_dim", json!(63), &["63", "even"]),
        (&v3, "qk_nope_head_dim", json!(0), &["qk_nope_head_dim", "0"]),
        (&v3, "num_hidden_layers", json!(4_000_000_000u64), &["num_hidden_layers", "4000000000"]),
        (&v3, "num_hidden_layers", json!(5000), &["num_hidden_layers", "5000", "4096"]),
        (&v3, "num_nextn_predict_layers", json!(17), &["num_nextn_predict_layers", "17"]),
        (&v3, "hidden_act", json!("relu"), &["hidden_act", "relu"]),
        (&v3, "partial_rotary_factor", json!(0.5), &["partial_rotary_factor", "0.5"]),
        (&v3, "rope_scaling", json!({"type": "longrope", "factor": 4}), &["rope_scaling.type", "longrope"]),
        (&v3, "rope_scaling", json!({"rope_type": "dynamic", "factor": 4}), &["rope_scaling.rope_type", "dynamic"]),
        (&v3, "rope_scaling", json!({"factor": 4}), &["rope_scaling.factor"]),
        (&v3, "rope_scaling", json!({"type": "yarn"}), &["rope_scaling.factor is missing"]),
        (
            &v3,
            "rope_scaling",
            json!({"type": "linear", "factor": 4, "long_factor": [1]}),
            &["rope_scaling.long_factor"],
        ),
        (
            &v3,
            "rope_scaling",
            json!({"type": "linear", "rope_type": "yarn", "factor": 4}),
            &["rope_scaling.type", "linear"],
        ),
        (&v3, "rope_theta", json!(0), &["rope_theta", "0"]),
        (&v3, "rope_theta", json!(1), &["base", "1"]),
        (&v3, "vocab_size", absent(), &["vocab_size is missing"]),
        (&v3, "hidden_size", json!("7168"), &["hidden_size", "\"7168\"", "whole number"]),
        (&v3, "hidden_size", json!(1u64 << 63), &["hidden_size", "9223372036854775808"]),
        (&v3, "hidden_size", json!(-1), &["hidden_size", "-1"]),
        (&v3, "n_routed_experts", json!(1 << 20), &["experts"]),
        (&v3, "moe_intermediate_size", json!(1 << 24), &["parameters"]),
        (&v3, "rms_norm_eps", json!(0), &["rms_norm_eps", "0"]),
        (&v2, "norm_topk_prob", json!(true), &["norm_topk_prob", "true"]),
        (&v2, "topk_method", json!("noaux_tc"), &["topk_method", "noaux_tc"]),
        (&v2, "index_topk", json!(4), &["index_topk"]),
        (&v32, "index_head_dim", json!(32), &["index_head_dim", "32", "64"]),
        (&v32, "q_lora_rank", json!(null), &["q_lora_rank"]),
        (&gemma, "use_bidirectional_attention", json!(true), &["use_bidirectional_attention"]),
        (&gemma, "attn_logit_softcapping", json!(50.0), &["attn_logit_softcapping", "50.0"]),
        (&gemma, "final_logit_softcapping", json!(0), &["final_logit_softcapping", "0"]),
        (&gemma, "sliding_window", json!(null), &["sliding_window is missing"]),
        (&gemma, "num_key_value_heads", json!(3), &["3", "4 query heads"]),
        (&gemma, "head_dim", json!(255), &["255", "even"]),
        (&gemma, "head_dim", json!(8192), &["head", "8192", "4096"]),
        (&gemma, "layer_types", json!(["full_attention"]), &["layer_types", "26"]),
        (&oss, "experts_per_token", json!(2), &["experts_per_token", "2", "4"]),
        (&oss, "hidden_act", json!("gelu"), &["hidden_act", "gelu"]),
        (&moe, "layer_types", json!(vec!["sliding_attention"; 48]), &["layer_types"]),
        (&moe, "mlp_only_layers", json!([-1]), &["mlp_only_layers"]),
        (&moe, "mlp_only_layers", json!(vec![1; 1_000_000]), &["mlp_only_layers", "1000000", "48"]),
        (&moe, "num_local_experts", json!(4), &["num_local_experts", "4", "128"]),
        (&moe, "shared_expert_intermediate_size", json!(64), &["shared_expert_intermediate_size = 64"]),
    ];
    for (base, key, value, wanted) in cases {
        match with(base, &[(key, value.clone())]) {
            Ok(_) => panic!("{key} = {value} was accepted"),
            Err(message) => {
                assert!(wanted.iter().all(|w| message.contains(w)), "{key} = {value}: {message}");
            }
        }
    }
    let mut nested = config("gemma-3-4b");
    nested["mystery"] = json!(1);
    assert!(with(&nested, &[]).unwrap_err().contains("mystery = 1"));
    for other in [json!([]), json!("text"), json!(3), json!(null)] {
        assert!(with(&other, &[]).unwrap_err().contains("an object"), "{other}");
    }
}

/// `docs/NOTATION.md` names every part, with the names of its tensors in every table of the code.
#[test]
fn the_notation_is_complete() {
    use model::families::{COMMON_NAMES, FAMILIES, Source, gguf};
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = std::fs::read_to_string(root.join("docs/NOTATION.md")).unwrap();
    let parameters = std::fs::read_to_string(root.join("crates/model/src/parameters.rs")).unwrap();
    let (_, variants) = parameters.split_once("pub enum Part {").unwrap();
    let variants = variants.split_once("\n}").unwrap().0.lines().map(str::trim);
    let variants: Vec<&str> = variants.filter(|l| !l.starts_with("//")).filter_map(|l| l.strip_suffix(',')).collect();
    assert!(variants.len() >= 50, "{variants:?}");
    // The rows of a part: those whose fourth column is its name.
    let rows = |part: &str| -> Vec<Vec<&str>> {
        let cells = document.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        cells.filter(|c| c.get(4) == Some(&format!("`{part}`").as_str())).collect()
    };
    for part in &variants {
        let rows = rows(part);
        assert!(!rows.is_empty(), "{part} is not in the notation");
        for row in rows {
            assert!(
                row.len() == 10 && row[2..].iter().enumerate().all(|(i, c)| i == 1 || i == 7 || !c.is_empty()),
                "{row:?}"
            );
        }
    }
    let named = |part: &str, column: usize, name: &str| {
        let short = match name.split_once("{l}.") {
            Some((_, rest)) => rest.replace("{e}", "E"),
            None => format!("/{name}"),
        };
        let found = rows(part).iter().any(|row| row[column].contains(&format!("`{short}`")));
        assert!(found, "{part}: `{short}` is not in the notation");
    };
    let families = FAMILIES.iter().flat_map(|family| family.names);
    for (part, source) in COMMON_NAMES.iter().chain(families) {
        named(&format!("{part:?}"), 6, source.name());
    }
    for (part, source) in gguf::NAMES {
        named(&format!("{part:?}"), 7, source.name());
        if let Source::KvUpSplit(_, values) = source {
            named(&format!("{part:?}"), 7, values);
        }
    }
    for size in ["hidden_size", "kv_lora_rank", "index_topk", "num_nextn_predict_layers"] {
        assert!(document.contains(&format!("`{size}`")), "{size}");
    }
}

/// 190 small configurations, and what the reference makes of them (`reference/spec_cases.py`).
#[test]
fn small_configurations_are_read_as_the_reference_reads_them() {
    let text = std::fs::read_to_string(directory().join("../spec_cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let (mut failures, mut refused) = (Vec::new(), 0);
    for case in &cases {
        let (config, model) = (&case["config"], &case["model"]);
        let spec = match (read_config(config), model.is_null()) {
            (Ok((spec, _)), false) => spec,
            (Err(error), false) => {
                // Settings of Gemma that its reference passes over.
                if config["model_type"] != "gemma3_text"
                    || !["rope_", "original_max_"].iter().any(|key| error.to_string().contains(key))
                {
                    failures.push(format!("{config}: {error}"));
                } else {
                    refused += 1;
                }
                continue;
            }
            // What the reference refuses has no right answer.
            (_, true) => continue,
        };
        if let Err(difference) = compare(&spec, model) {
            failures.push(format!("{config}: {difference}"));
        }
    }
    assert!(cases.len() >= 180 && refused == 7, "{} cases, {refused} refused", cases.len());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn compare(spec: &ModelSpec, model: &Value) -> Result<(), String> {
    let near = |ours: f32, theirs: &Value| {
        let theirs = theirs.as_f64().unwrap();
        ((ours as f64 - theirs) / theirs.abs().max(1e-9)).abs() < 2e-6
    };
    let same = |what: &str, ours: bool, detail: String| if ours { Ok(()) } else { Err(format!("{what}: {detail}")) };
    let total = spec.counts().total;
    same("parameters", Some(total) == model["parameters"].as_u64(), format!("{total}, not {}", model["parameters"]))?;
    same("context", Some(spec.context as u64) == model["context"].as_u64(), spec.context.to_string())?;
    same("epsilon", near(spec.final_norm_eps, &model["eps"]), spec.final_norm_eps.to_string())?;
    let layers = model["layers"].as_array().unwrap();
    same("layers", layers.len() == spec.blocks.len(), spec.blocks.len().to_string())?;
    for (l, (block, kind)) in spec.blocks.iter().zip(layers).enumerate() {
        let kind = &model["kinds"][kind.as_u64().unwrap() as usize];
        let (rope, scale, window, kv_heads) = match &block.attention {
            Attention::Mla(mla) => (&mla.rope, mla.scale, None, None),
            Attention::Gqa(gqa) => (&gqa.rope, gqa.scale, gqa.window, Some(gqa.kv_heads)),
        };
        let (frequencies, theirs) = (rope.frequencies(), kind["frequencies"].as_array().unwrap());
        let equal = frequencies.len() == theirs.len() && frequencies.iter().zip(theirs).all(|(f, t)| near(*f, t));
        same("frequencies", equal, format!("layer {l}: {frequencies:?}, not {theirs:?}"))?;
        same("magnitude", near(rope.magnitude(), &kind["magnitude"]), format!("layer {l}: {}", rope.magnitude()))?;
        same("scale", near(scale, &kind["scale"]), format!("layer {l}: {scale}, not {}", kind["scale"]))?;
        same("window", window.map(|w| w as u64) == kind["window"].as_u64(), format!("layer {l}: {window:?}"))?;
        same("key heads", kv_heads.map(|n| n as u64) == kind["kv_heads"].as_u64(), format!("layer {l}: {kv_heads:?}"))?;
        let experts = matches!(block.ffn, model::spec::Ffn::Moe(_));
        same("experts", Some(experts) == kind["experts"].as_bool(), format!("layer {l}: {experts}"))?;
    }
    Ok(())
}
