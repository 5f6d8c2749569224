//! From a run to a model in Hugging Face's layout: `config.json`, safetensors, tokenizer, chat template, model card.
//!
//! Tensor names come from the families' own tables, by which the model is loaded again; so what is exported opens here
//! with the same bits, and in `transformers`. Adapters are folded into their model. Matrices are stored in bf16 or f32;
//! vectors and routers, which decide more than they weigh, always in f32, as they were trained.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::bf16;
use kernels::pool::Pool;
use model::families::{COMMON_NAMES, Family, Source, read_config};
use model::load::Model;
use model::parameters::{ParameterSpec, Part, Place};
use model::spec::ModelSpec;
use model::train::{Adapter, merged};
use safetensors::Dtype;
use safetensors::tensor::View;
use serde_json::{Map, Value, json};
use text::Tokenizer;

use crate::bill::Bill;
use crate::card;
use crate::data::Manifest;
use crate::files;
use crate::pretrain::{TOKENIZER_FILES, layout};
use crate::recipe::Recipe;
use crate::run::checkpoint::{self, State};
use crate::run::log::{self, Line};
use crate::run::{HeldOut, Origin, Origins, RunError};

/// How matrices are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Storage {
    #[default]
    Bf16,
    F32,
}

/// A run as its folder tells it.
pub struct Finished {
    /// The recipe, with all defaults.
    pub recipe: Recipe,
    /// What it learned from.
    pub manifest: Manifest,
    /// The newest whole checkpoint.
    pub checkpoint: PathBuf,
    /// Its state.
    pub state: State,
    /// The log up to it.
    pub log: Vec<Line>,
}

impl Finished {
    /// Reads a run's folder; `warn` hears of damaged checkpoints.
    ///
    /// # Errors
    /// If there is no run, or no whole checkpoint.
    pub fn read(folder: &Path, warn: &mut dyn FnMut(&str)) -> Result<Finished, RunError> {
        let recipe = read_json(&folder.join(layout::RECIPE))?;
        let manifest = read_json(&folder.join(layout::MANIFEST))?;
        let checkpoints = folder.join("checkpoints");
        let (checkpoint, state) = checkpoint::newest(&checkpoints, warn).ok_or_else(|| RunError::Checkpoint {
            path: checkpoints.clone(),
            reason: "there is no whole checkpoint".to_string(),
        })?;
        let mut log = log::read(&folder.join("log.jsonl"))?;
        log.retain(|line| line.step <= state.step);
        Ok(Finished { recipe, manifest, checkpoint, state, log })
    }

    /// What it cost.
    ///
    /// # Errors
    /// If the recipe's model is none.
    pub fn bill(&self) -> Result<Bill, RunError> {
        Ok(Bill::of(&self.recipe, self.recipe.spec()?.counts().active, &self.state, &self.log))
    }

    /// The last measurement on held-out data.
    pub fn held_out(&self) -> Option<&HeldOut> {
        self.log.iter().rev().find_map(|line| line.held_out.as_ref())
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, RunError> {
    let read = |source| RunError::Read { path: path.to_path_buf(), source };
    serde_json::from_slice(&fs::read(path).map_err(read)?).map_err(|error| read(error.into()))
}

/// Writes the model of the newest checkpoint of the run in `folder` to the new folder `out`.
///
/// # Errors
/// If the run cannot be read, `out` is there already, or cannot be written.
pub fn export(folder: &Path, out: &Path, storage: Storage, warn: &mut dyn FnMut(&str)) -> Result<Finished, RunError> {
    let mut run = Finished::read(folder, warn)?;
    let bill = run.bill()?;
    let start = folder.join(layout::START);
    // A model that was not made here has a card perhaps, and no manifest.
    run.manifest.before = read_json(&start.join(layout::MANIFEST)).ok();
    let before = fs::read_to_string(start.join("README.md")).ok();
    let texts = [
        ("README.md", card::card(&run, &bill, before.as_deref())),
        ("manifest.json", pretty(&run.manifest)),
        ("recipe.json", pretty(&run.recipe)),
    ];
    let config = run.recipe.config();
    let (spec, _) = read_config(&config).map_err(|error| RunError::Model(error.to_string()))?;
    let values = Values::of(&run, &spec)?;
    write_model(out, config, &folder.join(layout::TOKENIZER), &values, storage, &texts)?;
    Ok(run)
}

pub(crate) fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| unreachable!("it is JSON: {error}"))
}

/// Writes weights as a model to the new folder `out`, with the texts beside it.
pub(crate) fn write_model(
    out: &Path,
    config: Value,
    tokenizer_folder: &Path,
    values: &Values,
    storage: Storage,
    texts: &[(&str, String)],
) -> Result<(), RunError> {
    let write = |source| RunError::Write { path: out.to_path_buf(), source };
    if out.exists() {
        return Err(write(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there already")));
    }
    let tokenizer = Tokenizer::from_directory(tokenizer_folder);
    let tokenizer = tokenizer.map_err(|error| RunError::Model(error.to_string()))?;
    let (spec, family) = read_config(&config).map_err(|error| RunError::Model(error.to_string()))?;
    let parameters = spec.parameters();
    let pool = Pool::with_all_processors();
    let named = parameters.iter().enumerate().map(|(number, parameter)| {
        let name = name(family, parameter, spec.blocks.len())?;
        let (pool, offset) = (&pool, family.norm_offset);
        Ok((name, Stored { parameter, number, values, pool, offset, storage }))
    });
    let tensors = named.collect::<Result<Vec<(String, Stored)>, RunError>>()?;

    // All in a folder of another name, so that there is a whole model or none.
    let part = out.with_extension("part");
    let written = (|| {
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        let mut metadata = HashMap::new();
        metadata.insert("format".to_string(), "pt".to_string());
        let weights = part.join("model.safetensors");
        safetensors::serialize_to_file(tensors, Some(metadata), &weights)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let put = |name: &str, text: &str| files::write_whole(&part.join(name), |out| out.write_all(text.as_bytes()));
        let config = with_tokens(config, &tokenizer, storage);
        put("config.json", &serde_json::to_string_pretty(&config)?)?;
        // That of the model that the run began with, where there was one: it may name more tokens that end an answer.
        let kept = fs::read_to_string(tokenizer_folder.join("generation_config.json"));
        put("generation_config.json", &kept.or_else(|_| serde_json::to_string_pretty(&generation(&config)))?)?;
        for (name, text) in texts {
            put(name, text)?;
        }
        for name in TOKENIZER_FILES.iter().filter(|name| **name != "generation_config.json") {
            let from = tokenizer_folder.join(name);
            if from.is_file() {
                fs::copy(from, part.join(name))?;
            }
        }
        // The library lets only the owner read it; who may read the rest may read the weights.
        fs::set_permissions(&weights, fs::metadata(part.join("config.json"))?.permissions())?;
        fs::File::open(weights)?.sync_all()?;
        fs::rename(&part, out)?;
        files::sync_folder(out.parent().unwrap_or(Path::new(".")))
    })();
    written.map_err(write)
}

/// The tensor's name in the family's layout.
fn name(family: &Family, parameter: &ParameterSpec, layers: usize) -> Result<String, RunError> {
    let slot = parameter.slot;
    let of = |table: &[(Part, Source)]| table.iter().find(|(part, _)| *part == slot.part).map(|(_, source)| *source);
    let Some(Source::Tensor(template)) = of(family.names).or_else(|| of(COMMON_NAMES)) else {
        let types = family.model_types.join(", ");
        return Err(RunError::Model(format!("{:?} has no tensor of its own in the layout of {types}", slot.part)));
    };
    let layer = match slot.place {
        Place::Model => 0,
        Place::Block(layer) => layer,
        Place::Mtp(module) => layers + module,
    };
    let name = template.replace("{l}", &layer.to_string());
    Ok(name.replace("{e}", &slot.expert.unwrap_or(0).to_string()))
}

/// Where a run's weights come from.
pub(crate) enum Values {
    /// Its checkpoint has all of them.
    Whole(Vec<Vec<f32>>),
    /// Its checkpoint has adapters of a model.
    Adapted { base: Box<Model>, adapters: Vec<Adapter>, masters: Vec<Vec<f32>>, scale: f32 },
}

impl Values {
    fn of(run: &Finished, spec: &ModelSpec) -> Result<Values, RunError> {
        let Some(lora) = &run.recipe.lora else {
            return Ok(Values::Whole(checkpoint::masters(&run.checkpoint, &spec.parameters())?));
        };
        let refuse = |reason: String| RunError::Model(reason);
        let origin = Origins::of(&run.state).base;
        let Origin { path, sha256 } =
            origin.ok_or_else(|| refuse("the checkpoint does not name the model it adapts".into()))?;
        if Origin::at(&path)?.sha256 != sha256 {
            return Err(refuse(format!("{}: is another model than the one that was adapted", path.display())));
        }
        let lora = lora.settings(spec);
        let adapters = lora.adapters(spec).map_err(|error| refuse(error.to_string()))?;
        let parameters: Vec<ParameterSpec> = adapters.iter().flat_map(|adapter| adapter.parts.clone()).collect();
        let masters = checkpoint::masters(&run.checkpoint, &parameters)?;
        let base = Box::new(Model::open(&path).map_err(|error| refuse(error.to_string()))?);
        Ok(Values::Adapted { base, adapters, masters, scale: lora.scale() })
    }

    /// Those of one parameter.
    fn get(&self, number: usize, parameter: &ParameterSpec, pool: &Pool) -> Cow<'_, [f32]> {
        match self {
            Values::Whole(all) => Cow::Borrowed(&all[number]),
            Values::Adapted { base, adapters, masters, scale } => {
                let at = adapters.binary_search_by_key(&number, |adapter| adapter.number).ok();
                let adapter = at.map(|i| (masters[2 * i].as_slice(), masters[2 * i + 1].as_slice()));
                Cow::Owned(merged(base, parameter, adapter, *scale, pool))
            }
        }
    }
}

/// A tensor as it is written: made when its turn comes, so that one at a time is in memory.
struct Stored<'a> {
    parameter: &'a ParameterSpec,
    number: usize,
    values: &'a Values,
    pool: &'a Pool,
    /// What the family's files subtract from the weights of norms.
    offset: f32,
    storage: Storage,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        let matrix = self.parameter.shape.len() > 1 && self.parameter.slot.part != Part::Router;
        if self.storage == Storage::Bf16 && matrix { Dtype::BF16 } else { Dtype::F32 }
    }
    fn shape(&self) -> &[usize] {
        &self.parameter.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.values.get(self.number, self.parameter, self.pool);
        if self.dtype() == Dtype::BF16 {
            return Cow::Owned(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect());
        }
        let offset = if self.parameter.slot.part.is_norm() { self.offset } else { 0.0 };
        Cow::Owned(values.iter().flat_map(|&value| (value - offset).to_le_bytes()).collect())
    }
    fn data_len(&self) -> usize {
        self.parameter.elements() as usize * if self.dtype() == Dtype::BF16 { 2 } else { 4 }
    }
}

/// The configuration with what other programs look for in it.
fn with_tokens(config: Value, tokenizer: &Tokenizer, storage: Storage) -> Value {
    let mut map = match config {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    // What is written is plain numbers, whatever the model began as.
    map.remove("quantization_config");
    map.remove("dtype");
    let name = if storage == Storage::Bf16 { "bfloat16" } else { "float32" };
    map.insert("torch_dtype".into(), json!(name));
    if let Some(bos) = tokenizer.bos_id() {
        map.insert("bos_token_id".into(), json!(bos));
    }
    if let Some(eos) = tokenizer.eos_ids().first() {
        map.insert("eos_token_id".into(), json!(eos));
    }
    Value::Object(map)
}

fn generation(config: &Value) -> Value {
    let mut generation = json!({ "do_sample": true, "temperature": 0.6, "top_p": 0.95 });
    for key in ["bos_token_id", "eos_token_id"] {
        if let Some(id) = config.get(key) {
            generation[key] = id.clone();
        }
    }
    generation
}
