//! `fathom plan`: what training a model would take.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use model::spec::ModelSpec;
use plot::{Axis, Chart, Series, Style};
use serde_json::json;
use train::plan::{Cluster, Estimate, Pretraining, pretraining, published, shapes};
use train::recipe::Recipe;
use train::trial::{Trial, trial};

use crate::opened::read_spec;
use crate::options::pool;
use crate::terminal::print;
use crate::whole_file;

/// Say what training a model would take: hours, memory, money
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  fathom plan --published                       what DeepSeek's models cost, beside what the plan says
  fathom plan deepseek-v3/config.json --tokens 14.8e12
  fathom plan model.gguf --tokens 2e10 --cluster my-cluster.toml --bf16
  fathom plan --plot cost.svg                   cost over size, for published shapes
  fathom plan --recipe recipes/nano-pretrain.toml    this machine: tries a step of the recipe

A cluster file (the default is V3's own, 2,048 H800):
  devices = 64
  pipeline = 4              # stages
  expert = 16               # devices that share a layer's experts
  schedule = \"zero-bubble\"  # or one-forward-one-backward, dual-pipe
  [device]
  name = \"H100\"
  bf16_tflops = 989
  fp8_tflops = 1979
  memory_gib = 80
  dense_share = 0.4         # of the peak, in training
  expert_share = 0.2
  price_per_hour = 2.5")]
pub(crate) struct Args {
    /// A directory, a .gguf file, the name of a pulled model, or a config.json alone
    model: Option<String>,

    /// Tokens to train on
    #[arg(long, default_value_t = 14.8e12)]
    tokens: f64,

    /// Tokens of a sequence
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    sequence: u64,

    /// Sequences of a step
    #[arg(long, default_value_t = 15_360, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    batch: u64,

    /// Products in bf16 (otherwise FP8, where the device has it)
    #[arg(long)]
    bf16: bool,

    /// A description of the cluster in TOML
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,

    /// Compare the plan with published costs
    #[arg(long, conflicts_with_all = ["model", "cluster"])]
    published: bool,

    /// Say what this recipe takes on this machine, by trying a step of it
    #[arg(long, value_name = "RECIPE.toml", conflicts_with_all = ["model", "cluster", "published", "plot"])]
    recipe: Option<PathBuf>,

    /// Threads, for --recipe [default: all processors]
    #[arg(long, env = "FATHOM_THREADS", hide_env_values = true, value_name = "N")]
    threads: Option<usize>,

    /// Write a plot of cost over size for published shapes on this cluster
    #[arg(long, value_name = "FILE.svg", conflicts_with = "published")]
    plot: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if args.published {
        return print_published(args.json);
    }
    if let Some(path) = &args.recipe {
        return print_trial(path, args.threads, args.json);
    }
    if args.model.is_none() && args.plot.is_none() {
        bail!("which model? (a config.json is enough; --published, --plot and --recipe need none)");
    }
    let cluster = args.cluster.as_deref().map_or_else(|| Ok(Cluster::v3()), read_cluster)?;
    let run = Pretraining {
        tokens: args.tokens,
        sequence: args.sequence,
        batch: args.batch,
        fp8: !args.bf16 && cluster.device.fp8_tflops.is_some(),
        recompute_up_projections: true,
    };
    if let Some(path) = &args.plot {
        let svg = cost_over_size(&run, &cluster)?;
        whole_file::write(path, |file| std::io::Write::write_all(file, svg.as_bytes()))?;
    }
    if let Some(name) = &args.model {
        let spec = read_spec(name)?;
        let estimate = pretraining(&spec, &run, &cluster)?;
        let text = if args.json { as_json(&spec, &run, &cluster, &estimate) } else { table(&run, &cluster, &estimate) };
        print(&text)?;
    }
    Ok(())
}

/// What a recipe takes here.
fn print_trial(path: &Path, threads: Option<usize>, as_json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::read(path)?;
    let trial = trial(&recipe, &pool(threads)?)?;
    let Trial { memory, step_seconds, evaluation_seconds, seconds } = trial;
    let [first, last] = step_seconds;
    if as_json {
        let json = json!({
            "memory_bytes": memory.total(),
            "memory": memory,
            "steps": recipe.steps(),
            "step_seconds": step_seconds,
            "evaluation_seconds": evaluation_seconds,
            "seconds": seconds,
        });
        return Ok(print(&format!("{json}\n"))?);
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let speed = |seconds: f64| recipe.train.batch_tokens as f64 / seconds;
    let mut text = format!(
        "memory      {:.2} GiB (weights {:.2}, copies {:.2}, gradients {:.2}, optimiser {:.2}, activations {:.2})\n",
        gib(memory.total()),
        gib(memory.masters),
        gib(memory.copies),
        gib(memory.gradients),
        gib(memory.moments),
        gib(memory.activations)
    );
    text += &format!("speed       {:.0} tokens a second, {first:.2} s a step\n", speed(first));
    if (last - first).abs() > 0.02 * first {
        text += &format!("at the end  {:.0} tokens a second, {last:.2} s a step\n", speed(last));
    }
    let hours = |seconds: f64| seconds / 3600.0;
    text += &format!("steps       {} of {} tokens\n", recipe.steps(), recipe.train.batch_tokens);
    text +=
        &format!("time        {:.2} h, {:.2} h of it for held-out text\n", hours(seconds), hours(evaluation_seconds));
    Ok(print(&text)?)
}

fn read_cluster(path: &Path) -> anyhow::Result<Cluster> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let cluster: Cluster = toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.to_string().trim().replace('\n', " ")))?;
    cluster.check().with_context(|| path.display().to_string())?;
    Ok(cluster)
}

fn table(run: &Pretraining, cluster: &Cluster, estimate: &Estimate) -> String {
    let gib = f64::from(1 << 30);
    let memory = &estimate.memory;
    let parts: f64 = estimate.device_seconds_per_token.iter().sum();
    let share = |i: usize| 100.0 * estimate.device_seconds_per_token[i] / parts;
    let fits = if memory.total() / gib <= cluster.device.memory_gib { "fits" } else { "DOES NOT FIT" };
    let rows = [
        (
            "work",
            format!(
                "{:.1} GFLOP a token, {:.3e} FLOP in all",
                estimate.operations_per_token / 1e9,
                estimate.operations_per_token * run.tokens
            ),
        ),
        (
            "cluster",
            format!(
                "{} x {}: {} stages, {} copies, experts over {}",
                cluster.devices,
                cluster.device.name,
                cluster.pipeline,
                cluster.data(),
                cluster.expert
            ),
        ),
        ("time", format!("{:.0} device hours, {:.1} days on the clock", estimate.device_hours, estimate.hours / 24.0)),
        ("cost", format!("${:.0} at ${} an hour", estimate.cost, cluster.device.price_per_hour)),
        (
            "spent on",
            format!(
                "dense {:.0} %, experts {:.0} %, head {:.0} %, attention {:.0} %; pipeline bubble {:.1} %",
                share(0),
                share(1),
                share(2),
                share(3),
                100.0 * estimate.bubble
            ),
        ),
        (
            "memory",
            format!(
                "{:.1} GiB a device: weights {:.1}, gradients {:.1}, optimiser {:.1}, activations {:.1}; {fits} in {:.0} GiB",
                memory.total() / gib,
                memory.weights / gib,
                memory.gradients / gib,
                memory.optimiser / gib,
                memory.activations / gib,
                cluster.device.memory_gib
            ),
        ),
    ];
    rows.iter().map(|(label, value)| format!("{label:<12}{value}\n")).collect()
}

fn as_json(spec: &ModelSpec, run: &Pretraining, cluster: &Cluster, estimate: &Estimate) -> String {
    let [dense, experts, head, attention] = estimate.device_seconds_per_token;
    let value = json!({
        "family": spec.family, "parameters": spec.counts().total, "tokens": run.tokens,
        "devices": cluster.devices, "device": cluster.device.name,
        "operations_per_token": estimate.operations_per_token,
        "device_seconds_per_token": { "dense": dense, "experts": experts, "head": head, "attention": attention },
        "bubble": estimate.bubble, "device_hours": estimate.device_hours, "hours": estimate.hours,
        "cost": estimate.cost, "memory_bytes": estimate.memory.total(),
    });
    format!("{value:#}\n")
}

fn print_published(as_json: bool) -> anyhow::Result<()> {
    let rows = published()?;
    if as_json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| json!({ "what": r.what, "published_hours": r.published_hours, "planned_hours": r.planned_hours, "error": r.error(), "calibrates": r.calibrates }))
            .collect();
        return Ok(print(&format!("{:#}\n", json!(rows)))?);
    }
    let mut text = format!("{:<48}{:>14}{:>14}{:>9}\n", "H800 hours", "published", "planned", "off by");
    for row in &rows {
        let mark = if row.calibrates { "  (sets a constant of the plan)" } else { "" };
        text += &format!(
            "{:<48}{:>14.0}{:>14.0}{:>+8.1}%{mark}\n",
            row.what,
            row.published_hours,
            row.planned_hours,
            100.0 * row.error()
        );
    }
    text += "\nThe shares of the H800's peak come from DeepSeek-67B (dense layers) and DeepSeek-V2 (experts). V3's and R1-Zero's\n\
             hours are computed from their published settings; the 5K hours after V3's pre-training, and R1's\n\
             5K for data and 41K after R1-Zero, are taken as published.\n";
    Ok(print(&text)?)
}

/// What each published shape would cost with these tokens on this cluster.
fn cost_over_size(run: &Pretraining, cluster: &Cluster) -> anyhow::Result<String> {
    let (mut points, mut labels) = (Vec::new(), Vec::new());
    for (name, spec) in shapes() {
        let estimate = pretraining(&spec, run, cluster)?;
        points.push((spec.counts().active as f64, estimate.cost));
        labels.push(format!("{name} ${:.2}M", estimate.cost / 1e6));
    }
    let series = Series { points, labels, style: Style::Points, ..Series::default() };
    let chart = Chart {
        title: format!(
            "Cost of training on {:.3}T tokens, {} x {}",
            run.tokens / 1e12,
            cluster.devices,
            cluster.device.name
        ),
        x: Axis::log("active parameters of a token").including(1e9).including(1e11),
        y: Axis::log("dollars"),
        series: vec![series],
    };
    Ok(chart.svg())
}
