//! Models whose files do not fit together: every fault is a typed error that names the file, the
//! tensor or key, what was found and what was wanted. Nothing panics.

use std::collections::BTreeMap;
use std::path::Path;

use model::checkpoint::{GgufWriter, Value as Meta};
use model::load::Model;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

/// A Hugging Face directory in memory.
#[derive(Clone)]
struct Files {
    config: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Files {
    /// A fixture, to be damaged.
    fn of(fixture: &str) -> Files {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
        let config = serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap();
        let bytes = std::fs::read(directory.join("model.safetensors")).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let own = |view: &TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        let tensors = parsed.tensors().iter().map(|(name, view)| (name.clone(), own(view))).collect();
        Files { config, tensors }
    }

    fn with(mut self, change: impl FnOnce(&mut Files)) -> Files {
        change(&mut self);
        self
    }

    fn remove(&mut self, name: &str) {
        self.tensors.remove(name).unwrap_or_else(|| panic!("no tensor {name}"));
    }

    /// A tensor of zeros.
    fn put(&mut self, name: &str, dtype: Dtype, shape: &[usize]) {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        self.tensors.insert(name.to_string(), (dtype, shape.to_vec(), vec![0; bytes]));
    }

    /// The same tensor with another shape.
    fn reshape(&mut self, name: &str, shape: &[usize]) {
        let dtype = self.tensors[name].0;
        self.put(name, dtype, shape);
    }

    fn rename(&mut self, change: impl Fn(&str) -> String) {
        self.tensors = std::mem::take(&mut self.tensors).into_iter().map(|(name, t)| (change(&name), t)).collect();
    }

    fn open(&self) -> Result<Model, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), self.config.to_string()).unwrap();
        let views: BTreeMap<&str, TensorView> = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()))
            .collect();
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
        Model::open(directory.path()).map_err(|error| error.to_string())
    }
}

/// The model is refused, and the message says all of `wanted`.
#[track_caller]
fn refused(result: Result<Model, String>, wanted: &[&str]) {
    match result {
        Ok(_) => panic!("accepted; wanted an error with {wanted:?}"),
        Err(message) => assert!(wanted.iter().all(|w| message.contains(w)), "{message}\nlacks one of {wanted:?}"),
    }
}

const FILE: &str = "model.safetensors";

#[test]
fn missing_and_superfluous_tensors() {
    let v3 = || Files::of("models/deepseek-v3");
    let all: Vec<String> = v3().tensors.keys().cloned().collect();
    // Any one tensor missing is named.
    for name in &all {
        refused(v3().with(|f| f.remove(name)).open(), &[name, "missing"]);
    }
    let norm = "model.layers.1.self_attn.kv_a_layernorm.weight";
    refused(v3().with(|f| f.remove(norm)).open(), &[FILE, norm, "KvNorm", "layer 1"]);
    let expert = "model.layers.1.mlp.experts.3.up_proj.weight";
    refused(v3().with(|f| f.remove(expert)).open(), &[expert, "layer 1, expert 3"]);
    let extra = "model.layers.0.self_attn.extra.weight";
    refused(v3().with(|f| f.put(extra, Dtype::BF16, &[4])).open(), &[FILE, extra, "1 tensor"]);
    // A layer and an expert more than the configuration says.
    refused(v3().with(|f| f.config["num_hidden_layers"] = json!(1)).open(), &[FILE, "model.layers.1."]);
    let more = "model.layers.1.mlp.experts.99.up_proj.weight";
    refused(v3().with(|f| f.put(more, Dtype::BF16, &[4, 4])).open(), &[FILE, more]);
    // Biases that the configuration does not have, and the other way round.
    let bias = "model.layers.0.self_attn.q_proj.bias";
    refused(Files::of("models/llama-tied").with(|f| f.put(bias, Dtype::BF16, &[96])).open(), &[bias]);
    let biased = Files::of("models/llama-tied").with(|f| f.config["attention_bias"] = json!(true));
    refused(biased.open(), &[bias, "missing"]);
}

#[test]
fn what_carries_nothing_is_passed_over() {
    let tied = || Files::of("models/llama-tied");
    let shape = tied().tensors["model.embed_tokens.weight"].1.clone();
    assert!(tied().with(|f| f.put("lm_head.weight", Dtype::BF16, &shape)).open().unwrap().weights.head.is_none());
    tied().with(|f| f.put("model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::F32, &[12])).open().unwrap();
    refused(
        tied().with(|f| f.config["tie_word_embeddings"] = json!(false)).open(),
        &["lm_head.weight", "missing", "Head"],
    );
    // Image models nest the language model, in either of two ways, beside their other parts.
    for prefix in ["language_model.model.", "model.language_model."] {
        let nested = Files::of("models/gemma3").with(|f| {
            f.rename(|name| name.replace("model.", prefix));
            f.put("vision_tower.vision_model.embeddings.patch_embedding.weight", Dtype::BF16, &[4, 3, 2, 2]);
            f.put("multi_modal_projector.mm_soft_emb_norm.weight", Dtype::BF16, &[4]);
            let mut text = f.config.clone();
            text.as_object_mut().unwrap().remove("architectures");
            f.config = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
                "text_config": text, "vision_config": {"hidden_size": 4}});
        });
        nested.open().unwrap();
        let broken = nested.with(|f| f.remove(&format!("{prefix}norm.weight")));
        refused(broken.open(), &[&format!("{prefix}norm.weight"), "missing"]);
    }
}

#[test]
fn shapes_and_types() {
    let llama = || Files::of("models/llama-tied");
    let (norm, query) = ("model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight");
    for shape in [&[96usize, 63][..], &[64, 96], &[96 * 64], &[96, 64, 1], &[], &[0, 64], &[96, 0]] {
        refused(llama().with(|f| f.reshape(query, shape)).open(), &[FILE, query, &format!("{shape:?}"), "[96, 64]"]);
    }
    for shape in [&[63usize][..], &[64, 1], &[1, 64], &[], &[0]] {
        refused(llama().with(|f| f.reshape(norm, shape)).open(), &[FILE, norm, &format!("{shape:?}"), "[64]"]);
    }
    for (dtype, name) in [
        (Dtype::I32, "i32"),
        (Dtype::U8, "u8"),
        (Dtype::I64, "i64"),
        (Dtype::BOOL, "bool"),
        (Dtype::F8_E5M2, "f8_e5m2"),
        (Dtype::F8_E4M3, "f8_e4m3"),
    ] {
        refused(llama().with(|f| f.put(norm, dtype, &[64])).open(), &[FILE, norm, name]);
        let wanted: &[&str] = if dtype == Dtype::F8_E4M3 { &[FILE, query, "scale"] } else { &[FILE, query, name] };
        refused(llama().with(|f| f.put(query, dtype, &[96, 64])).open(), wanted);
    }
    // Every tensor with one column less.
    for (name, (_, shape, _)) in Files::of("models/deepseek-v32").tensors {
        let mut wrong = shape.clone();
        *wrong.last_mut().unwrap() -= 1;
        let result = Files::of("models/deepseek-v32").with(|f| f.reshape(&name, &wrong)).open();
        refused(result, &[FILE, &name, &format!("{wrong:?}"), &format!("{shape:?}")]);
    }
    // Values that are no numbers are still a model; who computes with them finds out.
    let nan = llama().with(|f| f.tensors.values_mut().for_each(|t| t.2.fill(0xff)));
    assert!(nan.open().unwrap().weights.final_norm.iter().all(|v| v.is_nan()));
}

#[test]
fn quantised_models() {
    let fp8 = || Files::of("models/deepseek-v3-fp8");
    fp8().open().unwrap();
    let weight = "model.layers.0.mlp.gate_proj.weight";
    let scales = "model.layers.0.mlp.gate_proj.weight_scale_inv";
    refused(fp8().with(|f| f.remove(scales)).open(), &[FILE, scales, "missing", weight]);
    for shape in [&[2usize, 3][..], &[3, 3], &[6], &[], &[0, 2], &[320, 256]] {
        refused(fp8().with(|f| f.reshape(scales, shape)).open(), &[FILE, scales, &format!("{shape:?}"), "[3, 2]"]);
    }
    refused(fp8().with(|f| f.put(scales, Dtype::I32, &[3, 2])).open(), &[FILE, scales, "i32"]);
    let orphan = "model.layers.0.input_layernorm.weight_scale_inv";
    refused(fp8().with(|f| f.put(orphan, Dtype::F32, &[1])).open(), &[FILE, orphan]);
    // Another block than the scales were made for, and blocks that are none.
    let block = |size: Value| fp8().with(|f| f.config["quantization_config"]["weight_block_size"] = size).open();
    refused(block(json!([64, 64])), &[FILE, "weight_scale_inv", "expected"]);
    for size in [
        json!([128, 64]),
        json!([0, 0]),
        json!([-1, -1]),
        json!([1u64 << 40, 1u64 << 40]),
        json!(128),
        json!(null),
        json!([]),
    ] {
        refused(block(size), &["config.json", "quantization_config.weight_block_size"]);
    }
    for method in
        [json!("awq"), json!("gptq"), json!("compressed-tensors"), json!("bitsandbytes"), json!(null), json!(8)]
    {
        let result = fp8().with(|f| f.config["quantization_config"]["quant_method"] = method.clone()).open();
        refused(result, &["config.json", "quantization_config.quant_method", &method.to_string().replace("null", "")]);
    }
    for settings in [json!("awq"), json!([1]), json!({})] {
        refused(
            fp8().with(|f| f.config["quantization_config"] = settings).open(),
            &["config.json", "quant_method", "absent"],
        );
    }
}

#[test]
fn stacked_experts() {
    let oss = || Files::of("models/gpt-oss");
    let (up, bias) = ("model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.gate_up_proj_bias");
    for shape in [&[7usize, 64, 128][..], &[8, 128, 64], &[8, 64, 127], &[8 * 64, 128], &[0, 64, 128], &[]] {
        refused(oss().with(|f| f.reshape(up, shape)).open(), &[FILE, up, &format!("{shape:?}"), "[8, 64, 128]"]);
    }
    for shape in [&[7usize, 128][..], &[8, 127], &[8], &[]] {
        refused(oss().with(|f| f.reshape(bias, shape)).open(), &[FILE, bias, &format!("{shape:?}"), "[8, 128]"]);
    }
    refused(oss().with(|f| f.put(up, Dtype::F8_E4M3, &[8, 64, 128])).open(), &[FILE, up, "f8_e4m3"]);
    refused(oss().with(|f| f.put(bias, Dtype::U8, &[8, 128])).open(), &[FILE, bias, "u8"]);
    refused(oss().with(|f| f.config["num_local_experts"] = json!(4)).open(), &[FILE, "[8, "]);
    let mx = || Files::of("variants/gptoss-mxfp4");
    mx().open().unwrap();
    let (blocks, scales) =
        ("model.layers.0.mlp.experts.down_proj_blocks", "model.layers.0.mlp.experts.down_proj_scales");
    for shape in [&[5usize, 96, 2, 8][..], &[4, 96, 2, 16], &[5, 96, 32], &[]] {
        refused(
            mx().with(|f| f.reshape(blocks, shape)).open(),
            &[FILE, blocks, &format!("{shape:?}"), "[5, 96, 2, 16]"],
        );
    }
    for shape in [&[5usize, 96, 3][..], &[5, 192], &[]] {
        refused(mx().with(|f| f.reshape(scales, shape)).open(), &[FILE, scales, &format!("{shape:?}"), "[5, 96, 2]"]);
    }
    refused(mx().with(|f| f.put(scales, Dtype::I8, &[5, 96, 2])).open(), &[FILE, scales, "i8", "u8"]);
    for name in [blocks, scales] {
        refused(mx().with(|f| f.remove(name)).open(), &[FILE, name, "missing"]);
    }
}

#[test]
fn multi_token_prediction_is_whole_or_absent() {
    let mtp = || Files::of("variants/v3-mtp");
    let own = |name: &str| name.starts_with("model.layers.3.");
    let copies = ["model.layers.3.embed_tokens.weight", "model.layers.3.shared_head.head.weight"];
    let names: Vec<String> = mtp().tensors.into_keys().filter(|name| own(name)).collect();
    assert_eq!(mtp().open().unwrap().weights.mtp.len(), 1);
    for name in &names {
        let result = mtp().with(|f| f.remove(name)).open();
        if copies.contains(&name.as_str()) {
            result.unwrap(); // copies of the embedding and the head
        } else {
            refused(result, &[FILE, name, "missing", "multi-token prediction module 0"]);
        }
    }
    let without = mtp().with(|f| f.tensors.retain(|name, _| !own(name))).open().unwrap();
    assert!(without.spec.mtp.is_empty() && without.weights.mtp.is_empty());
    assert!(without.notices.iter().any(|n| n.contains("multi-token prediction")), "{:?}", without.notices);
    refused(mtp().with(|f| f.config["num_nextn_predict_layers"] = json!(0)).open(), &[FILE, "model.layers.3."]);
    refused(mtp().with(|f| f.config["num_nextn_predict_layers"] = json!(2)).open(), &["model.layers.4.", "missing"]);
}

/// A GGUF file in memory; its tensors are zeros.
#[derive(Clone, Default)]
struct Gguf {
    metadata: BTreeMap<String, Meta>,
    tensors: BTreeMap<String, (Vec<usize>, model::checkpoint::Dtype)>,
}

impl Gguf {
    fn new(arch: &str, keys: &[(&str, Meta)]) -> Gguf {
        let mut gguf = Gguf::default();
        gguf.metadata.insert("general.architecture".into(), arch.into());
        for (key, value) in keys {
            gguf.metadata.insert(format!("{arch}.{key}"), value.clone());
        }
        gguf
    }

    fn put(&mut self, name: &str, shape: &[usize]) {
        self.tensors.insert(name.to_string(), (shape.to_vec(), kernels::format::Format::F32.into()));
    }

    fn set(&mut self, key: &str, value: impl Into<Meta>) {
        assert!(self.metadata.insert(key.to_string(), value.into()).is_some(), "{key}");
    }

    fn add(&mut self, key: &str, value: impl Into<Meta>) {
        assert!(self.metadata.insert(key.to_string(), value.into()).is_none(), "{key}");
    }

    fn drop_key(&mut self, key: &str) {
        self.metadata.remove(key).unwrap_or_else(|| panic!("no key {key}"));
    }

    fn drop_tensor(&mut self, name: &str) {
        self.tensors.remove(name).unwrap_or_else(|| panic!("no tensor {name}"));
    }

    fn with(mut self, change: impl FnOnce(&mut Gguf)) -> Gguf {
        change(&mut self);
        self
    }

    fn open(&self) -> Result<Model, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tiny.gguf");
        let mut writer = GgufWriter::new();
        for (key, value) in &self.metadata {
            writer.metadata(key, value.clone()).unwrap();
        }
        for (name, (shape, dtype)) in &self.tensors {
            writer.tensor(name, shape, *dtype).unwrap();
        }
        let mut sink = writer.start(&path).unwrap();
        for (name, (shape, dtype)) in &self.tensors {
            let data = vec![0; dtype.tensor_bytes(shape).unwrap()];
            if !data.is_empty() {
                sink.append(name, &data).unwrap(); // the writer is done with empty tensors by itself
            }
        }
        sink.finish().unwrap();
        Model::open(&path).map_err(|error| error.to_string())
    }
}

/// A DeepSeek model of two layers, one of them with experts.
fn deepseek2() -> Gguf {
    let u = |n: u32| Meta::from(n);
    let keys = [
        ("block_count", u(2)),
        ("embedding_length", u(32)),
        ("feed_forward_length", u(48)),
        ("context_length", u(64)),
        ("attention.head_count", u(2)),
        ("attention.layer_norm_rms_epsilon", Meta::from(1e-6f32)),
        ("attention.q_lora_rank", u(20)),
        ("attention.kv_lora_rank", u(16)),
        ("attention.key_length", u(20)),
        ("attention.value_length", u(16)),
        ("attention.key_length_mla", u(12)),
        ("attention.value_length_mla", u(6)),
        ("rope.dimension_count", u(4)),
        ("leading_dense_block_count", u(1)),
        ("expert_count", u(4)),
        ("expert_used_count", u(2)),
        ("expert_shared_count", u(1)),
        ("expert_feed_forward_length", u(8)),
        ("expert_gating_func", u(2)),
        ("expert_group_count", u(2)),
        ("expert_group_used_count", u(1)),
    ];
    Gguf::new("deepseek2", &keys).with(|f| {
        f.put("token_embd.weight", &[50, 32]);
        f.put("output_norm.weight", &[32]);
        f.put("output.weight", &[50, 32]);
        for l in 0..2 {
            for (name, shape) in [
                ("attn_norm", &[32usize][..]),
                ("ffn_norm", &[32]),
                ("attn_q_a", &[20, 32]),
                ("attn_q_a_norm", &[20]),
                ("attn_q_b", &[24, 20]),
                ("attn_kv_a_mqa", &[20, 32]),
                ("attn_kv_a_norm", &[16]),
                ("attn_k_b", &[2, 16, 8]),
                ("attn_v_b", &[2, 6, 16]),
                ("attn_output", &[32, 12]),
            ] {
                f.put(&format!("blk.{l}.{name}.weight"), shape);
            }
        }
        for (name, shape) in [("ffn_gate", &[48usize, 32][..]), ("ffn_up", &[48, 32]), ("ffn_down", &[32, 48])] {
            f.put(&format!("blk.0.{name}.weight"), shape);
        }
        for (name, shape) in [
            ("ffn_gate_inp.weight", &[4usize, 32][..]),
            ("exp_probs_b.bias", &[4]),
            ("ffn_gate_exps.weight", &[4, 8, 32]),
            ("ffn_up_exps.weight", &[4, 8, 32]),
            ("ffn_down_exps.weight", &[4, 32, 8]),
            ("ffn_gate_shexp.weight", &[8, 32]),
            ("ffn_up_shexp.weight", &[8, 32]),
            ("ffn_down_shexp.weight", &[32, 8]),
        ] {
            f.put(&format!("blk.1.{name}"), shape);
        }
    })
}

/// A Qwen2 model of one layer; `fused`: queries, keys and values in one tensor.
fn qwen2(fused: bool) -> Gguf {
    let u = |n: u32| Meta::from(n);
    let keys = [
        ("block_count", u(1)),
        ("embedding_length", u(32)),
        ("feed_forward_length", u(48)),
        ("context_length", u(64)),
        ("attention.head_count", u(4)),
        ("attention.head_count_kv", u(2)),
        ("attention.layer_norm_rms_epsilon", Meta::from(1e-6f32)),
    ];
    Gguf::new("qwen2", &keys).with(|f| {
        f.put("token_embd.weight", &[50, 32]);
        f.put("output_norm.weight", &[32]);
        for (name, shape) in [
            ("attn_norm.weight", &[32usize][..]),
            ("ffn_norm.weight", &[32]),
            ("attn_output.weight", &[32, 32]),
            ("ffn_gate.weight", &[48, 32]),
            ("ffn_up.weight", &[48, 32]),
            ("ffn_down.weight", &[32, 48]),
        ] {
            f.put(&format!("blk.0.{name}"), shape);
        }
        let parts: &[(&str, usize)] = if fused { &[("qkv", 64)] } else { &[("q", 32), ("k", 16), ("v", 16)] };
        for (part, rows) in parts {
            f.put(&format!("blk.0.attn_{part}.weight"), &[*rows, 32]);
            f.put(&format!("blk.0.attn_{part}.bias"), &[*rows]);
        }
    })
}

const GGUF: &str = "tiny.gguf";

#[test]
fn gguf_keys() {
    deepseek2().open().unwrap();
    assert!(qwen2(true).open().unwrap().spec == qwen2(false).open().unwrap().spec);
    // Keys that have no default.
    for key in [
        "general.architecture",
        "deepseek2.block_count",
        "deepseek2.embedding_length",
        "deepseek2.feed_forward_length",
        "deepseek2.attention.head_count",
        "deepseek2.attention.layer_norm_rms_epsilon",
        "deepseek2.attention.kv_lora_rank",
        "deepseek2.attention.value_length_mla",
        "deepseek2.rope.dimension_count",
        "deepseek2.expert_count",
        "deepseek2.expert_used_count",
        "deepseek2.expert_feed_forward_length",
    ] {
        refused(deepseek2().with(|f| f.drop_key(key)).open(), &[GGUF, key]);
    }
    refused(deepseek2().with(|f| f.set("general.architecture", "mamba")).open(), &[GGUF, "mamba", "deepseek2"]);
    // Any key of a wrong type or an absurd value: refused by name, or the tensors disagree.
    let numbers: Vec<String> = deepseek2().metadata.into_keys().filter(|key| key.starts_with("deepseek2")).collect();
    // The sizes of the cached latent, which the sizes of the heads make superfluous.
    let unread = ["deepseek2.attention.key_length", "deepseek2.attention.value_length"];
    for key in numbers.iter().filter(|key| !unread.contains(&key.as_str())) {
        for text in ["", "many"] {
            refused(deepseek2().with(|f| f.set(key, text)).open(), &[GGUF, key]);
        }
        refused(deepseek2().with(|f| f.set(key, true)).open(), &[GGUF, key]);
        refused(deepseek2().with(|f| f.set(key, &["list"][..])).open(), &[GGUF, key]);
        for value in [0u32, 1, 2, 3, 5, 255, 4096, 4097, 65_537, 1 << 24, (1 << 24) + 1, u32::MAX] {
            if let Err(message) = deepseek2().with(|f| f.set(key, value)).open() {
                assert!(message.contains(GGUF) && message.len() < 500, "{key} = {value}: {message}");
            }
        }
        for value in [-1.0f32, 0.0, f32::NAN, f32::INFINITY] {
            refused(deepseek2().with(|f| f.set(key, value)).open(), &[GGUF]);
        }
    }
}

#[test]
fn gguf_numbers_that_would_make_no_numbers() {
    for (key, values) in [
        ("deepseek2.rope.freq_base", &[0.0f32, -1.0, 1.0, f32::NAN, f32::INFINITY][..]),
        ("deepseek2.expert_weights_scale", &[f32::NAN, f32::INFINITY]),
        ("deepseek2.final_logit_softcapping", &[f32::NAN, -1.0]),
        ("fathom.latent_norm_epsilon", &[0.0, -1.0, f32::NAN]),
    ] {
        for &value in values {
            refused(deepseek2().with(|f| f.add(key, value)).open(), &[GGUF]);
        }
    }
    let yarn = |key: &str, value: f32| {
        deepseek2().with(|f| {
            f.add("deepseek2.rope.scaling.type", "yarn");
            f.add("deepseek2.rope.scaling.factor", 4.0f32);
            f.metadata.insert(key.to_string(), value.into());
        })
    };
    yarn("deepseek2.rope.scaling.factor", 8.0).open().unwrap();
    for (key, values) in [
        ("deepseek2.rope.scaling.factor", &[0.0f32, -1.0, f32::NAN, f32::INFINITY, 1e-38][..]),
        ("deepseek2.rope.scaling.attn_factor", &[0.0, -1.0, f32::NAN]),
        ("deepseek2.rope.scaling.yarn_log_multiplier", &[f32::NAN, f32::INFINITY]),
        ("deepseek2.rope.scaling.yarn_beta_fast", &[0.0, -1.0, f32::NAN]),
        ("deepseek2.rope.scaling.yarn_beta_slow", &[0.0, -1.0, f32::NAN]),
    ] {
        for &value in values {
            refused(yarn(key, value).open(), &[GGUF]);
        }
    }
    let kind = deepseek2().with(|f| f.add("deepseek2.rope.scaling.type", "longrope"));
    refused(kind.open(), &[GGUF, "deepseek2.rope.scaling.type", "longrope"]);
}

#[test]
fn gguf_tensors() {
    // Any tensor missing, or of another shape, is named.
    let special = ["blk.1.exp_probs_b.bias", "output.weight"]; // their absence is a statement
    for (name, (shape, _)) in deepseek2().tensors {
        if !special.contains(&name.as_str()) {
            // A layer without a router is a dense one, which this is not.
            let wanted = name.replace("ffn_gate_inp", "ffn_gate");
            refused(deepseek2().with(|f| f.drop_tensor(&name)).open(), &[GGUF, &wanted, "missing"]);
        }
        let mut shapes = vec![shape.iter().map(|n| n + 1).collect::<Vec<_>>(), shape.iter().rev().copied().collect()];
        shapes.push(shape.iter().skip(1).copied().collect());
        shapes.extend(
            (0..shape.len()).map(|i| shape.iter().enumerate().map(|(j, n)| if i == j { 0 } else { *n }).collect()),
        );
        for wrong in shapes {
            if wrong != shape {
                refused(deepseek2().with(|f| f.put(&name, &wrong)).open(), &[GGUF, &name]);
            }
        }
    }
    let extra = deepseek2().with(|f| f.put("blk.0.extra.weight", &[3]));
    refused(extra.open(), &[GGUF, "blk.0.extra.weight"]);
    // Experts that are more or fewer than the metadata says.
    for n in [1u32, 2, 3, 5, 8] {
        let result = deepseek2().with(|f| {
            f.set("deepseek2.expert_count", n);
            f.set("deepseek2.expert_used_count", 1u32);
            f.set("deepseek2.expert_group_count", 1u32);
        });
        refused(result.open(), &[GGUF, "blk.1.ffn_gate_inp.weight", "[4, 32]", &format!("[{n}, 32]")]);
    }
    // The latent's up projection with as many rows, otherwise divided.
    for (k, v) in [
        ([4usize, 16, 4], [4usize, 3, 16]),
        ([1, 16, 16], [1, 12, 16]),
        ([2, 16, 6], [2, 8, 16]),
        ([7, 16, 1], [7, 1, 16]),
    ] {
        let result = deepseek2().with(|f| {
            f.put("blk.0.attn_k_b.weight", &k);
            f.put("blk.0.attn_v_b.weight", &v);
        });
        refused(result.open(), &[GGUF, "blk.0.attn_k_b.weight", &format!("{k:?}"), "[2, 16, 8]"]);
    }
    let huge = deepseek2().with(|f| f.put("blk.0.attn_k_b.weight", &[1 << 40, 1 << 20, 0]));
    refused(huge.open(), &[GGUF, "blk.0.attn_k_b.weight", "[2, 16, 8]"]);
}

#[test]
fn gguf_fused_projections_and_divisors() {
    for rows in [0usize, 1, 63, 65, 128] {
        let weight = qwen2(true).with(|f| f.put("blk.0.attn_qkv.weight", &[rows, 32]));
        refused(weight.open(), &[GGUF, "blk.0.attn_qkv.weight", &format!("[{rows}, 32]"), "[64, 32]"]);
        let bias = qwen2(true).with(|f| f.put("blk.0.attn_qkv.bias", &[rows]));
        refused(bias.open(), &[GGUF, "blk.0.attn_qkv.bias", &format!("[{rows}]"), "[64]"]);
    }
    for shape in [&[][..], &[64], &[64, 32, 1], &[32, 64]] {
        refused(qwen2(true).with(|f| f.put("blk.0.attn_qkv.weight", shape)).open(), &[GGUF, "blk.0.attn_qkv.weight"]);
    }
    // Head counts that the tensors do not have.
    for (heads, kv) in [(2u32, 2u32), (4, 4), (4, 1), (8, 2), (4, 3)] {
        let result = qwen2(false).with(|f| {
            f.set("qwen2.attention.head_count", heads);
            f.set("qwen2.attention.head_count_kv", kv);
        });
        refused(result.open(), &[GGUF]);
    }
    // Rotary divisors: half of a head, above zero (here all are zero).
    for length in [0usize, 1, 3, 5, 1 << 20] {
        let divisors = qwen2(false).with(|f| f.put("rope_freqs.weight", &[length]));
        refused(divisors.open(), &[GGUF, "rope_freqs.weight", &length.to_string(), "4"]);
    }
    refused(qwen2(false).with(|f| f.put("rope_freqs.weight", &[4])).open(), &[GGUF, "divisor", "0"]);
    let integers = qwen2(false)
        .with(|f| drop(f.tensors.insert("rope_freqs.weight".into(), (vec![4], model::checkpoint::Dtype::I32))));
    refused(integers.open(), &[GGUF, "rope_freqs.weight"]);
}
