//! What `fathom bench` found: the lines, their limits, as text and as JSON.

use kernels::attention::CacheFormat;
use kernels::format::Format;
use kernels::measure::{Machine, Operation, Spread, ThreadLimits, Topology};
use model::cost::Cost;
use model::parameters::Counts;
use serde_json::{Value, json};

use super::topology_words;
use crate::commands::doctor;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One new token of each of `batch` sequences.
    Decode { batch: usize },
    /// A prompt of so many tokens.
    Prompt { prompt: usize },
}

impl Kind {
    pub(super) fn text(self) -> String {
        match self {
            Kind::Decode { batch: 1 } => "decode".to_string(),
            Kind::Decode { batch } => format!("decode of {batch}"),
            Kind::Prompt { prompt } => format!("prompt of {prompt}"),
        }
    }

    /// New tokens of one run.
    fn tokens(self) -> usize {
        match self {
            Kind::Decode { batch } => batch,
            Kind::Prompt { prompt } => prompt,
        }
    }
}

/// Which of the two limits is the lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Memory,
    Arithmetic,
}

impl Bound {
    fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Arithmetic => "arithmetic",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) threads: usize,
    pub(super) depth: usize,
    pub(super) tokens_per_s: Spread,
    pub(super) bytes_per_token: f64,
    pub(super) operations_per_token: f64,
    /// What memory gave around this measurement.
    pub(super) read_gb_per_s: f64,
    pub(super) bound: Bound,
    pub(super) limit_tokens_per_s: f64,
}

impl Line {
    pub(super) fn new(
        kind: Kind,
        threads: usize,
        depth: usize,
        tokens_per_s: Spread,
        cost: Cost,
        limits: &ThreadLimits,
    ) -> Line {
        let tokens = kind.tokens() as f64;
        let memory_s = cost.bytes() / (limits.read.gb_per_s.best * 1e9);
        let products = cost.product_operations.iter().map(|&(format, n)| n / limits.peak_gop_per_s(peak_of(format)));
        let attention = cost.attention_operations / limits.peak_gop_per_s(Operation::F32Fma);
        let arithmetic_s = (products.sum::<f64>() + attention) / 1e9;
        let bound = if memory_s >= arithmetic_s { Bound::Memory } else { Bound::Arithmetic };
        Line {
            kind,
            threads,
            depth,
            tokens_per_s,
            bytes_per_token: cost.bytes() / tokens,
            operations_per_token: cost.operations() / tokens,
            read_gb_per_s: limits.read.gb_per_s.best,
            bound,
            limit_tokens_per_s: tokens / memory_s.max(arithmetic_s),
        }
    }

    /// Of the limit, 1 being all of it.
    pub(super) fn share(&self) -> f64 {
        self.tokens_per_s.best / self.limit_tokens_per_s
    }

    /// A row of the table.
    pub(super) fn as_text(&self) -> String {
        let speed = format!("{} ({})", rate(self.tokens_per_s.best), rate(self.tokens_per_s.median));
        format!(
            "{:<15} {:>5} {:>7} {:>18} {:>9} {:>9}  {:<10} {:>8} {:>5.0} %\n",
            self.kind.text(),
            self.threads,
            self.depth,
            speed,
            scaled(self.bytes_per_token),
            scaled(self.operations_per_token),
            self.bound.name(),
            rate(self.limit_tokens_per_s),
            100.0 * self.share()
        )
    }

    fn as_json(&self) -> Value {
        let (kind, sequences) = match self.kind {
            Kind::Decode { batch } => ("decode", batch),
            Kind::Prompt { .. } => ("prompt", 1),
        };
        json!({
            "kind": kind,
            "threads": self.threads,
            "depth": self.depth,
            "sequences": sequences,
            "tokens": self.kind.tokens() / sequences,
            "tokens_per_s": doctor::spread_json(self.tokens_per_s),
            "bytes_per_token": self.bytes_per_token,
            "operations_per_token": self.operations_per_token,
            "read_gb_per_s": self.read_gb_per_s,
            "limit": self.bound.name(),
            "limit_tokens_per_s": self.limit_tokens_per_s,
            "share_of_limit": self.share(),
            "share_of_limit_median": self.tokens_per_s.median / self.limit_tokens_per_s,
        })
    }
}

/// The fastest arithmetic for products with weights of a format.
fn peak_of(format: Format) -> Operation {
    match format {
        Format::BF16 => Operation::Bf16Dot,
        Format::F32 | Format::F16 | Format::F8E4M3 => Operation::F32Fma,
        _ => Operation::Int8Dot,
    }
}

/// Everything that was found.
pub(super) struct Figures {
    pub(super) model: String,
    pub(super) family: &'static str,
    pub(super) counts: Counts,
    pub(super) format: CacheFormat,
    pub(super) machine: Machine,
    pub(super) limits: Vec<ThreadLimits>,
    pub(super) topology_before: Option<Topology>,
    pub(super) topology_after: Option<Topology>,
    pub(super) lines: Vec<Line>,
}

impl Figures {
    /// What stands above the lines.
    pub(super) fn heading(&self) -> String {
        let (total, active) = (scaled(self.counts.total as f64), scaled(self.counts.active as f64));
        let cpu = self.machine.cpu_name.as_deref().unwrap_or("unknown processor");
        let mut text = format!("{}: {}, {total} parameters, {active} active\n", self.model, self.family);
        text += &format!("{cpu}; first two processors: {}\n", topology_words(self.topology_before));
        for limits in &self.limits {
            let peaks = limits
                .gop_per_s
                .iter()
                .map(|(operation, spread)| format!(", {} {:.0} Gop/s", operation.name(), spread.best));
            text += &format!(
                "limits with {}: read {:.1} GB/s{}\n",
                doctor::threads(limits.threads),
                limits.read.gb_per_s.best,
                peaks.collect::<String>()
            );
        }
        text += &format!("cache in {}\n\n", self.format.name());
        text += &format!(
            "{:<15} {:>5} {:>7} {:>18} {:>9} {:>9}  {:<10} {:>8} {:>7}\n",
            "", "thr.", "depth", "tokens/s", "bytes", "ops", "limit", "tokens/s", "share"
        );
        text
    }

    /// What stands below them: a warning where the machine changed meanwhile.
    pub(super) fn closing(&self) -> String {
        let siblings = |topology: Option<Topology>| topology.is_some_and(|t| t.siblings());
        if siblings(self.topology_before) == siblings(self.topology_after) {
            return String::new();
        }
        format!("\nafterwards the first two processors: {}\n", topology_words(self.topology_after))
    }

    pub(super) fn as_json(&self) -> Value {
        let limits = self.limits.iter().map(|limits| {
            let peaks = limits.gop_per_s.iter().map(|(operation, spread)| {
                (operation.name().replace(' ', "_") + "_gop_per_s", doctor::spread_json(*spread))
            });
            json!({
                "threads": limits.threads,
                "read_gb_per_s": doctor::spread_json(limits.read.gb_per_s),
                "arithmetic": peaks.collect::<serde_json::Map<_, _>>(),
            })
        });
        json!({
            "model": self.model,
            "family": self.family,
            "parameters": self.counts.total,
            "parameters_active": self.counts.active,
            "cache": self.format.name(),
            "cpu": self.machine.cpu_name,
            "processors": self.machine.processors,
            "isa": kernels::isa::isa().name(),
            "topology_before": self.topology_before.map(doctor::topology_json),
            "topology_after": self.topology_after.map(doctor::topology_json),
            "limits": limits.collect::<Vec<_>>(),
            "lines": self.lines.iter().map(Line::as_json).collect::<Vec<_>>(),
        })
    }
}

/// Tokens per second with three digits.
pub(super) fn rate(tokens_per_s: f64) -> String {
    match tokens_per_s {
        n if n < 10.0 => format!("{n:.2}"),
        n if n < 100.0 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

/// A count with three digits and a letter for thousands, millions, billions.
fn scaled(n: f64) -> String {
    let (n, unit) = match n {
        n if n >= 999.5e6 => (n / 1e9, " G"),
        n if n >= 999.5e3 => (n / 1e6, " M"),
        n if n >= 999.5 => (n / 1e3, " k"),
        n => (n, ""),
    };
    rate(n) + unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::measure::ReadBandwidth;

    fn limits() -> ThreadLimits {
        let spread = |best: f64| Spread { best, median: best, runs: 5 };
        ThreadLimits {
            threads: 2,
            read: ReadBandwidth { threads: 2, bytes_per_run: 1, gb_per_s: spread(40.0) },
            gop_per_s: vec![(Operation::F32Fma, spread(200.0)), (Operation::Int8Dot, spread(800.0))],
        }
    }

    fn line(cost: Cost, kind: Kind) -> Line {
        Line::new(kind, 2, 0, Spread { best: 10.0, median: 8.0, runs: 3 }, cost, &limits())
    }

    #[test]
    fn the_slower_limit_counts() {
        // 2 GB at 40 GB/s are 50 ms; 8e9 operations at 800e9 a second and 2e9 at 200e9 are 20 ms.
        let cost = Cost {
            weight_bytes: 1.5e9,
            cache_bytes: 0.5e9,
            product_operations: vec![(Format::Q4K, 8e9)],
            attention_operations: 2e9,
        };
        let decode = line(cost.clone(), Kind::Decode { batch: 1 });
        assert_eq!((decode.bound, decode.limit_tokens_per_s), (Bound::Memory, 20.0));
        assert_eq!((decode.share(), decode.bytes_per_token), (0.5, 2e9));
        // The same with weights in f32: 40 and 10 ms. In bf16, for which this processor has no peak, too.
        for format in [Format::F32, Format::BF16] {
            let cost = Cost { product_operations: vec![(format, 10e9)], ..cost.clone() };
            let prompt = line(cost, Kind::Prompt { prompt: 30 });
            assert_eq!(prompt.bound, Bound::Arithmetic);
            assert!((prompt.limit_tokens_per_s - 500.0).abs() < 1e-9, "{prompt:?}");
        }
        let row = decode.as_text();
        for part in ["decode ", " 10.0 (8.00) ", " 2.00 G ", " 10.0 G ", " memory ", " 20.0 ", " 50 %"] {
            assert!(row.contains(part), "no {part:?} in {row}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (n, text) in [(0.0, "0.00"), (999.0, "999"), (1000.0, "1.00 k"), (15.7e9, "15.7 G"), (999.9e6, "1.00 G")] {
            assert_eq!(scaled(n), text);
        }
    }
}
