//! A model whose weights can change: f32 masters, and the model that the forward pass runs.
//!
//! Either all of its parameters are trained, or adapters on some of its matrices (`adapters`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use kernels::matmul::HeadWeight;
use kernels::pool::Pool;
use kernels::train::fp8::simulate_weights;
use kernels::train::panels::{Panels, Precision};
use kernels::weight::Weight;
use thiserror::Error;

use super::adapters::{Adapters, Lora, merged};
use super::values::value_of;
use crate::load::{Model, Value, assemble};
use crate::parameters::{Init, ParameterSpec, Part, Place, Slot};
use crate::spec::{Attention, BlockSpec, MlaSpec, ModelSpec};
use crate::weights::{AttentionWeights, BlockWeights, ModelWeights};

/// Why a model cannot be trained.
#[derive(Debug, Error, PartialEq)]
#[allow(missing_docs)] // the fields are named in the sentences
pub enum TrainError {
    #[error("layer {layer} chooses tokens with an indexer, which cannot be trained here")]
    Indexer { layer: usize },
    #[error("layer {layer}: the router's scale is {scale}, which has no gradient; it must be a finite number above 0")]
    RouterScale { layer: usize, scale: f32 },
    #[error("a standard deviation of {std} for the first weights; it must be a finite number above 0")]
    Deviation { std: f32 },
    #[error("adapters of rank {rank}; it must be from 1 to {limit}")]
    Rank { rank: usize, limit: usize },
    #[error("adapters with an alpha of {alpha}; it must be a finite number above 0")]
    Alpha { alpha: f32 },
    #[error("the model has no matrix {part:?} for an adapter")]
    Target { part: Part },
    #[error("{what} of {elements} elements is more than memory can address")]
    TooLarge { what: String, elements: u64 },
}

/// A model in training.
///
/// The masters are f32. The model that the forward pass runs, in training and in rollouts alike, has
/// them rounded to the training's precision; [`Trainable::refresh`] makes it anew.
#[derive(Debug)]
pub struct Trainable {
    precision: Precision,
    /// Of the model.
    layout: Vec<ParameterSpec>,
    /// Of the adapters, where only they are trained.
    adapted: Option<Adapted>,
    masters: Vec<Vec<f32>>,
    packs: Packs,
    model: Model,
}

/// What is trained in place of the model's parameters.
#[derive(Debug)]
struct Adapted {
    adapters: Adapters,
    parameters: Vec<ParameterSpec>,
}

impl Trainable {
    /// A new model: each parameter as its [`Init`] says, normal noise of standard deviation `std`.
    ///
    /// A number of the noise depends on the seed, its parameter and its place in it alone.
    ///
    /// # Errors
    /// If the spec describes something that cannot be trained, or `std` is not above 0.
    pub fn init(
        spec: ModelSpec,
        precision: Precision,
        std: f32,
        seed: u64,
        pool: &Pool,
    ) -> Result<Trainable, TrainError> {
        if !(std > 0.0 && std.is_finite()) {
            return Err(TrainError::Deviation { std });
        }
        let parameters = check(&spec)?;
        let masters = parameters.iter().enumerate().map(|(i, parameter)| {
            let mut values = vec![0.0; parameter.elements() as usize];
            match parameter.init {
                Init::Normal => fill_normal(pool, &mut values, std, mix(seed ^ mix(i as u64 + 1))),
                Init::Ones => values.fill(1.0),
                Init::Zeros => {}
            }
            values
        });
        let masters = masters.collect();
        Ok(Trainable::new(spec, precision, parameters, masters, Vec::new(), pool))
    }

    /// A loaded model, its weights as floats.
    ///
    /// # Errors
    /// If the model has something that cannot be trained.
    pub fn from_model(model: &Model, precision: Precision, pool: &Pool) -> Result<Trainable, TrainError> {
        let parameters = check(&model.spec)?;
        let masters = parameters.iter().map(|parameter| value_of(model, parameter)).collect();
        Ok(Trainable::new(model.spec.clone(), precision, parameters, masters, model.notices.clone(), pool))
    }

    /// A loaded model that stays as it is, with adapters to be trained, which begin without effect.
    ///
    /// # Errors
    /// If the model has something that cannot be trained, or the adapters cannot be made.
    pub fn adapted(
        model: Model,
        lora: &Lora,
        precision: Precision,
        seed: u64,
        pool: &Pool,
    ) -> Result<Trainable, TrainError> {
        let layout = check(&model.spec)?;
        let adapters = Adapters { list: lora.adapters(&model.spec)?, scale: lora.scale(), base: model };
        let masters = adapters.masters(seed, pool);
        let parameters = adapters.list.iter().flat_map(|adapter| adapter.parts.clone()).collect();
        let mut packs = Packs { precision, panels: HashMap::new() };
        let weights = adapted_weights(&adapters, &layout, &masters, &mut packs, pool);
        let Model { spec, notices, .. } = &adapters.base;
        let model = Model { spec: spec.clone(), weights, notices: notices.clone() };
        let adapted = Some(Adapted { adapters, parameters });
        Ok(Trainable { precision, layout, adapted, masters, packs, model })
    }

    fn new(
        spec: ModelSpec,
        precision: Precision,
        layout: Vec<ParameterSpec>,
        masters: Vec<Vec<f32>>,
        notices: Vec<String>,
        pool: &Pool,
    ) -> Trainable {
        let mut packs = Packs { precision, panels: HashMap::new() };
        let weights = weights(&spec, &layout, &masters, &mut packs, pool);
        Trainable { precision, layout, adapted: None, masters, packs, model: Model { spec, weights, notices } }
    }

    /// The model that training and rollouts run.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the products of the model round their factors to.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What is trained: the model's parameters in the order of [`ModelSpec::parameters`], or `A` and `B` of
    /// each adapter in the order of [`Lora::adapters`].
    pub fn parameters(&self) -> &[ParameterSpec] {
        self.adapted.as_ref().map_or(&self.layout, |adapted| &adapted.parameters)
    }

    /// The parameters of the model, trained or not.
    pub(super) fn layout(&self) -> &[ParameterSpec] {
        &self.layout
    }

    /// The adapters, where only they are trained.
    pub(super) fn adapters(&self) -> Option<&Adapters> {
        self.adapted.as_ref().map(|adapted| &adapted.adapters)
    }

    /// The values of all parameters, in the same order.
    pub fn masters(&self) -> &[Vec<f32>] {
        &self.masters
    }

    /// The same to be changed; [`Trainable::refresh`] afterwards.
    pub fn masters_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.masters
    }

    /// Makes the model anew from the masters.
    ///
    /// # Panics
    /// If a master has another length than its parameter.
    pub fn refresh(&mut self, pool: &Pool) {
        for (parameter, master) in self.parameters().iter().zip(&self.masters) {
            assert_eq!(master.len() as u64, parameter.elements(), "elements of {:?}", parameter.slot);
        }
        let Trainable { layout, adapted, masters, packs, model, .. } = self;
        // The old ones go first, so that the new ones are written into their memory.
        model.weights = no_weights();
        model.weights = match adapted {
            None => weights(&model.spec, layout, masters, packs, pool),
            Some(adapted) => adapted_weights(&adapted.adapters, layout, masters, packs, pool),
        };
    }
}

/// The parameters of a spec that can be trained.
fn check(spec: &ModelSpec) -> Result<Vec<ParameterSpec>, TrainError> {
    for (layer, block) in spec.blocks.iter().chain(&spec.mtp).enumerate() {
        if let Attention::Mla(MlaSpec { indexer: Some(_), .. }) = &block.attention {
            return Err(TrainError::Indexer { layer });
        }
        if let crate::spec::Ffn::Moe(moe) = &block.ffn
            && !(moe.router.scale > 0.0 && moe.router.scale.is_finite())
        {
            return Err(TrainError::RouterScale { layer, scale: moe.router.scale });
        }
    }
    let parameters = spec.parameters();
    for parameter in &parameters {
        let elements = parameter.elements();
        if elements > (isize::MAX / 4) as u64 {
            return Err(TrainError::TooLarge { what: format!("{:?}", parameter.slot.part), elements });
        }
    }
    Ok(parameters)
}

/// What the products with a matrix round to: routers choose, so they are not rounded.
fn precision_of(part: Part, precision: Precision) -> Precision {
    match (part, precision) {
        (Part::Router, _) => Precision::F32,
        (Part::Embedding | Part::Head, _) => precision.outside_fp8(),
        _ => precision,
    }
}

/// The packed matrices of a model; number 0 of a slot is the matrix, the others are its heads.
#[derive(Debug)]
struct Packs {
    precision: Precision,
    panels: HashMap<(Slot, usize), Arc<Panels>>,
}

impl Packs {
    /// A matrix of `cols` columns as it is to be packed, whole or head by head: in FP8 through blocks of
    /// 128 x 128 of the whole.
    fn blocked<'m>(&self, pool: &Pool, part: Part, cols: usize, mut master: Cow<'m, [f32]>) -> Cow<'m, [f32]> {
        if precision_of(part, self.precision) == Precision::Fp8 {
            let rows = master.len() / cols;
            simulate_weights(pool, master.to_mut(), rows, cols);
        }
        master
    }

    /// Packs a matrix, into the memory that it had before if nobody else holds it.
    fn pack(&mut self, pool: &Pool, key: (Slot, usize), rows: usize, cols: usize, master: &[f32]) -> Weight {
        let precision = precision_of(key.0.part, self.precision);
        if let Some(panels) = self.panels.get_mut(&key).and_then(Arc::get_mut) {
            panels.repack(pool, master);
        } else {
            self.panels.insert(key, Arc::new(Panels::pack(pool, rows, cols, master, precision)));
        }
        Weight::from_panels(Arc::clone(&self.panels[&key]))
    }

    /// What was packed before.
    fn kept(&self, key: (Slot, usize)) -> Option<Weight> {
        self.panels.get(&key).map(|panels| Weight::from_panels(Arc::clone(panels)))
    }
}

/// Weights of no model, for a moment.
fn no_weights() -> ModelWeights {
    let embedding = Weight::from_f32(0, 0, Vec::new());
    ModelWeights { embedding, blocks: Vec::new(), final_norm: Vec::new(), head: None, mtp: Vec::new() }
}

fn weights(
    spec: &ModelSpec,
    parameters: &[ParameterSpec],
    masters: &[Vec<f32>],
    packs: &mut Packs,
    pool: &Pool,
) -> ModelWeights {
    let values = parameters.iter().zip(masters).map(|(parameter, master)| {
        let value = match *parameter.shape {
            [rows, cols] => {
                let master = packs.blocked(pool, parameter.slot.part, cols, Cow::from(master));
                Value::Matrix(packs.pack(pool, (parameter.slot, 0), rows, cols, &master))
            }
            _ => Value::Vector(master.clone()),
        };
        (parameter.slot, value)
    });
    let values = values.collect();
    let mut weights = assemble(spec, values);
    // Each head's part of the latent's up projection in panels of its own.
    for (parameter, master) in parameters.iter().zip(masters).filter(|(p, _)| p.slot.part == Part::KvUp) {
        let master = packs.blocked(pool, Part::KvUp, parameter.shape[1], Cow::from(master));
        set_heads(spec, &mut weights, parameter.slot.place, |mla| heads_of(mla, parameter.slot, &master, packs, pool));
    }
    weights
}

/// The weights of a frozen model with adapters folded in. Matrices without an adapter are packed once.
fn adapted_weights(
    adapters: &Adapters,
    layout: &[ParameterSpec],
    masters: &[Vec<f32>],
    packs: &mut Packs,
    pool: &Pool,
) -> ModelWeights {
    let (base, spec) = (&adapters.base, &adapters.base.spec);
    let (mut values, mut heads) = (HashMap::new(), Vec::new());
    for (number, parameter) in layout.iter().enumerate() {
        let slot = parameter.slot;
        let [rows, cols] = *parameter.shape else {
            values.insert(slot, Value::Vector(value_of(base, parameter)));
            continue;
        };
        // An embedding that is not the head is looked up and never multiplied with.
        if slot.part == Part::Embedding && !spec.head.tied {
            values.insert(slot, Value::Matrix(base.weights.embedding.clone()));
            continue;
        }
        let adapter = adapters.of(number, masters);
        let mla = (slot.part == Part::KvUp).then(|| mla_of(spec, slot.place)).flatten();
        let kept = if adapter.is_none() { packs.kept((slot, 0)) } else { None };
        let whole = kept.unwrap_or_else(|| {
            let master = merged(base, parameter, adapter, adapters.scale, pool);
            let master = packs.blocked(pool, slot.part, cols, Cow::from(master));
            if let Some(mla) = mla {
                heads_of(mla, slot, &master, packs, pool);
            }
            packs.pack(pool, (slot, 0), rows, cols, &master)
        });
        values.insert(slot, Value::Matrix(whole));
        heads.extend(mla.map(|_| slot));
    }
    let mut weights = assemble(spec, values);
    for slot in heads {
        set_heads(spec, &mut weights, slot.place, |mla| {
            let head = |number: usize, transposed| {
                let weight = packs.kept((slot, number)).expect("packed with the whole");
                HeadWeight { weight, transposed }
            };
            (0..mla.heads).map(|h| (head(2 * h + 1, true), head(2 * h + 2, false))).unzip()
        });
    }
    weights
}

/// The block of a place.
fn block_at<'a>(
    spec: &'a ModelSpec,
    weights: &'a mut ModelWeights,
    place: Place,
) -> (&'a BlockSpec, &'a mut BlockWeights) {
    match place {
        Place::Block(l) => (&spec.blocks[l], &mut weights.blocks[l]),
        Place::Mtp(i) => (&spec.mtp[i], &mut weights.mtp[i].block),
        Place::Model => unreachable!("an attention outside of blocks"),
    }
}

/// Puts the heads of a place's latent attention in.
fn set_heads(
    spec: &ModelSpec,
    weights: &mut ModelWeights,
    place: Place,
    heads: impl FnOnce(&MlaSpec) -> (Vec<HeadWeight>, Vec<HeadWeight>),
) {
    let (block, w) = block_at(spec, weights, place);
    if let (Attention::Mla(mla), AttentionWeights::Mla(w)) = (&block.attention, &mut w.attention) {
        (w.key_up, w.value_up) = heads(mla);
    }
}

/// The latent attention of a place.
fn mla_of(spec: &ModelSpec, place: Place) -> Option<&MlaSpec> {
    let block = match place {
        Place::Block(l) => spec.blocks.get(l),
        Place::Mtp(i) => spec.mtp.get(i),
        Place::Model => None,
    };
    match &block?.attention {
        Attention::Mla(mla) => Some(mla),
        Attention::Gqa(_) => None,
    }
}

/// Keys' and values' matrices of each head out of the latent's up projection.
fn heads_of(
    spec: &MlaSpec,
    slot: Slot,
    master: &[f32],
    packs: &mut Packs,
    pool: &Pool,
) -> (Vec<HeadWeight>, Vec<HeadWeight>) {
    let (nope, v, rank) = (spec.nope_dim, spec.v_dim, spec.kv_rank);
    let heads = master.chunks_exact((nope + v) * rank).enumerate().map(|(h, head)| {
        let (keys, values) = head.split_at(nope * rank);
        let key = HeadWeight { weight: packs.pack(pool, (slot, 2 * h + 1), nope, rank, keys), transposed: true };
        let value = packs.pack(pool, (slot, 2 * h + 2), v, rank, values);
        (key, HeadWeight { weight: value, transposed: false })
    });
    heads.unzip()
}

/// SplitMix64's output function (Steele, Lea and Flood 2014): every bit depends on every bit.
pub(super) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Normal noise by pairs (Box and Muller 1958), number `i` from counter `i / 2`.
pub(super) fn fill_normal(pool: &Pool, values: &mut [f32], std: f32, key: u64) {
    const PIECE: usize = 8192;
    let uniform = |counter: u64| (mix(key ^ mix(counter)) >> 11) as f64 / (1u64 << 53) as f64;
    pool.for_each_piece(values, PIECE, |piece, values| {
        for (i, pair) in values.chunks_mut(2).enumerate() {
            let counter = (piece * PIECE / 2 + i) as u64;
            let (u, v) = (1.0 - uniform(2 * counter), uniform(2 * counter + 1));
            let (radius, angle) = ((-2.0 * u.ln()).sqrt() * f64::from(std), v * std::f64::consts::TAU);
            pair[0] = (radius * angle.cos()) as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = (radius * angle.sin()) as f32;
            }
        }
    });
}
