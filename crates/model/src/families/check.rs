//! What must hold of a description from any source before anything is computed or allocated by it.
//!
//! Each number of a configuration was bounded when it was read; here are the bounds of their products
//! and the relations that the forward pass relies on. A description that passes can be counted without
//! overflow, listed in bounded memory and run without a NaN that its weights do not have.

use crate::config::SpecError;
use crate::spec::{Attention, BlockSpec, Ffn, GroupScore, ModelSpec, MoeSpec, RopeScaling, RopeSpec};

use super::range;

/// Rows or columns of a matrix; V3's largest is 129,280.
const MATRIX_SIDE_MAX: usize = 1 << 24;
/// Elements of one head's query, key or value; the largest published is 256.
pub(super) const HEAD_DIM_MAX: usize = 1 << 12;
/// Routed experts of all layers together; Kimi K2 has 23,040.
const EXPERTS_MAX: usize = 1 << 16;
/// Parameters, multi-token prediction included: a thousand times V3.
const PARAMETERS_MAX: u64 = 1 << 50;

/// The angle of a pair by a position; 1 is the largest without scaling.
const FREQUENCY_MAX: f32 = 1e6;

/// Relations between sizes that the forward pass relies on, for specs from any source.
pub(crate) fn check(spec: &ModelSpec) -> Result<(), SpecError> {
    side("the hidden size", spec.hidden)?;
    side("the vocabulary", spec.vocab)?;
    let mut experts = 0;
    let mut checked: Option<&RopeSpec> = None;
    for block in spec.blocks.iter().chain(&spec.mtp) {
        match &block.attention {
            Attention::Mla(_) => latent(block)?,
            Attention::Gqa(_) => grouped(block)?,
        }
        for rope in block.ropes() {
            // Neighbours mostly have the same.
            if checked != Some(rope) {
                rotary(rope)?;
            }
            checked = Some(rope);
        }
        match &block.ffn {
            Ffn::Dense(dense) => side("the width of a network", dense.width)?,
            Ffn::Moe(moe) => {
                experts += moe.experts;
                side("the width of an expert", moe.expert.width)?;
                side("the width of the shared experts", moe.shared.map_or(1, |shared| shared.width))?;
                finite("the factor of the experts' weights", moe.router.scale)?;
                choice(moe)?;
            }
        }
        above("the epsilon of norms", block.norm_eps, 0.0)?;
    }
    if experts > EXPERTS_MAX {
        return Err(range("the number of experts of all layers", experts, format!("at most {EXPERTS_MAX}")));
    }
    above("the epsilon of the last norm", spec.final_norm_eps, 0.0)?;
    above("the bound of logits", spec.head.softcap.unwrap_or(1.0), 0.0)?;
    let counts = spec.counts();
    let parameters = counts.total.saturating_add(counts.mtp);
    if parameters > PARAMETERS_MAX {
        return Err(range("the number of parameters", parameters, format!("at most {PARAMETERS_MAX}")));
    }
    Ok(())
}

fn grouped(block: &BlockSpec) -> Result<(), SpecError> {
    let Attention::Gqa(gqa) = &block.attention else { return Ok(()) };
    head("the size of a head", gqa.head_dim)?;
    side("query heads times their size", gqa.heads.saturating_mul(gqa.head_dim))?;
    if gqa.kv_heads == 0 || !gqa.heads.is_multiple_of(gqa.kv_heads) {
        let limit = format!("a divisor of the {} query heads", gqa.heads);
        return Err(range("the number of key heads", gqa.kv_heads, limit));
    }
    if gqa.rope.dim > gqa.head_dim {
        return Err(range(
            "the number of rotary elements",
            gqa.rope.dim,
            format!("at most the head's {}", gqa.head_dim),
        ));
    }
    above("the epsilon of the norms of heads", gqa.qk_norm_eps.unwrap_or(1.0), 0.0)?;
    above("the factor of attention scores", gqa.scale, 0.0)
}

fn latent(block: &BlockSpec) -> Result<(), SpecError> {
    let Attention::Mla(mla) = &block.attention else { return Ok(()) };
    for (what, size) in [
        ("the size of a head's query without position", mla.nope_dim),
        ("the number of rotary elements", mla.rope_dim),
        ("the size of a head's value", mla.v_dim),
        ("the size of an index head", mla.indexer.as_ref().map_or(1, |i| i.dim)),
    ] {
        head(what, size)?;
    }
    side("the rank of the latent", mla.kv_rank)?;
    side("the rank of the queries", mla.q_rank.unwrap_or(1))?;
    side("heads times the size of a query", mla.heads.saturating_mul(mla.key_dim()))?;
    side("heads times the size of key and value", mla.heads.saturating_mul(mla.nope_dim + mla.v_dim))?;
    above("the epsilon of the latents' norms", mla.latent_norm_eps, 0.0)?;
    above("the factor of attention scores", mla.scale, 0.0)?;
    let Some(indexer) = &mla.indexer else { return Ok(()) };
    side("index heads times their size", indexer.heads.saturating_mul(indexer.dim))?;
    if indexer.rope.dim > indexer.dim {
        return Err(range(
            "the size of an index head",
            indexer.dim,
            format!("at least the {} rotary elements", indexer.rope.dim),
        ));
    }
    above("the epsilon of the index keys' norm", indexer.norm_eps, 0.0)
}

/// Frequencies must be numbers that positions can be multiplied with.
fn rotary(rope: &RopeSpec) -> Result<(), SpecError> {
    rotary_settings(rope)?;
    match rope.frequencies().into_iter().find(|f| !(0.0..=FREQUENCY_MAX).contains(f)) {
        None => Ok(()),
        Some(frequency) => Err(range("a rotary frequency", frequency, format!("a number from 0 to {FREQUENCY_MAX}"))),
    }
}

/// No division by zero, no logarithm of what has none.
fn rotary_settings(rope: &RopeSpec) -> Result<(), SpecError> {
    if rope.dim == 0 || !rope.dim.is_multiple_of(2) {
        return Err(range("the number of rotary elements", rope.dim, "an even number above 0"));
    }
    above("the base of the rotary frequencies", rope.base, 1.0)?;
    match &rope.scaling {
        RopeScaling::None => Ok(()),
        RopeScaling::Linear { factor } => above("the factor of the rotary scaling", *factor, 0.0),
        RopeScaling::Llama3 { factor, low, high, original } => {
            above("the factor of the rotary scaling", *factor, 0.0)?;
            above("low_freq_factor", *low, 0.0)?;
            above("high_freq_factor (above low_freq_factor)", *high, *low)?;
            above("the original context", *original, 0.0)
        }
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, magnitude, .. } => {
            above("the factor of the rotary scaling", *factor, 0.0)?;
            above("the original context", *original, 0.0)?;
            above("beta_fast", *beta_fast, 0.0)?;
            above("beta_slow", *beta_slow, 0.0)?;
            above("the factor of cosine and sine", *magnitude, 0.0)
        }
        RopeScaling::Divisors(divisors) => {
            if divisors.len() != rope.dim / 2 {
                return Err(range("the number of rotary divisors", divisors.len(), rope.dim / 2));
            }
            divisors.iter().try_for_each(|d| above("a rotary divisor", *d, 0.0))
        }
    }
}

/// Whether the router can choose as many experts as it must.
fn choice(moe: &MoeSpec) -> Result<(), SpecError> {
    if moe.used == 0 || moe.used > moe.experts {
        return Err(range("the number of experts of a token", moe.used, format!("1 to the {} experts", moe.experts)));
    }
    let Some(limit) = moe.router.groups else { return Ok(()) };
    let divides = limit.groups > 0 && moe.experts.is_multiple_of(limit.groups);
    let size = if divides { moe.experts / limit.groups } else { 0 };
    let large_enough = limit.score == GroupScore::Max || size >= 2;
    if !divides || !large_enough || limit.used > limit.groups || limit.used * size < moe.used {
        let value = format!("{} groups of which {} are used", limit.groups, limit.used);
        let wanted = format!("groups of equal size that hold {} of the {} experts", moe.used, moe.experts);
        return Err(range("the grouping of experts", value, wanted));
    }
    Ok(())
}

fn side(what: &str, size: usize) -> Result<(), SpecError> {
    bounded(what, size, MATRIX_SIDE_MAX)
}

pub(super) fn head(what: &str, size: usize) -> Result<(), SpecError> {
    bounded(what, size, HEAD_DIM_MAX)
}

fn bounded(what: &str, size: usize, max: usize) -> Result<(), SpecError> {
    if (1..=max).contains(&size) { Ok(()) } else { Err(range(what, size, format!("between 1 and {max}"))) }
}

fn above(what: &str, value: f32, limit: f32) -> Result<(), SpecError> {
    if value.is_finite() && value > limit {
        Ok(())
    } else {
        Err(range(what, value, format!("a finite number above {limit}")))
    }
}

fn finite(what: &str, value: f32) -> Result<(), SpecError> {
    if value.is_finite() { Ok(()) } else { Err(range(what, value, "a finite number")) }
}
