//! Whether the metadata says what the model is: the keys are read back before anything is written.
//!
//! The reader's description of the planned file must be the model's own. Rotary embeddings count as
//! equal when their frequencies are; which elements form pairs is settled by the order of the rows.

use std::collections::BTreeMap;

use kernels::bytes::Bytes;
use kernels::format::Format;

use super::ConvertError;
use super::plan::{Content, Planned};
use crate::checkpoint::{Metadata, Tensor, Tensors, Value};
use crate::families::gguf::read_gguf;
use crate::spec::{Attention, BlockSpec, Ffn, GqaSpec, MlaSpec, ModelSpec, MoeSpec, RopeSpec};

/// Rounding of a factor that goes through another one.
const TOLERANCE: f32 = 1e-5;

/// Refuses a plan that our own reader would take for another model than `spec`.
pub(super) fn check(spec: &ModelSpec, metadata: &[(String, Value)], planned: &[Planned]) -> Result<(), ConvertError> {
    let metadata = Metadata::new(metadata.iter().cloned().collect::<BTreeMap<_, _>>());
    let mut tensors = Tensors::default();
    for tensor in planned {
        let data = match &tensor.content {
            Content::Table(values) => Bytes::from(values.clone()),
            Content::Slots(_) => Bytes::from(Vec::<u8>::new()),
        };
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        // Names are different by construction; the writer checks them as well.
        let _ = tensors.insert(Tensor { name, dtype: Format::F32.into(), shape, data }, 0);
    }
    let read = read_gguf(&metadata, &tensors).map_err(|error| ConvertError::NotInGguf {
        what: "the model".into(),
        found: error.to_string(),
        wanted: String::new(),
    })?;
    model(spec, &read)
}

macro_rules! same {
    ($place:expr, $a:expr, $b:expr, $($field:ident).+) => {
        if $a.$($field).+ != $b.$($field).+ {
            return differs($place, stringify!($($field).+), &$a.$($field).+, &$b.$($field).+);
        }
    };
}

fn differs(
    place: &str,
    field: &str,
    wanted: &dyn std::fmt::Debug,
    found: &dyn std::fmt::Debug,
) -> Result<(), ConvertError> {
    let what = if place.is_empty() { field.to_string() } else { format!("{field} of {place}") };
    Err(ConvertError::NotInGguf { what, wanted: short(wanted), found: short(found) })
}

/// A value as text of at most a hundred characters.
fn short(value: &dyn std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    if text.chars().count() <= 100 { text } else { text.chars().take(97).chain("...".chars()).collect() }
}

fn model(a: &ModelSpec, b: &ModelSpec) -> Result<(), ConvertError> {
    same!("", a, b, hidden);
    same!("", a, b, vocab);
    same!("", a, b, context);
    same!("", a, b, embedding_scale);
    same!("", a, b, final_norm_eps);
    same!("", a, b, head);
    if (a.blocks.len(), a.mtp.len()) != (b.blocks.len(), b.mtp.len()) {
        return differs("", "layers", &(a.blocks.len(), a.mtp.len()), &(b.blocks.len(), b.mtp.len()));
    }
    let blocks = a.blocks.iter().chain(&a.mtp).zip(b.blocks.iter().chain(&b.mtp));
    for (l, (a, b)) in blocks.enumerate() {
        block(&format!("layer {l}"), a, b)?;
    }
    Ok(())
}

fn block(place: &str, a: &BlockSpec, b: &BlockSpec) -> Result<(), ConvertError> {
    same!(place, a, b, norms);
    same!(place, a, b, norm_eps);
    match (&a.attention, &b.attention) {
        (Attention::Mla(a), Attention::Mla(b)) => latent(place, a, b)?,
        (Attention::Gqa(a), Attention::Gqa(b)) => grouped(place, a, b)?,
        (a, b) => return differs(place, "attention", a, b),
    }
    match (&a.ffn, &b.ffn) {
        (Ffn::Dense(a), Ffn::Dense(b)) if a == b => Ok(()),
        (Ffn::Moe(a), Ffn::Moe(b)) => experts(place, a, b),
        (a, b) => differs(place, "the feed-forward network", a, b),
    }
}

fn latent(place: &str, a: &MlaSpec, b: &MlaSpec) -> Result<(), ConvertError> {
    same!(place, a, b, heads);
    same!(place, a, b, q_rank);
    same!(place, a, b, kv_rank);
    same!(place, a, b, nope_dim);
    same!(place, a, b, rope_dim);
    same!(place, a, b, v_dim);
    same!(place, a, b, bias);
    same!(place, a, b, latent_norm_eps);
    rope(place, &a.rope, &b.rope)?;
    close(place, "the softmax scale", a.scale, b.scale)?;
    match (&a.indexer, &b.indexer) {
        (None, None) => Ok(()),
        (Some(a), Some(b)) => {
            same!(place, a, b, heads);
            same!(place, a, b, dim);
            same!(place, a, b, top_k);
            same!(place, a, b, norm_eps);
            same!(place, a, b, rope.layout);
            rope(place, &a.rope, &b.rope)
        }
        (a, b) => differs(place, "the indexer", a, b),
    }
}

fn grouped(place: &str, a: &GqaSpec, b: &GqaSpec) -> Result<(), ConvertError> {
    same!(place, a, b, heads);
    same!(place, a, b, kv_heads);
    same!(place, a, b, head_dim);
    same!(place, a, b, qkv_bias);
    same!(place, a, b, output_bias);
    same!(place, a, b, qk_norm_eps);
    same!(place, a, b, window);
    same!(place, a, b, sinks);
    rope(place, &a.rope, &b.rope)?;
    close(place, "the softmax scale", a.scale, b.scale)
}

fn experts(place: &str, a: &MoeSpec, b: &MoeSpec) -> Result<(), ConvertError> {
    same!(place, a, b, experts);
    same!(place, a, b, used);
    same!(place, a, b, expert);
    same!(place, a, b, shared);
    let (mut a, mut b) = (a.router, b.router);
    // Choosing among all groups is choosing freely.
    for router in [&mut a, &mut b] {
        router.groups = router.groups.filter(|groups| groups.used < groups.groups);
    }
    if a == b { Ok(()) } else { differs(place, "the router", &a, &b) }
}

fn rope(place: &str, a: &RopeSpec, b: &RopeSpec) -> Result<(), ConvertError> {
    same!(place, a, b, dim);
    close(place, "the factor of the rotary embedding", a.magnitude(), b.magnitude())?;
    let pairs = a.frequencies().into_iter().zip(b.frequencies());
    pairs.into_iter().try_for_each(|(a, b)| close(place, "a rotary frequency", a, b))
}

fn close(place: &str, field: &str, a: f32, b: f32) -> Result<(), ConvertError> {
    if (a - b).abs() <= TOLERANCE * a.abs() { Ok(()) } else { differs(place, field, &a, &b) }
}
