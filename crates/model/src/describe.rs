//! A model's description as text: what `fathom describe` prints and what the families' snapshot
//! tests compare.

use std::fmt::Write;

use kernels::ops::{Activation, RopeLayout};

use crate::spec::*;

impl ModelSpec {
    /// The description: one line a fact, layers that are alike on one line.
    pub fn describe(&self) -> String {
        let counts = self.counts();
        let mut text = String::new();
        let mut line = |label: &str, value: String| writeln!(text, "{label:<12}{value}").expect("write to a string");
        line("family", self.family.to_string());
        let mut parameters =
            format!("{} in all, {} active for a token", billions(counts.total), billions(counts.active));
        if counts.mtp > 0 {
            parameters += &format!(", {} more for multi-token prediction", billions(counts.mtp));
        }
        line("parameters", parameters);
        line("cache", format!("{} elements a token", self.cache_elements()));
        line("context", self.context.to_string());
        let scale = self.embedding_scale.map_or_else(String::new, |s| format!(", times {s}"));
        line("embedding", format!("{} x {}{scale}", self.vocab, self.hidden));
        for (layers, block) in alike(&self.blocks) {
            line("layers", format!("{layers}: {}", block_text(block)));
        }
        let tied = if self.head.tied { "tied to the embedding" } else { "own matrix" };
        let cap = self.head.softcap.map_or_else(String::new, |c| format!(", capped at {c}"));
        line("head", format!("{tied}{cap}"));
        if let Some(block) = self.mtp.first() {
            line("mtp", format!("{} x {}", self.mtp.len(), block_text(block)));
        }
        text
    }
}

fn billions(n: u64) -> String {
    match n {
        0..10_000_000 => format!("{:.3}M", n as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{:.1}M", n as f64 / 1e6),
        _ => format!("{:.3}B", n as f64 / 1e9),
    }
}

/// The different blocks, each with the layers that have it, in the order of their first layers.
fn alike(blocks: &[BlockSpec]) -> Vec<(String, &BlockSpec)> {
    let mut kinds: Vec<(Vec<usize>, &BlockSpec)> = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        // Models have two or three kinds; among many only the latest are worth comparing.
        match kinds.iter_mut().rev().take(16).find(|(_, same)| *same == block) {
            Some((layers, _)) => layers.push(i),
            None => kinds.push((vec![i], block)),
        }
    }
    kinds.into_iter().map(|(layers, block)| (ranges(&layers), block)).collect()
}

/// Rising numbers as ranges: `0-2`, `5-59 by 6`, `0-4 6-10 12-13`.
fn ranges(numbers: &[usize]) -> String {
    let step = numbers.get(1).map_or(1, |second| second - numbers[0]);
    if numbers.len() > 2 && step > 1 && numbers.windows(2).all(|pair| pair[1] - pair[0] == step) {
        return format!("{}-{} by {step}", numbers[0], numbers[numbers.len() - 1]);
    }
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(" ")
}

fn block_text(block: &BlockSpec) -> String {
    let norms = if block.norms == NormPlacement::Sandwich { " sandwich" } else { "" };
    let attention = match &block.attention {
        Attention::Mla(mla) => mla_text(mla),
        Attention::Gqa(gqa) => gqa_text(gqa),
    };
    let ffn = match &block.ffn {
        Ffn::Dense(dense) => format!("dense({})", dense_text(dense)),
        Ffn::Moe(moe) => moe_text(moe),
    };
    format!("{attention}  {ffn}  rms({:e}){norms}", block.norm_eps)
}

fn mla_text(mla: &MlaSpec) -> String {
    let q = mla.q_rank.map_or_else(String::new, |r| format!(" q{r}"));
    let bias = if mla.bias { " bias" } else { "" };
    let indexer =
        mla.indexer.as_ref().map_or_else(String::new, |i| format!(" indexer({}x{} top{})", i.heads, i.dim, i.top_k));
    format!(
        "mla({}h{q} kv{} {}+{}/{}{bias} scale {:.5} {}{indexer})",
        mla.heads,
        mla.kv_rank,
        mla.nope_dim,
        mla.rope_dim,
        mla.v_dim,
        mla.scale,
        rope_text(&mla.rope)
    )
}

fn gqa_text(gqa: &GqaSpec) -> String {
    let mut extras = String::new();
    if gqa.qkv_bias || gqa.output_bias {
        extras += if gqa.output_bias { " bias(qkvo)" } else { " bias(qkv)" };
    }
    if gqa.qk_norm_eps.is_some() {
        extras += " qk-norm";
    }
    if gqa.sinks {
        extras += " sinks";
    }
    if let Some(window) = gqa.window {
        extras += &format!(" window {window}");
    }
    let (h, kv, d) = (gqa.heads, gqa.kv_heads, gqa.head_dim);
    format!("gqa({h}h/{kv} x{d}{extras} scale {:.5} {})", gqa.scale, rope_text(&gqa.rope))
}

fn rope_text(rope: &RopeSpec) -> String {
    let layout = match rope.layout {
        RopeLayout::Interleaved => "interleaved",
        RopeLayout::Half => "half",
    };
    let scaling = match &rope.scaling {
        RopeScaling::None => String::new(),
        RopeScaling::Linear { factor } => format!(" linear {factor}"),
        RopeScaling::Llama3 { factor, low, high, original } => format!(" llama3 {factor} {low}-{high} of {original}"),
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, magnitude } => {
            let exact = if *truncate { "" } else { " exact" };
            format!(" yarn {factor} of {original} beta {beta_slow}-{beta_fast}{exact} magnitude {magnitude:.5}")
        }
        RopeScaling::Divisors(divisors) => format!(" {} divisors", divisors.len()),
    };
    format!("rope({} {layout} {}{scaling})", rope.dim, rope.base)
}

fn dense_text(dense: &DenseSpec) -> String {
    let activation = match dense.activation {
        Activation::Silu => String::new(),
        Activation::GeluTanh => " gelu".to_string(),
        Activation::ClampedSwiglu { alpha, limit } => format!(" clamped {alpha} {limit}"),
    };
    format!("{}{activation}{}", dense.width, if dense.bias { " bias" } else { "" })
}

fn moe_text(moe: &MoeSpec) -> String {
    let router = &moe.router;
    let mut text = match router.score {
        Score::Softmax => "softmax",
        Score::Sigmoid => "sigmoid",
        Score::SoftmaxOfChosen => "softmax-of-chosen",
    }
    .to_string();
    for (set, word) in
        [(router.correction_bias, "+correction"), (router.bias, "+bias"), (router.normalise, " normalised")]
    {
        if set {
            text += word;
        }
    }
    if router.scale != 1.0 {
        text += &format!(" x{}", router.scale);
    }
    let groups = router.groups.map_or_else(String::new, |g| {
        let score = if g.score == GroupScore::Max { "best" } else { "best two" };
        format!(" {} of {} groups by {score}", g.used, g.groups)
    });
    let shared = moe.shared.map_or_else(String::new, |s| format!(" shared {}", dense_text(&s)));
    format!("moe({} x {} top{}{groups} {text}{shared})", moe.experts, dense_text(&moe.expert), moe.used)
}
