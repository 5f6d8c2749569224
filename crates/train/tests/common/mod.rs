//! A folder with a recipe and its data, and a learner that is small enough for hundreds of steps a second.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kernels::pool::Pool;
use model::parameters::{Group, Init, ParameterSpec, Part, Place, Slot};
use train::data::{self, Batch, Data};
use train::learner::{Aims, Learner, Passed};
use train::recipe::Recipe;
use train::run::checkpoint::State;
use train::run::log::Line;
use train::run::{self, End, Observer, Options, RunError};

/// Tokens of the fixture's tokenizer.
pub(crate) const VOCABULARY: usize = 400;

/// A folder with recipe, tokenizer and text.
pub(crate) struct Site {
    pub(crate) root: tempfile::TempDir,
}

pub(crate) fn tokenizer() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer")
}

/// Text of `documents` paragraphs, each its own.
pub(crate) fn stories(documents: usize, seed: u64) -> String {
    let words =
        ["the", "cat", "sat", "on", "a", "mat", "and", "then", "ran", "home", "to", "eat", "fish", "with", "Ali"];
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut text = String::new();
    for i in 0..documents {
        let length = 4 + next(20);
        let line: Vec<&str> = (0..length).map(|_| words[next(words.len())]).collect();
        text += &format!("{} {i}.\n\n", line.join(" "));
    }
    text
}

pub(crate) const RECIPE: &str = r#"
name = "tiny"
seed = 3

[model]
architectures = ["DeepseekV3ForCausalLM"]
model_type = "deepseek_v3"
vocab_size = 400
hidden_size = 32
intermediate_size = 64
moe_intermediate_size = 16
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
first_k_dense_replace = 1
q_lora_rank = 0
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
n_group = 1
topk_group = 1
norm_topk_prob = true
routed_scaling_factor = 1.0
max_position_embeddings = 64
num_nextn_predict_layers = 1

[tokenizer]
folder = "TOKENIZER"

[data]
sequence = 32
held_out_one_in = 10

[[data.source]]
name = "stories"
text = ["stories.txt"]
split_at_blank_lines = true
near_duplicates = false
tokens = 4000
licence = "MIT"

[train]
tokens = 5120
batch_tokens = 128
micro_batch_tokens = 64
mtp_weight = [[0, 0.3], [0.5, 0.1]]
bias_speed = [[0, 0.01], [0.9, 0]]
balance_alpha = 1e-4

[optimizer]
lr = 0.01

[schedule]
warmup_steps = 5

[run]
evaluate_every = 10
evaluate_tokens = 256
checkpoint_every = 5
keep_last = 2
keep_every = 20
"#;

impl Site {
    pub(crate) fn new() -> Site {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("stories.txt"), stories(300, 1)).unwrap();
        Site { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The usual recipe, changed.
    pub(crate) fn recipe(&self, changes: &[(&str, &str)]) -> Recipe {
        self.try_recipe(changes).unwrap()
    }

    pub(crate) fn try_recipe(&self, changes: &[(&str, &str)]) -> Result<Recipe, train::recipe::RecipeError> {
        let mut text = RECIPE.replace("TOKENIZER", tokenizer());
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let path = self.path("recipe.toml");
        std::fs::write(&path, text).unwrap();
        Recipe::read(&path)
    }

    pub(crate) fn data(&self, recipe: &Recipe) -> Data {
        self.try_data(recipe).unwrap()
    }

    pub(crate) fn try_data(&self, recipe: &Recipe) -> Result<Data, data::DataError> {
        let tokenizer = data::tokenizer(recipe, VOCABULARY)?;
        data::prepare(recipe, &tokenizer, &self.path("data"), &Pool::new(2), &mut |_| {})
    }
}

/// Predicts each token from the one before it: a table of logits, a vector of biases, and a bias by rule.
pub(crate) struct Bigram {
    parameters: Vec<ParameterSpec>,
    masters: Vec<Vec<f32>>,
    /// Calls of `learn` after which one gives a value that is not finite, and for how many calls.
    pub(crate) sick: Option<(usize, usize)>,
    calls: usize,
}

impl Bigram {
    pub(crate) fn new() -> Bigram {
        let spec = |part, shape: &[usize], group| {
            let slot = Slot { place: Place::Model, part, expert: None };
            ParameterSpec { slot, shape: shape.to_vec(), init: Init::Normal, group }
        };
        let parameters = vec![
            spec(Part::Embedding, &[VOCABULARY, VOCABULARY], Group::Embedding),
            spec(Part::Query, &[VOCABULARY, 8], Group::Matrix),
            spec(Part::FinalNorm, &[VOCABULARY], Group::Vector),
            spec(Part::RouterCorrection, &[4], Group::Rule),
        ];
        let value = |i: u64| ((i as f32) * 0.37).sin() * 0.02;
        let masters = parameters.iter().map(|p| (0..p.elements()).map(value).collect()).collect();
        Bigram { parameters, masters, sick: None, calls: 0 }
    }

    fn pass(&self, batch: &Batch, weight: f32, mut gradients: Option<&mut [Vec<f32>]>) -> Passed {
        let mut passed = Passed { expert_tokens: vec![vec![0; 4]], ..Passed::default() };
        for ((&token, &target), &learned) in batch.tokens.iter().zip(&batch.targets).zip(&batch.learned) {
            let (token, target) = (token as usize, target as usize);
            passed.expert_tokens[0][(token % 7) % 4] += 1;
            let row = token * VOCABULARY;
            let side: f32 = self.masters[1][token * 8..][..8].iter().sum();
            let logit = |j: usize| self.masters[0][row + j] + self.masters[2][j] + if j == target { side } else { 0.0 };
            let logits: Vec<f32> = (0..VOCABULARY).map(logit).collect();
            let top = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = logits.iter().map(|l| (l - top).exp()).sum();
            let log_probability = logits[target] - top - sum.ln();
            passed.log_probabilities.push(log_probability);
            if !learned {
                continue;
            }
            passed.loss -= f64::from(log_probability * weight);
            let Some(gradients) = gradients.as_deref_mut() else { continue };
            for j in 0..VOCABULARY {
                let g = weight * ((logits[j] - top).exp() / sum - f32::from(u8::from(j == target)));
                gradients[0][row + j] += g;
                gradients[2][j] += g;
                if j == target {
                    gradients[1][token * 8..][..8].iter_mut().for_each(|x| *x += g);
                }
            }
        }
        passed
    }
}

impl Learner for Bigram {
    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }
    fn masters(&self) -> &[Vec<f32>] {
        &self.masters
    }
    fn masters_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.masters
    }
    fn refresh(&mut self, _: &Pool) {}

    fn learn(&mut self, _: &Pool, batch: &Batch, weight: f32, _: &Aims, gradients: &mut Vec<Vec<f32>>) -> Passed {
        let mut passed = self.pass(batch, weight, Some(gradients));
        self.calls += 1;
        if self.sick.is_some_and(|(from, count)| (from..from + count).contains(&self.calls)) {
            passed.nonfinite = Some("layer 1".into());
            gradients[0][5] = f32::NAN;
        }
        passed
    }

    fn measure(&mut self, _: &Pool, batch: &Batch) -> Passed {
        self.pass(batch, 1.0, None)
    }
}

/// Remembers what it was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) lines: Vec<Line>,
}

impl Observer for Told {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_string());
    }
    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_string());
    }
    fn step(&mut self, line: &Line, _: u64, _: Duration) {
        self.lines.push(line.clone());
    }
}

/// Trains up to a step and returns the weights.
pub(crate) fn train(
    recipe: &Recipe,
    data: &Data,
    folder: &Path,
    until: u64,
    learner: &mut Bigram,
    told: &mut Told,
) -> Result<(State, End), RunError> {
    let options = Options { folder: folder.to_path_buf(), until_step: Some(until), ..Options::default() };
    std::fs::create_dir_all(folder).unwrap();
    run::run(recipe, learner, data, &Pool::new(2), &options, &mut || Ok(()), &AtomicBool::new(false), told)
}

/// The log without what depends on the clock.
pub(crate) fn timeless(folder: &Path) -> Vec<Line> {
    let clean = |line: Line| Line { seconds: 0.0, tokens_per_second: 0.0, peak_share: None, ..line };
    run::log::read(&folder.join("log.jsonl")).unwrap().into_iter().map(clean).collect()
}

/// The logits after each token, computed as inference does.
pub(crate) fn logits(model: &model::load::Model, pool: &Pool, tokens: &[u32]) -> Vec<f32> {
    use kernels::attention::{CacheFormat, Chunk};
    let runner = model::forward::Runner::new(model, pool);
    let pages: Vec<u32> = (0..model::cache::Cache::pages_for(tokens.len()) as u32).collect();
    let mut cache = model::cache::Cache::new(&model.spec, CacheFormat::F32, pages.len());
    let chunks = [Chunk { first_row: 0, rows: tokens.len(), position: 0, pages: &pages }];
    let batch = model::forward::Batch { tokens, chunks: &chunks };
    let wanted: Vec<usize> = (0..tokens.len()).collect();
    runner.forward(&batch, &mut cache, &mut model::forward::Activations::default(), &wanted)
}
