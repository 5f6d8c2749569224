//! The optimiser: Muon for the matrices inside layers and AdamW for the rest, or AdamW for all; and the routers' bias.
//!
//! Routers are trained with AdamW: they are small and their scale matters. Parameters of the group `Rule` (the
//! routers' correction biases) have no gradient; [`balance`] sets them.

use std::collections::BTreeMap;

use kernels::pool::Pool;
use kernels::train::optim::{AdamW, Muon, MuonItem, adamw_step, muon_steps};
use model::parameters::{Group, ParameterSpec, Part};

use crate::recipe::{Optimizer as Settings, OptimizerKind};

/// Elements of matrices that Muon changes together.
const MUON_ELEMENTS: u64 = 1 << 22;

/// What is remembered of a parameter's gradients.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Moments {
    /// Set by a rule.
    None,
    /// Running means of gradients and of their squares.
    Adam { m: Vec<f32>, v: Vec<f32> },
    /// Running sum of gradients.
    Muon { momentum: Vec<f32> },
}

impl Moments {
    /// The numbers to be saved, in a fixed order.
    pub(crate) fn lists(&self) -> Vec<&[f32]> {
        match self {
            Moments::None => vec![],
            Moments::Adam { m, v } => vec![m, v],
            Moments::Muon { momentum } => vec![momentum],
        }
    }

    pub(crate) fn lists_mut(&mut self) -> Vec<&mut Vec<f32>> {
        match self {
            Moments::None => vec![],
            Moments::Adam { m, v } => vec![m, v],
            Moments::Muon { momentum } => vec![momentum],
        }
    }
}

/// The optimiser of a run.
pub(crate) struct Optimizer {
    settings: Settings,
    pub(crate) moments: Vec<Moments>,
    /// For each shape the parameters that Muon changes together.
    shapes: BTreeMap<(usize, usize), Vec<usize>>,
}

impl Optimizer {
    pub(crate) fn new(settings: &Settings, parameters: &[ParameterSpec]) -> Optimizer {
        let mut shapes: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        let moments = parameters.iter().enumerate().map(|(i, parameter)| {
            let zeros = || vec![0.0; parameter.elements() as usize];
            if parameter.group == Group::Rule {
                return Moments::None;
            }
            if !by_muon(settings, parameter) {
                return Moments::Adam { m: zeros(), v: zeros() };
            }
            shapes.entry((parameter.shape[0], parameter.shape[1])).or_default().push(i);
            Moments::Muon { momentum: zeros() }
        });
        let moments = moments.collect();
        Optimizer { settings: settings.clone(), moments, shapes }
    }

    /// Bytes of the moments of these parameters.
    pub(crate) fn bytes(settings: &Settings, parameters: &[ParameterSpec]) -> u64 {
        let each = |parameter: &ParameterSpec| match parameter.group {
            Group::Rule => 0,
            _ if by_muon(settings, parameter) => 4 * parameter.elements(),
            _ => 8 * parameter.elements(),
        };
        parameters.iter().map(each).fold(0, u64::saturating_add)
    }

    /// Bytes that a step works with beside them: the updates of some matrices of one shape at a time, and the two
    /// products that Newton and Schulz's iteration needs of each that is being made.
    pub(crate) fn work_bytes(settings: &Settings, parameters: &[ParameterSpec]) -> u64 {
        let mut shapes: BTreeMap<&[usize], u64> = BTreeMap::new();
        for parameter in parameters.iter().filter(|p| p.group != Group::Rule && by_muon(settings, p)) {
            *shapes.entry(&parameter.shape).or_default() += 1;
        }
        let of_shape = |(shape, count): (&&[usize], &u64)| {
            let elements = shape.iter().map(|&n| n as u64).product::<u64>().max(1);
            (*count).min((MUON_ELEMENTS / elements).max(1)).saturating_mul(elements).saturating_mul(3 * 4)
        };
        shapes.iter().map(of_shape).max().unwrap_or(0)
    }

    /// One step. Gradients are multiplied by `scale` (clipping); `update` is the number of this change, from 1.
    pub(crate) fn step(
        &mut self,
        pool: &Pool,
        parameters: &[ParameterSpec],
        masters: &mut [Vec<f32>],
        gradients: &[Vec<f32>],
        lr: f64,
        update: u64,
        scale: f32,
    ) {
        let s = &self.settings;
        for (i, moments) in self.moments.iter_mut().enumerate() {
            let Moments::Adam { m, v } = moments else { continue };
            // Norms and biases are not pulled to zero.
            let decay = if parameters[i].group == Group::Vector { 0.0 } else { s.weight_decay };
            let (beta1, beta2, eps) = (s.beta1 as f32, s.beta2 as f32, s.eps as f32);
            let adamw = AdamW { lr: lr as f32, beta1, beta2, eps, weight_decay: decay as f32, step: update };
            adamw_step(pool, &mut masters[i], &gradients[i], m, v, &adamw, scale);
        }
        let muon = Muon {
            lr: lr as f32,
            momentum: s.momentum as f32,
            weight_decay: s.weight_decay as f32,
            update_rms: s.update_rms as f32,
            nesterov: true,
            newton_schulz_steps: 5,
        };
        for (&(rows, cols), list) in &self.shapes {
            let mut items = Vec::with_capacity(list.len());
            let (mut masters, mut moments) = (picked(masters, list), picked(&mut self.moments, list));
            for ((master, moments), &i) in masters.iter_mut().zip(moments.iter_mut()).zip(list) {
                if let Moments::Muon { momentum } = &mut **moments {
                    items.push(MuonItem { master, grad: &gradients[i], momentum });
                }
            }
            // As many at a time as keep the updates' memory small.
            let at_once = MUON_ELEMENTS as usize / (rows * cols).max(1);
            for items in items.chunks_mut(at_once.max(1)) {
                muon_steps(pool, rows, cols, items, &muon, scale);
            }
        }
    }
}

fn by_muon(settings: &Settings, parameter: &ParameterSpec) -> bool {
    settings.kind == OptimizerKind::Muon && parameter.group == Group::Matrix && parameter.slot.part != Part::Router
}

/// Mutable references to the elements of a rising list of indices.
fn picked<'a, T>(all: &'a mut [T], list: &[usize]) -> Vec<&'a mut T> {
    let mut wanted = list.iter().peekable();
    all.iter_mut().enumerate().filter(|(i, _)| wanted.next_if_eq(&i).is_some()).map(|(_, one)| one).collect()
}

/// Auxiliary-loss-free balancing (V3 report, equation 16 and section 2.1.2; Wang et al. 2024): the bias of an expert
/// that saw fewer tokens than the mean rises by `speed`, that of one that saw more falls. Then the mean of the biases
/// is taken away: it changes no choice, and keeps them near zero. `loads` has a list for each parameter of the group
/// `Rule`, in order; layers that saw no token are left as they are.
pub(crate) fn balance(parameters: &[ParameterSpec], masters: &mut [Vec<f32>], loads: &[Vec<u32>], speed: f64) {
    let biases = parameters.iter().zip(masters).filter(|(p, _)| p.slot.part == Part::RouterCorrection);
    for ((_, bias), load) in biases.zip(loads) {
        let total: u64 = load.iter().map(|&n| u64::from(n)).sum();
        if speed == 0.0 || total == 0 || bias.len() != load.len() {
            continue;
        }
        let experts = load.len() as u64;
        for (bias, &tokens) in bias.iter_mut().zip(load) {
            // tokens < total / experts, in whole numbers
            match (u64::from(tokens) * experts).cmp(&total) {
                std::cmp::Ordering::Less => *bias += speed as f32,
                std::cmp::Ordering::Greater => *bias -= speed as f32,
                std::cmp::Ordering::Equal => {}
            }
        }
        let mean = (bias.iter().map(|&b| f64::from(b)).sum::<f64>() / experts as f64) as f32;
        bias.iter_mut().for_each(|b| *b -= mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::parameters::{Init, Place, Slot};

    fn parameter(part: Part, group: Group, shape: &[usize]) -> ParameterSpec {
        let slot = Slot { place: Place::Block(0), part, expert: None };
        ParameterSpec { slot, shape: shape.to_vec(), init: Init::Normal, group }
    }

    #[test]
    fn each_group_has_its_rule() {
        let parameters = [
            parameter(Part::AttentionNorm, Group::Vector, &[4]),
            parameter(Part::Query, Group::Matrix, &[4, 8]),
            parameter(Part::Router, Group::Matrix, &[4, 8]),
            parameter(Part::RouterCorrection, Group::Rule, &[4]),
            parameter(Part::Key, Group::Matrix, &[4, 8]),
        ];
        let pool = Pool::new(1);
        let mut optimizer = Optimizer::new(&Settings::default(), &parameters);
        let mut masters: Vec<Vec<f32>> = parameters.iter().map(|p| vec![1.0; p.elements() as usize]).collect();
        let gradients: Vec<Vec<f32>> =
            parameters.iter().map(|p| (0..p.elements()).map(|i| (i as f32 * 0.7).sin()).collect()).collect();
        optimizer.step(&pool, &parameters, &mut masters, &gradients, 0.01, 1, 0.5);
        assert_eq!(masters[3], [1.0; 4], "a rule of its own");
        // AdamW's first step moves by the learning rate; vectors do not decay, matrices do.
        let moved = |i: usize, at: usize| 1.0 - masters[i][at];
        assert!((moved(0, 1) - 0.01).abs() < 1e-6, "{}", moved(0, 1));
        assert!((moved(2, 1) - 0.011).abs() < 1e-6, "{}", moved(2, 1));
        // Muon's moves by 0.18 times the learning rate in the root mean square, besides the decay of 0.001.
        let rms = (masters[1].iter().map(|w| (f64::from(*w) - 0.999).powi(2)).sum::<f64>() / 32.0).sqrt();
        assert!((rms - 0.0018).abs() < 0.0007, "{rms}");
        assert_eq!(masters[1], masters[4]);
        assert_eq!(Optimizer::bytes(&Settings::default(), &parameters), 4 * 8 + 32 * (4 + 8 + 4));
        let kinds: Vec<usize> = optimizer.moments.iter().map(|m| m.lists().len()).collect();
        assert_eq!(kinds, [2, 1, 2, 0, 1]);
    }

    #[test]
    fn busy_experts_are_made_less_likely_and_the_mean_stays_zero() {
        let parameters = [
            parameter(Part::RouterCorrection, Group::Rule, &[4]),
            parameter(Part::Query, Group::Matrix, &[1, 1]),
            parameter(Part::RouterCorrection, Group::Rule, &[2]),
        ];
        let mut masters = vec![vec![0.0; 4], vec![5.0], vec![0.25, -0.25]];
        balance(&parameters, &mut masters, &[vec![10, 2, 3, 1], vec![0, 0]], 0.01);
        let wanted = [-0.015, 0.005, 0.005, 0.005];
        assert!(masters[0].iter().zip(wanted).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-7), "{:?}", masters[0]);
        assert_eq!((masters[1][0], masters[2].as_slice()), (5.0, [0.25, -0.25].as_slice()));
        let before = masters.clone();
        balance(&parameters, &mut masters, &[vec![4, 4, 4, 4], vec![1, 9]], 0.0);
        assert_eq!(masters, before);
        balance(&parameters, &mut masters, &[vec![4, 4, 4, 4], vec![5, 5]], 0.01);
        assert!(masters[0].iter().zip(&before[0]).all(|(a, b)| (a - b).abs() < 1e-7));
    }
}
