//! A model's `config.json`, read key by key.
//!
//! Every key that is read is remembered; at the end, keys that nobody read and that are not known to
//! be harmless are an error: a setting that changes the mathematics must never be ignored in silence.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

/// Why a configuration is not a model that fathom can run.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum SpecError {
    /// A key that must be there is not.
    #[error("{key} is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// A value of the wrong kind.
    #[error("{key} is {found}; it must be {wanted}")]
    Kind {
        /// The key.
        key: String,
        /// What stands there (cut to a readable length).
        found: String,
        /// What should.
        wanted: &'static str,
    },
    /// A number outside what is possible.
    #[error("{key} is {value}; the limit is {limit}")]
    Range {
        /// The key.
        key: String,
        /// What stands there.
        value: String,
        /// What is allowed.
        limit: String,
    },
    /// A setting that is understood and not supported.
    #[error("{key} = {value} is not supported: {why}")]
    Unsupported {
        /// The key.
        key: String,
        /// What stands there.
        value: String,
        /// The reason.
        why: String,
    },
    /// Keys that nothing here understands.
    #[error(
        "the configuration has keys that fathom does not understand and that may change the model: {keys} \
         (if they do not matter, remove them from the file or name them in FATHOM_IGNORE_CONFIG_KEYS)"
    )]
    Unknown {
        /// The keys, separated by commas.
        keys: String,
    },
    /// A metadata value of the wrong kind, or none.
    #[error(transparent)]
    Metadata(#[from] crate::checkpoint::MetadataError),
    /// A kind of model that is not in the registry.
    #[error("{key} {found} is not an architecture that is supported; known are: {known}")]
    Architecture {
        /// The key that says it.
        key: String,
        /// What the file says.
        found: String,
        /// The registry.
        known: String,
    },
}

/// Keys that say nothing about the mathematics of the forward pass, whatever their value.
const HARMLESS: &[&str] = &[
    "architectures",
    "model_type",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "auto_map",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "sep_token_id",
    "initializer_range",
    "quantization_config",
    "attention_dropout",
    "hidden_dropout",
    "embd_pdrop",
    "resid_pdrop",
    "classifier_dropout",
    "pretraining_tp",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "aux_loss_alpha",
    "seq_aux",
    "ep_size",
    "is_decoder",
    "id2label",
    "label2id",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "chunk_size_feed_forward",
    "prefix",
    "finetuning_task",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "attn_implementation",
    "gradient_checkpointing",
    "max_length",
    "min_length",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "unsloth_fixed",
    "unsloth_version",
    "initial_context_length",
    "cache_implementation",
    "eoi_token_index",
    "boi_token_index",
    "image_token_index",
    "mm_tokens_per_image",
    "vision_config",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "vision_feature_layer",
    "image_token_id",
    "boi_token_id",
    "eoi_token_id",
];

/// Switches that are harmless as long as they are off: false, zero or empty.
const HARMLESS_OFF: &[&str] =
    &["use_mrope", "is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder", "pruned_heads"];

/// The largest sizes that are taken for a model's and not for damage.
const SIZE_MAX: usize = 1 << 24;

/// One object of a configuration, with the keys that were read.
pub struct HfConfig {
    map: Map<String, Value>,
    path: String,
    read: RefCell<BTreeSet<String>>,
}

impl HfConfig {
    /// Wraps the object in `value`.
    pub fn new(value: &Value) -> Result<HfConfig, SpecError> {
        HfConfig::at(value, String::new())
    }

    fn at(value: &Value, path: String) -> Result<HfConfig, SpecError> {
        match value {
            Value::Object(map) => Ok(HfConfig { map: map.clone(), path, read: RefCell::default() }),
            other => Err(SpecError::Kind { key: or_whole(&path), found: short(other), wanted: "an object" }),
        }
    }

    /// The name of `key` with the objects around it.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_string());
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether `key` is there, null included.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The object under `key`.
    pub fn object(&self, key: &str) -> Result<Option<HfConfig>, SpecError> {
        self.get(key).map(|v| HfConfig::at(v, self.key(key))).transpose()
    }

    /// A size that must be there: at least one, and below any that a model could have.
    pub fn size(&self, key: &str) -> Result<usize, SpecError> {
        self.opt_size(key)?.ok_or_else(|| SpecError::Missing { key: self.key(key) })
    }

    /// A size, or `default`.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize, SpecError> {
        Ok(self.opt_size(key)?.unwrap_or(default))
    }

    /// A size that may be absent or null.
    pub fn opt_size(&self, key: &str) -> Result<Option<usize>, SpecError> {
        match self.opt_count(key)? {
            Some(0) => Err(self.range(key, "0", "at least 1")),
            other => Ok(other),
        }
    }

    /// A count that may be zero, or `default`.
    pub fn count_or(&self, key: &str, default: usize) -> Result<usize, SpecError> {
        Ok(self.opt_count(key)?.unwrap_or(default))
    }

    /// A count that may be zero, absent or null.
    pub fn opt_count(&self, key: &str) -> Result<Option<usize>, SpecError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        // Some writers store whole numbers as 4096.0.
        let whole =
            value.as_u64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64));
        match whole {
            Some(n) if n <= SIZE_MAX as u64 => Ok(Some(n as usize)),
            Some(n) => Err(self.range(key, n, format!("at most {SIZE_MAX}"))),
            None => Err(self.kind(key, value, "a whole number")),
        }
    }

    /// A finite number, or `default`.
    pub fn f32_or(&self, key: &str, default: f32) -> Result<f32, SpecError> {
        Ok(self.opt_f32(key)?.unwrap_or(default))
    }

    /// A finite number that must be there.
    pub fn f32(&self, key: &str) -> Result<f32, SpecError> {
        self.opt_f32(key)?.ok_or_else(|| SpecError::Missing { key: self.key(key) })
    }

    /// A finite number that may be absent or null.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, SpecError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(v) if (v as f32).is_finite() => Ok(Some(v as f32)),
            Some(v) => Err(self.range(key, v, "a finite 32-bit number")),
            None => Err(self.kind(key, value, "a number")),
        }
    }

    /// A number above zero, or `default`.
    pub fn positive_or(&self, key: &str, default: f32) -> Result<f32, SpecError> {
        let value = self.f32_or(key, default)?;
        if value > 0.0 { Ok(value) } else { Err(self.range(key, value, "above 0")) }
    }

    /// True or false, or `default`.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, SpecError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(self.kind(key, other, "true or false")),
        }
    }

    /// A string that may be absent or null.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, SpecError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.kind(key, other, "a string")),
        }
    }

    /// A list of strings that may be absent or null.
    pub fn opt_strings(&self, key: &str) -> Result<Option<Vec<&str>>, SpecError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let strings = value.as_array().and_then(|a| a.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        strings.map(Some).ok_or_else(|| self.kind(key, value, "a list of strings"))
    }

    /// A list of counts, or none.
    pub fn counts(&self, key: &str) -> Result<Vec<usize>, SpecError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let counts =
            value.as_array().and_then(|a| a.iter().map(|v| v.as_u64().map(|n| n as usize)).collect::<Option<Vec<_>>>());
        counts.ok_or_else(|| self.kind(key, value, "a list of whole numbers"))
    }

    /// Refuses a value of `key` that is read and not supported.
    pub fn unsupported(&self, key: &str, why: impl Into<String>) -> SpecError {
        let value = self.map.get(key).map_or_else(|| "(absent)".to_string(), short);
        SpecError::Unsupported { key: self.key(key), value, why: why.into() }
    }

    /// Refuses a number outside its limits.
    pub fn range(&self, key: &str, value: impl ToString, limit: impl ToString) -> SpecError {
        SpecError::Range { key: self.key(key), value: value.to_string(), limit: limit.to_string() }
    }

    /// Refuses keys that nobody read. Null is the same as absent; keys that begin with an underscore
    /// are a writer's own notes.
    pub fn finish(&self) -> Result<(), SpecError> {
        let read = self.read.borrow();
        let waived = std::env::var("FATHOM_IGNORE_CONFIG_KEYS").unwrap_or_default();
        let mut unknown: Vec<String> = self
            .map
            .iter()
            .filter(|(key, value)| !value.is_null() && !key.starts_with('_') && !read.contains(*key))
            .filter(|(key, value)| !harmless(key, value) && !waived.split(',').any(|w| w.trim() == *key))
            .map(|(key, value)| format!("{} = {}", self.key(&clip(key)), short(value)))
            .collect();
        const NAMED: usize = 6;
        if unknown.len() > NAMED {
            let more = unknown.len() - NAMED;
            unknown.truncate(NAMED);
            unknown.push(format!("and {more} more"));
        }
        if unknown.is_empty() { Ok(()) } else { Err(SpecError::Unknown { keys: unknown.join(", ") }) }
    }

    fn kind(&self, key: &str, found: &Value, wanted: &'static str) -> SpecError {
        SpecError::Kind { key: self.key(key), found: short(found), wanted }
    }
}

/// Whether a key that no family reads can be passed over.
fn harmless(key: &str, value: &Value) -> bool {
    let off = || match value {
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    HARMLESS.contains(&key) || (HARMLESS_OFF.contains(&key) && off())
}

fn or_whole(path: &str) -> String {
    if path.is_empty() { "the configuration".to_string() } else { path.to_string() }
}

/// A value as text of at most some sixty characters.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Object(map) => format!("an object of {} keys", map.len()),
        Value::Array(items) if items.len() > 8 => format!("a list of {} items", items.len()),
        other => other.to_string(),
    };
    clip(&text)
}

/// A text from a file, cut to some sixty characters.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(60) {
        None => text.to_string(),
        Some(_) => text.chars().take(57).chain("...".chars()).collect(),
    }
}
