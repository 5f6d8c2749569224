//! The list of tensors of a converted model: names, shapes, and where their values come from.
//!
//! The names are those that the reader looks for ([`crate::families::gguf::NAMES`]); this is its
//! inverse. All experts of a layer go into one tensor, the latent's up projection into two.

use kernels::format::Format;
use kernels::ops::RopeLayout;

use super::recipe::{Kind, Recipe, Role};
use crate::families::Source;
use crate::families::gguf::NAMES;
use crate::parameters::{ParameterSpec, Part, Place};
use crate::spec::{Attention, BlockSpec, Ffn, ModelSpec, RopeScaling, RopeSpec};

/// A tensor that will be written.
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) format: Format,
    /// The format that the recipe has for it; another one was chosen if its rows do not fit.
    pub(super) wanted: Format,
    pub(super) content: Content,
    pub(super) edit: Edit,
}

/// Where the values of a tensor come from.
pub(super) enum Content {
    /// Slots, one after the other.
    Slots(Vec<ParameterSpec>),
    /// Numbers of our own.
    Table(Vec<f32>),
}

/// What is done to values on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Edit {
    None,
    /// In each run of `stride` rows, the `dim` from `start` on go from halves to neighbouring pairs:
    /// out `2i` is in `i`, out `2i + 1` is in `i + dim / 2`. `start` is relative to a run.
    Pairs {
        stride: usize,
        start: usize,
        dim: usize,
    },
    /// Every value times this.
    Scale(f32),
    /// The key half of a latent's up projection, transposed head by head.
    KeyUp {
        heads: usize,
        nope: usize,
        v: usize,
    },
    /// The value half.
    ValueUp {
        heads: usize,
        nope: usize,
        v: usize,
    },
}

impl Edit {
    /// The number of rows that come out of a matrix of `rows`.
    pub(super) fn rows(self, rows: usize) -> usize {
        match self {
            Edit::ValueUp { heads, v, .. } => heads * v,
            _ => rows,
        }
    }

    /// The row that becomes row `out`.
    pub(super) fn source_row(self, out: usize) -> usize {
        match self {
            Edit::Pairs { stride, start, dim } => {
                let (run, at) = (out / stride * stride, out % stride);
                match at.checked_sub(start) {
                    Some(at) if at < dim => run + start + at / 2 + at % 2 * (dim / 2),
                    _ => out,
                }
            }
            Edit::ValueUp { nope, v, .. } => out / v * (nope + v) + nope + out % v,
            Edit::None | Edit::Scale(_) | Edit::KeyUp { .. } => out,
        }
    }

    pub(super) fn vector(self, values: Vec<f32>) -> Vec<f32> {
        match self {
            Edit::Scale(factor) => values.into_iter().map(|value| value * factor).collect(),
            Edit::Pairs { .. } => (0..values.len()).map(|out| values[self.source_row(out)]).collect(),
            _ => values,
        }
    }
}

/// How a model is written.
pub(super) struct Layout<'a> {
    pub(super) arch: &'static str,
    pub(super) spec: &'a ModelSpec,
    /// The factor of query norms that makes up for the format's fixed softmax scale (Gemma).
    pub(super) query_norm_scale: f32,
}

impl Layout<'_> {
    /// Every tensor, in the order of the file.
    pub(super) fn tensors(&self, recipe: &Recipe) -> Vec<Planned> {
        let mut out: Vec<Planned> = Vec::new();
        let mut stacked = std::collections::HashMap::new();
        for parameter in self.spec.parameters() {
            let slot = parameter.slot;
            if slot.part == Part::KvUp {
                out.extend(self.kv_up(&parameter, recipe));
                continue;
            }
            let key = (slot.place, slot.part);
            if let Some(&index) = stacked.get(&key)
                && let Planned { content: Content::Slots(slots), .. } = &mut out[index]
            {
                slots.push(parameter);
                continue;
            }
            let mut shape = parameter.shape.clone();
            if slot.expert.is_some() {
                stacked.insert(key, out.len());
                shape.insert(0, self.experts(slot.place));
            }
            let edit = self.edit(&parameter);
            out.push(self.planned(self.name(slot.place, slot.part), shape, parameter, edit, recipe));
        }
        if let Some(divisors) = frequency_divisors(self.spec) {
            let (shape, content) = (vec![divisors.len()], Content::Table(divisors));
            let (format, wanted) = (Format::F32, Format::F32);
            out.insert(
                1,
                Planned { name: "rope_freqs.weight".into(), shape, format, wanted, content, edit: Edit::None },
            );
        }
        out
    }

    fn planned(
        &self,
        name: String,
        shape: Vec<usize>,
        parameter: ParameterSpec,
        edit: Edit,
        recipe: &Recipe,
    ) -> Planned {
        let plain = parameter.shape.len() == 1 || parameter.slot.part == Part::Router;
        let cols = shape.last().copied().unwrap_or(0);
        let (wanted, format) = match plain {
            true => (Format::F32, Format::F32),
            false => recipe.format(&self.role(&parameter, edit), cols),
        };
        Planned { name, shape, format, wanted, content: Content::Slots(vec![parameter]), edit }
    }

    fn kv_up(&self, parameter: &ParameterSpec, recipe: &Recipe) -> Vec<Planned> {
        let place = parameter.slot.place;
        let Attention::Mla(mla) = &self.block(place).attention else { return Vec::new() };
        let (heads, nope, v, rank) = (mla.heads, mla.nope_dim, mla.v_dim, mla.kv_rank);
        let names = NAMES.iter().find_map(|(_, source)| match source {
            Source::KvUpSplit(keys, values) => Some([*keys, *values]),
            _ => None,
        });
        let parts = [
            (Edit::KeyUp { heads, nope, v }, vec![heads, rank, nope]),
            (Edit::ValueUp { heads, nope, v }, vec![heads, v, rank]),
        ];
        let named = names.into_iter().flatten().zip(parts);
        named
            .map(|(name, (edit, shape))| self.planned(self.fill(name, place), shape, parameter.clone(), edit, recipe))
            .collect()
    }

    fn block(&self, place: Place) -> &BlockSpec {
        match place {
            Place::Mtp(i) => &self.spec.mtp[i],
            Place::Block(l) => &self.spec.blocks[l],
            Place::Model => &self.spec.blocks[0],
        }
    }

    fn experts(&self, place: Place) -> usize {
        match &self.block(place).ffn {
            Ffn::Moe(moe) => moe.experts,
            Ffn::Dense(_) => 0,
        }
    }

    /// The name under which the reader looks for a part first.
    fn name(&self, place: Place, part: Part) -> String {
        let latent = matches!(self.block(place).attention, Attention::Mla(_));
        let template = match part {
            Part::QueryNorm if latent => "blk.{l}.attn_q_a_norm.weight",
            Part::FfnNorm if self.arch == "gpt-oss" => "blk.{l}.post_attention_norm.weight",
            _ => {
                let named = NAMES.iter().find(|(p, _)| *p == part).map(|(_, source)| source.name());
                named.unwrap_or_else(|| unreachable!("{part:?} has a name in GGUF"))
            }
        };
        self.fill(template, place)
    }

    fn fill(&self, template: &str, place: Place) -> String {
        template.replace("{l}", &self.layer(place).to_string())
    }

    /// The number of a layer in the file; multi-token prediction modules follow the layers.
    fn layer(&self, place: Place) -> usize {
        match place {
            Place::Model => 0,
            Place::Block(l) => l,
            Place::Mtp(i) => self.spec.blocks.len() + i,
        }
    }

    /// What is done to a parameter's values: the rows that rotate are brought into the order of the
    /// architecture, and query norms take up the rest of the softmax scale.
    fn edit(&self, parameter: &ParameterSpec) -> Edit {
        let pairs = |rope: &RopeSpec, stride: usize, start: usize| match (rope.layout, layout(self.arch)) {
            (RopeLayout::Half, RopeLayout::Interleaved) => Edit::Pairs { stride, start, dim: rope.dim },
            _ => Edit::None,
        };
        match (&self.block(parameter.slot.place).attention, parameter.slot.part) {
            (Attention::Gqa(gqa), Part::Query | Part::QueryBias | Part::Key | Part::KeyBias) => {
                pairs(&gqa.rope, gqa.head_dim, 0)
            }
            (Attention::Gqa(_), Part::QueryNorm) if self.query_norm_scale != 1.0 => Edit::Scale(self.query_norm_scale),
            (Attention::Mla(mla), Part::Query | Part::QueryUp) => pairs(&mla.rope, mla.key_dim(), mla.nope_dim),
            (Attention::Mla(mla), Part::KvDown | Part::KvDownBias) => pairs(&mla.rope, mla.latent_dim(), mla.kv_rank),
            _ => Edit::None,
        }
    }

    fn role(&self, parameter: &ParameterSpec, edit: Edit) -> Role {
        let slot = parameter.slot;
        let kind = match slot.part {
            Part::Head => Kind::Head,
            Part::Embedding if self.spec.head.tied => Kind::Head,
            Part::Embedding => Kind::Embedding,
            Part::Key => Kind::Key,
            Part::Value | Part::KvDown => Kind::Value,
            Part::KvUp if matches!(edit, Edit::ValueUp { .. }) => Kind::Value,
            Part::AttentionOutput => Kind::AttentionOutput,
            Part::Down | Part::SharedDown => Kind::Down,
            Part::ExpertDown => Kind::ExpertDown,
            Part::ExpertGate | Part::ExpertUp => Kind::Expert,
            _ => Kind::Other,
        };
        let sharing = match &self.block(slot.place).attention {
            Attention::Gqa(gqa) => gqa.heads / gqa.kv_heads,
            Attention::Mla(mla) => mla.heads,
        };
        let all = || self.spec.blocks.iter().chain(&self.spec.mtp);
        let experts = all().filter_map(|block| match &block.ffn {
            Ffn::Moe(moe) => Some(moe.experts),
            Ffn::Dense(_) => None,
        });
        let (layer, layers) = (self.layer(slot.place), all().count());
        Role { kind, layer, layers, sharing, experts: experts.max().unwrap_or(0) }
    }
}

/// The rotary layout that an architecture has.
pub(super) fn layout(arch: &str) -> RopeLayout {
    match arch {
        "llama" | "deepseek2" | "deepseek32" => RopeLayout::Interleaved,
        _ => RopeLayout::Half,
    }
}

/// The architecture of GGUF that can say the most of this model, by what the model is made of.
pub(super) fn architecture(spec: &ModelSpec) -> &'static str {
    let sandwich = |block: &BlockSpec| block.norms == crate::spec::NormPlacement::Sandwich;
    match spec.blocks.first().map(|block| (block, &block.attention)) {
        Some((_, Attention::Mla(mla))) if mla.indexer.is_some() => "deepseek32",
        Some((_, Attention::Mla(_))) => "deepseek2",
        Some((block, Attention::Gqa(gqa))) if gqa.rope.layout == RopeLayout::Half => {
            let moe = spec.blocks.iter().any(|block| matches!(block.ffn, Ffn::Moe(_)));
            match gqa {
                _ if sandwich(block) => "gemma3",
                gqa if gqa.sinks => "gpt-oss",
                gqa if gqa.qk_norm_eps.is_some() && moe => "qwen3moe",
                gqa if gqa.qk_norm_eps.is_some() => "qwen3",
                gqa if gqa.qkv_bias && !gqa.output_bias && !moe => "qwen2",
                _ => "llama",
            }
        }
        _ => "llama",
    }
}

/// The rotary embedding of layers that see everything; of the first layer where all slide.
pub(super) fn main_rope(spec: &ModelSpec) -> Option<&RopeSpec> {
    let full = spec.blocks.iter().find(|block| match &block.attention {
        Attention::Gqa(gqa) => gqa.window.is_none(),
        Attention::Mla(_) => true,
    });
    full.or(spec.blocks.first()).and_then(|block| block.ropes().next())
}

/// `rope_freqs`: the divisor of each frequency, for changes that the metadata has no words for.
fn frequency_divisors(spec: &ModelSpec) -> Option<Vec<f32>> {
    let rope = main_rope(spec)?;
    match &rope.scaling {
        RopeScaling::Divisors(divisors) => Some(divisors.clone()),
        RopeScaling::Llama3 { .. } => {
            let plain = RopeSpec { scaling: RopeScaling::None, ..rope.clone() }.frequencies();
            Some(plain.iter().zip(rope.frequencies()).map(|(plain, changed)| plain / changed).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_from_halves_to_pairs() {
        let edit = Edit::Pairs { stride: 4, start: 0, dim: 4 };
        assert_eq!(edit.vector(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        // Two elements without position, then four that rotate, head by head.
        let edit = Edit::Pairs { stride: 6, start: 2, dim: 4 };
        let rows: Vec<usize> = (0..12).map(|row| edit.source_row(row)).collect();
        assert_eq!(rows, [0, 1, 2, 4, 3, 5, 6, 7, 8, 10, 9, 11]);
    }

    #[test]
    fn values_stand_after_the_keys_of_their_head() {
        let edit = Edit::ValueUp { heads: 2, nope: 3, v: 2 };
        let rows: Vec<usize> = (0..edit.rows(10)).map(|row| edit.source_row(row)).collect();
        assert_eq!(rows, [3, 4, 8, 9]);
    }
}
