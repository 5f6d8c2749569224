//! The limits of a recipe's numbers.

use model::spec::ModelSpec;

use super::{OptimizerKind, Recipe, RecipeError, ScheduleKind, Source, TARGETS};

/// Collects the first number that is outside its limits.
struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn refuse(&self, key: &str, value: impl ToString, limit: impl ToString) -> RecipeError {
        let (file, key) = (self.file.to_string(), key.to_string());
        RecipeError::Value { file, key, value: value.to_string(), limit: limit.to_string() }
    }

    fn within(&self, key: &str, value: f64, low: f64, high: f64) -> Result<(), RecipeError> {
        match value.is_finite() && value >= low && value <= high {
            true => Ok(()),
            false => Err(self.refuse(key, value, format!("between {low} and {high}"))),
        }
    }

    fn count(&self, key: &str, value: u64, low: u64, high: u64) -> Result<(), RecipeError> {
        match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(self.refuse(key, value, format!("between {low} and {high}"))),
        }
    }

    /// A list of (share of the run, value), shares rising from 0.
    fn pieces(&self, key: &str, list: &[(f64, f64)], high: f64) -> Result<(), RecipeError> {
        for (i, (from, value)) in list.iter().enumerate() {
            self.within(&format!("the share of {key}[{i}]"), *from, 0.0, 1.0)?;
            self.within(&format!("the value of {key}[{i}]"), *value, 0.0, high)?;
            if i > 0 && list[i - 1].0 >= *from {
                return Err(self.refuse(&format!("the share of {key}[{i}]"), from, "more than the one before"));
            }
        }
        Ok(())
    }
}

pub(super) fn check(file: &str, recipe: &Recipe) -> Result<(), RecipeError> {
    let check = Check { file };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if recipe.name.is_empty() || recipe.name.len() > 64 || !recipe.name.chars().all(plain) {
        return Err(check.refuse("name", format!("{:?}", recipe.name), "1 to 64 letters, digits, '-', '_' or '.'"));
    }
    check.within("init.std", f64::from(recipe.init.std), 1e-6, 1.0)?;
    data(&check, recipe)?;
    train(&check, recipe)?;
    optimizer(&check, recipe)?;
    if let Some(teacher) = &recipe.teacher {
        check.count("teacher.top", teacher.top as u64, 1, 4096)?;
        check.within("teacher.share", teacher.share, 0.0, 1.0)?;
    }
    run(&check, recipe)
}

fn data(check: &Check, recipe: &Recipe) -> Result<(), RecipeError> {
    let data = &recipe.data;
    check.count("data.sequence", data.sequence as u64, 2, 1 << 20)?;
    if let Some(context) = recipe.model.get("max_position_embeddings").and_then(|v| v.as_u64())
        && data.sequence as u64 > context
    {
        return Err(check.refuse("data.sequence", data.sequence, format!("at most the model's {context} positions")));
    }
    check.count("data.held_out_one_in", data.held_out_one_in, 2, 1 << 40)?;
    check.within("data.broken_share_max", data.broken_share_max, 0.0, 1.0)?;
    check.within("data.fim_rate", data.fim_rate, 0.0, 1.0)?;
    check.within("data.decay_share", data.decay_share, 0.0, 0.9)?;
    if data.fim_rate > 0.0 && recipe.tokenizer.fim.is_none() {
        return Err(check.refuse("data.fim_rate", data.fim_rate, "0 where tokenizer.fim names no tokens"));
    }
    if data.sources.is_empty() {
        return Err(check.refuse("data.source", "absent", "at least one source"));
    }
    for (i, one) in data.sources.iter().enumerate() {
        source(check, i, one)?;
        if data.sources[..i].iter().any(|other| other.name == one.name) {
            return Err(check.refuse(&format!("data.source[{i}].name"), &one.name, "a name of its own"));
        }
        if one.decay_tokens > 0 && data.decay_share == 0.0 {
            let key = format!("decay_tokens of the source {}", one.name);
            return Err(check.refuse(&key, one.decay_tokens, "0 where data.decay_share is 0"));
        }
    }
    let (main, decay) = (total(recipe, |s| s.tokens), total(recipe, |s| s.decay_tokens));
    let least = data.sequence as u64 * 2;
    check.count("the tokens of all sources", main, least, 1 << 44)?;
    if data.decay_share > 0.0 {
        check.count("the decay_tokens of all sources", decay, least, 1 << 44)?;
    }
    Ok(())
}

fn total(recipe: &Recipe, of: impl Fn(&Source) -> u64) -> u64 {
    recipe.data.sources.iter().map(of).fold(0, u64::saturating_add)
}

fn source(check: &Check, i: usize, source: &Source) -> Result<(), RecipeError> {
    let key = |name: &str| match source.name.is_empty() {
        true => format!("data.source[{i}].{name}"),
        false => format!("{name} of the source {}", source.name),
    };
    if source.name.is_empty() || source.name.len() > 64 {
        return Err(check.refuse(&key("name"), format!("{:?}", source.name), "1 to 64 characters"));
    }
    let files = [&source.text, &source.jsonl, &source.parquet, &source.chat];
    let kinds = files.iter().filter(|list| !list.is_empty()).count() + usize::from(source.generate.is_some());
    if kinds != 1 {
        let what = format!("from {kinds} places");
        return Err(check.refuse(&key("the data"), what, "from exactly one of generate, text, jsonl, parquet, chat"));
    }
    let needs_field = !source.jsonl.is_empty() || !source.parquet.is_empty();
    if needs_field != source.field.is_some() {
        let found = source.field.as_deref().unwrap_or("absent");
        return Err(check.refuse(&key("field"), found, "given for jsonl and parquet, and only there"));
    }
    if source.generate.is_none() && (!source.options.is_empty() || source.seed.is_some()) {
        return Err(check.refuse(&key("options or seed"), "given", "absent where nothing is generated"));
    }
    if source.split_at_blank_lines && source.text.is_empty() {
        return Err(check.refuse(&key("split_at_blank_lines"), "true", "false where there is no text"));
    }
    if source.generate.is_none() && source.licence.trim().is_empty() {
        return Err(check.refuse(&key("licence"), "absent", "stated for every source that comes from files"));
    }
    if source.tokens == 0 && source.decay_tokens == 0 {
        return Err(check.refuse(&key("tokens"), 0, "at least 1, or decay_tokens must be"));
    }
    check.count(&key("tokens"), source.tokens, 0, 1 << 44)?;
    check.count(&key("decay_tokens"), source.decay_tokens, 0, 1 << 44)?;
    check.within(&key("epochs_max"), source.epochs_max.unwrap_or(1.0), 0.001, 1000.0)
}

fn train(check: &Check, recipe: &Recipe) -> Result<(), RecipeError> {
    let (train, sequence) = (&recipe.train, recipe.data.sequence);
    check.count("train.tokens", train.tokens, 1, 1 << 50)?;
    for (key, value) in
        [("train.batch_tokens", train.batch_tokens), ("train.micro_batch_tokens", train.micro_batch_tokens)]
    {
        check.count(key, value as u64, 1, 1 << 30)?;
        if !value.is_multiple_of(sequence) {
            return Err(check.refuse(key, value, format!("a multiple of data.sequence, {sequence}")));
        }
    }
    if !train.batch_tokens.is_multiple_of(train.micro_batch_tokens) {
        let limit = format!("a multiple of train.micro_batch_tokens, {}", train.micro_batch_tokens);
        return Err(check.refuse("train.batch_tokens", train.batch_tokens, limit));
    }
    check.pieces("train.mtp_weight", &train.mtp_weight, 10.0)?;
    check.pieces("train.bias_speed", &train.bias_speed, 1.0)?;
    check.within("train.balance_alpha", train.balance_alpha, 0.0, 10.0)?;
    check.within("train.clip", train.clip, 1e-6, 1e6)
}

fn optimizer(check: &Check, recipe: &Recipe) -> Result<(), RecipeError> {
    let (optimizer, schedule) = (&recipe.optimizer, &recipe.schedule);
    check.within("optimizer.lr", optimizer.lr, 1e-9, 1.0)?;
    check.within("optimizer.beta1", optimizer.beta1, 0.0, 0.9999)?;
    check.within("optimizer.beta2", optimizer.beta2, 0.0, 0.99999)?;
    check.within("optimizer.eps", optimizer.eps, 1e-30, 1.0)?;
    check.within("optimizer.weight_decay", optimizer.weight_decay, 0.0, 10.0)?;
    check.within("optimizer.momentum", optimizer.momentum, 0.0, 0.9999)?;
    check.within("optimizer.update_rms", optimizer.update_rms, 1e-6, 10.0)?;
    check.within("schedule.decay_share", schedule.decay_share, 0.0, 1.0)?;
    check.within("schedule.final_share", schedule.final_share, 0.0, 1.0)?;
    let warmup_max = if schedule.kind == ScheduleKind::Constant { u64::MAX } else { recipe.steps() };
    if schedule.warmup_steps > warmup_max {
        let limit = format!("at most the run's {warmup_max} steps");
        return Err(check.refuse("schedule.warmup_steps", schedule.warmup_steps, limit));
    }
    Ok(())
}

/// The limits of the table `[lora]`.
pub(super) fn adapters(file: &str, recipe: &Recipe, spec: &ModelSpec) -> Result<(), RecipeError> {
    let check = Check { file };
    let Some(lora) = &recipe.lora else { return Ok(()) };
    if recipe.init.from.is_none() {
        return Err(check.refuse("lora", "given", "absent where init.from names no model"));
    }
    check.count("lora.rank", lora.rank as u64, 1, 1024)?;
    check.within("lora.alpha", lora.alpha.unwrap_or(1.0), 1e-6, 1e6)?;
    if recipe.optimizer.kind == OptimizerKind::Muon {
        return Err(check.refuse("optimizer.kind", "muon", "adamw where lora is given"));
    }
    // What adapters do not reach is not trained.
    let of_base = [("train.mtp_weight", &recipe.train.mtp_weight), ("train.bias_speed", &recipe.train.bias_speed)];
    for (key, list) in of_base {
        if list.iter().any(|(_, value)| *value != 0.0) {
            return Err(check.refuse(key, format!("{list:?}"), "absent where lora is given"));
        }
    }
    for name in &lora.targets {
        if !TARGETS.iter().any(|(known, _)| known == name) {
            let known: Vec<&str> = TARGETS.iter().map(|(known, _)| *known).collect();
            return Err(check.refuse(
                "a name in lora.targets",
                format!("{name:?}"),
                format!("one of {}", known.join(", ")),
            ));
        }
    }
    lora.settings(spec)
        .adapters(spec)
        .map(|_| ())
        .map_err(|error| check.refuse("lora.targets", format!("{:?}", lora.targets), format!("otherwise: {error}")))
}

fn run(check: &Check, recipe: &Recipe) -> Result<(), RecipeError> {
    let run = &recipe.run;
    check.count("run.evaluate_every", run.evaluate_every, 1, 1 << 40)?;
    check.count("run.evaluate_tokens", run.evaluate_tokens as u64, 1, 1 << 40)?;
    check.count("run.checkpoint_every", run.checkpoint_every, 1, 1 << 40)?;
    check.count("run.keep_last", run.keep_last as u64, 1, 1 << 20)?;
    check.count("run.skipped_max", run.skipped_max, 0, 1 << 40)?;
    if run.spike_factor != 0.0 {
        check.within("run.spike_factor", run.spike_factor, 1.5, 1e9)?;
    }
    check.within("run.price_per_hour", run.price_per_hour, 0.0, 1e9)?;
    check.within("run.watts_estimated", run.watts_estimated, 0.0, 1e9)
}
