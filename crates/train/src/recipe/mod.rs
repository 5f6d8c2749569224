//! A recipe: everything that a training run depends on, in one TOML file.
//!
//! Unknown keys are refused with the nearest known one, every number is checked against its limits, and what cannot
//! work is said before the first step. The `[model]` table is a `config.json` as Hugging Face writes it: it goes
//! through the families of `model`, so that the trained description and the exported checkpoint are one.

mod check;
pub(crate) mod nearest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::train::panels::Precision as Rounding;
use model::config::SpecError;
use model::parameters::Part;
use model::spec::ModelSpec;
use serde::{Deserialize, Serialize};

pub use nearest::nearest;

/// Largest recipe file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a recipe is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum RecipeError {
    #[error("{file}: cannot be read: {source}")]
    Io { file: String, source: std::io::Error },
    #[error("{file}: is {bytes} bytes long; the limit is {FILE_BYTES_MAX}")]
    TooLarge { file: String, bytes: u64 },
    #[error("{file}, line {line}: {message}")]
    Syntax { file: String, line: usize, message: String },
    #[error("{file}: {key} is {value}; it must be {limit}")]
    Value { file: String, key: String, value: String, limit: String },
    #[error("{file}, table [model]: {source}")]
    Model { file: String, source: Box<SpecError> },
}

/// A training run, described.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name of what is trained: folders and the model card use it.
    pub name: String,
    /// The seed of everything: initial weights and order of data.
    #[serde(default)]
    pub seed: u64,
    /// `config.json` of the model; by default that of `init.from`.
    #[serde(default)]
    pub model: serde_json::Map<String, serde_json::Value>,
    /// How weights start.
    #[serde(default)]
    pub init: Init,
    /// The tokenizer.
    pub tokenizer: TokenizerTable,
    /// What is learned.
    pub data: Data,
    /// How much, and in what pieces.
    pub train: Train,
    /// How parameters change.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// The learning rate over the run.
    #[serde(default)]
    pub schedule: Schedule,
    /// Adapters on a frozen model, in place of all of its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// A model whose distributions are learned: distillation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Teacher>,
    /// What happens beside the training: evaluation, checkpoints, limits. May be changed between a stop and a resume.
    #[serde(default)]
    pub run: Run,
    /// Where the recipe lies: relative paths are relative to it.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// How weights start.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Init {
    /// Standard deviation of normal noise (V3: 0.006 at width 7168; about 0.02 at small widths).
    pub std: f32,
    /// A model in Hugging Face layout whose weights the run starts with, in place of noise.
    pub from: Option<PathBuf>,
}

impl Default for Init {
    fn default() -> Init {
        Init { std: 0.02, from: None }
    }
}

/// The tokenizer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerTable {
    /// A folder with `tokenizer.json` and `tokenizer_config.json`.
    pub folder: PathBuf,
    /// The three tokens of fill-in-the-middle, where `data.fim_rate` is above 0: before the prefix, in place of the
    /// middle, before the middle.
    pub fim: Option<[String; 3]>,
}

/// What is learned.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Where prepared sets are kept, so that runs share them; by default inside the run's folder.
    pub folder: Option<PathBuf>,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// One document in so many is held out for evaluation, by the hash of its text.
    #[serde(default = "defaults::held_out_one_in")]
    pub held_out_one_in: u64,
    /// Share of broken lines or rows of a file above which it is refused.
    #[serde(default = "defaults::broken_share_max")]
    pub broken_share_max: f64,
    /// Whether a document cannot see the ones before it in its sequence. V3 does without (report, section 4.1).
    #[serde(default)]
    pub mask_documents: bool,
    /// Share of plain-text documents that are turned to prefix, suffix, middle (V3: 0.1).
    #[serde(default)]
    pub fim_rate: f64,
    /// The last share of the run, which learns from the sources' `decay_tokens`.
    #[serde(default)]
    pub decay_share: f64,
    /// Where documents come from.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

/// Where documents come from: exactly one of `generate`, `text`, `jsonl`, `parquet`, `chat`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// The name in manifest and report.
    pub name: String,
    /// A corpus that this repository generates.
    pub generate: Option<String>,
    /// Its seed; by default the recipe's.
    pub seed: Option<u64>,
    /// Its options.
    pub options: BTreeMap<String, f64>,
    /// Files of plain text; documents are parted by blank lines if `split_at_blank_lines`, else a file is one.
    pub text: Vec<PathBuf>,
    /// Whether a blank line ends a document of `text`.
    pub split_at_blank_lines: bool,
    /// Files of one JSON object a line, with the text in `field`.
    pub jsonl: Vec<PathBuf>,
    /// Parquet files, with the text in the column `field`.
    pub parquet: Vec<PathBuf>,
    /// The field or column that holds the text.
    pub field: Option<String>,
    /// Files of chats, one JSON object with `messages` a line; only the assistant's tokens are learned.
    pub chat: Vec<PathBuf>,
    /// Tokens of the set for the main part of the run.
    pub tokens: u64,
    /// Tokens of the set for the last part (`data.decay_share`).
    pub decay_tokens: u64,
    /// How often a file's documents may be repeated to reach `tokens`.
    pub epochs_max: Option<f64>,
    /// Whether near duplicates are removed as well (MinHash); exact ones always are.
    pub near_duplicates: Option<bool>,
    /// The licence, for the manifest.
    pub licence: String,
    /// Where it comes from, for the manifest.
    pub origin: String,
}

/// How much is learned, and in what pieces.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Tokens of the whole run; rounded up to whole steps.
    pub tokens: u64,
    /// Tokens of an optimiser step.
    pub batch_tokens: usize,
    /// Tokens that go through the model at once.
    pub micro_batch_tokens: usize,
    /// What products are computed in: `f32`, `bf16`, or `fp8` (V3's scheme, simulated: as slow as f32); sums and
    /// weights between steps are always f32.
    #[serde(default)]
    pub precision: Precision,
    /// Whether only the inputs of layers are kept and the rest is computed again.
    #[serde(default)]
    pub checkpointing: bool,
    /// Weight of multi-token prediction from a share of the run on (V3: `[[0, 0.3], [0.67, 0.1]]`).
    #[serde(default)]
    pub mtp_weight: Vec<(f64, f64)>,
    /// Weight of the sequence-wise balance loss (V3: 1e-4).
    #[serde(default)]
    pub balance_alpha: f64,
    /// Speed of the routers' correction biases from a share of the run on (V3: `[[0, 1e-3], [0.97, 0]]`).
    #[serde(default)]
    pub bias_speed: Vec<(f64, f64)>,
    /// Largest norm of all gradients together (V3: 1.0).
    #[serde(default = "defaults::clip")]
    pub clip: f64,
}

/// What products are computed in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Precision {
    F32,
    #[default]
    Bf16,
    Fp8,
}

impl From<Precision> for Rounding {
    fn from(precision: Precision) -> Rounding {
        match precision {
            Precision::F32 => Rounding::F32,
            Precision::Bf16 => Rounding::Bf16,
            Precision::Fp8 => Rounding::Fp8,
        }
    }
}

/// A model with the same tokenizer whose distribution over the next token is learned (Hinton et al. 2015), in place of
/// the token that the data has, or beside it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// Its folder, in Hugging Face layout.
    pub from: PathBuf,
    /// So many of its likeliest tokens are learned, as shares of their sum.
    #[serde(default = "defaults::top")]
    pub top: usize,
    /// What its distribution counts; the rest is for the data's own token.
    #[serde(default = "defaults::share")]
    pub share: f64,
}

/// Low-rank adapters (Hu et al. 2021) on a model that stays as it is: `init.from` names it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Their rank.
    pub rank: usize,
    /// Their product counts `alpha / rank`; by default twice the rank.
    pub alpha: Option<f64>,
    /// The projections that get one, by their published names (see [`TARGETS`]); by default all of attention and of
    /// the networks that every token goes through.
    #[serde(default)]
    pub targets: Vec<String>,
}

/// Names of projections in `lora.targets`.
pub const TARGETS: &[(&str, &[Part])] = &[
    ("q_proj", &[Part::Query]),
    ("k_proj", &[Part::Key]),
    ("v_proj", &[Part::Value]),
    ("q_a_proj", &[Part::QueryDown]),
    ("q_b_proj", &[Part::QueryUp]),
    ("kv_a_proj_with_mqa", &[Part::KvDown]),
    ("kv_b_proj", &[Part::KvUp]),
    ("o_proj", &[Part::AttentionOutput]),
    ("gate_proj", &[Part::Gate, Part::SharedGate]),
    ("up_proj", &[Part::Up, Part::SharedUp]),
    ("down_proj", &[Part::Down, Part::SharedDown]),
    ("experts.gate_proj", &[Part::ExpertGate]),
    ("experts.up_proj", &[Part::ExpertUp]),
    ("experts.down_proj", &[Part::ExpertDown]),
];

impl Lora {
    /// As the model takes it; of a target that stands for several matrices those that `spec` has.
    pub fn settings(&self, spec: &ModelSpec) -> model::train::Lora {
        let has = |part: &Part| spec.parameters().iter().any(|parameter| parameter.slot.part == *part);
        let of_name = |name: &String| {
            let parts = TARGETS.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, parts)| parts);
            // One that the model lacks altogether stays: the model says so.
            let there: Vec<Part> = parts.iter().copied().filter(has).collect();
            if there.is_empty() { parts.iter().take(1).copied().collect() } else { there }
        };
        let targets = self.targets.iter().flat_map(of_name).collect();
        let alpha = self.alpha.unwrap_or(2.0 * self.rank as f64) as f32;
        model::train::Lora { rank: self.rank, alpha, targets }
    }
}

/// How parameters change.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimizer {
    /// `muon` for the matrices inside layers and AdamW for the rest, or `adamw` for all.
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// AdamW's first decay.
    pub beta1: f64,
    /// AdamW's second decay.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub eps: f64,
    /// Decoupled weight decay of matrices and embeddings (vectors have none).
    pub weight_decay: f64,
    /// Muon's momentum.
    pub momentum: f64,
    /// Root mean square of Muon's updates (V4: 0.18, which lets it share AdamW's learning rate).
    pub update_rms: f64,
}

impl Default for Optimizer {
    fn default() -> Optimizer {
        Optimizer {
            kind: OptimizerKind::Muon,
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            momentum: 0.95,
            update_rms: 0.18,
        }
    }
}

/// The optimiser's rule for matrices.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum OptimizerKind {
    Muon,
    Adamw,
}

/// The learning rate over the run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Its shape.
    pub kind: ScheduleKind,
    /// Steps of the rise from zero.
    pub warmup_steps: u64,
    /// `wsd`: the last share of the run, over which it falls in a straight line.
    pub decay_share: f64,
    /// Learning rate at the end as a share of the peak.
    pub final_share: f64,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule { kind: ScheduleKind::Wsd, warmup_steps: 100, decay_share: 0.2, final_share: 0.1 }
    }
}

/// Shapes of schedules.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Always the peak, after the rise.
    Constant,
    /// The peak, then a straight line down.
    Wsd,
    /// Half a cosine from the rise to the end.
    Cosine,
    /// V3's (report, section 4.2): the peak for 10 of 14.8 T tokens, half a cosine to a tenth over 4.3, a tenth for
    /// 0.333, a thirtieth for the last 0.167.
    V3,
}

/// What happens beside the training.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Steps between evaluations on held-out data.
    pub evaluate_every: u64,
    /// Tokens of an evaluation.
    pub evaluate_tokens: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Newest checkpoints that are kept.
    pub keep_last: usize,
    /// Of the older ones, those whose step is a multiple of this are kept (0: none).
    pub keep_every: u64,
    /// Steps in a row that may be skipped for a non-finite value or a spike before the run stops.
    pub skipped_max: u64,
    /// A step whose gradient norm is this many times the running median is skipped (0: none is).
    pub spike_factor: f64,
    /// Price of an hour of this machine, for the bill.
    pub price_per_hour: f64,
    /// The currency of the price.
    pub currency: String,
    /// Power of this machine where it cannot be measured, for the bill.
    pub watts_estimated: f64,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            evaluate_every: 100,
            evaluate_tokens: 65_536,
            checkpoint_every: 100,
            keep_last: 2,
            keep_every: 1000,
            skipped_max: 10,
            spike_factor: 20.0,
            price_per_hour: 0.0,
            currency: "USD".to_string(),
            watts_estimated: 0.0,
        }
    }
}

mod defaults {
    pub(super) fn held_out_one_in() -> u64 {
        200
    }
    pub(super) fn broken_share_max() -> f64 {
        0.001
    }
    pub(super) fn clip() -> f64 {
        1.0
    }
    pub(super) fn top() -> usize {
        64
    }
    pub(super) fn share() -> f64 {
        1.0
    }
}

impl Recipe {
    /// Reads and checks the recipe at `path`.
    ///
    /// # Errors
    /// One sentence that names the file, the key, the value and the limit.
    pub fn read(path: &Path) -> Result<Recipe, RecipeError> {
        Recipe::read_from(path, None)
    }

    /// The same with another model to begin with than the recipe says, which need not be there then.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn read_from(path: &Path, start: Option<PathBuf>) -> Result<Recipe, RecipeError> {
        let file = path.display().to_string();
        let io = |source| RecipeError::Io { file: file.clone(), source };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(RecipeError::TooLarge { file, bytes });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        Recipe::parse_in(&file, &text, path.parent().unwrap_or(Path::new("")), start)
    }

    /// Checks the text of a recipe; `file` stands for it in errors.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(file: &str, text: &str) -> Result<Recipe, RecipeError> {
        Recipe::parse_in(file, text, Path::new(""), None)
    }

    fn parse_in(file: &str, text: &str, folder: &Path, start: Option<PathBuf>) -> Result<Recipe, RecipeError> {
        let mut recipe: Recipe = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
            RecipeError::Syntax { file: file.to_string(), line, message: nearest::with_hint(error.message()) }
        })?;
        recipe.folder = folder.to_path_buf();
        recipe.init.from = start.or(recipe.init.from);
        if recipe.model.is_empty() {
            recipe.model = recipe.model_of_start(file)?;
        }
        check::check(file, &recipe)?;
        let spec = recipe.spec_in(file)?;
        check::adapters(file, &recipe, &spec)?;
        Ok(recipe)
    }

    /// The model that is trained.
    ///
    /// # Errors
    /// If the `[model]` table does not describe one.
    pub fn spec(&self) -> Result<ModelSpec, RecipeError> {
        self.spec_in("the recipe")
    }

    /// The configuration of the model that the run begins with.
    fn model_of_start(&self, file: &str) -> Result<serde_json::Map<String, serde_json::Value>, RecipeError> {
        let Some(from) = &self.init.from else {
            let (file, key) = (file.to_string(), "[model]".to_string());
            let limit = "given, or init.from must name a model".to_string();
            return Err(RecipeError::Value { file, key, value: "absent".to_string(), limit });
        };
        let path = self.path(from).join("config.json");
        let io = |source| RecipeError::Io { file: path.display().to_string(), source };
        serde_json::from_slice(&std::fs::read(&path).map_err(io)?).map_err(|error| io(error.into()))
    }

    fn spec_in(&self, file: &str) -> Result<ModelSpec, RecipeError> {
        let refuse = |source| RecipeError::Model { file: file.to_string(), source: Box::new(source) };
        let (spec, _) = model::families::read_config(&self.config()).map_err(refuse)?;
        Ok(spec)
    }

    /// The `[model]` table as `config.json`. TOML has no null: a `q_lora_rank` of 0 stands for it.
    pub fn config(&self) -> serde_json::Value {
        let mut config = self.model.clone();
        if let Some(rank) = config.get_mut("q_lora_rank").filter(|rank| rank.as_u64() == Some(0)) {
            *rank = serde_json::Value::Null;
        }
        serde_json::Value::Object(config)
    }

    /// A path of the recipe, which is relative to where the recipe lies.
    pub fn path(&self, path: &Path) -> PathBuf {
        if path.is_absolute() { path.to_path_buf() } else { self.folder.join(path) }
    }

    /// Optimiser steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.train.tokens.div_ceil(self.train.batch_tokens as u64)
    }

    /// Sequences of a step.
    pub fn rows_per_step(&self) -> usize {
        self.train.batch_tokens / self.data.sequence
    }

    /// The first step that learns from the sources' `decay_tokens`.
    pub fn decay_start(&self) -> u64 {
        let steps = self.steps();
        steps - (steps as f64 * self.data.decay_share).round() as u64
    }

    /// What must not change between a stop and a resume, as text: everything but `[run]`.
    pub fn fingerprint_text(&self) -> String {
        let mut fixed = self.clone();
        fixed.run = Run::default();
        // Maps keep their order and floats print exactly, so equal recipes give equal text.
        serde_json::to_string_pretty(&fixed).unwrap_or_else(|error| unreachable!("a recipe is JSON: {error}"))
    }
}

/// The value of a list of (share of the run, value) at a share: that of the last entry that has begun; 0 before.
pub fn piecewise(list: &[(f64, f64)], share: f64) -> f64 {
    list.iter().rev().find(|(from, _)| *from <= share).map_or(0.0, |(_, value)| *value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A recipe that works, with more tables.
    pub(crate) fn text(more: &str) -> String {
        let base = r#"
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
folder = "tokenizer"

[data]
sequence = 16
held_out_one_in = 20

[[data.source]]
name = "stories"
text = ["stories.txt"]
split_at_blank_lines = true
tokens = 1000
licence = "MIT"

[train]
tokens = 6400
batch_tokens = 64
micro_batch_tokens = 32
"#;
        base.to_string() + more
    }

    pub(crate) fn recipe(more: &str) -> Recipe {
        Recipe::parse("tiny.toml", &text(more)).unwrap()
    }

    #[test]
    fn a_recipe_is_read_and_its_numbers_follow() {
        let recipe = recipe("");
        assert_eq!((recipe.steps(), recipe.rows_per_step(), recipe.decay_start()), (100, 4, 100));
        assert_eq!(recipe.spec().unwrap().mtp.len(), 1);
        assert_eq!(recipe.path(Path::new("/a")), Path::new("/a"));
        assert_eq!(piecewise(&[(0.0, 0.3), (0.5, 0.1)], 0.49), 0.3);
        assert_eq!(piecewise(&[(0.0, 0.3), (0.5, 0.1)], 0.5), 0.1);
        assert_eq!(piecewise(&[], 0.5), 0.0);
    }

    #[test]
    fn every_mistake_is_one_sentence_that_names_it() {
        #[track_caller]
        fn refused(from: &str, to: &str, wanted: &str) {
            let text = text("");
            assert!(text.contains(from), "{from}");
            let error = Recipe::parse("tiny.toml", &text.replacen(from, to, 1)).expect_err("a refusal").to_string();
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(error.starts_with("tiny.toml") && error.contains(wanted), "{error}");
        }
        refused("batch_tokens = 64", "batch_token = 64", "line 47: unknown field `batch_token`");
        refused("batch_tokens = 64", "batch_token = 64", "did you mean `batch_tokens`?");
        refused("hidden_size = 32", "hiden_size = 32", "table [model]: hidden_size is missing");
        refused("n_group = 1", "n_group = 1\nnew_trick = 2", "new_trick");
        refused("[train]", "[train]\nprecision = \"bf61\"", "did you mean `bf16`?");
        refused("seed = 3", "seed = -3", "line 3: ");
        refused("seed = 3", "seed = 3\nseed = 4", "line 4: ");
        refused(
            "batch_tokens = 64",
            "batch_tokens = 65",
            "train.batch_tokens is 65; it must be a multiple of data.sequence, 16",
        );
        refused("batch_tokens = 64", "batch_tokens = 48", "a multiple of train.micro_batch_tokens, 32");
        refused("sequence = 16", "sequence = 128", "data.sequence is 128; it must be at most the model's 64 positions");
        refused("tokens = 1000\n", "tokens = 0\n", "tokens of the source stories is 0; it must be at least 1");
        refused("licence = \"MIT\"", "", "licence of the source stories is absent");
        refused(
            "text = [\"stories.txt\"]",
            "jsonl = [\"a\"]\nfield = \"t\"",
            "split_at_blank_lines of the source stories",
        );
        refused("text = [\"stories.txt\"]", "generate = \"a\"\ntext = [\"b\"]", "from 2 places");
        refused("[train]", "[schedule]\nwarmup_steps = 101\n[train]", "at most the run's 100 steps");
        refused("[train]", "[optimizer]\nlr = nan\n[train]", "optimizer.lr is NaN; it must be between");
        refused("[train]", "[train]\nclip = 0", "train.clip is 0; it must be between");
        refused("[train]", "[train]\nbias_speed = [[0.5, 0.1], [0.5, 0]]", "more than the one before");
        refused("name = \"tiny\"", "name = \"../x\"", "1 to 64 letters");
        refused("tokens = 6400", "tokens = 0", "train.tokens is 0");
        refused("sequence = 16", "sequence = 16\nfim_rate = 0.1", "0 where tokenizer.fim names no tokens");
        refused("tokens = 1000\n", "tokens = 1000\ndecay_tokens = 5\n", "0 where data.decay_share is 0");
        let teacher = "[teacher]\nfrom = \"t\"\n";
        refused("[train]", &format!("{teacher}top = 0\n[train]"), "teacher.top is 0; it must be between 1 and");
        refused("[train]", &format!("{teacher}share = 2\n[train]"), "teacher.share is 2; it must be between 0 and 1");
        refused("[train]", "[lora]\nrank = 8\n[train]", "lora is given; it must be absent where init.from names no");
    }

    #[test]
    fn adapters_are_refused_where_they_cannot_be_trained() {
        let start = "[init]\nfrom = \"base\"\n[optimizer]\nkind = \"adamw\"\n[lora]\nrank = 8\n";
        let recipe = |more: &str| Recipe::parse("tiny.toml", &text(&(start.to_string() + more)));
        let lora = recipe("targets = [\"q_proj\", \"gate_proj\"]").unwrap().lora.unwrap();
        let spec = recipe("").unwrap().spec().unwrap();
        let settings = lora.settings(&spec);
        assert_eq!(settings.targets, [Part::Query, Part::Gate, Part::SharedGate]);
        assert_eq!((settings.rank, settings.alpha, settings.scale()), (8, 16.0, 2.0));
        let refused = |more: &str, wanted: &str| {
            let error = recipe(more).expect_err("a refusal").to_string();
            assert!(error.contains(wanted) && error.lines().count() == 1, "{error}");
        };
        refused("targets = [\"q_prj\"]", "one of q_proj, k_proj");
        refused("targets = [\"k_proj\"]", "no matrix Key for an adapter");
        refused("alpha = -1", "lora.alpha is -1");
        let replaced = |from: &str, to: &str, wanted: &str| {
            let all = text(start).replacen(from, to, 1);
            let error = Recipe::parse("tiny.toml", &all).expect_err("a refusal").to_string();
            assert!(error.contains(wanted), "{error}");
        };
        replaced("\"adamw\"", "\"muon\"", "optimizer.kind is muon; it must be adamw where lora is given");
        replaced("rank = 8", "rank = 0", "lora.rank is 0");
        replaced("[train]", "[train]\nmtp_weight = [[0, 0.1]]", "train.mtp_weight");
        replaced("[train]", "[train]\nbias_speed = [[0, 0.1]]", "train.bias_speed");
    }
}
