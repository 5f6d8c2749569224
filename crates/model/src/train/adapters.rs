//! Low-rank adapters (LoRA; Hu et al. 2021): `W' = W + (alpha / rank) B A` on chosen matrices of a frozen model.
//!
//! The model that runs, in training and in rollouts, has the adapters folded into its weights: it is the merged model,
//! to the bit, and no layer knows of adapters. The gradient of `W'` is computed as ever, a block at a time, and goes
//! through the chain rule to `dA = s B^T dW'` and `dB = s dW' A^T`; then its memory serves the next block. Of the base
//! nothing is kept but what its file holds and the packed copies that products read: no f32 weights, no gradients, no
//! moments. The price is one product more for each matrix than adapters need that are computed beside it.

use std::ops::Range;

use kernels::matmul::matmul;
use kernels::pool::Pool;
use kernels::train::panels::Precision;
use kernels::train::products::matmul_dw;
use kernels::weight::Weight;

use super::trainable::{TrainError, fill_normal, mix};
use super::values::value_of;
use crate::load::Model;
use crate::parameters::{Group, Init, ParameterSpec, Part};
use crate::spec::ModelSpec;

/// Largest rank.
const RANK_MAX: usize = 1024;

/// Which adapters a model gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rows of `A`, columns of `B`.
    pub rank: usize,
    /// The adapters' product counts `alpha / rank`.
    pub alpha: f32,
    /// The matrices that get one; none: all of attention and of networks that every token goes through.
    pub targets: Vec<Part>,
}

/// An adapter: `A` `[rank, inputs]` and `B` `[outputs, rank]`, both with the slot of their matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// The number of its matrix in [`ModelSpec::parameters`].
    pub number: usize,
    /// `A` and `B` as parameters.
    pub parts: [ParameterSpec; 2],
}

impl Lora {
    /// What the product of an adapter is multiplied with.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// The adapters of a model, in the order of its parameters.
    ///
    /// # Errors
    /// If the rank or alpha cannot work, or a target is no matrix of this model.
    pub fn adapters(&self, spec: &ModelSpec) -> Result<Vec<Adapter>, TrainError> {
        if !(1..=RANK_MAX).contains(&self.rank) {
            return Err(TrainError::Rank { rank: self.rank, limit: RANK_MAX });
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(TrainError::Alpha { alpha: self.alpha });
        }
        let parameters = spec.parameters();
        let is_target = |p: &ParameterSpec| {
            let wanted = if self.targets.is_empty() { usual(p.slot.part) } else { self.targets.contains(&p.slot.part) };
            wanted && p.group == Group::Matrix && p.shape.len() == 2
        };
        for part in &self.targets {
            if !parameters.iter().any(|p| p.slot.part == *part && is_target(p)) {
                return Err(TrainError::Target { part: *part });
            }
        }
        let targets = parameters.iter().enumerate().filter(|(_, p)| is_target(p));
        let adapters = targets.map(|(number, p)| {
            let part = |shape: [usize; 2], init| ParameterSpec {
                slot: p.slot,
                shape: shape.to_vec(),
                init,
                group: Group::Matrix,
            };
            let parts = [part([self.rank, p.shape[1]], Init::Normal), part([p.shape[0], self.rank], Init::Zeros)];
            Adapter { number, parts }
        });
        Ok(adapters.collect())
    }
}

/// Whether a matrix gets an adapter where none are named.
fn usual(part: Part) -> bool {
    use Part::*;
    matches!(
        part,
        Query
            | Key
            | Value
            | QueryDown
            | QueryUp
            | KvDown
            | KvUp
            | AttentionOutput
            | Gate
            | Up
            | Down
            | SharedGate
            | SharedUp
            | SharedDown
    )
}

/// A parameter of a model with its adapter, if it has one, folded in: `W + scale B A`.
///
/// # Panics
/// If `A` and `B` are not of the parameter's shape.
pub fn merged(
    model: &Model,
    parameter: &ParameterSpec,
    adapter: Option<(&[f32], &[f32])>,
    scale: f32,
    pool: &Pool,
) -> Vec<f32> {
    let mut values = value_of(model, parameter);
    let Some((a, b)) = adapter else { return values };
    let [rows, cols] = *parameter.shape else { panic!("an adapter of {:?}, which is no matrix", parameter.slot) };
    let rank = a.len() / cols;
    assert!(a.len() == rank * cols && b.len() == rows * rank, "an adapter of a {rows} x {cols} matrix");
    pool.for_each_piece(&mut values, cols, |row, values| {
        for (factor, a) in b[row * rank..(row + 1) * rank].iter().zip(a.chunks_exact(cols)) {
            let factor = scale * factor;
            values.iter_mut().zip(a).for_each(|(value, a)| *value += factor * a);
        }
    });
    values
}

/// The adapters of a model in training, and the model that they are for.
#[derive(Debug)]
pub(super) struct Adapters {
    pub(super) base: Model,
    pub(super) list: Vec<Adapter>,
    pub(super) scale: f32,
}

impl Adapters {
    /// The first values: noise for `A`, of the variance of Hu et al.'s code, zeros for `B`.
    pub(super) fn masters(&self, seed: u64, pool: &Pool) -> Vec<Vec<f32>> {
        let mut masters = Vec::with_capacity(2 * self.list.len());
        for Adapter { number, parts: [a, b] } in &self.list {
            let mut values = vec![0.0; a.elements() as usize];
            let std = (1.0 / (3.0 * a.shape[1] as f64)).sqrt() as f32;
            fill_normal(pool, &mut values, std, mix(seed ^ mix(*number as u64 + 1)));
            masters.push(values);
            masters.push(vec![0.0; b.elements() as usize]);
        }
        masters
    }

    /// `A` and `B` of the parameter with this number.
    pub(super) fn of<'m>(&self, number: usize, masters: &'m [Vec<f32>]) -> Option<(&'m [f32], &'m [f32])> {
        let i = self.list.binary_search_by_key(&number, |adapter| adapter.number).ok()?;
        Some((&masters[2 * i], &masters[2 * i + 1]))
    }

    /// From the gradients of the parameters `range` of the model to those of the adapters, which are added to.
    pub(super) fn project(
        &self,
        pool: &Pool,
        range: Range<usize>,
        of_model: &[Vec<f32>],
        masters: &[Vec<f32>],
        gradients: &mut [Vec<f32>],
    ) {
        for (i, adapter) in self.list.iter().enumerate().filter(|(_, adapter)| range.contains(&adapter.number)) {
            let dw = &of_model[adapter.number - range.start];
            let (a, b) = (&masters[2 * i], &masters[2 * i + 1]);
            let [rank, cols] = *adapter.parts[0].shape else { continue };
            let scaled: Vec<f32> = b.iter().map(|v| self.scale * v).collect();
            matmul_dw(pool, &mut gradients[2 * i], &scaled, dw, Precision::F32);
            let mut db = vec![0.0; b.len()];
            matmul(pool, &mut db, dw, &Weight::from_f32(rank, cols, a.clone()));
            gradients[2 * i + 1].iter_mut().zip(&db).for_each(|(to, v)| *to += self.scale * v);
        }
    }
}
