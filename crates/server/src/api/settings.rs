//! From what a request says to settings that the engine takes: every value checked, every error with its field.

use std::collections::BTreeMap;

use engine::sampler::{Sampling, SamplingError};

use crate::error::{ApiError, ApiResult};
use crate::limits::Limits;
use crate::state::State;
use crate::wire::OneOrMany;

/// The sampling fields that all endpoints share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) logit_bias: Option<BTreeMap<String, f32>>,
    pub(crate) seed: Option<i64>,
}

/// The largest temperature of the API; the engine takes more.
const TEMPERATURE_MAX: f32 = 2.0;

impl Asked {
    /// The settings: what was asked for, then the model's own.
    pub(crate) fn sampling(self, state: &State) -> ApiResult<Sampling> {
        let own = &state.served.defaults;
        if let Some(temperature) = self.temperature.filter(|t| !(0.0..=TEMPERATURE_MAX).contains(t)) {
            let message = format!("temperature is {temperature}; it must be between 0 and {TEMPERATURE_MAX}");
            return Err(ApiError::value("temperature", message));
        }
        // OpenAI's API takes 0 and means the likeliest token alone.
        let top_p = self.top_p.map(|p| if p == 0.0 { f32::MIN_POSITIVE } else { p });
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.map_or(own.top_k, |k| k as usize),
            top_p: top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(own.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(own.frequency_penalty),
            logit_bias: biases(self.logit_bias.unwrap_or_default(), &state.limits)?,
            seed: match self.seed {
                Some(seed) => seed as u64,
                None => random_seed()?,
            },
        };
        sampling.check(state.served.vocab).map_err(|error| match &error {
            SamplingError::Setting { name, .. } => ApiError::value(*name, error.to_string()),
            _ => ApiError::value("logit_bias", error.to_string()),
        })?;
        Ok(sampling)
    }
}

fn biases(asked: BTreeMap<String, f32>, limits: &Limits) -> ApiResult<Vec<(u32, f32)>> {
    at_most("logit_bias", asked.len(), limits.logit_bias_max)?;
    let pairs = asked.into_iter().map(|(token, bias)| {
        let wrong = || ApiError::value("logit_bias", format!("logit_bias: {token:.20?} is not a token's number"));
        Ok((token.parse().map_err(|_| wrong())?, bias))
    });
    pairs.collect()
}

/// A seed that was not asked for: short, so that it can be typed again.
fn random_seed() -> ApiResult<u64> {
    let random = getrandom::u32().map_err(|_| ApiError::internal("the system gives no random numbers"))?;
    Ok(u64::from(random))
}

/// A count within its limit.
pub(crate) fn at_most(field: &'static str, count: usize, limit: usize) -> ApiResult<()> {
    if count <= limit {
        return Ok(());
    }
    Err(ApiError::value(field, format!("{field} has {count} entries; the limit is {limit}")))
}

/// A number within its limits.
pub(crate) fn number(field: &'static str, asked: Option<u32>, least: usize, most: usize) -> ApiResult<Option<usize>> {
    match asked.map(|value| value as usize) {
        Some(value) if !(least..=most).contains(&value) => {
            Err(ApiError::value(field, format!("{field} is {value}; it must be between {least} and {most}")))
        }
        value => Ok(value),
    }
}

/// Stop strings.
pub(crate) fn stops(asked: Option<OneOrMany>, limits: &Limits) -> ApiResult<Vec<String>> {
    let stops = asked.map(OneOrMany::into_vec).unwrap_or_default();
    at_most("stop", stops.len(), limits.stop_max)?;
    if let Some(long) = stops.iter().find(|stop| stop.len() > limits.stop_bytes_max) {
        let message = format!("stop: a text has {} bytes; the limit is {}", long.len(), limits.stop_bytes_max);
        return Err(ApiError::value("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::value("stop", "stop: a text is empty"));
    }
    Ok(stops)
}

impl State {
    /// The model of a request: its own name, one of the names that clients of others send, or nothing.
    pub(crate) fn check_model(&self, asked: Option<&str>) -> ApiResult<()> {
        let known = |name: &str| name == self.served.id || ALIASES.contains(&name);
        match asked {
            Some(name) if !known(name) => {
                let name: String = name.chars().take(100).collect();
                let message = format!("Model Not Exist: {name:?}; this server has {:?}", self.served.id);
                let error = ApiError::format(message).with_code("model_not_found");
                Err(ApiError { param: Some("model".into()), ..error })
            }
            _ => Ok(()),
        }
    }
}

/// Names under which clients that were made for DeepSeek's service ask for its models.
const ALIASES: [&str; 5] = ["deepseek-chat", "deepseek-reasoner", "deepseek-flash", "deepseek-v4-pro", "default"];

/// What an alias says about reasoning.
pub(crate) fn alias_thinks(name: Option<&str>) -> Option<bool> {
    match name {
        Some("deepseek-chat") => Some(false),
        Some("deepseek-reasoner") => Some(true),
        _ => None,
    }
}
