//! A model whose weights can change: f32 masters, and the model that the forward pass runs.

use std::collections::HashMap;
use std::sync::Arc;

use kernels::matmul::HeadWeight;
use kernels::pool::Pool;
use kernels::train::panels::{Panels, Precision};
use kernels::weight::Weight;
use thiserror::Error;

use super::values::value_of;
use crate::load::{Model, Value, assemble};
use crate::parameters::{Init, ParameterSpec, Part, Place, Slot};
use crate::spec::{Attention, BlockSpec, MlaSpec, ModelSpec};
use crate::weights::{AttentionWeights, BlockWeights, MlaWeights, ModelWeights};

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
    parameters: Vec<ParameterSpec>,
    masters: Vec<Vec<f32>>,
    model: Model,
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

    fn new(
        spec: ModelSpec,
        precision: Precision,
        parameters: Vec<ParameterSpec>,
        masters: Vec<Vec<f32>>,
        notices: Vec<String>,
        pool: &Pool,
    ) -> Trainable {
        let weights = weights(&spec, &parameters, &masters, precision, pool);
        Trainable { precision, parameters, masters, model: Model { spec, weights, notices } }
    }

    /// The model that training and rollouts run.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the products of the model round their factors to.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Its parameters, in the order of [`ModelSpec::parameters`].
    pub fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
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
        for (parameter, master) in self.parameters.iter().zip(&self.masters) {
            assert_eq!(master.len() as u64, parameter.elements(), "elements of {:?}", parameter.slot);
        }
        self.model.weights = weights(&self.model.spec, &self.parameters, &self.masters, self.precision, pool);
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
    if part == Part::Router { Precision::F32 } else { precision }
}

fn weights(
    spec: &ModelSpec,
    parameters: &[ParameterSpec],
    masters: &[Vec<f32>],
    precision: Precision,
    pool: &Pool,
) -> ModelWeights {
    let pack = |rows: usize, cols: usize, master: &[f32], precision: Precision| {
        Weight::from_panels(Arc::new(Panels::pack(pool, rows, cols, master, precision)))
    };
    let values: HashMap<Slot, Value> = parameters
        .iter()
        .zip(masters)
        .map(|(parameter, master)| {
            let value = match *parameter.shape {
                [rows, cols] => Value::Matrix(pack(rows, cols, master, precision_of(parameter.slot.part, precision))),
                _ => Value::Vector(master.clone()),
            };
            (parameter.slot, value)
        })
        .collect();
    let mut weights = assemble(spec, values);
    // Each head's part of the latent's up projection in panels of its own.
    for (parameter, master) in parameters.iter().zip(masters).filter(|(p, _)| p.slot.part == Part::KvUp) {
        let (block, w) = block_at(spec, &mut weights, parameter.slot.place);
        let (Attention::Mla(mla), AttentionWeights::Mla(w)) = (&block.attention, &mut w.attention) else { continue };
        split_heads(mla, w, master, |rows, cols, master| pack(rows, cols, master, precision));
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

fn split_heads(spec: &MlaSpec, w: &mut MlaWeights, master: &[f32], pack: impl Fn(usize, usize, &[f32]) -> Weight) {
    let (nope, v, rank) = (spec.nope_dim, spec.v_dim, spec.kv_rank);
    let heads = master.chunks_exact((nope + v) * rank).map(|head| {
        let (keys, values) = head.split_at(nope * rank);
        let key = HeadWeight { weight: pack(nope, rank, keys), transposed: true };
        (key, HeadWeight { weight: pack(v, rank, values), transposed: false })
    });
    (w.key_up, w.value_up) = heads.unzip();
}

/// SplitMix64's output function (Steele, Lea and Flood 2014): every bit depends on every bit.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Normal noise by pairs (Box and Muller 1958), number `i` from counter `i / 2`.
fn fill_normal(pool: &Pool, values: &mut [f32], std: f32, key: u64) {
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
