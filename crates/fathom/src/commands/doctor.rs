//! `fathom doctor`: what this machine can do, and which models fit it.
//!
//! Decoding one token reads every active weight once, so the read bandwidth of memory divided by
//! those bytes is a ceiling for tokens per second; no program on this machine can exceed it without
//! a draft model. The table of models says for each what that comes to.

use anyhow::Context;
use kernels::measure::{ArithmeticPeak, Limits, Machine, Operation, ReadBandwidth, Spread, Topology};
use serde_json::{Value, json};

use crate::terminal::print;

/// Show what this machine can do: instruction sets, memory, measured limits, and what fits
#[derive(clap::Args, Debug)]
#[command(after_help = "Takes a few seconds and measures best when nothing else runs.")]
pub(crate) struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let limits = Limits::measure().context("cannot measure this machine")?;
    Ok(print(&if args.json { format!("{}\n", as_json(&limits)) } else { as_text(&limits) })?)
}

/// A well-known model.
struct KnownModel {
    name: &'static str,
    /// All weights, in billions (1e9).
    weights_b: f64,
    /// Weights that one token reads, in billions: attention, the routed experts and the head, but
    /// of the embedding only a row.
    read_per_token_b: f64,
}

/// From the models' published configurations.
const MODELS: &[KnownModel] = &[
    KnownModel { name: "R1-Distill-Qwen-1.5B", weights_b: 1.777, read_per_token_b: 1.544 },
    KnownModel { name: "R1-Distill-Qwen-7B", weights_b: 7.616, read_per_token_b: 7.071 },
    KnownModel { name: "R1-Distill-Llama-8B", weights_b: 8.030, read_per_token_b: 7.505 },
    KnownModel { name: "R1-Distill-Qwen-14B", weights_b: 14.770, read_per_token_b: 13.992 },
    KnownModel { name: "DeepSeek-V2-Lite", weights_b: 15.706, read_per_token_b: 2.451 },
    KnownModel { name: "Qwen3-30B-A3B", weights_b: 30.532, read_per_token_b: 3.041 },
    KnownModel { name: "R1-Distill-Qwen-32B", weights_b: 32.764, read_per_token_b: 31.985 },
    KnownModel { name: "DeepSeek-V3, R1", weights_b: 671.026, read_per_token_b: 36.625 },
];

/// Formats and their bits per weight, scales included; q4_k is the usual mix with some q6_k.
const FORMATS: [(&str, f64); 3] = [("q4_k", 4.85), ("q8_0", 8.5), ("bf16", 16.0)];

/// Memory beside the weights: a cache of some thousand tokens, activations, the program.
const BESIDE_WEIGHTS_BYTES: f64 = (1u64 << 30) as f64;

/// One model in one format on this machine.
#[derive(Debug, PartialEq)]
struct Fit {
    needed_bytes: f64,
    /// `None` if the system does not tell how much memory is available.
    fits: Option<bool>,
    tokens_per_s_max: f64,
}

fn fit(model: &KnownModel, bits: f64, available_bytes: Option<u64>, read_gb_per_s: f64) -> Fit {
    let bytes = |weights_b: f64| weights_b * 1e9 * bits / 8.0;
    let needed_bytes = bytes(model.weights_b) + BESIDE_WEIGHTS_BYTES;
    Fit {
        needed_bytes,
        fits: available_bytes.map(|available| needed_bytes <= available as f64),
        tokens_per_s_max: read_gb_per_s * 1e9 / bytes(model.read_per_token_b),
    }
}

fn fits(limits: &Limits) -> impl Iterator<Item = (&'static KnownModel, [Fit; 3])> {
    let available_bytes = limits.machine.memory.available_bytes;
    let read_gb_per_s = best_read(limits).gb_per_s.best;
    MODELS.iter().map(move |model| (model, FORMATS.map(|(_, bits)| fit(model, bits, available_bytes, read_gb_per_s))))
}

/// On a machine whose processors share a core, one thread may be the faster.
fn best_read(limits: &Limits) -> ReadBandwidth {
    let (one, all) = (limits.read_one_thread, limits.read_all_threads);
    if one.gb_per_s.best > all.gb_per_s.best { one } else { all }
}

fn as_text(limits: &Limits) -> String {
    let mut text = machine_text(&limits.machine);
    text += "\nMeasured (best of many short runs, median in brackets)\n";
    for read in [limits.read_one_thread, limits.read_all_threads] {
        let label = format!("read memory, {}", threads(read.threads));
        text += &row(&label, &format!("{} GB/s", spread(read.gb_per_s)));
    }
    for peak in &limits.arithmetic {
        text += &peak_text(peak);
    }
    text += &row("first two processors", &limits.topology.map_or("unknown".into(), topology_text));
    text += &row("time taken", &format!("{:.1} s", limits.duration_s));
    text += &fits_text(limits);
    text
}

fn machine_text(machine: &Machine) -> String {
    let join = |present: bool| {
        let names = machine.features.iter().filter(|feature| feature.present == present).map(|feature| feature.name);
        let names: Vec<_> = names.collect();
        if names.is_empty() { "none".to_string() } else { names.join(" ") }
    };
    let amx = machine.amx;
    let amx = match (amx.tile, amx.enabled_by_system) {
        (false, _) => "no".to_string(),
        (true, false) => "the processor has it, the system does not enable it".to_string(),
        (true, true) => {
            let kinds = [("int8", amx.int8), ("bf16", amx.bf16), ("fp16", amx.fp16)];
            kinds.iter().filter(|kind| kind.1).map(|kind| kind.0).collect::<Vec<_>>().join(" ")
        }
    };
    let memory = machine.memory;
    let memory = format!("{} available of {}", gib(memory.available_bytes), gib(memory.total_bytes));
    let mut text = String::from("Machine\n");
    text += &row("processor", machine.cpu_name.as_deref().unwrap_or("unknown"));
    text += &row("processors to use", &machine.processors.to_string());
    text += &row("system", &format!("{} {}", machine.system, machine.architecture));
    text += &row("has", &join(true));
    text += &row("has not", &join(false));
    text += &row("AMX", &amx);
    text += &row(
        "last-level cache",
        &machine.last_level_cache_bytes.map_or("unknown".into(), |b| format!("{} MiB", b >> 20)),
    );
    text += &row("memory", &memory);
    text
}

fn peak_text(peak: &ArithmeticPeak) -> String {
    let unit = match peak.operation {
        Operation::F32Fma | Operation::Bf16Dot => "GFLOP/s",
        Operation::Int8Dot => "GOP/s",
    };
    let label = format!("{}, {}", peak.operation.name(), peak.instruction_set);
    let (one, all) = (spread(peak.one_thread_gop_per_s), spread(peak.all_threads_gop_per_s));
    row(&label, &format!("{one} {unit} with 1 thread, {all} with {}", peak.threads))
}

pub(super) fn topology_text(topology: Topology) -> String {
    let what = if topology.siblings() { "share one core now: expect half the speed" } else { "two cores" };
    let (scaling, round_trip_ns) = (topology.two_thread_scaling, topology.round_trip_ns);
    format!("{what} (two threads do {scaling:.2} times the work of one; round trip {round_trip_ns:.0} ns)")
}

fn fits_text(limits: &Limits) -> String {
    let mut text =
        String::from("\nWhat fits (estimate: most tokens per second that memory allows, decoding one sequence)\n");
    text += &format!("  {:<22}", "");
    text += &FORMATS.map(|(name, bits)| format!("{:>22}", format!("{name} ({bits} bits)"))).concat();
    text += "\n";
    for (model, fits) in fits(limits) {
        text += &format!("  {:<22}", model.name);
        text += &fits.map(|fit| format!("{:>22}", fit_text(&fit))).concat();
        text += "\n";
    }
    text += "  Weights and 1 GiB for the cache and the program must fit the available memory.\n";
    text
}

fn fit_text(fit: &Fit) -> String {
    let rate = format!("{:.1} tokens/s", fit.tokens_per_s_max);
    match fit.fits {
        Some(true) => rate,
        Some(false) => format!("no, needs {:.0} GiB", fit.needed_bytes / f64::from(1 << 30)),
        None => format!("{rate} if it fits"),
    }
}

fn row(label: &str, value: &str) -> String {
    format!("  {label:<25} {value}\n")
}

pub(super) fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_string() } else { format!("{count} threads") }
}

fn spread(spread: Spread) -> String {
    format!("{:.1} ({:.1})", spread.best, spread.median)
}

fn gib(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".to_string(), |bytes| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)))
}

fn as_json(limits: &Limits) -> Value {
    let machine = &limits.machine;
    let models = fits(limits).map(|(model, fits)| {
        let formats = fits.iter().zip(FORMATS).map(|(fit, (format, bits))| {
            json!({
                "format": format,
                "bits_per_weight": bits,
                "needed_bytes": fit.needed_bytes,
                "fits": fit.fits,
                "tokens_per_s_max_estimate": fit.tokens_per_s_max,
            })
        });
        json!({
            "name": model.name,
            "weights_b": model.weights_b,
            "read_per_token_b": model.read_per_token_b,
            "formats": formats.collect::<Vec<_>>(),
        })
    });
    let features = machine.features.iter().map(|feature| (feature.name.to_string(), json!(feature.present)));
    json!({
        "cpu": machine.cpu_name,
        "architecture": machine.architecture,
        "system": machine.system,
        "processors": machine.processors,
        "features": features.collect::<serde_json::Map<_, _>>(),
        "amx": {
            "tile": machine.amx.tile,
            "int8": machine.amx.int8,
            "bf16": machine.amx.bf16,
            "fp16": machine.amx.fp16,
            "enabled_by_system": machine.amx.enabled_by_system,
        },
        "last_level_cache_bytes": machine.last_level_cache_bytes,
        "memory_total_bytes": machine.memory.total_bytes,
        "memory_available_bytes": machine.memory.available_bytes,
        "read_one_thread": read_json(limits.read_one_thread),
        "read_all_threads": read_json(limits.read_all_threads),
        "arithmetic": limits.arithmetic.iter().map(peak_json).collect::<Vec<_>>(),
        "topology": limits.topology.map(topology_json),
        "duration_s": limits.duration_s,
        "models": models.collect::<Vec<_>>(),
    })
}

fn read_json(read: ReadBandwidth) -> Value {
    json!({ "threads": read.threads, "bytes_per_run": read.bytes_per_run, "gb_per_s": spread_json(read.gb_per_s) })
}

fn peak_json(peak: &ArithmeticPeak) -> Value {
    json!({
        "operation": peak.operation.name(),
        "instruction_set": peak.instruction_set,
        "threads": peak.threads,
        "one_thread_gop_per_s": spread_json(peak.one_thread_gop_per_s),
        "all_threads_gop_per_s": spread_json(peak.all_threads_gop_per_s),
    })
}

pub(super) fn topology_json(topology: Topology) -> Value {
    json!({
        "processors": topology.processors,
        "round_trip_ns": topology.round_trip_ns,
        "two_thread_scaling": topology.two_thread_scaling,
        "siblings": topology.siblings(),
    })
}

pub(super) fn spread_json(spread: Spread) -> Value {
    json!({ "best": spread.best, "median": spread.median, "runs": spread.runs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::measure::{Amx, Feature, Memory};

    fn limits(available_bytes: Option<u64>) -> Limits {
        let spread = |best: f64| Spread { best, median: best - 1.0, runs: 5 };
        let read = |threads, best| ReadBandwidth { threads, bytes_per_run: 1 << 29, gb_per_s: spread(best) };
        let memory = Memory { total_bytes: available_bytes, available_bytes };
        Limits {
            machine: Machine {
                cpu_name: None,
                architecture: "x86_64",
                features: vec![Feature { name: "avx2", present: true }, Feature { name: "avx512f", present: false }],
                amx: Amx { tile: true, int8: true, bf16: true, fp16: false, enabled_by_system: true },
                processors: 2,
                last_level_cache_bytes: Some(32 << 20),
                memory,
                system: "linux 6.1".into(),
            },
            read_one_thread: read(1, 13.0),
            read_all_threads: read(2, 25.0),
            arithmetic: vec![],
            topology: Some(Topology { processors: [0, 1], round_trip_ns: 300.0, two_thread_scaling: 1.05 }),
            duration_s: 2.0,
        }
    }

    #[test]
    fn a_model_fits_with_its_cache_or_not_at_all() {
        let model = KnownModel { name: "8 GB", weights_b: 8.0, read_per_token_b: 2.0 };
        let needed = 8_000_000_000 + (1 << 30);
        let at = |available| fit(&model, 8.0, available, 20.0);
        assert_eq!(at(Some(needed)).fits, Some(true));
        assert_eq!(at(Some(needed - 1)).fits, Some(false));
        assert_eq!(at(None).fits, None);
        // 20 GB/s over 2 GB a token.
        assert_eq!(at(None).tokens_per_s_max, 10.0);
    }

    #[test]
    fn the_table_says_what_the_measurements_are() {
        let text = as_text(&limits(Some(24 << 30)));
        for expected in [
            "processor                 unknown",
            "has                       avx2\n",
            "has not                   avx512f\n",
            "AMX                       int8 bf16\n",
            "memory                    24.0 GiB available of 24.0 GiB",
            "read memory, 2 threads    25.0 (24.0) GB/s",
            "share one core now",
        ] {
            assert!(text.contains(expected), "no '{expected}' in\n{text}");
        }
        let row = |name: &str| text.lines().find(|line| line.contains(name)).expect("a row").to_string();
        // 25 GB/s over 2.451e9 weights of 4.85 bits; 16 bits of 15.7e9 weights are 29.3 GiB, and one beside.
        assert!(row("DeepSeek-V2-Lite").contains("16.8 tokens/s"), "{text}");
        assert!(row("DeepSeek-V2-Lite").contains("no, needs 30 GiB"), "{text}");
        assert!(as_text(&limits(None)).contains("tokens/s if it fits"));
    }

    #[test]
    fn json_holds_the_same_figures() {
        let json = as_json(&limits(Some(24 << 30)));
        assert_eq!(json["read_all_threads"]["gb_per_s"]["best"], 25.0);
        assert_eq!(json["topology"]["siblings"], true);
        assert_eq!(json["features"]["avx512f"], false);
        assert_eq!(json["models"].as_array().unwrap().len(), MODELS.len());
        assert_eq!(as_json(&limits(None))["memory_total_bytes"], Value::Null);
        assert_eq!(as_json(&limits(None))["models"][0]["formats"][0]["fits"], Value::Null);
    }
}
