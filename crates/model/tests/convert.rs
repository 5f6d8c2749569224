//! Converted models are the same models: every fixture goes to GGUF in every format and back.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use common::{Session, all_models, difference, expected};
use kernels::format::Format;
use kernels::pool::Pool;
use kernels::quant::{dequantize_row, quantize_row};
use model::checkpoint::{Checkpoint, Dtype, GgufWriter, Kind};
use model::convert::{ConvertError, Options, RECIPES, Recipe, Summary, convert};
use model::load::Model;
use model::spec::{Attention, Ffn};
use safetensors::tensor::{Dtype as StDtype, TensorView};
use tempfile::TempDir;

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn to(recipe: &str) -> Options {
    Options { recipe: Recipe::parse(recipe).unwrap(), without_tokenizer: false }
}

fn converted(source: &Path, out: &Path, options: &Options) -> Result<Summary, ConvertError> {
    convert(&Checkpoint::open(source).unwrap(), out, options, &mut |_| {})
}

fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let pool = Pool::new(1);
    Session::new(model, &pool, tokens.len()).push(tokens)
}

/// The mean over rows of the Kullback-Leibler divergence of `q` from `p`, both logits.
fn divergence(p: &[f32], q: &[f32], vocab: usize) -> f64 {
    let log_softmax = |row: &[f32]| {
        let max = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
        let sum: f64 = row.iter().map(|&v| (f64::from(v) - max).exp()).sum();
        row.iter().map(|&v| f64::from(v) - max - sum.ln()).collect::<Vec<f64>>()
    };
    let rows = p.chunks(vocab).zip(q.chunks(vocab)).map(|(p, q)| {
        let (p, q) = (log_softmax(p), log_softmax(q));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    });
    rows.sum::<f64>() / (p.len() / vocab) as f64
}

/// Every tensor of a GGUF file as floats.
fn tensors(path: &Path) -> HashMap<String, (Format, Vec<f32>)> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let floats = |tensor: &model::checkpoint::Tensor| {
        let format = tensor.dtype.format().unwrap();
        let mut out = vec![0.0; tensor.shape.iter().product()];
        dequantize_row(format, &tensor.data, &mut out);
        (tensor.name.clone(), (format, out))
    };
    checkpoint.tensors.iter().map(floats).collect()
}

/// The same arithmetic over the same weights: all that differs is the order of sums where rows were
/// brought into pairs, and where latent keys are multiplied from the other side.
#[test]
fn in_f32_every_fixture_is_the_same_model() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first.gguf"), directory.path().join("second.gguf"));
    for path in all_models() {
        let name = name(&path);
        converted(&path, &first, &to("f32")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (source, model) = (Model::open(&path).unwrap(), Model::open(&first).unwrap());
        assert_eq!(source.spec.counts(), model.spec.counts(), "{name}");
        assert_eq!(source.spec.cache_elements(), model.spec.cache_elements(), "{name}");
        assert_eq!(source.spec.head, model.spec.head, "{name}");
        let tokens = expected(&path).tokens;
        let worst = difference(&logits(&source, &tokens), &logits(&model, &tokens));
        assert!(worst < 1e-4, "{name}: {worst}");
        // From GGUF to GGUF nothing changes: not one byte.
        converted(&first, &second, &to("f32")).unwrap();
        assert_eq!(model.spec, Model::open(&second).unwrap().spec, "{name}");
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "{name}: another file");
    }
}

/// What q8_0 rounds is half a step of each block, and the model that comes of it is the model with
/// those weights. How far that is from the original depends on the model: in these, of random weights
/// and 64 elements wide, routers with close calls choose other experts (llama.cpp finds the same
/// divergence between its own files, which are byte for byte ours).
#[test]
fn in_q8_0_every_fixture_is_near_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let (exact, rounded, again) = (file("f32.gguf"), file("q8_0.gguf"), file("again.gguf"));
    for path in all_models() {
        let name = name(&path);
        converted(&path, &exact, &to("f32")).unwrap();
        let summary = converted(&path, &rounded, &to("q8_0")).unwrap();
        let (a, b) = (tensors(&exact), tensors(&rounded));
        for (tensor, (format, values)) in &b {
            let (_, exact) = &a[tensor];
            let worst = exact.iter().zip(values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let largest = exact.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
            let bound = match format {
                Format::F32 => 0.0,
                // Half a step of the block, whose scale is rounded to 11 bits: 127 half steps of 2^-11.
                Format::Q8_0 => largest * (0.5 / 127.0 + 1.0 / 2048.0),
                Format::F16 => largest / 2048.0 + 1e-7,
                other => panic!("{name}: {tensor} in {other}"),
            };
            assert!(worst <= bound, "{name}: {tensor} {worst} {bound}");
        }
        let model = Model::open(&rounded).unwrap();
        let tokens = expected(&path).tokens;
        let moe = model.spec.blocks.iter().any(|block| matches!(block.ffn, Ffn::Moe(_)));
        let (want, found) = (logits(&Model::open(&exact).unwrap(), &tokens), logits(&model, &tokens));
        let (kl, bound) = (divergence(&want, &found, model.spec.vocab), if moe { 0.3 } else { 5e-3 });
        let gemma = name == "gemma3"; // logits twice as large as the others'
        assert!(kl < if gemma { 5e-2 } else { bound }, "{name}: {kl}");
        let fell: usize = summary.fallbacks.iter().map(|(.., count)| count).sum();
        assert_eq!(fell, b.values().filter(|(format, _)| *format == Format::F16).count(), "{name}");
        // The file's own weights are what the model is computed from, and blocks are copied as they are.
        converted(&rounded, &again, &to("q8_0")).unwrap();
        assert!(fs::read(&rounded).unwrap() == fs::read(&again).unwrap(), "{name}: another file");
    }
}

/// One fixture of each family in every format, the variants in a third of them each; mixtures and pure
/// formats in turn.
#[test]
fn every_format_of_every_fixture_loads_and_computes() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("model.gguf");
    for (i, path) in all_models().into_iter().enumerate() {
        let variant = path.parent().unwrap().ends_with("variants");
        for (j, recipe) in RECIPES.iter().enumerate().filter(|(j, _)| !variant || (i + j) % 3 == 0) {
            let what = format!("{} {}", name(&path), recipe.name());
            let recipe = if (i + j) % 2 == 0 { *recipe } else { recipe.pure() };
            let options = Options { recipe, without_tokenizer: false };
            converted(&path, &out, &options).unwrap_or_else(|error| panic!("{what}: {error}"));
            let model = Model::open(&out).unwrap_or_else(|error| panic!("{what}: {error}"));
            let logits = logits(&model, &expected(&path).tokens[..4]);
            assert!(logits.iter().all(|v| v.is_finite()), "{what}");
        }
    }
}

#[test]
fn what_only_our_reader_understands_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("model.gguf");
    let path = all_models().into_iter().find(|path| name(path) == "v32-yarn-biases").unwrap();
    let notices = converted(&path, &out, &to("f32")).unwrap().notices.join("; ");
    for part in ["layers without experts follow layers with them", "biases that llama.cpp's deepseek32 does not know"] {
        assert!(notices.contains(part), "{notices}");
    }
}

/// A copy of a fixture with other settings.
fn altered(fixture: &str, change: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) -> TempDir {
    let path = all_models().into_iter().find(|path| name(path) == fixture).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::copy(path.join("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
    change(config.as_object_mut().unwrap());
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}

#[test]
fn settings_that_gguf_cannot_say_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("model.gguf");
    let refused = |source: &TempDir| converted(source.path(), &out, &to("f32")).unwrap_err().to_string();
    let gelu = altered("mistral", |config| {
        config.insert("hidden_act".into(), "gelu_pytorch_tanh".into());
    });
    let error = refused(&gelu);
    assert!(error.contains("the feed-forward network of layer 0") && error.contains("GeluTanh"), "{error}");
    let divided = altered("deepseek-v3", |config| {
        config.remove("rope_parameters");
        config.insert("rope_theta".into(), 10000.0.into());
        let scaling = serde_json::json!({
            "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        });
        config.insert("rope_scaling".into(), scaling);
    });
    let error = refused(&divided);
    assert!(error.contains("GGUF cannot say a rotary frequency of layer 0"), "{error}");
    assert!(!out.exists());
}

/// Gemma's softmax scale has no key: the query norm takes it up, and the 27B model's number of layers
/// means another scale than all others have.
#[test]
fn gemmas_scale_goes_into_the_norm_of_its_queries() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("model.gguf");
    let source = altered("gemma3", |config| {
        config.insert("query_pre_attn_scalar".into(), 7.into());
    });
    converted(source.path(), &out, &to("f32")).unwrap();
    let (a, b) = (Model::open(source.path()).unwrap(), Model::open(&out).unwrap());
    let scale = |model: &Model| match &model.spec.blocks[0].attention {
        Attention::Gqa(gqa) => gqa.scale,
        Attention::Mla(_) => panic!("grouped"),
    };
    assert_eq!((scale(&a), scale(&b)), (7f32.powf(-0.5), 24f32.powf(-0.5)));
    let tokens: Vec<u32> = (1..40).collect();
    let worst = difference(&logits(&a, &tokens), &logits(&b, &tokens));
    assert!(worst < 1e-4, "{worst}");
}

/// gpt-oss' experts stay the very numbers that they are.
#[test]
fn mxfp4_experts_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (exact, kept) = (directory.path().join("f32.gguf"), directory.path().join("mxfp4.gguf"));
    let path = all_models().into_iter().find(|path| name(path) == "gptoss-mxfp4").unwrap();
    converted(&path, &exact, &to("f32")).unwrap();
    converted(&path, &kept, &to("mxfp4_moe")).unwrap();
    let (exact, kept) = (tensors(&exact), tensors(&kept));
    let experts: Vec<&String> = kept.keys().filter(|name| name.ends_with("_exps.weight")).collect();
    assert_eq!(experts.len(), 6);
    for name in experts {
        assert_eq!(kept[name].0, Format::Mxfp4, "{name}");
        assert!(kept[name].1 == exact[name].1, "{name}");
    }
}

/// A model whose rows are whole super-blocks: two layers of 256, of random weights.
fn wide(damage: Option<f32>) -> TempDir {
    const HIDDEN: usize = 256;
    const WIDTH: usize = 512;
    const VOCAB: usize = 64;
    let mut state = 1u64;
    let mut random = |rows: usize, cols: usize| -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let scale = (12.0 / cols as f32).sqrt();
        // The sum of three is nearly normal.
        (0..rows * cols).map(|_| (next() + next() + next()) * scale / 3f32.sqrt()).collect()
    };
    let mut all: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let mut matrix = |name: String, rows: usize, cols: usize| all.push((name, vec![rows, cols], random(rows, cols)));
    matrix("model.embed_tokens.weight".into(), VOCAB, HIDDEN);
    matrix("lm_head.weight".into(), VOCAB, HIDDEN);
    for l in 0..2 {
        for (name, rows, cols) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", HIDDEN / 4, HIDDEN),
            ("self_attn.v_proj", HIDDEN / 4, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", WIDTH, HIDDEN),
            ("mlp.up_proj", WIDTH, HIDDEN),
            ("mlp.down_proj", HIDDEN, WIDTH),
        ] {
            matrix(format!("model.layers.{l}.{name}.weight"), rows, cols);
        }
    }
    for name in
        ["input_layernorm", "post_attention_layernorm"].iter().flat_map(|n| [0, 1].map(|l| format!("layers.{l}.{n}")))
    {
        all.push((format!("model.{name}.weight"), vec![HIDDEN], vec![1.0; HIDDEN]));
    }
    all.push(("model.norm.weight".into(), vec![HIDDEN], vec![1.0; HIDDEN]));
    if let Some(value) = damage {
        all[4].2[3 * HIDDEN + 5] = value;
    }
    let bytes: Vec<Vec<u8>> = all.iter().map(|(.., v)| v.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = all
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), TensorView::new(StDtype::F32, shape.clone(), bytes).unwrap()));
    let directory = tempfile::tempdir().unwrap();
    safetensors::serialize_to_file(views, None, &directory.path().join("model.safetensors")).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": WIDTH, "vocab_size": VOCAB,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}

/// More bits are nearer to the model, in formats of super-blocks too.
#[test]
fn formats_are_as_good_as_their_bits() {
    let (source, directory) = (wide(None), tempfile::tempdir().unwrap());
    let out = directory.path().join("model.gguf");
    let original = Model::open(source.path()).unwrap();
    let tokens: Vec<u32> = (0..32).map(|i| i * 7 % 64).collect();
    let want = logits(&original, &tokens);
    let far = |recipe: &str| {
        let summary = converted(source.path(), &out, &to(recipe)).unwrap();
        assert_eq!(summary.fallbacks, [], "{recipe}");
        (divergence(&want, &logits(&Model::open(&out).unwrap(), &tokens), 64), summary.tensor_bytes)
    };
    let order =
        ["q8_0", "q6_k", "q5_k", "q4_k_m", "q4_k", "q3_k_m", "q3_k", "q2_k"].map(|recipe| (recipe, far(recipe)));
    for pair in order.windows(2) {
        let [(a, (a_kl, a_bytes)), (b, (b_kl, b_bytes))] = pair else { panic!("two") };
        assert!(a_kl < b_kl && a_bytes > b_bytes, "{a} {a_kl} {a_bytes}, {b} {b_kl} {b_bytes}");
    }
    let [(_, (q8_0, _)), .., (_, (q2_k, _))] = order;
    assert!(q8_0 < 1e-3 && q2_k < 1.0, "{q8_0} {q2_k}");
    for recipe in ["iq4_nl", "iq4_xs", "q4_0", "q5_1"] {
        assert!(far(recipe).0 < order[5].1.0, "{recipe}");
    }
}

#[test]
fn a_weight_that_is_no_number_is_named_and_leaves_the_old_file() {
    let (source, directory) = (wide(Some(f32::NAN)), tempfile::tempdir().unwrap());
    let out = directory.path().join("model.gguf");
    fs::write(&out, "before").unwrap();
    let error = converted(source.path(), &out, &to("q4_k_m")).unwrap_err().to_string();
    let wanted = "row 3 of the tensor blk.0.attn_v.weight: element 5 of the row is NaN, which is not a finite number";
    assert_eq!(error, wanted);
    assert_eq!(fs::read(&out).unwrap(), b"before");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no half-written file");
}

#[test]
fn a_model_that_lacks_a_tensor_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let source = altered("llama3-distill", |config| {
        config.insert("attention_bias".into(), true.into());
    });
    let out = directory.path().join("model.gguf");
    let error = converted(source.path(), &out, &to("f16")).unwrap_err();
    assert!(matches!(error, ConvertError::Load(_)) && error.to_string().contains("q_proj.bias is missing"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// What GGUF files carry beside the model goes along: names, licence, tokenizer.
#[test]
fn from_gguf_names_and_tokenizer_go_along() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let path = all_models().into_iter().find(|path| name(path) == "qwen3").unwrap();
    converted(&path, &file("plain.gguf"), &to("f32")).unwrap();
    let plain = Checkpoint::open(file("plain.gguf")).unwrap();
    let Kind::Gguf { metadata } = &plain.kind else { panic!("GGUF") };
    assert_eq!(metadata.string("general.name").unwrap(), "qwen3");
    let mut writer = GgufWriter::new();
    for (key, value) in metadata.iter().filter(|(key, _)| !key.starts_with("tokenizer.")) {
        writer.metadata(key, value.clone()).unwrap();
    }
    writer.metadata("general.license", "mit").unwrap();
    writer.metadata("tokenizer.ggml.model", "gpt2").unwrap();
    writer.metadata("tokenizer.ggml.tokens", ["a", "b"].as_slice()).unwrap();
    for tensor in &plain.tensors {
        writer.tensor(&tensor.name, &tensor.shape, tensor.dtype).unwrap();
    }
    let mut sink = writer.start(file("named.gguf")).unwrap();
    plain.tensors.iter().for_each(|tensor| sink.append(&tensor.name, &tensor.data).unwrap());
    sink.finish().unwrap();
    let summary = converted(&file("named.gguf"), &file("out.gguf"), &to("bf16")).unwrap();
    assert_eq!(summary.notices, Vec::<String>::new());
    let out = Checkpoint::open(file("out.gguf")).unwrap();
    let Kind::Gguf { metadata } = &out.kind else { panic!("GGUF") };
    assert_eq!(metadata.string("general.license").unwrap(), "mit");
    assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap(), ["a", "b"]);
    assert_eq!(metadata.u32("general.file_type").unwrap(), 32);
    // The same bits as the rounding of each value.
    for tensor in plain.tensors.iter().filter(|tensor| tensor.shape.len() == 2) {
        let stored = out.tensors.get(&tensor.name).unwrap();
        assert_eq!(stored.dtype, Dtype::Stored(Format::BF16));
        let mut floats = vec![0.0; tensor.shape.iter().product()];
        dequantize_row(Format::F32, &tensor.data, &mut floats);
        let mut bytes = vec![0; stored.data.len()];
        quantize_row(Format::BF16, &floats, &mut bytes).unwrap();
        assert!(bytes[..] == stored.data[..], "{}", tensor.name);
    }
}

/// Files from before the latent cache hold the latent's up projection in one piece, as checkpoints do.
#[test]
fn old_files_with_the_up_projection_in_one_become_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let path = all_models().into_iter().find(|path| name(path) == "deepseek-v2-lite").unwrap();
    converted(&path, &file("new.gguf"), &to("f32")).unwrap();
    let Attention::Mla(mla) = &Model::open(&path).unwrap().spec.blocks[0].attention else { panic!("latent") };
    let (heads, rank, nope, v) = (mla.heads, mla.kv_rank, mla.nope_dim, mla.v_dim);
    let new = Checkpoint::open(file("new.gguf")).unwrap();
    let Kind::Gguf { metadata } = &new.kind else { panic!("GGUF") };
    let mut writer = GgufWriter::new();
    let changed = |key: &str| key.ends_with("_mla") || key.ends_with(".key_length") || key.ends_with(".value_length");
    for (key, value) in metadata.iter().filter(|(key, _)| !changed(key)) {
        writer.metadata(key, value.clone()).unwrap();
    }
    writer.metadata("deepseek2.attention.key_length", (nope + mla.rope_dim) as u32).unwrap();
    writer.metadata("deepseek2.attention.value_length", v as u32).unwrap();
    let mut data: Vec<(String, Vec<u8>)> = Vec::new();
    for tensor in &new.tensors {
        if tensor.name.ends_with("attn_v_b.weight") {
            continue;
        }
        let Some(layer) = tensor.name.strip_suffix("attn_k_b.weight") else {
            writer.tensor(&tensor.name, &tensor.shape, tensor.dtype).unwrap();
            data.push((tensor.name.clone(), tensor.data.to_vec()));
            continue;
        };
        let values = new.tensors.get(&format!("{layer}attn_v_b.weight")).unwrap();
        let (keys, values) = (tensor.data.as_chunks::<4>().0, values.data.as_chunks::<4>().0);
        let mut both = Vec::new();
        for head in 0..heads {
            let key = |d: usize, r: usize| keys[(head * rank + r) * nope + d];
            both.extend((0..nope).flat_map(|d| (0..rank).map(move |r| (d, r))).flat_map(|(d, r)| key(d, r)));
            both.extend(values[head * v * rank..(head + 1) * v * rank].as_flattened());
        }
        let old = format!("{layer}attn_kv_b.weight");
        writer.tensor(&old, &[heads * (nope + v), rank], Format::F32).unwrap();
        data.push((old, both));
    }
    let mut sink = writer.start(file("old.gguf")).unwrap();
    data.iter().for_each(|(name, bytes)| sink.append(name, bytes).unwrap());
    sink.finish().unwrap();
    converted(&file("old.gguf"), &file("again.gguf"), &to("f32")).unwrap();
    assert!(fs::read(file("new.gguf")).unwrap() == fs::read(file("again.gguf")).unwrap());
}
