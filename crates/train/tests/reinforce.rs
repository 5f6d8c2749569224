//! Reinforcement learning: sampler and learner agree to the bit, a stopped run goes on as if it had not stopped, and
//! threads change nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kernels::pool::Pool;
use model::families::read_config;
use train::export::{Storage, export};
use train::pretrain::{self, pretrain};
use train::recipe::RecipeError;
use train::reinforce::{Limits, Line, Measured, Observer, Recipe, read_log, reinforce};
use train::run::End;

/// A V3-shaped model with the built-in model's tokenizer, trained until it knows the form of an answer.
const BASE: &str = r#"
name = "base"
seed = 5

[model]
architectures = ["DeepseekV3ForCausalLM"]
model_type = "deepseek_v3"
vocab_size = 4096
hidden_size = 32
intermediate_size = 48
moe_intermediate_size = 16
num_hidden_layers = 2
first_k_dense_replace = 1
num_attention_heads = 2
num_key_value_heads = 2
q_lora_rank = 0
kv_lora_rank = 16
qk_nope_head_dim = 16
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
n_group = 1
topk_group = 1
scoring_func = "sigmoid"
topk_method = "noaux_tc"
norm_topk_prob = true
routed_scaling_factor = 1.0
num_nextn_predict_layers = 0
hidden_act = "silu"
rms_norm_eps = 1e-6
rope_theta = 10000.0
max_position_embeddings = 512
tie_word_embeddings = false
attention_bias = false

[tokenizer]
folder = "TOKENIZER"

[data]
sequence = 64
held_out_one_in = 8

[[data.source]]
name = "sums"
generate = "sums"
tokens = 100_000
options = { chat = 1.0 }

[train]
tokens = 256_000
batch_tokens = 1024
micro_batch_tokens = 1024

[optimizer]
lr = 1e-2

[schedule]
warmup_steps = 10

[run]
checkpoint_every = 1000
evaluate_every = 1000
evaluate_tokens = 64
"#;

const RECIPE: &str = r#"
name = "zero"
seed = 7
from = "base-model"

[reinforce]
steps = 4
prompts = 3
group = 4
tokens_max = [[0, 30], [0.5, 60]]
overlong_share = 0.1
format = 0.1
kl = KL
reference_every = 2
precision = "PRECISION"
micro_batch_tokens = 96
answers_at_once = 5
evaluate_problems = 2

[[task]]
name = "sums"
share = 0.6
levels = [1, 2]

[[task]]
name = "countdown"
share = 0.4
levels = [1, 2]
arabic = 0.5

[optimizer]
lr = 1e-2

[schedule]
kind = "constant"
warmup_steps = 1

[run]
evaluate_every = 2
checkpoint_every = 1
keep_last = 2
"#;

struct Silent;

impl Observer for Silent {
    fn note(&mut self, _: &str) {}
    fn step(&mut self, _: &Line, _: u64, _: Duration) {}
}

impl train::run::Observer for Silent {
    fn note(&mut self, _: &str) {}
    fn warn(&mut self, text: &str) {
        panic!("{text}");
    }
    fn step(&mut self, _: &train::run::log::Line, _: u64, _: Duration) {}
}

/// A folder with the model to begin with.
fn base(root: &Path) {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
    let text = BASE.replace("TOKENIZER", tokenizer.to_str().expect("a name"));
    let recipe = train::recipe::Recipe::parse("base.toml", &text).expect("a recipe");
    let (run, pool) = (root.join("base"), Pool::new(2));
    let limits = pretrain::Limits::default();
    pretrain(&recipe, &run, &pool, &limits, &AtomicBool::new(false), &mut Silent).expect("a run");
    export(&run, &root.join("base-model"), Storage::F32, &mut |text| panic!("{text}")).expect("a model");
}

fn recipe(root: &Path, kl: f64, precision: &str) -> Recipe {
    let text = RECIPE.replace("KL", &kl.to_string()).replace("PRECISION", precision);
    let mut recipe = Recipe::parse("zero.toml", &text).expect("a recipe");
    recipe.folder = root.to_path_buf();
    recipe
}

/// Runs to the end, stopping after every `pieces` steps; the last checkpoint's weights.
fn run(recipe: &Recipe, folder: PathBuf, threads: usize, pieces: u64) -> (Vec<u8>, Vec<Line>, Vec<Measured>) {
    let pool = Pool::new(threads);
    let mut until = pieces;
    loop {
        let limits = Limits { until_step: Some(until), stop_after: None };
        let (state, end) =
            reinforce(recipe, &folder, &pool, &limits, &AtomicBool::new(false), &mut Silent).expect("a run");
        assert_eq!(state.skipped, 0);
        if end == End::Finished {
            break;
        }
        until += pieces;
    }
    let weights = std::fs::read(folder.join("checkpoints/step-00000004/masters.f32")).expect("a checkpoint");
    let (lines, measured) = read_log(&folder).expect("a log");
    (weights, lines, measured)
}

/// What does not depend on the clock.
fn timeless(lines: &[Line]) -> Vec<Line> {
    let still =
        |line: &Line| Line { rollout_seconds: 0.0, rollout_tokens_per_second: 0.0, learn_seconds: 0.0, ..line.clone() };
    lines.iter().map(still).collect()
}

#[test]
fn sampler_and_learner_are_one_and_runs_repeat_to_the_bit() {
    let site = tempfile::tempdir().expect("a folder");
    let root = site.path();
    base(root);
    for (kl, precision) in [(0.0, "bf16"), (0.05, "f32")] {
        let recipe = recipe(root, kl, precision);
        let folder = |name: &str| root.join(format!("{name}-{precision}"));
        let (weights, lines, measured) = run(&recipe, folder("whole"), 2, 4);
        assert_eq!(lines.len(), 4);
        assert_eq!(measured.iter().map(|m| m.step).collect::<Vec<_>>(), [0, 2, 4]);
        for line in &lines {
            assert_eq!(line.logprob_difference, 0.0, "{line:?}");
            assert!(line.tokens > 0 && line.reward.is_finite() && line.length <= line.tokens_max as f64);
            assert_eq!(line.kl.is_some(), kl > 0.0);
        }
        assert_eq!(lines.iter().map(|l| l.tokens_max).collect::<Vec<_>>(), [30, 30, 60, 60]);
        if kl > 0.0 {
            // The reference is the model itself at the start and after each renewal.
            assert_eq!(lines[0].kl, Some(0.0));
            assert!(lines[1].kl.is_some_and(|kl| kl > 0.0) && lines[2].kl == Some(0.0), "{:?}", lines[2].kl);
        }
        assert!(lines.iter().any(|line| line.gradient_norm > 0.0), "something is learned");
        let (again, other_lines, _) = run(&recipe, folder("pieces"), 1, 1);
        assert!(weights == again, "one thread and stops after every step change the weights");
        assert_eq!(timeless(&lines), timeless(&other_lines));
        let out = root.join(format!("model-{precision}"));
        train::reinforce::export(&folder("whole"), &out, Storage::F32, &mut |text| panic!("{text}")).expect("a model");
        assert!(weights == stored_weights(&out), "what is exported are the weights of the last step");
        let card = std::fs::read_to_string(out.join("README.md")).expect("a card");
        assert!(card.contains("## Data") && card.contains("4 of 4 steps of") && card.contains("| step 4 |"), "{card}");
    }
}

/// The weights of a model in the order of a checkpoint's.
fn stored_weights(folder: &Path) -> Vec<u8> {
    let model = model::load::Model::open(folder).expect("a model");
    let rounding = kernels::train::panels::Precision::F32;
    let trainable = model::train::Trainable::from_model(&model, rounding, &Pool::new(1)).expect("trainable");
    trainable.masters().iter().flatten().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn mistakes_in_recipes_are_one_sentence() {
    let text = RECIPE.replace("KL", "0").replace("PRECISION", "bf16");
    let refused = |from: &str, to: &str, wanted: &str| {
        assert!(text.contains(from), "{from}");
        let error = Recipe::parse("zero.toml", &text.replacen(from, to, 1)).expect_err("a refusal").to_string();
        assert!(error.lines().count() == 1 && error.starts_with("zero.toml") && error.contains(wanted), "{error}");
    };
    refused("group = 4", "group = 1", "reinforce.group is 1; it must be between 2 and 1024");
    refused("group = 4", "groups = 4", "did you mean `group`?");
    refused("[[0, 30], [0.5, 60]]", "[[0.1, 12]]", "rising from 0");
    refused("\"sums\"", "\"sum\"", "one of countdown, sums");
    refused("levels = [1, 2]", "levels = [1, 9]", "at most level");
    refused("share = 0.6", "share = 0", "a share of task sums");
}

#[test]
fn the_base_recipe_is_a_model() {
    let text = BASE.replace("TOKENIZER", "t");
    let recipe = train::recipe::Recipe::parse("base.toml", &text).expect("a recipe");
    assert!(read_config(&recipe.config()).is_ok());
}

/// Every recipe in the repository is one that can be read, with models and tasks that there are.
#[test]
fn recipes_of_the_repository_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut reinforced = 0;
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("read");
        if text.contains("\n[reinforce]\n") {
            Recipe::parse(&path.display().to_string(), &text).expect("a recipe");
            reinforced += 1;
        } else if !text.contains("\n[[stage]]\n") {
            // A recipe of fine-tuning takes its shape from a model that is not made yet: all before that is right.
            let parsed = train::recipe::Recipe::parse(&path.display().to_string(), &text);
            let unmade =
                |error: &RecipeError| matches!(error, RecipeError::Io { file, .. } if file.ends_with("config.json"));
            assert!(parsed.as_ref().map_or_else(unmade, |_| true), "{}: {:?}", path.display(), parsed.err());
        }
    }
    assert!(reinforced >= 4, "{reinforced}");
}
